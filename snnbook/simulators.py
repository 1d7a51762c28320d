"""Networks in another simulator: NIR graphs of :mod:`snnbook.exchange`, read and run by Norse.

Norse 1.1 reads few kinds of nodes, takes the kind of reset as an option, for CubaLIF alone, and starts from explicit
states; so a graph is first written in those nodes. Its numbers are rounded in another order than here: spikes can
differ where a potential comes within a rounding of its threshold.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from graphlib import TopologicalSorter
from pathlib import Path

import nir
import numpy as np
import pandas as pd
import torch
from nirtorch.graph_executor import GraphExecutorState
from torch import Tensor, nn

from . import exchange
from .checks import check
from .exchange import one_value, text
from .fold import fold_batchnorm
from .network import Network, evaluating
from .neurons import spiking_layers

#: Time constant in steps that stands for no leak where a node has to have one: below every rounding.
NO_LEAK = 2.0**60


def _each_channel(weight: float, channels: int, kernel: np.ndarray, stride, padding) -> nir.Conv2d:
    """A convolution of each channel with a constant kernel; not in groups, which Norse 1.1 cannot read."""
    weights = np.zeros((channels, channels, *kernel), np.float32)
    weights[range(channels), range(channels)] = weight
    geometry = tuple(map(int, stride)), tuple(map(int, padding)), (1, 1), 1
    return nir.Conv2d(None, weights, *geometry, np.zeros(channels, np.float32))


def _plain_scale(name: str, node: nir.Scale) -> nir.NIRNode:
    scale, shape = one_value(f"{name}.scale", node.scale), node.scale.shape
    if len(shape) == 1:
        return nir.Linear(scale * np.eye(shape[0], dtype=np.float32))
    return _each_channel(scale, shape[0], (1, 1), (1, 1), (0, 0))


def _plain_neuron(name: str, node: nir.IF | nir.LIF, dt: float) -> nir.CubaLIF:
    shape, hard = node.r.shape, text(node.metadata.get("reset", "value")) == "value"
    leaky = isinstance(node, nir.LIF)
    rest = [node.v_reset, *([node.v_leak] if leaky else [])]
    check(f"{name}.v_reset", rest[0].flat[0], not any(map(np.any, rest)), "0, and v_leak too")
    theta = np.nextafter(node.v_threshold.astype(np.float32), np.float32(-np.inf)) if hard else node.v_threshold
    return nir.CubaLIF(
        tau_syn=np.full(shape, dt),
        tau_mem=node.tau if leaky else np.full(shape, NO_LEAK * dt),
        r=node.r if leaky else np.full(shape, NO_LEAK),
        v_leak=np.zeros(shape),
        v_threshold=theta,
        v_reset=np.zeros(shape),
        metadata=node.metadata,
    )


def plain(graph: nir.NIRGraph) -> nir.NIRGraph:
    """A graph of :func:`snnbook.exchange.to_nir` in nodes that Norse reads: Conv2d, Affine, Linear, Flatten, CubaLIF.

    Pooling and Scale become convolutions of each channel with itself. IF and LIF become CubaLIF with τ_syn = dt, a
    synapse without memory, and, for IF, a τ_mem of 2⁶⁰ steps. NIR fires at v > θ and this package at v ≥ θ: with hard
    reset θ is lowered to the next smaller float32, which is the same; with soft reset it stays, because it is
    subtracted.

    Raises:
        ValueError: for a reset or leak potential other than 0, or a Scale that differs within a layer.
    """
    dt, nodes = float(graph.metadata["dt"]), {}
    feeds = {target: source for source, target in graph.edges}

    def channels(name: str) -> int:
        node = graph.nodes[feeds[name]]
        known = getattr(node, "scale", getattr(node, "v_threshold", None))
        if known is not None:
            return known.shape[0]
        return node.weight.shape[0] if isinstance(node, nir.Conv2d) else channels(feeds[name])

    for name, node in graph.nodes.items():
        if isinstance(node, nir.IF | nir.LIF):
            nodes[name] = _plain_neuron(name, node, dt)
        elif isinstance(node, nir.Scale):
            nodes[name] = _plain_scale(name, node)
        elif isinstance(node, nir.AvgPool2d):
            weight = 1 / float(np.prod(node.kernel_size))
            nodes[name] = _each_channel(weight, channels(name), node.kernel_size, node.stride, node.padding)
        elif isinstance(node, nir.Flatten):
            nodes[name] = nir.Flatten(node.input_type, 1, -1)  # Norse counts the batch
        else:
            nodes[name] = copy.copy(node)
    return nir.NIRGraph(nodes, list(graph.edges), metadata=dict(graph.metadata), type_check=False)


def _order(graph: nir.NIRGraph) -> list[str]:
    """Names of nodes, each behind all that it needs."""
    needs: dict[str, set[str]] = {name: set() for name in graph.nodes}
    for source, target in graph.edges:
        needs[target].add(source)
    return list(TopologicalSorter(needs).static_order())


def in_norse(graph: nir.NIRGraph, x: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    """Run a graph of :func:`plain` in Norse, step by step, as Norse's own ``from_nir`` reads it.

    Args:
        graph: from :func:`plain`; all neurons with the same kind of reset, which Norse has to be told.
        x: static input [N, ...], or [T, N, ...].

    Returns:
        Output [T, N, ...], and the spikes of each layer of neurons by name, [T, N, ...].

    Raises:
        ValueError: if Norse is not installed, or soft and hard reset are mixed.
    """
    try:
        from norse.torch import from_nir as read_graph
        from norse.torch.functional import reset
        from norse.torch.functional.leaky_integrator_box import LIBoxState
        from norse.torch.functional.lif_box import LIFBoxFeedForwardState
    except ImportError as error:
        raise ValueError(f"norse = None is not allowed: an installed Norse ({error})") from error
    neurons = {name: node for name, node in graph.nodes.items() if isinstance(node, nir.CubaLIF)}
    kinds = {text(node.metadata["reset"]) for node in neurons.values()}
    check("resets", sorted(kinds), len(kinds) == 1, "one kind for all neurons")
    method = reset.reset_subtract if kinds == {"subtract"} else reset.reset_value
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore", DeprecationWarning)
        net = read_graph(graph, reset_method=method, dt=float(graph.metadata["dt"]))
        order = _order(graph)  # nirtorch's own goes depth first, and would add up branches before all are there
        net.execution_order.sort(key=lambda node: order.index(node.name))
        state = GraphExecutorState()
        for name, node in neurons.items():
            start = torch.as_tensor(np.asarray(node.metadata["v_init"], np.float32))
            state.state[name] = ((LIBoxState(torch.zeros(())), LIFBoxFeedForwardState(start)),)
        shape = next(iter(graph.inputs.values())).input_type["input"]
        steps, outputs = [x] * int(graph.metadata["time_steps"]) if x.ndim == len(shape) + 1 else x, []
        spikes: dict[str, list[Tensor]] = {name: [] for name in neurons}
        for step in steps:
            y, state = net(step, state)
            outputs.append(y)
            for name, seen in spikes.items():
                seen.append(state.cache[name])
    return torch.stack(outputs), {name: torch.stack(seen) for name, seen in spikes.items()}


@contextmanager
def spikes_of(net: nn.Module) -> Iterator[dict[str, Tensor]]:
    """Within the context, where each layer of neurons spiked, [T·N, ...], by its name in a graph, once ``net`` ran."""
    seen: dict[str, Tensor] = {}
    handles = []
    for name, layer in spiking_layers(net).items():
        name = name.removeprefix("graph.").replace(".", "_")

        def note(_, inputs, y, name=name):
            seen[name] = y > 0

        handles.append(layer.register_forward_hook(note))
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()


def agreement(net: Network, x: Tensor, path: Path | str) -> pd.DataFrame:
    """Write ``net`` as a NIR file, read it back, run it here and in Norse, and compare every spike.

    Args:
        net: spiking network, or a part of one; compared in eval mode, its modes are put back.
        x: static input [N, C, H, W].
        path: of the file.

    Returns:
        One row: ``nodes`` of the graph, ``bytes`` of the file, ``events`` (neurons times steps times samples),
        ``spikes`` among them, and how many differ in the network read back (``import_differs``) and in Norse
        (``norse_differs``); ``largest_difference`` of the outputs in Norse, in units of their largest value.
    """
    with evaluating(net):
        graph = exchange.read(exchange.write(path, exchange.to_nir(net, x)))
        folded, back = fold_batchnorm(net, x[:1]), exchange.from_nir(graph)
    with torch.no_grad(), spikes_of(folded) as here, spikes_of(back) as read:
        y, _ = folded(x), back(x)
    there_y, there = in_norse(plain(graph), x)
    row = {
        "nodes": len(graph.nodes),
        "bytes": Path(path).stat().st_size,
        "events": sum(s.numel() for s in here.values()),
        "spikes": sum(int(s.sum()) for s in here.values()),
        "import_differs": sum(int((s != read[name].view_as(s)).sum()) for name, s in here.items()),
        "norse_differs": sum(int((s != (there[name].flatten(0, 1) > 0)).sum()) for name, s in here.items()),
        "largest_difference": ((there_y - y).abs().max() / y.abs().max()).item(),
    }
    return pd.DataFrame([row])
