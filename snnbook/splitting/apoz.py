"""APoZ, the average percentage of zeros of a filter (Hu et al. 2016; equation (6) of EC-SNN), for any classes at once.

    APoZ(f, C) = zeros of filter f over samples of C, time steps and positions / (T · N_C · h · w)

Zeros are counted for each class apart, once; of a bundle of classes the counts add up, and so the share is exact,
whatever the batches.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor, nn

from ..checks import check
from ..network import evaluating
from ..neurons import is_spiking


@dataclass(frozen=True)
class ClassZeros:
    """What one layer's filters gave out, class by class.

    Attributes:
        zeros: int64 [K, C], outputs that were zero.
        slots: int64 [K], outputs that there were for each filter: T · N_k · h · w.
        samples: int64 [K], N_k.
    """

    zeros: Tensor
    slots: Tensor
    samples: Tensor

    def _bundle(self, classes) -> list[int]:
        """Classes of a bundle, all by default; ValueError for one without samples, or a class that there is not."""
        bundle = list(range(len(self.slots)) if classes is None else classes)
        known = all(0 <= k < len(self.slots) for k in bundle)
        check("classes", bundle, known and self.slots[bundle].sum() > 0, f"0 to {len(self.slots) - 1}, with samples")
        return bundle

    def apoz(self, classes=None) -> Tensor:
        """APoZ of each filter, 0 to 1, float64 [C], for a bundle of classes; all classes by default.

        Raises:
            ValueError: if the bundle has no samples, or a class that there is not.
        """
        bundle = self._bundle(classes)
        return self.zeros[bundle].sum(0).double() / self.slots[bundle].sum()

    def each_class(self) -> Tensor:
        """APoZ of each filter for each class alone, float64 [K, C]; nan for a class without samples."""
        return self.zeros.double() / self.slots[:, None]

    def nonzero(self, classes=None) -> Tensor:
        """Mean number of non-zero outputs of each filter, over time and positions, in one sample of the bundle [C].

        Raises:
            ValueError: if the bundle has no samples, or a class that there is not.
        """
        bundle = self._bundle(classes)
        total = self.slots[bundle].sum() - self.zeros[bundle].sum(0)
        return total.double() / self.samples[bundle].sum()

    def select(self, mask: Tensor) -> Self:
        """The same for the filters of ``mask`` only (bool [C])."""
        return type(self)(self.zeros[:, mask], self.slots, self.samples)


def activations(net: nn.Module) -> dict[str, nn.Module]:
    """Spiking layers and ReLUs of ``net`` by name: what filters give out."""
    return {name: m for name, m in net.named_modules() if is_spiking(m) or isinstance(m, nn.ReLU)}


def class_zeros(net: nn.Module, batches, n_classes: int) -> dict[str, ClassZeros]:
    """Count zeros of every filter for every class in one pass, in eval mode and without gradient.

    Args:
        net: an SNN or ANN; left as it was.
        batches: pairs (x, y); x [N, C, H, W] or [T, N, C, H, W], y int [N], 0 to K − 1.
        n_classes: K.

    Returns:
        Layer name → counts, for activations with outputs [T·N, C, h, w] (those of convolutions), before any pooling.
    """
    counts: dict[str, list[Tensor]] = {}
    labels = torch.empty(0)

    def hook(name):
        def count(module, inputs, output):
            if output.ndim == 4:
                _add(counts, name, output, labels, n_classes)

        return count

    handles = [m.register_forward_hook(hook(name)) for name, m in activations(net).items()]
    try:
        with evaluating(net), torch.no_grad():
            for x, y in batches:
                labels = y
                net(x)
    finally:
        for handle in handles:
            handle.remove()
    return {name: ClassZeros(*(t.cpu() for t in tensors)) for name, tensors in counts.items()}


def _add(counts: dict, name: str, output: Tensor, labels: Tensor, n_classes: int) -> None:
    """Add the zeros of ``output`` [T·N, C, h, w] to those of the classes ``labels`` [N]."""
    n, channels = len(labels), output.shape[1]
    per_sample = (output == 0).sum((2, 3)).view(-1, n, channels).sum(0)  # [N, C]
    if name not in counts:
        shapes = (n_classes, channels), (n_classes,), (n_classes,)
        counts[name] = [torch.zeros(s, dtype=torch.int64, device=output.device) for s in shapes]
    zeros, slots, samples = counts[name]
    zeros.index_add_(0, labels, per_sample)
    each = output.numel() // (n * channels)
    slots.index_add_(0, labels, torch.full_like(labels, each))
    samples.index_add_(0, labels, torch.ones_like(labels))


def atsan(zeros: dict[str, ClassZeros], classes=None) -> float:
    """ATSAN of EC-SNN: mean over samples of the number of non-zero outputs of convolutions, over T and all layers."""
    return float(sum(z.nonzero(classes).sum() for z in zeros.values()))
