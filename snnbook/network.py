"""`Network` and `Residual`: what every network of the book is made of, ANN or SNN.

A network is ``stem`` (the first convolution, which sees analogue values), ``body`` and ``head``. A spiking network
puts T in front of the batch, folds it in, [T, N, ...] → [T·N, ...], and unfolds it at the end.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

import torch
from torch import Tensor, nn

from .checks import check
from .neurons import is_spiking, running_on, spiking_layers

#: Time steps that one pass without gradient holds in memory; longer runs are streamed in pieces of this size.
PIECE = 4


def _watched(net: nn.Module) -> bool:
    """Whether a forward hook asks for the whole history of some layer."""
    return any(m._forward_hooks or m._forward_pre_hooks for m in net.modules())


@contextmanager
def evaluating(net: nn.Module) -> Iterator[nn.Module]:
    """Within the context ``net`` is in eval mode; afterwards every module has the mode that it had."""
    before = [(m, m.training) for m in net.modules()]
    try:
        yield net.eval()
    finally:
        for m, training in before:
            m.training = training


class Network(nn.Module):
    """``stem`` → ``body`` → ``head``, as an ANN or, once ``time_steps`` is set, as an SNN.

    Static input is [N, C, H, W], events are [T, N, C, H, W]. The output is logits: [N, K] of an ANN on static
    input, else [T, N, K], one row a time step, to be averaged over T.
    """

    def __init__(self, stem: nn.Module, body: nn.Module, head: nn.Module):
        super().__init__()
        self.stem, self.body, self.head = stem, body, head
        self._time_steps: int | None = None

    @property
    def time_steps(self) -> int | None:
        """T of the spiking layers; ``None`` for an ANN."""
        return self._time_steps

    @time_steps.setter
    def time_steps(self, value: int | None) -> None:
        check("time_steps", value, value is None or value >= 1, "None or at least 1")
        early = [] if value is None else list(spiking_layers(self.stem))
        check("stem", early, not early, "no spiking layers (static input passes the stem once; the body has them)")
        self._time_steps = value
        for layer in spiking_layers(self).values():
            layer.time_steps = value

    def forward(self, x: Tensor) -> Tensor:
        """Logits [N, K] or [T, N, K]; ValueError if events do not have T = ``time_steps`` steps.

        Static input passes the stem once, however large T is. Without gradient, and where no hook looks on, T is
        streamed in pieces of ``PIECE`` steps, so that memory does not grow with T.
        """
        events, T = x.ndim == 5, self._time_steps
        if events:
            check("time steps of x", x.shape[0], T in (None, x.shape[0]), f"{T}, the network's time_steps")
            if T is None:
                return self.head(self.body(self.stem(x.flatten(0, 1)))).unflatten(0, (x.shape[0], -1))
        elif T is None:
            return self.head(self.body(self.stem(x)))
        z = None if events else self.stem(x)
        size = T if torch.is_grad_enabled() or _watched(self) else min(T, PIECE)
        try:
            logits = []
            for start in range(0, T, size):
                steps = min(size, T - start)
                piece = self.stem(x[start : start + steps].flatten(0, 1)) if events else self._repeated(z, steps)
                with running_on(self) if start else nullcontext():
                    logits.append(self._run(piece, steps, start + steps < T))
        finally:
            self.time_steps = T
        return torch.cat(logits) if len(logits) > 1 else logits[0]

    def _repeated(self, z: Tensor, steps: int) -> Tensor:
        """The constant drive ``z`` [N, ...] at every step; a neuron takes it as a view, other layers need copies."""
        z = z.expand(steps, *z.shape)
        chain = type(self.body).forward is nn.Sequential.forward
        first = next(iter(self.body.children()), self.body) if chain else self.body
        return z if is_spiking(first) else z.flatten(0, 1)

    def _run(self, z: Tensor, steps: int, more: bool) -> Tensor:
        """Logits [steps, N, K] of the drive ``z`` after the stem; ``more`` steps may follow from there."""
        for layer in spiking_layers(self).values():
            layer.time_steps, layer.more_to_come = steps, more
        return self.head(self.body(z)).unflatten(0, (steps, -1))


class Residual(nn.Module):
    """``after(branch(x) + shortcut(x))``; ``after`` is the identity in MS-ResNet order."""

    def __init__(self, branch: nn.Module, shortcut: nn.Module, after: nn.Module):
        super().__init__()
        self.branch, self.shortcut, self.after = branch, shortcut, after

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, H, W] to [N, C', H', W']."""
        return self.after(self.branch(x) + self.shortcut(x))
