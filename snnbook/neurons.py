"""Integrate-and-fire neurons over whole spike trains, on SpikingJelly's node classes.

Their loop over time is in :mod:`snnbook.kernels`. Soft reset of an IF neuron is equation (1) of the RMPE paper.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from spikingjelly.activation_based import neuron, surrogate
from torch import Tensor, nn

from . import kernels
from .checks import check
from .kernels import Dynamics


def _rows(x: Tensor) -> tuple[Tensor, tuple[int, ...] | None]:
    """Drive [T, N, ...] as rows [T, M] in the order of memory; also [N, H, W, C] where channels come last there."""
    one = x[:1] if x.stride(0) == 0 else x  # a constant drive is not copied
    if x.ndim == 5 and not one.is_contiguous() and one.permute(0, 1, 3, 4, 2).is_contiguous():
        last = one.permute(0, 1, 3, 4, 2)
        return last.reshape(len(one), -1).expand(len(x), -1), last.shape[1:]
    return one.reshape(len(one), -1).expand(len(x), -1), None


def _shaped(rows: Tensor, like: Tensor, last: tuple[int, ...] | None) -> Tensor:
    """Rows [..., M] back in the shape of ``like`` [..., N, C, H, W]."""
    if last is None:
        return rows.view(like.shape)
    return rows.view(*rows.shape[:-1], *last).movedim(-1, -3)


def multi_step(
    x: Tensor,
    v0: Tensor,
    d: Dynamics,
    surrogate_function=None,
    detach_reset: bool = True,
    emit: float = 1.0,
    dtype: torch.dtype | None = None,
    keep_v: bool = True,
) -> tuple[Tensor, Tensor | None]:
    """Run one layer of neurons over its drive.

    Args:
        x: drive [T, N, ...].
        v0: initial membrane potential, a tensor that broadcasts to the shape of ``x[0]``.
        d: threshold, reset and leak.
        surrogate_function: SpikingJelly surrogate for the backward pass; ``None`` runs without gradient.
        detach_reset: whether the gradient ignores the reset (its spike is a constant there).
        emit: height of a spike in the output.
        dtype: of the spikes without gradient; that of ``x`` by default.
        keep_v: whether v(T) is wanted; leaving it out saves its way to memory.

    Returns:
        ``(spikes, v)``: spikes 0/emit [T, N, ...] and the residual potential v(T) [N, ...], in float32 at least, or
        ``None`` where it is not wanted.
    """
    learning = surrogate_function is not None and torch.is_grad_enabled() and (x.requires_grad or v0.requires_grad)
    rows, last = _rows(x)
    v0 = v0.to(torch.promote_types(x.dtype, torch.float32))
    if v0.ndim or v0.requires_grad:
        v0 = v0.expand(x.shape[1:])
        v0 = (v0 if last is None else v0.movedim(-3, -1)).reshape(-1)
    if learning:
        spikes, v = kernels.MultiStep.apply(rows, v0, d, emit, surrogate_function, detach_reset, keep_v)
    else:
        with torch.no_grad():
            spikes, v = kernels.forward(rows, v0, d, emit, dtype, keep_v)
    return _shaped(spikes, x, last), _shaped(v, x[0], last) if keep_v else None


def if_run(x: Tensor, v0: Tensor | float = 0.0, threshold: float = 1.0) -> tuple[Tensor, Tensor]:
    """IF neurons with soft reset (equation (1)) over drives ``x`` [T, ...] from ``v0``.

    Returns:
        ``(spikes, v)``: spikes [T, ...] and residual potential v(T) [...].

    Raises:
        ValueError: if ``threshold`` is not positive.
    """
    check("threshold", threshold, threshold > 0, "a positive number")
    return multi_step(x, torch.as_tensor(v0, dtype=x.dtype, device=x.device), Dynamics(threshold))


class _Spiking:
    """What IF and LIF share: start from ``v_init`` by themselves, fold T, emit spikes of height ``emit``."""

    def _setup(self, v_init: Tensor | float | None, emit: float, step_bias: Tensor | float | None) -> None:
        if v_init is None:
            v_init = 0.0 if self.v_reset is None else self.v_reset
        self.register_buffer("v_init", torch.as_tensor(v_init, dtype=torch.float32).clone())
        bias = None if step_bias is None else torch.as_tensor(step_bias, dtype=torch.float32).clone()
        self.register_buffer("step_bias", bias)
        self.emit = emit
        self.spike_dtype: torch.dtype | None = None
        self.time_steps: int | None = None
        self.carry = False
        self.keep_v = True
        self.more_to_come = False
        self.steps_done = 0

    def _apply(self, fn, recurse: bool = True):  # SpikingJelly takes fn only
        """As for any module; ``step_bias`` goes along flat, because its five axes have no channels-last format."""
        bias, self.step_bias = self.step_bias, None
        try:
            super()._apply(fn)
            bias = bias if bias is None else fn(bias.flatten()).view(bias.shape)
        finally:  # a move that fails leaves it where it was
            self.step_bias = bias
        return self

    def __getstate__(self) -> dict:
        """For copies and pickles: the potential comes along, the graph behind it does not."""
        memories = {k: v.detach() if isinstance(v, Tensor) else v for k, v in self._memories.items()}
        return self.__dict__ | {"_memories": memories}

    def extra_repr(self) -> str:
        """All constants, so that two layers that print alike behave alike (the cache relies on it)."""
        leak = f", decay_input={self.decay_input}" if hasattr(self, "decay_input") else ""
        return f"{super().extra_repr()}{leak}, emit={self.emit}"

    def dynamics(self) -> Dynamics:
        """Threshold, reset and leak as plain numbers."""
        return Dynamics(self.v_threshold, self.v_reset, getattr(self, "tau", None), getattr(self, "decay_input", True))

    def multi_step_forward(self, x_seq: Tensor) -> Tensor:
        """Drive [T, N, ...] to output emit·s [T, N, ...]; ``self.v`` is v(T) afterwards.

        Starts from ``v_init`` unless ``self.carry`` is set, which runs on from the last state. Without ``keep_v``
        (and nothing ``more_to_come``) ``self.v`` is None afterwards; running on from there is a ValueError.
        """
        check("v", self.v, not self.carry or self.v is not None, "a state to run on from: set keep_v")
        running = self.carry and isinstance(self.v, Tensor)
        v0 = self.v if running else self.v_init
        first = self.steps_done if running else 0
        self.steps_done = first + len(x_seq)
        if self.step_bias is not None:
            x_seq = x_seq + self._bias_at(first, len(x_seq))
        keep = self.keep_v or self.more_to_come
        how = self.surrogate_function, self.detach_reset, self.emit, self.spike_dtype, keep
        spikes, self.v = multi_step(x_seq, v0, self.dynamics(), *how)
        return spikes

    def _bias_at(self, first: int, steps: int) -> Tensor:
        """The part of ``step_bias`` for steps ``first`` to ``first + steps``; ValueError where it has too few."""
        if self.step_bias.ndim == 0 or len(self.step_bias) == 1:
            return self.step_bias
        check("step_bias", len(self.step_bias), len(self.step_bias) >= first + steps, f"at least {first + steps} steps")
        return self.step_bias[first : first + steps]

    def single_step_forward(self, x: Tensor) -> Tensor:
        """One step from the state so far (SpikingJelly's step mode ``s``); ``reset`` goes back to ``v_init``."""
        carry, self.carry = self.carry, True
        try:
            return self.multi_step_forward(x.unsqueeze(0)).squeeze(0)
        finally:
            self.carry = carry

    def forward(self, x: Tensor) -> Tensor:
        """Folded [T·N, ...] if ``time_steps`` is set (inside a network), else as SpikingJelly's ``step_mode`` says."""
        if self.time_steps is None:
            return super().forward(x)
        unfolded = x.ndim % 2 == 1  # [T, N, F] or [T, N, C, H, W]: a constant drive that was not copied
        return self.multi_step_forward(x if unfolded else x.unflatten(0, (self.time_steps, -1))).flatten(0, 1)


class IF(_Spiking, neuron.IFNode):
    """Integrate-and-fire neuron; soft reset by default (equation (1) of the RMPE paper).

    Args:
        v_threshold: θ, positive.
        v_reset: ``None`` for soft reset, else the potential after a spike.
        surrogate_function: SpikingJelly surrogate gradient.
        detach_reset: whether the gradient ignores the reset.
        v_init: initial potential v(0), a number or a tensor that broadcasts to [N, ...]; 0, or ``v_reset``, by default.
        emit: height of an output spike; a converted network emits θ.
        step_bias: extra drive at every step, a number or a tensor [T or 1, ...] that broadcasts to [T, N, ...].
        step_mode: ``m`` for [T, N, ...], ``s`` for one step a call.

    Raises:
        ValueError: if ``v_threshold`` is not positive.
    """

    def __init__(
        self,
        v_threshold: float = 1.0,
        v_reset: float | None = None,
        surrogate_function: nn.Module | None = None,
        detach_reset: bool = True,
        v_init: Tensor | float | None = None,
        emit: float = 1.0,
        step_bias: Tensor | float | None = None,
        step_mode: str = "m",
    ):
        check("v_threshold", v_threshold, v_threshold > 0, "a positive number")
        super().__init__(
            float(v_threshold),
            None if v_reset is None else float(v_reset),
            surrogate_function or surrogate.ATan(),
            detach_reset,
            step_mode,
        )
        self._setup(v_init, emit, step_bias)


class LIF(_Spiking, neuron.LIFNode):
    """Leaky integrate-and-fire neuron; defaults are EC-SNN's (τ = 4/3, θ = 1, ATan surrogate, soft reset).

    Args as in :class:`IF`, and:
        tau: membrane time constant τ in steps, above 1.
        decay_input: whether the drive is divided by τ too.

    Raises:
        ValueError: if ``v_threshold`` is not positive or ``tau`` is not above 1.
    """

    def __init__(
        self,
        tau: float = 4 / 3,
        decay_input: bool = True,
        v_threshold: float = 1.0,
        v_reset: float | None = None,
        surrogate_function: nn.Module | None = None,
        detach_reset: bool = True,
        v_init: Tensor | float | None = None,
        emit: float = 1.0,
        step_bias: Tensor | float | None = None,
        step_mode: str = "m",
    ):
        check("v_threshold", v_threshold, v_threshold > 0, "a positive number")
        check("tau", tau, tau > 1, "a number above 1")
        super().__init__(
            float(tau),
            decay_input,
            float(v_threshold),
            None if v_reset is None else float(v_reset),
            surrogate_function or surrogate.ATan(),
            detach_reset,
            step_mode,
        )
        self._setup(v_init, emit, step_bias)


def is_spiking(module: nn.Module) -> bool:
    """Whether ``module`` is an IF or LIF layer of this package."""
    return isinstance(module, _Spiking)


@contextmanager
def running_on(net: nn.Module) -> Iterator[None]:
    """Within the context, the neurons of ``net`` go on from their last state instead of starting from ``v_init``."""
    layers = spiking_layers(net).values()
    before = [layer.carry for layer in layers]
    for layer in layers:
        layer.carry = True
    try:
        yield
    finally:
        for layer, carry in zip(layers, before, strict=True):
            layer.carry = carry


def spiking_layers(net: nn.Module) -> dict[str, nn.Module]:
    """Every IF and LIF layer of ``net`` by name, in the order in which they were registered."""
    return {name: m for name, m in net.named_modules() if isinstance(m, _Spiking)}
