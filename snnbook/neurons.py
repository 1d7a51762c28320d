"""Integrate-and-fire neurons over whole spike trains, on SpikingJelly's node classes.

One step of every neuron here, with membrane potential v, drive x = W·s + b and threshold θ:

    charge   IF   h(t) = v(t−1) + x(t)
             LIF  h(t) = v(t−1) + (x(t) − (v(t−1) − v_reset)) / τ     decay_input = True
                  h(t) = v(t−1) − (v(t−1) − v_reset) / τ + x(t)       decay_input = False
    fire          s(t) = 1[h(t) ≥ θ]
    reset    soft v(t) = h(t) − θ·s(t)
             hard v(t) = (1 − s(t))·h(t) + s(t)·v_reset

Soft reset of an IF neuron is equation (1) of the RMPE paper. The multi-step loop keeps its state in place and
has one hand-written backward pass, so that nothing but h is stored for the gradient.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch
from spikingjelly.activation_based import neuron, surrogate
from torch import Tensor, nn

from .checks import check


class Dynamics(NamedTuple):
    """The constants of one layer of neurons; ``tau=None`` means no leak (IF), ``v_reset=None`` means soft reset."""

    v_threshold: float = 1.0
    v_reset: float | None = None
    tau: float | None = None
    decay_input: bool = True


def charge(x: Tensor, v: Tensor, d: Dynamics) -> Tensor:
    """Potential before firing, h(t), of drive ``x`` and potential ``v`` (same shape, any unit)."""
    if d.tau is None:
        return v + x
    rest = 0.0 if d.v_reset is None else d.v_reset
    if d.decay_input:
        return v + (x - (v - rest)) / d.tau
    return v - (v - rest) / d.tau + x


def _charge_(v: Tensor, x: Tensor, d: Dynamics) -> None:
    """``v`` becomes h in place, with the same rounding as :func:`charge`."""
    if d.tau is None:
        v.add_(x)
        return
    rest = 0.0 if d.v_reset is None else d.v_reset
    leak = v - rest if rest else v
    if d.decay_input:
        v.add_(torch.sub(x, leak).div_(d.tau))
    else:
        v.sub_(leak / d.tau).add_(x)


def _reset_(v: Tensor, s: Tensor, d: Dynamics) -> None:
    if d.v_reset is None:
        v.sub_(s, alpha=d.v_threshold)
    else:
        v.masked_fill_(s.bool(), d.v_reset)


def _slope(surrogate_function: nn.Module, over: Tensor) -> Tensor:
    """Surrogate derivative ds/dh at h − θ = ``over``."""
    return surrogate_function.backward(torch.ones_like(over), over, **surrogate_function._sg_params)


class _MultiStep(torch.autograd.Function):
    """Forward and backward of a whole spike train; saves h(t) only."""

    @staticmethod
    def forward(ctx, x: Tensor, v0: Tensor, d: Dynamics, surrogate_function, detach_reset: bool):
        spikes, h, v = torch.empty_like(x), torch.empty_like(x), v0.clone()
        for t in range(x.shape[0]):
            _charge_(v, x[t], d)
            h[t].copy_(v)
            torch.ge(v, d.v_threshold, out=spikes[t])
            _reset_(v, spikes[t], d)
        ctx.save_for_backward(h)
        ctx.constants = d, surrogate_function, detach_reset
        return spikes, v

    @staticmethod
    def backward(ctx, grad_spikes: Tensor, grad_v: Tensor):
        (h,), (d, surrogate_function, detach_reset) = ctx.saved_tensors, ctx.constants
        grad_x, keep, gain = torch.empty_like(h), 1.0, 1.0
        if d.tau is not None:
            keep, gain = 1 - 1 / d.tau, 1 / d.tau if d.decay_input else 1.0
        for t in reversed(range(h.shape[0])):
            slope = _slope(surrogate_function, h[t] - d.v_threshold)
            fired = (h[t] >= d.v_threshold).to(h.dtype) if d.v_reset is not None else None
            through_reset = 1.0 if fired is None else 1 - fired
            if not detach_reset:
                through_reset = through_reset - slope * (d.v_threshold if fired is None else h[t] - d.v_reset)
            grad_h = grad_spikes[t] * slope + grad_v * through_reset
            grad_x[t], grad_v = grad_h * gain, grad_h * keep
        return grad_x, grad_v, None, None, None


def multi_step(
    x: Tensor, v0: Tensor, d: Dynamics, surrogate_function=None, detach_reset: bool = True
) -> tuple[Tensor, Tensor]:
    """Run one layer of neurons over its drive.

    Args:
        x: drive [T, N, ...].
        v0: initial membrane potential, shape of ``x[0]``.
        d: threshold, reset and leak.
        surrogate_function: SpikingJelly surrogate for the backward pass; ``None`` runs without gradient.
        detach_reset: whether the gradient ignores the reset (its spike is a constant there).

    Returns:
        ``(spikes, v)``: spikes 0/1 [T, N, ...] in the dtype of ``x`` and the residual potential v(T) [N, ...].
    """
    if surrogate_function is not None and torch.is_grad_enabled() and (x.requires_grad or v0.requires_grad):
        return _MultiStep.apply(x, v0, d, surrogate_function, detach_reset)
    with torch.no_grad():
        spikes, v = torch.empty_like(x), v0.clone()
        for t in range(x.shape[0]):
            _charge_(v, x[t], d)
            torch.ge(v, d.v_threshold, out=spikes[t])
            _reset_(v, spikes[t], d)
    return spikes, v


def if_run(x: Tensor, v0: Tensor | float = 0.0, threshold: float = 1.0) -> tuple[Tensor, Tensor]:
    """IF neurons with soft reset (equation (1)) over drives ``x`` [T, ...] from ``v0``.

    Returns:
        ``(spikes, v)``: spikes [T, ...] and residual potential v(T) [...].

    Raises:
        ValueError: if ``threshold`` is not positive.
    """
    check("threshold", threshold, threshold > 0, "a positive number")
    start = torch.as_tensor(v0, dtype=x.dtype, device=x.device).expand(x.shape[1:])
    return multi_step(x, start, Dynamics(threshold))


class _Spiking:
    """What IF and LIF share: start from ``v_init`` by themselves, fold T, emit spikes of height ``emit``."""

    def _setup(self, v_init: Tensor | float, emit: float, step_bias: Tensor | float | None) -> None:
        self.register_buffer("v_init", torch.as_tensor(v_init, dtype=torch.float32).clone())
        bias = None if step_bias is None else torch.as_tensor(step_bias, dtype=torch.float32).clone()
        self.register_buffer("step_bias", bias)
        self.emit = emit
        self.time_steps: int | None = None
        self.carry = False
        self.steps_done = 0

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

        Starts from ``v_init`` unless ``self.carry`` is set, which runs on from the last state.
        """
        running = self.carry and isinstance(self.v, Tensor)
        v0 = self.v if running else self.v_init.to(x_seq.dtype).expand(x_seq.shape[1:])
        first = self.steps_done if running else 0
        self.steps_done = first + len(x_seq)
        if self.step_bias is not None:
            x_seq = x_seq + self._bias_at(first, len(x_seq))
        spikes, self.v = multi_step(x_seq, v0, self.dynamics(), self.surrogate_function, self.detach_reset)
        return spikes if self.emit == 1 else spikes * self.emit

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
        v_init: initial potential v(0), a number or a tensor that broadcasts to [N, ...].
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
        v_init: Tensor | float = 0.0,
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
        v_init: Tensor | float = 0.0,
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
