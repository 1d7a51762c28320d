"""Networks for other tools: as SpikingJelly's own neurons, and as graphs in the NIR format, which many simulators read.

NIR (Pedersen et al., Nature Communications 2024) describes neurons in continuous time; per node

    IF    dv/dt = R I                       LIF   τ dv/dt = (v_leak − v) + R I
    z = 1[v > v_threshold],  then v ← v_reset

It has no initial potential, no spikes of another height than one and no soft reset: without time steps a potential
never gets beyond its threshold, so that subtracting θ and resetting to 0 are the same. In time steps they are not. What
is here stays exact by three conventions:

* reset and initial potential are metadata of the node, ``reset`` ("subtract" or "value") and ``v_init`` (a number, or
  one for each neuron); a reader that ignores them has hard reset and v(0) = v_reset, as the equations say;
* the height of spikes is a ``Scale`` node behind the neuron, and a sum of two branches one of ones; a bias that is
  the same at all steps is a convolution 1·x + b in front;
* time runs in Euler steps of dt, so that R = 1/dt for IF, τ = τ_steps·dt and R = 1 (or τ_steps) for LIF. The default
  dt is a power of two, so that no constant is rounded.

Batch norms are folded into the convolutions before them. What a graph cannot say is refused by name.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import nir
import nirtorch
import numpy as np
import torch
from spikingjelly.activation_based import neuron
from torch import Tensor, nn

from .checks import check
from .fold import fold_batchnorm, replace
from .network import Network, Residual
from .neurons import IF, LIF, spiking_layers
from .runs import atomic

#: Length of a time step in seconds, about a millisecond.
DT = 2.0**-10


def _node(name: str, layer: nn.Module, step_mode: str) -> nn.Module:
    start = 0.0 if layer.v_reset is None else layer.v_reset
    check(f"{name}.v_init", layer.v_init, bool(torch.all(layer.v_init == start)), f"{start}: where the node starts")
    check(f"{name}.emit", layer.emit, layer.emit == 1, "1; put the height of spikes into the next weights first")
    check(f"{name}.step_bias", layer.step_bias, layer.step_bias is None, "None")
    constants = {
        "v_threshold": layer.v_threshold,
        "v_reset": layer.v_reset,
        "surrogate_function": layer.surrogate_function,
        "detach_reset": layer.detach_reset,
        "step_mode": step_mode,
    }
    if isinstance(layer, LIF):
        return neuron.LIFNode(layer.tau, layer.decay_input, **constants)
    return neuron.IFNode(**constants)


def as_spikingjelly(net: nn.Module, step_mode: str = "s") -> nn.Module:
    """A copy of ``net`` whose IF and LIF layers are SpikingJelly's ``IFNode`` and ``LIFNode``.

    Args:
        net: any module, such as ``nn.Sequential(network.stem, network.body, network.head)``.
        step_mode: ``s`` for one step a call, ``m`` for [T, N, ...].

    Raises:
        ValueError: for a layer that such a node cannot be: with another start than its reset potential, spikes of
            another height than one, or a bias per step.
    """
    check("step_mode", step_mode, step_mode in ("s", "m"), "s or m")
    return replace(net, {name: _node(name, layer, step_mode) for name, layer in spiking_layers(net).items()})


def _array(x: Tensor) -> np.ndarray:
    return x.detach().cpu().numpy().copy()


def _neuron(name: str, m: IF | LIF, shape: tuple[int, ...], dt: float) -> nir.NIRNode:
    """The node of a layer of neurons whose output is of ``shape``."""
    reset = 0.0 if m.v_reset is None else m.v_reset
    start = _array(m.v_init) if m.v_init.ndim else m.v_init.item()
    about = {"reset": "subtract" if m.v_reset is None else "value", "v_init": start}
    full = {k: np.full(shape, v) for k, v in {"v_threshold": m.v_threshold, "v_reset": reset}.items()}
    if isinstance(m, IF):
        return nir.IF(r=np.full(shape, 1 / dt), **full, metadata=about)
    tau, r = np.full(shape, m.tau * dt), np.full(shape, 1.0 if m.decay_input else m.tau)
    return nir.LIF(tau=tau, r=r, v_leak=np.full(shape, reset), **full, metadata=about)


def _constant(name: str, bias: Tensor, shape: tuple[int, ...]) -> nir.NIRNode:
    """A node that adds a step bias, if that is the same at all steps and places of a channel: 1·x + b."""
    steady = bias.ndim == 0 or len(bias) == 1
    check(f"{name}.step_bias", list(bias.shape), steady, "the same at every step: no drive of NIR changes with time")
    each = (torch.ones(shape) * (bias if bias.ndim == 0 else bias[0, 0])).reshape(shape[0], -1)
    check(f"{name}.step_bias", list(bias.shape), bool((each == each[:, :1]).all()), "one value a channel")
    eye, channels = np.eye(shape[0], dtype=np.float32), _array(each[:, 0])
    if len(shape) == 1:
        return nir.Affine(eye, channels)
    return nir.Conv2d(tuple(shape[-2:]), eye[..., None, None], (1, 1), (0, 0), (1, 1), 1, channels)


def _conv(name: str, m: nn.Conv2d, shape: tuple[int, ...]) -> nir.Conv2d:
    check(f"{name}.padding_mode", m.padding_mode, m.padding_mode == "zeros", "zeros")
    bias = torch.zeros(m.out_channels) if m.bias is None else m.bias
    geometry = m.stride, m.padding, m.dilation, m.groups
    return nir.Conv2d(tuple(shape[-2:]), _array(m.weight), *geometry, _array(bias))


def _linear(name: str, m: nn.Linear, shape: tuple[int, ...]) -> nir.NIRNode:
    return nir.Linear(_array(m.weight)) if m.bias is None else nir.Affine(_array(m.weight), _array(m.bias))


def _pair(value: int | tuple[int, int]) -> np.ndarray:
    return np.array([value, value] if isinstance(value, int) else value)


def _average(name: str, m: nn.AvgPool2d, shape: tuple[int, ...]) -> nir.AvgPool2d:
    plain = not m.ceil_mode and m.divisor_override is None and (m.count_include_pad or not np.any(m.padding))
    check(name, str(m), plain, "average pooling without ceil_mode and divisor_override, padding counted")
    return nir.AvgPool2d(_pair(m.kernel_size), _pair(m.stride), _pair(m.padding))


def _global(name: str, m: nn.AdaptiveAvgPool2d, shape: tuple[int, ...]) -> nir.AvgPool2d:
    check(f"{name}.output_size", m.output_size, m.output_size in (1, (1, 1)), "1")
    return nir.AvgPool2d(np.array(shape[-2:]), np.array(shape[-2:]), np.array([0, 0]))


def _flatten(name: str, m: nn.Flatten, shape: tuple[int, ...]) -> nir.Flatten:
    check(name, str(m), m.start_dim == 1 and m.end_dim == -1, "Flatten(start_dim=1, end_dim=-1)")
    return nir.Flatten({"input": np.array(shape)}, 0, -1)


#: Layer class → its node from name, layer and input shape without batch. Neurons are apart.
_NODES: dict[type, Callable[..., nir.NIRNode]] = {
    nn.Conv2d: _conv,
    nn.Linear: _linear,
    nn.AvgPool2d: _average,
    nn.AdaptiveAvgPool2d: _global,
    nn.Flatten: _flatten,
}


@dataclass
class _Draft:
    """A graph in the making; shapes of the layers' inputs and outputs, without batch, are known beforehand."""

    shapes: dict[str, tuple[tuple[int, ...], tuple[int, ...]]]
    dt: float
    nodes: dict[str, nir.NIRNode] = field(default_factory=dict)
    edges: list[tuple[str, str]] = field(default_factory=list)

    def add(self, name: str, node: nir.NIRNode, *sources: str) -> str:
        name = name.replace(".", "_")
        self.nodes[name] = node
        self.edges += [(source, name) for source in sources]
        return name

    def walk(self, name: str, m: nn.Module, source: str) -> str:
        """Add module ``m`` behind node ``source``; the name of the node that has its output."""
        if isinstance(m, nn.Identity | nn.Dropout):
            return source
        if type(m) is nn.Sequential:
            for child, part in m.named_children():
                source = self.walk(f"{name}.{child}".lstrip("."), part, source)
            return source
        if type(m) is Residual:
            ends = [self.walk(f"{name}.{part}", getattr(m, part), source) for part in ("branch", "shortcut")]
            joined = self.add(f"{name}.sum", nir.Scale(np.ones(self.shapes[name][1], np.float32)), *ends)
            return self.walk(f"{name}.after", m.after, joined)
        if type(m) in (IF, LIF):
            return self.neurons(name, m, source)
        known = ", ".join(c.__name__ for c in (*_NODES, IF, LIF, Residual))
        check(name or "net", type(m).__name__, type(m) in _NODES, f"layers that NIR has: {known}")
        return self.add(name, _NODES[type(m)](name, m, self.shapes[name][0]), source)

    def neurons(self, name: str, m: IF | LIF, source: str) -> str:
        shape = self.shapes[name][1]
        if m.step_bias is not None:
            source = self.add(f"{name}.bias", _constant(name, m.step_bias, shape), source)
        source = self.add(name, _neuron(name, m, shape, self.dt), source)
        return source if m.emit == 1 else self.add(f"{name}.emit", nir.Scale(np.full(shape, m.emit)), source)


def _shapes(net: nn.Module, parts: nn.Module, sample: Tensor) -> dict[str, tuple]:
    """Input and output shape of each module of ``parts``, without batch, from one pass of ``net``."""
    found, handles = {}, []
    for name, m in parts.named_modules():

        def note(_, inputs, y, name=name):
            found[name] = tuple(inputs[0].shape[1:]), tuple(y.shape[1:])

        handles.append(m.register_forward_hook(note))
    with torch.no_grad():
        net(sample)
    for handle in handles:
        handle.remove()
    return found


def to_nir(net: nn.Module, sample: Tensor, dt: float = DT) -> nir.NIRGraph:
    """A spiking network as a NIR graph; the conventions are at the top of the module.

    Args:
        net: a spiking :class:`~snnbook.network.Network`, whole or the part on a device.
        sample: input [N, C, H, W], or events [T, N, C, H, W]; its values do not matter.
        dt: length of a time step in seconds; another power of two leaves every constant exact as well.

    Returns:
        The graph; its metadata hold ``time_steps`` and ``dt``.

    Raises:
        ValueError: for an ANN, or a layer that NIR does not have: max pooling, transposed convolution, a bias that
            changes with time, neurons of another kind. It names the layer.
    """
    check("net", type(net).__name__, type(net) is Network, "a Network")
    check("net.time_steps", net.time_steps, net.time_steps is not None, "the time steps of a spiking network")
    check("dt", dt, dt > 0, "a positive number of seconds")
    one = sample[:, :1] if sample.ndim == 5 else sample[:1]
    net = fold_batchnorm(net, one)
    parts = nn.Sequential()
    for name in ("stem", "body", "head"):
        parts.add_module(name, getattr(net, name))
    draft = _Draft(_shapes(net, parts, one), dt)
    first = draft.add("input", nir.Input({"input": np.array(one.shape[-3:])}))
    last = draft.walk("", parts, first)
    output = tuple(net(one).shape[2:])
    draft.add("output", nir.Output({"output": np.array(output)}), last)
    about = {"time_steps": net.time_steps, "dt": dt}
    return nir.NIRGraph(draft.nodes, draft.edges, metadata=about, type_check=False)


def text(value: object) -> str:
    """A string of a node's metadata, which comes back from a file as bytes."""
    return value.decode() if isinstance(value, bytes) else str(value)


def one_value(name: str, value: np.ndarray) -> float:
    """The one value that all neurons of a layer share."""
    found = np.unique(value)
    check(name, found[:3].tolist(), found.size == 1, "the same for all neurons of a layer")
    return float(found[0])


def _read_neuron(node: nir.IF | nir.LIF, dt: float) -> IF | LIF:
    kind = type(node).__name__
    reset = text(node.metadata.get("reset", "value"))
    check(f"{kind}.reset", reset, reset in ("subtract", "value"), "subtract or value")
    rest = one_value(f"{kind}.v_reset", node.v_reset)
    start = node.metadata.get("v_init")
    start = None if start is None else torch.as_tensor(np.asarray(start, np.float32))
    options = {"v_reset": None if reset == "subtract" else rest, "v_init": start}
    theta, r = one_value(f"{kind}.v_threshold", node.v_threshold), one_value(f"{kind}.r", node.r)
    if isinstance(node, nir.IF):
        check("IF.r", r, np.isclose(r * dt, 1), f"1/dt = {1 / dt:g}")
        return IF(theta, **options)
    tau = one_value("LIF.tau", node.tau) / dt
    check("LIF.v_leak", node.v_leak.flat[0], bool(np.all(node.v_leak == rest)), f"v_reset = {rest}")
    check("LIF.r", r, np.isclose(r, 1) or np.isclose(r, tau), f"1 or tau/dt = {tau:g}")
    return LIF(tau, bool(np.isclose(r, 1)), theta, **options)


class _Scale(nn.Module):
    """Elementwise product with a buffer."""

    def __init__(self, scale: np.ndarray):
        super().__init__()
        self.register_buffer("scale", torch.as_tensor(np.asarray(scale, np.float32)))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.scale


def _tuple(value: object) -> tuple[int, ...] | str:
    return text(value) if isinstance(value, str | bytes) else tuple(int(n) for n in np.atleast_1d(value))


def _read_conv(node: nir.Conv2d) -> nn.Conv2d:
    out, per_group, *kernel = node.weight.shape
    geometry = {k: _tuple(getattr(node, k)) for k in ("stride", "padding", "dilation")}
    m = nn.Conv2d(per_group * int(node.groups), out, tuple(kernel), **geometry, groups=int(node.groups))
    m.load_state_dict({"weight": torch.as_tensor(node.weight), "bias": torch.as_tensor(node.bias)})
    return m


def _read_linear(node: nir.Linear | nir.Affine) -> nn.Linear:
    bias = {"bias": torch.as_tensor(node.bias)} if isinstance(node, nir.Affine) else {}
    m = nn.Linear(node.weight.shape[1], node.weight.shape[0], bias=bool(bias))
    m.load_state_dict({"weight": torch.as_tensor(node.weight), **bias})
    return m


def _read_flatten(node: nir.Flatten) -> nn.Flatten:
    """Dimensions of NIR leave out the batch."""
    return nn.Flatten(*(d + 1 if d >= 0 else d for d in (int(node.start_dim), int(node.end_dim))))


def _node_map(dt: float) -> dict[type, Callable[[nir.NIRNode], nn.Module]]:
    return {
        nir.IF: lambda node: _read_neuron(node, dt),
        nir.LIF: lambda node: _read_neuron(node, dt),
        nir.Scale: lambda node: _Scale(node.scale),
        nir.Conv2d: _read_conv,
        nir.Affine: _read_linear,
        nir.Linear: _read_linear,
        nir.AvgPool2d: lambda n: nn.AvgPool2d(_tuple(n.kernel_size), _tuple(n.stride), _tuple(n.padding)),
        nir.Flatten: _read_flatten,
    }


class Imported(nn.Module):
    """A network read from a NIR graph, on this package's neurons.

    Args:
        graph: module that maps folded steps [T·N, ...] to (output, state).
        dimensions: of one input sample, 3 for images.
        time_steps: T for static input.
    """

    def __init__(self, graph: nn.Module, dimensions: int, time_steps: int | None):
        super().__init__()
        self.graph, self.dimensions, self.time_steps = graph.eval(), dimensions, time_steps

    def forward(self, x: Tensor) -> Tensor:
        """Static input [N, ...], shown ``time_steps`` times, or [T, N, ...], to [T, N, ...]."""
        static = x.ndim == self.dimensions + 1
        check("x.ndim", x.ndim, static or x.ndim == self.dimensions + 2, f"{self.dimensions + 1}, or one more with T")
        check("time_steps", self.time_steps, not static or self.time_steps is not None, "given for static input")
        x = x.expand(self.time_steps, *x.shape) if static else x
        for layer in spiking_layers(self).values():
            layer.time_steps = len(x)
        y, _ = self.graph(x.flatten(0, 1))
        return y.unflatten(0, (len(x), -1))


def from_nir(graph: nir.NIRGraph, time_steps: int | None = None, dt: float | None = None) -> Imported:
    """A NIR graph as a module on this package's neurons; graphs of :func:`to_nir` give the same spikes bit for bit.

    Args:
        graph: from :func:`to_nir`, :func:`read` or elsewhere, without loops.
        time_steps: T for static input; by default what the graph says, if it does.
        dt: length of a step in seconds; by default what the graph says, else 0.0001, as most simulators take it.

    Raises:
        ValueError: for a kind of node that is not known here, or constants that differ within a layer or between
            leak and reset; it names them.
    """
    about = graph.metadata
    dt = float(about.get("dt", 1e-4)) if dt is None else dt
    time_steps = int(about["time_steps"]) if time_steps is None and "time_steps" in about else time_steps
    known = (*_node_map(dt), nir.Input, nir.Output)
    for name, node in graph.nodes.items():
        check(f"node {name}", type(node).__name__, type(node) in known, ", ".join(c.__name__ for c in known))
    module = nirtorch.nir_to_torch(graph, _node_map(dt))
    shape = next(iter(graph.inputs.values())).input_type["input"]
    return Imported(module, len(shape), time_steps)


def write(path: Path | str, graph: nir.NIRGraph) -> Path:
    """Write a graph as an HDF5 file, by custom ``*.nir``, whole or not at all."""
    with atomic(Path(path)) as part:
        nir.write(part, graph)
    return Path(path)


def read(path: Path | str) -> nir.NIRGraph:
    """Read a NIR file.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is damaged or no NIR file; it names the file.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no file {path}")
    try:
        return nir.read(path, type_check=False)
    except Exception as error:  # whatever HDF5 and NIR raise at strange bytes
        raise ValueError(f"{path} is damaged or no NIR file ({type(error).__name__}: {error})") from error
