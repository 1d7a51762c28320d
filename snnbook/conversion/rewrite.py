"""What every method needs: find activations, watch layers, refuse what cannot spike."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from ..checks import check
from ..fold import device_of, replace
from ..network import Network
from ..quantise import ClippedReLU, QuantClip

_ACTIVATIONS = (nn.ReLU, ClippedReLU, QuantClip)
_REFUSED = (nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d, nn.AdaptiveMaxPool1d, nn.AdaptiveMaxPool2d, nn.AdaptiveMaxPool3d,
            nn.FractionalMaxPool2d, nn.FractionalMaxPool3d)  # fmt: skip
_ALLOWED = "only nn.ReLU, ClippedReLU and QuantClip modules may be nonlinear"
_POOLING = "average pooling (the maximum of spikes is not the maximum of rates)"
_NORM = "batch norm with running statistics"
#: What to write instead of functions, which are named where a forward pass that calls them is not affine.
_KINDS = {
    "use nn.ReLU, a module of its own at each place":
        "relu relu_ relu6 leaky_relu prelu rrelu elu elu_ selu celu gelu silu mish softplus sigmoid tanh hardtanh "
        "hardsigmoid hardswish clamp clamp_ clamp_min clip maximum threshold _threshold logsigmoid log_sigmoid "
        "softsign hardshrink softshrink",
    f"use {_POOLING}": "max_pool1d max_pool2d max_pool3d adaptive_max_pool1d adaptive_max_pool2d adaptive_max_pool3d",
    f"use {_NORM}": "layer_norm group_norm instance_norm normalize",
    "leave it out: without it the largest logit is the same": "softmax log_softmax",
    "": "clamp_max minimum lp_pool2d where abs exp log sqrt pow __pow__ square",
}  # fmt: skip
_INSTEAD = {name: instead for instead, names in _KINDS.items() for name in names.split()}
#: Largest deviation from an affine map, as a share of its largest value, that rounding explains in double and else.
_ROUNDING, _ROUGH = 1e-8, 1e-4


def activations(net: nn.Module) -> dict[str, nn.Module]:
    """Every ReLU, clipped ReLU and QC activation of ``net`` by name, in registration order."""
    return {name: m for name, m in net.named_modules() if isinstance(m, _ACTIVATIONS)}


def each_output(net: nn.Module, layers: dict[str, nn.Module], batches: Iterable, note: Callable) -> None:
    """Run ``net`` over ``batches`` of (x, y) without gradient; ``note(name, output)`` after each of ``layers``."""

    def hook(name):
        return lambda module, inputs, y: note(name, y)

    handles = [m.register_forward_hook(hook(name)) for name, m in layers.items()]
    try:
        with torch.no_grad():
            for x, _ in batches:
                net(x)
    finally:
        for handle in handles:
            handle.remove()


class _Nonlinear(TorchFunctionMode):
    """Notes the names of nonlinear functions that are called while it is active."""

    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()

    def __torch_function__(self, function, types, args=(), kwargs=None):
        self.names |= {getattr(function, "__name__", "")} & _INSTEAD.keys()
        return function(*args, **(kwargs or {}))


def _inputs(net: nn.Module, example: Tensor) -> list[tuple[nn.Module, Tensor]]:
    """(module, input) of each call of a module with one tensor in and one out, those inside a module before it."""
    calls: list[tuple[nn.Module, Tensor]] = []

    def note(module, inputs, y):
        if len(inputs) == 1 and isinstance(inputs[0], Tensor) and isinstance(y, Tensor):
            calls.append((module, inputs[0]))

    handles = [m.register_forward_hook(note) for m in net.modules()]
    try:
        with torch.no_grad():
            net(example)
    finally:
        for handle in handles:
            handle.remove()
    return calls


def example_of(net: nn.Module, batches: list) -> Tensor:
    """The first image of ``batches`` as ``net`` takes it, on its device; a module that is no Network takes frames."""
    x = batches[0][0].to(device_of(net))
    if x.ndim < 5:
        return x[:1]
    return x[:, :1] if isinstance(net, Network) else x[:, 0]


def idle(net: nn.Module, example: Tensor) -> list[str]:
    """Names of the activations of ``net`` that no forward pass of ``example`` comes to."""
    ran: set[str] = set()
    each_output(net, activations(net), [(example, None)], lambda name, y: ran.add(name))
    return [name for name in activations(net) if name not in ran]


def _check_values(net: nn.Module, example: Tensor) -> None:
    """ValueError for parameters that are not finite, for NaN in buffers, and for a network that returns no tensor."""
    for name, value in net.named_parameters():
        check(name, "NaN or infinite values", bool(value.isfinite().all()), "finite numbers")
    for name, value in net.named_buffers():
        check(name, "NaN", not value.isnan().any(), "numbers")
    with torch.no_grad():
        y = net(example)
    check("output of net", type(y).__name__, isinstance(y, Tensor), "a tensor of logits [N, K]")


def _check_activations(net: nn.Module, example: Tensor) -> None:
    """ValueError for an activation that stands at two places, or whose input neurons would misread."""
    found = list(activations(net).values())
    names = {m: [n for n, other in net.named_modules(remove_duplicate=False) if other is m] for m in found}
    calls = [(module, x) for module, x in _inputs(net, example) if module in names]
    own = "a module of its own at each place: a neuron has one state and one threshold"
    for module, x in calls:
        check(f"input of {names[module][0]}", tuple(x.shape), x.ndim in (2, 4), "[N, F] or [N, C, H, W]")
    for module, places in names.items():
        times = sum(other is module for other, _ in calls)
        check(" and ".join(places), f"one {type(module).__name__}", len(places) == 1, own)
        check(places[0], f"one {type(module).__name__} that runs {times} times", times <= 1, own)


@torch.no_grad()
def _check_in_place(net: nn.Module, example: Tensor) -> None:
    """ValueError for an in-place activation of ``net``, a copy, whose input is read again: neurons leave it."""
    found = {name: m for name, m in activations(net).items() if getattr(m, "inplace", False)}

    def logits(*names: str) -> Tensor:
        for name, m in found.items():
            m.inplace = name in names
        return net(example.clone())

    def matters(*names: str) -> bool:
        return (logits(*names) - y).abs().max().item() > _ROUGH * y.abs().max().item()

    y = logits()
    if matters(*found):
        name = " and ".join([name for name in found if matters(name)] or found)
        check(name, "nn.ReLU(inplace=True)", False, "nn.ReLU(), because its input is used again")


@torch.no_grad()
def _is_affine(function: Callable, like: Tensor) -> bool:
    """Whether f(a) + f(b) − f(0) = f(a + b) for random a of the size 1 and b of the sizes 1000 and 1, as ``like``."""
    generator, dtype = torch.Generator().manual_seed(0), like.dtype if like.is_floating_point() else torch.float
    a, *others = (s * torch.randn(like.shape, generator=generator, dtype=torch.double) for s in (1, 1000, 1))
    for b in others:
        ya, yb, y0, both = (function(x.to(like.device, dtype, copy=True)) for x in (a, b, 0 * a, a + b))
        largest = max(y.abs().max().item() for y in (ya, yb, y0, both))
        rounding = _ROUNDING if ya.dtype == torch.double else _ROUGH
        if not (ya + yb - y0 - both).abs().max().item() <= rounding * largest:
            return False
    return True


def _check_affine(net: nn.Module, example: Tensor) -> None:
    """ValueError where ``net``, in eval mode, is not affine; it names the innermost module that is not."""
    if _is_affine(net, example):
        return
    bent = ((module, x) for module, x in _inputs(net, example) if not _is_affine(module, x))
    module, x = next(bent, (net, example))
    with torch.no_grad(), _Nonlinear() as seen:
        module(x)
    name = next(name for name, m in net.named_modules() if m is module) or "net"
    inside = "an operation in its forward is nonlinear too" if any(module.children()) else ""
    inside = f"it calls {', '.join(sorted(seen.names))}" if inside and seen.names else inside
    instead = sorted({_INSTEAD[name] for name in seen.names} - {""})
    check(name, type(module).__name__, False, "; ".join([_ALLOWED + (f" ({inside})" if inside else ""), *instead]))


def refuse(net: nn.Module, example: Tensor) -> None:
    """ValueError, with the name of the module, for what cannot spike.

    That is: max pooling; batch norm without running statistics; parameters that are not finite; an output that is no
    tensor; an activation that is used at two places, since a neuron has one state, that overwrites what is read again,
    or whose input is not [N, F] or [N, C, H, W]; and a network that is not affine between its activations, as found on
    random inputs, in double precision where its forward pass allows that.

    Args:
        net: ANN.
        example: one input as ``net`` takes it.
    """
    early = list(activations(net.stem)) if isinstance(net, Network) else []
    check("net.stem", early, not early, "no activations (static input passes the stem once; the body has them)")
    for name, module in net.named_modules():
        kind, place = type(module).__name__, name or "net"
        check(place, kind, not isinstance(module, _REFUSED), _POOLING)
        bare = isinstance(module, nn.modules.batchnorm._BatchNorm) and module.running_mean is None
        check(place, f"{kind} without running statistics", not bare, _NORM)
    fresh = copy.deepcopy(net).eval()
    for holds in (_check_values, _check_activations, _check_in_place):
        holds(fresh, example.clone())  # an in-place activation may come first
    linear = replace(net, {name: nn.Identity() for name in activations(net)}).eval()
    try:
        _check_affine(copy.deepcopy(linear).double(), example.double())
    except RuntimeError:  # its forward makes numbers of another type
        _check_affine(linear, example)
