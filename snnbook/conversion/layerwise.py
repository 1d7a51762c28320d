"""Layer by layer through a converted network: what its neurons receive, what they send and what the ANN sends there.

:func:`walk` goes from input to output once. A layer is shown with the activity of all that was changed before it, and
what is changed while it is shown (v(0), a bias per step, θ, weights) is what the layers after it see. Between two parts
of a network only their activity is kept, eight steps of binary spikes a byte, so a layer costs its own operations and
not those of its prefix; a network that is no chain of modules is run from its start up to the layer instead.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ..checks import check, check_choice
from ..fold import channels_last_is_safe, device_of, takes_channels_last
from ..network import Network, Residual
from ..neurons import spiking_layers
from .rewrite import activations

#: Bytes of drives that a layer keeps for another look; more are computed again.
KEEP = 3 * 2**29


class _Reached(Exception):
    """Leaves a forward pass at the module that it was run for."""


class Activity(NamedTuple):
    """Output of a part [T·N, ...]: binary spikes as ``height`` and one bit each [⌈T/8⌉, N, ...], others as they are."""

    data: Tensor
    height: Tensor | None = None
    steps: int = 1

    @classmethod
    def of(cls, y: Tensor, steps: int | None) -> Activity:
        """Pack ``y`` [T·N, ...] of T = ``steps``; an ANN (``None``) is kept as it is."""
        if steps is None or not ((y == 0) | (y == (height := y.max()))).all():
            return cls(y, None, steps or 1)
        spikes = (y != 0).unflatten(0, (steps, -1))
        packed = torch.zeros_like(spikes[:: 8 if steps > 8 else steps], dtype=torch.uint8)
        for t, s in enumerate(spikes):
            packed[t // 8] |= s.to(torch.uint8) << (t % 8)
        return cls(packed, height, steps)

    def unpack(self) -> Tensor:
        """The output again, [T·N, ...]."""
        if self.height is None:
            return self.data
        bits = torch.arange(min(8, self.steps), dtype=torch.uint8, device=self.data.device)
        bits = bits.view(-1, *[1] * (self.data.ndim - 1))
        spikes = ((self.data.unsqueeze(1) >> bits) & 1).flatten(0, 1)[: self.steps]
        return spikes.flatten(0, 1).to(self.height.dtype).mul_(self.height)

    def one(self) -> Activity:
        """The part of it that belongs to the first image of the batch."""
        if self.height is not None:
            return self._replace(data=self.data[:, :1])
        return self._replace(data=self.data.unflatten(0, (self.steps, -1))[:, :1].flatten(0, 1))


def _children(module: nn.Module) -> list[nn.Module]:
    return list(module) if type(module) is nn.Sequential else [module]


def _sends_spikes(module: nn.Module) -> bool:
    """Whether what ``module`` puts out comes from neurons or, in an ANN, from an activation."""
    if isinstance(module, Residual):
        return _sends_spikes(module.after)
    if type(module) is nn.Sequential and len(module):
        return _sends_spikes(module[-1])
    return "" in spiking_layers(module) | activations(module)


def parts_of(net: Network) -> list[list[nn.Module]]:
    """Modules that run one after the other, cut after each that sends spikes."""
    parts: list[list[nn.Module]] = [[net.stem]]
    for child in _children(net.body) + _children(net.head):
        parts[-1].append(child)
        if _sends_spikes(child):
            parts.append([])
    return parts


class Part:
    """One of :func:`parts_of` a network, which takes images or the activity that the part before it left."""

    def __init__(self, net: Network, modules: list[nn.Module]):
        self.net, self.modules, self.steps = net, modules, net.time_steps
        inside = {id(m) for module in modules for m in module.modules()}
        found = spiking_layers(net) | activations(net)
        self.layers = {name: m for name, m in found.items() if id(m) in inside}

    def run(self, x: Tensor | Activity) -> Tensor:
        """Output [T·N, ...], of an ANN [N, ...] (with events [T·N, ...] too)."""
        if isinstance(x, Activity):
            return nn.Sequential(*self.modules)(x.unpack())
        stem, *rest = self.modules
        z = stem(x.flatten(0, 1) if x.ndim == 5 else x)
        return nn.Sequential(*rest)(self.net._repeated(z, self.steps) if self.steps and x.ndim < 5 else z)

    def drive(self, x: Tensor | Activity, layer: nn.Module) -> Tensor:
        """What ``layer`` receives, as it comes; nothing behind it runs, and no gradient passes layers before it."""

        def leave(module, inputs):
            raise _Reached(inputs[0])

        handles = [m.register_forward_hook(lambda m, i, y: y.detach()) for m in self.layers.values()]
        handles.append(layer.register_forward_pre_hook(leave))
        try:
            self.run(x)
        except _Reached as reached:
            return reached.args[0]
        finally:
            for handle in handles:
                handle.remove()
        raise ValueError("a layer of neurons that no input reaches cannot be calibrated")

    def order(self, x: Tensor | Activity) -> list[str]:
        """Names of the layers in the order in which they run."""
        seen: dict[str, None] = {}
        handles = [m.register_forward_hook(lambda *_, name=name: seen.setdefault(name))
                   for name, m in self.layers.items()]  # fmt: skip
        try:
            self.run(x)
        finally:
            for handle in handles:
                handle.remove()
        return list(seen)


@dataclass(frozen=True, eq=False)
class Batch:
    """What one batch of images has become where the next part of either network starts."""

    snn: Tensor | Activity
    ann: Tensor | Activity
    images: int

    @classmethod
    def of(cls, x: Tensor, device: torch.device, last: bool) -> Batch:
        """A batch of images [N, C, H, W], perhaps channels last, or events [T, N, C, H, W] before the first part."""
        x = x.to(device)
        if x.ndim == 4 and last:
            x = x.contiguous(memory_format=torch.channels_last)
        return cls(x, x, len(x) if x.ndim < 5 else x.shape[1])

    def one(self) -> Batch:
        """Its first image alone."""
        if isinstance(self.snn, Activity):
            return Batch(self.snn.one(), self.ann, 1)
        return Batch(self.snn[:1] if self.snn.ndim < 5 else self.snn[:, :1], self.ann, 1)


class Layer:
    """One layer of neurons and what leads to it, over the batches of each split (0 for the first).

    Attributes:
        name: of the spiking layer, or ``head`` for the logits.
        neuron: the spiking layer; ``None`` for the logits, which are what the last weights give at every step.
        parameters: weights and biases that reach it from the layers before; each belongs to the first layer it reaches.
            Change them in place.
    """

    def __init__(self, name: str, snn: Part, ann: Part, splits: list[list[Batch]], owned: set[int]):
        self.name, self.splits, self._snn, self._ann = name, splits, snn, ann
        self.neuron, self._activation = snn.layers.get(name), ann.layers.get(name)
        self.parameters = self._own(owned)
        self._targets: dict[Batch, Tensor] = {}
        self._means: dict[int, Tensor] = {}
        self._drives: dict[Batch, Tensor] = {}
        self._kept, self._version = 0, -1

    def _own(self, owned: set[int]) -> list[nn.Parameter]:
        free = [p for m in self._snn.modules for p in m.parameters() if p.requires_grad and id(p) not in owned]
        with torch.enable_grad():
            z = self._run(self.splits[0][0].one())
            reached = free and z.requires_grad
            grads = torch.autograd.grad(z.sum(), free, allow_unused=True) if reached else []
        mine = [p for p, g in zip(free, grads, strict=False) if g is not None]
        owned |= {id(p) for p in mine}
        return mine

    def _run(self, batch: Batch) -> Tensor:
        """Drive [T, N, ...]; a constant one is a view."""
        if self.neuron is None:
            z = self._snn.run(batch.snn)
        else:
            z = self._snn.drive(batch.snn, self.neuron)
        return z if z.ndim % 2 else z.unflatten(0, (self._snn.steps, -1))

    def drive(self, batch: Batch) -> Tensor:
        """Drive [T, N, ...] before ``step_bias``; under gradient with a graph that ends at ``parameters``."""
        if torch.is_grad_enabled():
            return self._run(batch)
        version = sum(p._version for p in self.parameters)
        if version != self._version:
            self._drives, self._kept, self._version = {}, 0, version
        if batch in self._drives:
            return self._drives[batch]
        z = self._run(batch)
        self._kept += (size := z.untyped_storage().nbytes())
        if self._kept <= KEEP:
            self._drives[batch] = z
        else:
            self._kept -= size
        return z

    def activation(self, batch: Batch) -> Tensor:
        """Output of the ANN's activation [N, ...], with events [T·N, ...]; of the head its logits."""
        if batch not in self._targets:
            with torch.no_grad():
                if self._activation is None:
                    self._targets[batch] = self._ann.run(batch.ann)
                else:
                    self._targets[batch] = self._activation(self._ann.drive(batch.ann, self._activation))
        return self._targets[batch]

    def target(self, batch: Batch) -> Tensor:
        """h̄ [N, ...]: the activation that the mean output over T should have."""
        a = self.activation(batch)
        return a if len(a) == batch.images else a.unflatten(0, (-1, batch.images)).mean(0)

    def output(self, batch: Batch) -> Tensor:
        """θ·s [T, N, ...] of the layer as it is now, without gradient; of the head its logits."""
        with torch.no_grad():
            z = self.drive(batch)
            return z if self.neuron is None else self.neuron.multi_step_forward(z)

    def looks(self, split: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        """(output θ·s [T, N, ...], target h̄ [N, ...]) of each batch of a split."""
        return ((self.output(batch), self.target(batch)) for batch in self.splits[split])

    def mean_target(self, split: int = 0) -> Tensor:
        """Mean of h̄ over a split's images, [1, ...]; it is reckoned once."""
        if split not in self._means:
            total = sum(self.target(batch).sum(0, keepdim=True) for batch in self.splits[split])
            self._means[split] = total / sum(batch.images for batch in self.splits[split])
        return self._means[split]

    def mean_output(self, split: int = 0) -> Tensor:
        """Mean of θ·s over T and a split's images, [1, ...]."""
        total = sum(self.output(batch).sum((0, 1)) for batch in self.splits[split])
        return total.unsqueeze(0) / (self._snn.steps * sum(batch.images for batch in self.splits[split]))

    def error(self, split: int = 0) -> float:
        """Mean of (φ − h̄)² over a split's images and the layer's neurons, φ the mean output over T."""
        total = size = 0.0
        for y, target in self.looks(split):
            total += (y.mean(0) - target).square().sum(dtype=torch.double).item()
            size += target.numel()
        return total / size


def _onward(batch: Batch, snn: Part, ann: Part, last: Layer | None) -> Batch:
    """What the next part receives; ``last`` is the layer shown last, whose output may be that of its part."""
    at_hand = last is not None and snn.modules[-1] is last.neuron
    with torch.no_grad():
        y = last.output(batch).flatten(0, 1) if at_hand else snn.run(batch.snn)
        a = last.activation(batch) if at_hand else ann.run(batch.ann)
    return Batch(Activity.of(y, snn.steps), Activity.of(a, None), batch.images)


def walk(snn: Network, ann: Network, *splits: Iterable, order: str = "forward", head: bool = False) -> Iterator[Layer]:
    """Show each spiking layer of ``snn`` once, with the activity of all before it as that is by then.

    Args:
        snn: the converted network; the caller changes it while a layer is shown.
        ann: the network it was made from, batch norm folded: module for module the same, activations for neurons.
        splits: batches (x, y) of the calibration images, of the held-out images, ...
        order: ``forward``: a layer sees what was changed before it. ``backward``: as if layers were changed from
            output to input, so that each sees an unchanged prefix (the layers come in no order one can rely on).
        head: whether the logits are shown too, as a last layer without neurons.

    Raises:
        ValueError: for another order, or without a batch in the first split.
    """
    check_choice("order", order, ("forward", "backward"))
    snn.requires_grad_()  # folded biases are not learnable by themselves
    splits = [list(split) for split in splits]
    check("splits", splits, len(splits) > 0 and len(splits[0]) > 0, "at least one batch in the first split")
    last = channels_last_is_safe(snn) and all(takes_channels_last(net, splits[0][0][0]) for net in (snn, ann))
    batches = [[Batch.of(x, device_of(snn), last) for x, _ in split] for split in splits]
    owned: set[int] = set()
    parts = list(zip(parts_of(snn), parts_of(ann), strict=True))
    for modules, twins in parts:
        here, there = Part(snn, modules), Part(ann, twins)
        names = here.order(batches[0][0].one().snn)
        last, before = modules is parts[-1][0], None
        layers = [Layer(name, here, there, batches, owned) for name in names + ["head"] * (last and head)]
        if order == "backward":
            layers.reverse()
            before = [] if last else [[_onward(batch, here, there, None) for batch in split] for split in batches]
        while layers:
            layer = layers.pop(0)
            yield layer
        if not last:
            batches = before or [[_onward(batch, here, there, layer) for batch in split] for split in batches]
