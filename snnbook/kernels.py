"""The loop over time of IF and LIF neurons, forward and backward, as one fused kernel.

One step, with membrane potential v, drive x and threshold θ:

    charge   IF   h(t) = v(t−1) + x(t)
             LIF  h(t) = v(t−1) + (x(t) − (v(t−1) − v_reset)) / τ     decay_input = True
                  h(t) = v(t−1) − (v(t−1) − v_reset) / τ + x(t)       decay_input = False
    fire          s(t) = 1[h(t) ≥ θ]
    reset    soft v(t) = h(t) − θ·s(t)
             hard v(t) = (1 − s(t))·h(t) + s(t)·v_reset

The functions here see one row of neurons a step, x [T, M]. ``torch.compile`` turns their loop into one pass over
memory; where there is no compiler, or too little work to repay compiling, the same steps run in place. The spikes are
the same, bit for bit. v is kept in float32 at least, whatever the drive is.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from types import FunctionType
from typing import NamedTuple

import torch
from torch import Tensor, nn

from .checks import check_choice

#: Elements of a drive from which compiling repays itself.
LARGE = 2**20
#: Longest spike train that is unrolled into one kernel; longer ones take several.
UNROLLED = 8

_log = logging.getLogger("snnbook")
_state = {"backend": "auto", "broken": False}


class Dynamics(NamedTuple):
    """The constants of one layer of neurons; ``tau=None`` means no leak (IF), ``v_reset=None`` means soft reset."""

    v_threshold: float = 1.0
    v_reset: float | None = None
    tau: float | None = None
    decay_input: bool = True


@contextmanager
def backend(name: str) -> Iterator[None]:
    """Within the context, run neurons ``compiled``, ``eager`` or, by size and as far as there is a compiler, ``auto``.

    Raises:
        ValueError: for another name.
    """
    check_choice("backend", name, ("auto", "eager", "compiled"))
    before, _state["backend"] = _state["backend"], name
    try:
        yield
    finally:
        _state["backend"] = before


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


def _reset(h: Tensor, s: Tensor, theta: Tensor, d: Dynamics) -> Tensor:
    return h - theta * s if d.v_reset is None else torch.where(s > 0, d.v_reset, h)


def _in_place(x: Tensor, v: Tensor, theta: Tensor, emit: Tensor | None, d: Dynamics, dtype) -> tuple[Tensor, Tensor]:
    """Spikes [T, M] and v(T) [M] without temporaries."""
    v = v.expand(x.shape[1:]).clone()
    spikes = torch.empty(x.shape, dtype=dtype, device=x.device)
    for t in range(len(x)):
        _charge_(v, x[t], d)
        torch.ge(v, theta, out=spikes[t])
        if d.v_reset is None:
            v.addcmul_(spikes[t], theta, value=-1)
        else:
            v.masked_fill_(spikes[t].bool(), d.v_reset)
    return spikes if emit is None else spikes.mul_(emit), v


def _fusible(x: Tensor, v: Tensor, theta: Tensor, emit: Tensor | None, d: Dynamics, dtype) -> tuple[Tensor, Tensor]:
    """As :func:`_in_place`, in the form that a compiler fuses best."""
    v, out = v.expand(x.shape[1:]), []  # a scalar would leave the type of the sums to x
    for t in range(x.shape[0]):
        h = charge(x[t], v, d)
        s = (h >= theta).to(h.dtype)
        v = _reset(h, s, theta, d)
        out.append((s if emit is None else s * emit).to(dtype))
    return torch.stack(out), v


def _forgetful(x: Tensor, v: Tensor, theta: Tensor, emit: Tensor | None, d: Dynamics, dtype) -> tuple[Tensor, None]:
    """As :func:`_fusible`, without v(T), which stays in a register: a fifth less to write at T = 4."""
    return _fusible(x, v, theta, emit, d, dtype)[0], None


def _slope(surrogate: nn.Module, over: Tensor) -> Tensor:
    """Surrogate derivative ds/dh at h − θ = ``over``."""
    return surrogate.backward(torch.ones_like(over), over, **surrogate._sg_params)


def _gradient(x, v, theta, grad_spikes, grad_v, d: Dynamics, surrogate: nn.Module, detach: bool):
    """∂/∂x [T, M] and ∂/∂v(0) [M] of what ``grad_spikes`` and ``grad_v`` weigh; h(t) is computed again, not kept."""
    v, h = v.expand(x.shape[1:]), []
    for t in range(x.shape[0]):
        h.append(charge(x[t], v, d))
        v = _reset(h[t], (h[t] >= theta).to(h[t].dtype), theta, d)
    keep, gain, grad_x = 1.0, 1.0, []
    if d.tau is not None:
        keep, gain = 1 - 1 / d.tau, 1 / d.tau if d.decay_input else 1.0
    for t in reversed(range(x.shape[0])):
        slope = _slope(surrogate, h[t] - theta)
        through = 1.0 if d.v_reset is None else (h[t] < theta).to(h[t].dtype)
        if not detach:
            through = through - slope * (theta if d.v_reset is None else h[t] - d.v_reset)
        grad_h = grad_spikes[t] * slope + grad_v * through
        grad_x.append((grad_h * gain).to(x.dtype))
        grad_v = grad_h * keep
    return torch.stack(grad_x[::-1]), grad_v


def _drive_gradient(*arguments) -> tuple[Tensor, None]:
    """As :func:`_gradient`, without ∂/∂v(0), which most networks have no use for: up to a third less to write."""
    return _gradient(*arguments)[0], None


@cache
def _compiled(function: Callable, key: tuple, threads: int) -> Callable:
    """``function`` compiled for one ``key`` of constants, as a code object of its own, for the compiler's sake.

    The number of threads stands in what is compiled: it is named, or a process would find a kernel of another one on
    disk and wait at its barriers for cores that it does not have.
    """
    logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)  # "No CUDA runtime is found"
    code = function.__code__.replace(co_name=f"{function.__name__}_{abs(hash(key))}")
    fresh = FunctionType(code, function.__globals__, code.co_name)
    return torch.compile(fresh, dynamic=True, options={"compile_threads": 1, "cpp.threads": threads})


def _run(function: Callable, plain: Callable, key: tuple, size: int, *arguments):
    """``function`` compiled where that is asked for and possible, else ``plain`` (the same results)."""
    wanted = _state["backend"] == "compiled" or (_state["backend"] == "auto" and size >= LARGE)
    if torch.compiler.is_compiling():
        return function(*arguments)
    if wanted and not _state["broken"]:
        try:
            return _compiled(function, key, torch.get_num_threads())(*arguments)
        except Exception as error:  # whatever a missing or broken compiler raises
            _state["broken"] = True
            reason = (str(error).strip().splitlines() or ["?"])[0]
            _log.warning("neurons run without a compiler (%s: %s): slower, same spikes", type(error).__name__, reason)
    return plain(*arguments)


def forward(
    x: Tensor, v: Tensor, d: Dynamics, emit: float = 1.0, dtype=None, keep_v: bool = True
) -> tuple[Tensor, Tensor | None]:
    """Run neurons over their drive, without gradient.

    Args:
        x: drive [T, M].
        v: v(0), [M] or a scalar tensor.
        d: threshold, reset and leak.
        emit: height of a spike in the output.
        dtype: of the spikes; that of ``x`` by default.
        keep_v: whether v(T) is wanted.

    Returns:
        ``(spikes, v)``: [T, M] and v(T) [M], or ``None`` where it is not wanted.
    """
    theta, dtype = v.new_tensor(d.v_threshold), dtype or x.dtype
    height = None if emit == 1 else v.new_tensor(emit)
    same = d._replace(v_threshold=0.0)  # θ is an argument, so that layers share a kernel
    parts, pieces = [], x.split(UNROLLED)
    for i, piece in enumerate(pieces):
        key = (same, dtype, x.dtype, len(piece), emit == 1, v.ndim, piece.stride(0) == 0)
        fused = _fusible if keep_v or i < len(pieces) - 1 else _forgetful
        spikes, v = _run(fused, _in_place, key, piece.numel(), piece, v, theta, height, same, dtype)
        parts.append(spikes)
    return torch.cat(parts) if len(parts) > 1 else parts[0], v if keep_v else None


class MultiStep(torch.autograd.Function):
    """:func:`forward` with a surrogate gradient; saves nothing but its drive and v(0)."""

    @staticmethod
    def forward(
        ctx, x: Tensor, v0: Tensor, d: Dynamics, emit: float, surrogate: nn.Module, detach: bool, keep_v: bool = True
    ):
        """Spikes [T, M] and, if wanted, v(T) [M] of ``x`` [T, M] from ``v0``, [M] or a scalar without gradient."""
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(x, v0)
        ctx.constants = d, emit, surrogate, detach
        return forward(x, v0, d, emit, keep_v=keep_v)

    @staticmethod
    def backward(ctx, grad_spikes: Tensor | None, grad_v: Tensor | None):
        """Gradients by x and v(0); by nothing else."""
        (x, v0), (d, emit, surrogate, detach) = ctx.saved_tensors, ctx.constants
        theta, same = v0.new_tensor(d.v_threshold), d._replace(v_threshold=0.0)
        grad_spikes = torch.zeros_like(x) if grad_spikes is None else grad_spikes.contiguous()
        grad_spikes = grad_spikes if emit == 1 else grad_spikes * emit
        grad_v = v0.new_zeros(()) if grad_v is None else grad_v
        function = _gradient if ctx.needs_input_grad[1] else _drive_gradient
        key = (same, x.dtype, len(x), repr(surrogate), detach, x.stride(0) == 0, v0.ndim, grad_v.ndim)
        size = x.numel() if len(x) <= 2 * UNROLLED else 0
        arguments = (x, v0, theta, grad_spikes, grad_v, same, surrogate, detach)
        grad_x, grad_v0 = _run(function, function, key, size, *arguments)
        return grad_x, None if grad_v0 is None else grad_v0.to(v0.dtype), *[None] * 5
