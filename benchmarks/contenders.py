"""The contenders: each turns a workload into a function that does it once and returns what it computed.

A maker returns ``None`` for work that the contender does not do, and raises ``ImportError`` where its library is not
installed.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from contextlib import nullcontext

import torch
import torch.nn.functional as F
from spikingjelly.activation_based import functional, layer, neuron, surrogate
from torch import Tensor, nn

from snnbook import kernels
from snnbook.conversion import METHODS, convert
from snnbook.conversion.sources import quantised
from snnbook.energy import count_operations
from snnbook.neurons import IF, is_spiking

from . import source
from .source import Workload

#: Does the workload once and returns what it computed: spikes, logits, or loss and gradient.
Call = Callable[[], Tensor]


def leaves(module: nn.Module, make: Callable[[nn.Module], nn.Module]) -> nn.Module:
    """A copy of a module tree with every leaf (a neuron is one) exchanged for ``make(leaf)``."""
    if is_spiking(module) or not list(module.children()):
        return make(copy.deepcopy(module))
    new = copy.copy(module)
    new._modules = {name: leaves(child, make) for name, child in module.named_children()}
    return new


def no_grad(function: Callable[[], Tensor]) -> Call:
    """``function`` without gradient."""

    def call() -> Tensor:
        with torch.no_grad():
            return function()

    return call


def training_step(net: nn.Module, forward: Callable[[], Tensor], y: Tensor, autocast: bool = False) -> Call:
    """One step of SGD on the cross-entropy of logits averaged over T; returns the loss."""
    optimizer = torch.optim.SGD(net.parameters(), lr=1e-3, momentum=0.9, nesterov=True, weight_decay=5e-4)
    bf16 = torch.autocast(y.device.type, torch.bfloat16) if autocast else nullcontext()

    def call() -> Tensor:
        optimizer.zero_grad(set_to_none=True)
        with bf16:
            loss = F.cross_entropy(forward().float().mean(0), y)
        loss.backward()
        optimizer.step()
        return loss.detach().reshape(1)

    return call


def neuron_step(forward: Callable[[Tensor], Tensor], w: Workload) -> Call:
    """Forward and backward through neurons; returns the gradient of the drive for a fixed gradient of the spikes."""
    x = source.drive(w).requires_grad_()
    weight = torch.randn(x.shape, generator=torch.Generator().manual_seed(w.seed + 4)).to(w.device)

    def call() -> Tensor:
        x.grad = None
        forward(x).backward(weight)
        return x.grad

    return call


# SpikingJelly, multi-step


def _jelly_neuron(ours: nn.Module) -> nn.Module:
    options = {"v_reset": None, "surrogate_function": surrogate.ATan(), "detach_reset": True, "step_mode": "m"}
    if isinstance(ours, IF):
        return neuron.IFNode(ours.v_threshold, **options)
    return neuron.LIFNode(ours.tau, ours.decay_input, ours.v_threshold, **options)


class JellyNetwork(nn.Module):
    """Stem, body and head with SpikingJelly's multi-step neurons; other layers in its ``SeqToANNContainer``."""

    def __init__(self, net: nn.Module):
        super().__init__()
        self.time_steps = net.time_steps
        self.layers = nn.Sequential(*(leaves(part, self._leaf) for part in (net.stem, net.body, net.head)))

    @staticmethod
    def _leaf(module: nn.Module) -> nn.Module:
        return _jelly_neuron(module) if is_spiking(module) else layer.SeqToANNContainer(module)

    def forward(self, x: Tensor) -> Tensor:
        """Images [N, C, H, W] to logits [T, N, K]; the state is reset before."""
        functional.reset_net(self)
        return self.layers(x.unsqueeze(0).repeat(self.time_steps, 1, 1, 1, 1))


def _jelly_convert(w: Workload, batches: list) -> Call:
    from spikingjelly.activation_based.ann2snn import Converter, RateCodingRecipe

    net = source.ann(w).to(w.device)
    plain = nn.Sequential(net.stem, net.body, net.head)

    def call() -> Tensor:
        recipe = RateCodingRecipe([(x, y) for x, y in batches], mode="99.9%")
        return Converter(recipe).convert(copy.deepcopy(plain))(batches[0][0][:1]).detach()

    return call


def spikingjelly(w: Workload) -> Call | None:
    """SpikingJelly in step mode ``m`` with its default backend, ``torch``."""
    if w.kind in ("neuron", "neuron_training"):
        node = _jelly_neuron(IF(1.0)).train(w.kind == "neuron_training").to(w.device)

        def forward(x: Tensor) -> Tensor:
            functional.reset_net(node)
            return node(x)

        return _neurons(forward, w)
    if w.kind == "conversion":
        return _jelly_convert(w, _batches(w))
    return _networks(JellyNetwork, w)


# a loop over time steps around the whole network: plain PyTorch, snnTorch


class Plain(nn.Module):
    """One step of an IF or LIF neuron as one writes it first."""

    def __init__(self, ours: nn.Module):
        super().__init__()
        self.keep = 1.0 if isinstance(ours, IF) else 1 - 1 / ours.tau
        self.threshold, self.fire, self.v = ours.v_threshold, surrogate.ATan(), 0.0

    def reset_mem(self) -> None:
        """Forget the state (the name is snnTorch's)."""
        self.v = 0.0

    def forward(self, x: Tensor) -> Tensor:
        """Drive [N, ...] to spikes [N, ...]."""
        v = (self.v if self.keep == 1 else self.keep * self.v) + x
        s = self.fire(v - self.threshold)
        self.v = v - s.detach() * self.threshold
        return s


def _torch_neuron(ours: nn.Module) -> nn.Module:
    import snntorch

    beta = 1.0 if isinstance(ours, IF) else 1 - 1 / ours.tau
    # Its own surrogate fires at v > θ, ours and SpikingJelly's at v ≥ θ. It takes θ away one step later, which is the
    # same without leak; with leak it is another model (θ does not leak), of the same work.
    return snntorch.Leaky(beta, ours.v_threshold, spike_grad=surrogate.ATan(), init_hidden=True)


class SteppedNetwork(nn.Module):
    """The whole network once a time step."""

    def __init__(self, net: nn.Module, make: Callable[[nn.Module], nn.Module]):
        super().__init__()
        self.time_steps, self.nodes = net.time_steps, []

        def leaf(module: nn.Module) -> nn.Module:
            if is_spiking(module):
                module = make(module)
                self.nodes.append(module)
            return module

        self.layers = nn.Sequential(*(leaves(part, leaf) for part in (net.stem, net.body, net.head)))

    def forward(self, x: Tensor) -> Tensor:
        """Images [N, C, H, W] to logits [T, N, K]."""
        for node in self.nodes:
            node.reset_mem()
        return torch.stack([self.layers(x) for _ in range(self.time_steps)])


def _stepped(make: Callable[[nn.Module], nn.Module], w: Workload) -> Call | None:
    if w.kind in ("neuron", "neuron_training"):
        node = make(IF(1.0)).to(w.device)

        def forward(x: Tensor) -> Tensor:
            node.reset_mem()
            return torch.stack([node(x_t) for x_t in x])

        return _neurons(forward, w)
    return _networks(lambda net: SteppedNetwork(net, make).to(w.device), w)


def plain(w: Workload) -> Call | None:
    """A plain PyTorch loop over time."""
    return _stepped(Plain, w)


def snntorch(w: Workload) -> Call | None:
    """snnTorch: ``Leaky`` with hidden state, one step at a time."""
    return _stepped(_torch_neuron, w)


# ours


def _neurons(forward: Callable[[Tensor], Tensor], w: Workload) -> Call:
    if w.kind == "neuron_training":
        return neuron_step(forward, w)
    x = source.drive(w)
    return no_grad(lambda: forward(x))


def _networks(make: Callable[[nn.Module], nn.Module], w: Workload, autocast: bool = False) -> Call | None:
    if w.kind == "inference":
        net, x = make(source.network(w)).eval(), source.images(w)
        return no_grad(lambda: net(x))
    if w.kind == "training":
        net, x = make(source.learner(w)).train(), source.images(w)
        return training_step(net, lambda: net(x), source.labels(w), autocast)
    return None


def _batches(w: Workload) -> list[tuple[Tensor, Tensor]]:
    """Four calibration batches of a conversion."""
    return [(source.images(w).roll(i, 0), source.labels(w)) for i in range(4)]


def _convert(w: Workload, method: str) -> Call | None:
    if method not in METHODS:
        return None
    net, batches = source.ann(w).to(w.device), _batches(w)
    if METHODS[method].source in ("qc", "qcfs"):
        net = quantised(net, batches[:1], 8, 0.5 if METHODS[method].source == "qcfs" else 0.0)
    x, y = batches[0]
    options = {"time_steps": w.time_steps, "calibration": batches, "validation": [(x.flip(-1), y)]}
    return lambda: convert(net, method, **options)[0](batches[0][0][:1]).detach()


def _own(w: Workload, backend: str) -> Call | None:
    """Package as it is, in channels-last memory, with one backend for the neurons."""
    with_backend = _with(kernels.backend, backend)
    if w.kind in ("neuron", "neuron_training"):
        node = IF(1.0).to(w.device)
        node.keep_v = False  # as in a prepared network
        return with_backend(_neurons(node, w))
    if w.kind == "conversion":
        return _convert(w, "robust_norm")
    if w.kind == "calibration":
        return _convert(w, "lmpc")
    if w.kind == "counting":
        net, x = _last(source.network(w)), _last(source.images(w))
        return with_backend(no_grad(lambda: net(x)))
    call = _networks(lambda net: _Last(net), w)
    return with_backend(call) if call else None


def _with(context: Callable, *arguments) -> Callable[[Call], Call]:
    def wrap(call: Call) -> Call:
        def inside() -> Tensor:
            with context(*arguments):
                return call()

        return inside

    return wrap


def _last(thing):
    return thing.to(memory_format=torch.channels_last)


class _Last(nn.Module):
    """A network and its input in channels-last memory."""

    def __init__(self, net: nn.Module):
        super().__init__()
        self.net = _last(net)

    def forward(self, x: Tensor) -> Tensor:
        return self.net(_last(x))


def ours(w: Workload) -> Call | None:
    """This package: fused neurons where there is a compiler."""
    return _own(w, "auto")


def ours_eager(w: Workload) -> Call | None:
    """This package without a compiler; only where the neurons make the difference."""
    return _own(w, "eager") if w.kind in ("neuron", "neuron_training", "inference", "training") else None


def ours_counting(w: Workload) -> Call | None:
    """Inference that counts every operation."""
    if w.kind != "counting":
        return None
    net, x, y = _last(source.network(w)), _last(source.images(w)), source.labels(w)
    return lambda: torch.tensor([count_operations(net, [(x, y)])["operations"].sum()])


def _engine(precision: str) -> Callable[[Workload], Call | None]:
    def make(w: Workload) -> Call | None:
        if w.kind != "inference":
            return None
        from snnbook import engine
        from snnbook.train import bf16_is_native

        if (precision == "bf16" and not bf16_is_native(w.device)) or (precision == "int8" and w.device != "cpu"):
            return None
        x = source.images(w)
        net = engine.prepare(source.network(w), x, precision=precision)
        return no_grad(lambda: net(x).float())

    make.__doc__ = f"The prepared network of this package's engine in {precision}."
    return make


def ours_bf16_training(w: Workload) -> Call | None:
    """A training step in bf16 where the hardware has it."""
    from snnbook.train import bf16_is_native

    if w.kind != "training" or not bf16_is_native(w.device):
        return None
    return _networks(_Last, w, autocast=True)


# the ANN of the same connections, one frame an image


def _ann(w: Workload, last: bool, frames: int = 1) -> Call | None:
    if w.kind != "inference":
        return None
    net, x = source.as_ann(source.network(w)), source.images(w).repeat(frames, 1, 1, 1)
    net, x = (_last(net), _last(x)) if last else (net, x)
    return no_grad(lambda: net(x))


def ann(w: Workload) -> Call | None:
    """The ANN, channels-last, one frame an image."""
    return _ann(w, True)


def ann_nchw(w: Workload) -> Call | None:
    """The ANN in PyTorch's default layout."""
    return _ann(w, False) if w.time_steps == 4 else None


def ann_frames(w: Workload) -> Call | None:
    """The ANN on as many frames as the SNN sees: convolutions and ReLU without any neuron."""
    return _ann(w, True, w.time_steps) if w.time_steps == 4 else None


def copy_tensor(w: Workload) -> Call | None:
    """One copy of the drive, for comparison."""
    if w.kind != "neuron":
        return None
    x = source.drive(w)
    target = torch.empty_like(x)
    return lambda: target.copy_(x)


#: Contenders by name.
CONTENDERS: dict[str, Callable[[Workload], Call | None]] = {
    "spikingjelly": spikingjelly,
    "snntorch": snntorch,
    "plain": plain,
    "ours_eager": ours_eager,
    "ours": ours,
    "ours_fp32": _engine("fp32"),
    "ours_bf16": lambda w: ours_bf16_training(w) if w.kind == "training" else _engine("bf16")(w),
    "ours_int8": _engine("int8"),
    "ours_counting": ours_counting,
    "ann": ann,
    "ann_nchw": ann_nchw,
    "ann_frames": ann_frames,
    "copy": copy_tensor,
}

#: Those whose output must equal that of ``ours`` in every bit, wherever both do the work without training.
EXACT = ("spikingjelly", "snntorch", "plain", "ours_eager", "ours", "ours_fp32")
