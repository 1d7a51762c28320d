"""What pruned sub-models will ask of a device, from the sizes of their masks alone: nothing is built or retrained.

This is the ``score`` that Algorithm 1 calls for every ζ that it tries. Bytes and dense MACs are exact. Accumulates are
an estimate: spikes of the filters that stay, as often as they fire in the unsplit network, each to k·k positions of
every filter that stays in the next convolution, borders counted as if they were inside.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache

from ..counts import count
from ..network import Network
from .apoz import ClassZeros
from .cost import Demand
from .partition import Parts
from .prune import Masks, chain, masks

#: (parts, ζ) → what each sub-model asks for.
Score = Callable[[Parts, float], list[Demand]]


@dataclass(frozen=True)
class Layer:
    """A convolution with its batch norm: numbers from which those of its pruned self follow.

    Attributes:
        activation: name of the activation behind it.
        filters: C.
        area: weights between one input and one output channel.
        positions: H·W of the output.
        reach: output positions of one filter that an input inside reaches.
        each: values stored for a filter besides its weights: batch norm's four, and a bias.
    """

    activation: str
    filters: int
    area: int
    positions: int
    reach: float
    each: int


def layers(net: Network, shape: tuple[int, int, int]) -> list[Layer]:
    """The convolutions of a VGG-like chain for frames of ``shape`` (C, H, W); ValueError for another network."""
    output = count(net, shape).set_index("layer")["output"]
    found = []
    for conv, _, activation in chain(net):
        m = net.get_submodule(conv)
        area, each = math.prod(m.kernel_size), 4 + (m.bias is not None)
        positions = math.prod(output[conv][1:])
        found.append(Layer(activation, m.out_channels, area, positions, area / math.prod(m.stride), each))
    return found


def demand(
    name: str,
    parts: list[Layer],
    chosen: Masks,
    zeros: Mapping[str, ClassZeros],
    channels: int,
    time_steps: int,
    static: bool = True,
) -> Demand:
    """What the device part of a pruned network asks for, per sample.

    Args:
        name: of the sub-model.
        parts: :func:`layers` of the unsplit network.
        chosen: masks of the filters that stay; layers without one stay whole.
        zeros: of the unsplit network for every class; a device sees samples of all classes.
        channels: C of the input.
        time_steps: T.
        static: whether the first convolution sees the same frame at every step, and so runs once.
    """
    size, acs, per_step, into, fired = 0, 0.0, [], channels, 0.0
    for layer in parts:
        kept = int(chosen[layer.activation].sum()) if layer.activation in chosen else layer.filters
        size += 4 * (kept * into * layer.area + kept * layer.each) + 12  # float32, count of batches, v(0)
        per_step.append(kept * into * layer.area * layer.positions)
        acs += fired * kept * layer.reach
        spikes = zeros[layer.activation].nonzero()
        fired = float((spikes[chosen[layer.activation]] if layer.activation in chosen else spikes).sum())
        into = kept
    once = per_step[0] * (1 if static else time_steps)
    bits = time_steps * into * parts[-1].positions
    return Demand(name, size, once, acs, bits, once + time_steps * sum(per_step[1:]))


def scorer(
    net: Network,
    zeros: Mapping[str, ClassZeros],
    shape: tuple[int, int, int],
    min_filters: int = 16,
    static: bool = True,
    keep: str = "lowest",
) -> Score:
    """A function of (parts, ζ) that gives the demands of the sub-models, each named by its classes.

    Args:
        net: the unsplit SNN, a VGG-like chain.
        zeros: its zeros for every class.
        shape: (C, H, W) of one frame.
        min_filters: floor of every layer.
        static: whether every step sees the same frame.
        keep: what fills the floor, as in :func:`snnbook.splitting.prune.masks`.

    Raises:
        ValueError: for another kind of network.
    """
    found, T = layers(net, shape), net.time_steps

    @cache
    def one(classes: tuple[int, ...], zeta: float) -> Demand:
        apoz = {name: z.apoz(classes) for name, z in zeros.items()}
        name = "classes " + ",".join(map(str, classes))
        return demand(name, found, masks(apoz, zeta, min_filters, keep), zeros, shape[0], T, static)

    return lambda parts, zeta: [one(tuple(classes), float(zeta)) for classes in parts]


def unsplit(
    net: Network, zeros: Mapping[str, ClassZeros], shape: tuple[int, int, int], static: bool = True
) -> Demand:
    """What the network asks for that is neither pruned nor split, without its head."""
    return demand("unsplit", layers(net, shape), {}, zeros, shape[0], net.time_steps, static)
