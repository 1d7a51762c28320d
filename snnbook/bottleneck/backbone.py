"""The spiking ResNet-50 of SpikeBottleNet, its ANN twin, and where both can be cut.

    h(t) = leak·v(t−1) + x(t),   s(t) = 1[h(t) ≥ θ],   v(t) = h(t)·(1 − s(t))       iterative LIF (Wu et al. 2019)
    ∂s/∂h = 1/δ for |h − θ| < δ/2, else 0                                          rectangular surrogate

Blocks are in MS-ResNet order, (LIF → Conv → tdBN) × 3 with a shortcut that joins membrane potentials (Hu et al. 2021),
or LIF after the addition (``order="post"``). A split point lies behind each block.

The paper prints no constants; ours are leak = 0.25, θ = 0.5 and δ = 1.5. With the usual δ = 2θ = 1, a LIF that sees
nothing but binary spikes, as behind a decoder, stands at h − θ = ±δ/2 whatever happens, and lets no gradient through.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import pandas as pd
from spikingjelly.activation_based import surrogate

from ..checks import check
from ..counts import count, parameters
from ..models import build
from ..network import Network, Residual


def iterative_lif(leak: float = 0.25, threshold: float = 0.5, window: float = 1.5) -> dict:
    """Options of :class:`snnbook.neurons.LIF` for the iterative LIF neuron with hard reset to 0.

    Args:
        leak: the share of the potential that is left after a step, in (0, 1).
        threshold: θ.
        window: δ, width of the rectangular surrogate, in the unit of the potential.

    Raises:
        ValueError: for a number out of range.
    """
    check("leak", leak, 0 < leak < 1, "above 0 and below 1")
    check("threshold", threshold, threshold > 0, "a positive number")
    check("window", window, window > 0, "a positive number")
    return {
        "tau": 1 / (1 - leak),
        "decay_input": False,
        "v_threshold": threshold,
        "v_reset": 0.0,
        "surrogate_function": surrogate.Rect(1 / window),
    }


def backbone(
    time_steps: int,
    *,
    name: str = "resnet50",
    n_classes: int = 100,
    shape: tuple[int, int, int] = (3, 32, 32),
    width: float = 1.0,
    blocks: Sequence[int] | None = None,
    order: str = "ms",
    seed: int = 0,
    **neuron: float,
) -> Network:
    """The spiking network; ``neuron`` are arguments of :func:`iterative_lif`, the others of ``snnbook.models.build``.

    Raises:
        ValueError: for an option that is not allowed.
    """
    common = {"n_classes": n_classes, "shape": shape, "width": width, "blocks": blocks, "order": order, "seed": seed}
    return build(name, "lif", time_steps=time_steps, norm="tdbn", **common, **iterative_lif(**neuron))


def twin(*, name: str = "resnet50", order: str = "post", **options) -> Network:
    """The ANN with the same connections, ReLU and batch norm: the ordinary ResNet, on which BottleNet++ works.

    Args:
        name: name in ``snnbook.models.RESNET``.
        order: ``post`` is the ordinary ResNet, ``ms`` the order of the spiking one.
        options: as for :func:`backbone`, without those of neurons.
    """
    defaults = {"n_classes": 100, "shape": (3, 32, 32)}
    return build(name, "relu", order=order, **defaults | options)


def block_names(net: Network) -> list[str]:
    """Names of the residual blocks within ``net.body``; split point s lies behind the s-th."""
    return [name for name, module in net.body.named_children() if isinstance(module, Residual)]


def split_points(net: Network, shape: tuple[int, int, int]) -> pd.DataFrame:
    """What lies before each split point.

    Args:
        net: a ResNet, spiking or not.
        shape: input (C, H, W).

    Returns:
        One row a block: ``split_point`` (from 1); ``channels``, ``height``, ``width`` of its output; per time step
        and sample ``macs`` of its convolutions, ``shortcut_macs`` and ``neurons`` in front of its convolutions, all
        three also summed up to here (``cumulative_macs``, ...); ``parameters`` of stem and blocks up to here.

    Raises:
        ValueError: for a network without residual blocks.
    """
    names, table, rows = block_names(net), count(net, shape), []
    check("net", type(net).__name__, len(names) > 0, "a network with residual blocks")
    held, arriving = parameters(net.stem), prod(table["output"].iloc[0])
    for i, name in enumerate(names):
        branch, shortcut = (table[table["layer"].str.startswith(f"body.{name}.{p}.")] for p in ("branch", "shortcut"))
        held += parameters(net.body.get_submodule(name))
        *within, leaving = map(prod, branch["output"])
        work = branch["macs"].sum(), shortcut["macs"].sum(), arriving + sum(within)
        rows.append((i + 1, *branch["output"].iloc[-1], *work, held))
        arriving = leaving
    columns = ["split_point", "channels", "height", "width", "macs", "shortcut_macs", "neurons", "parameters"]
    points = pd.DataFrame(rows, columns=columns)
    sums = {f"cumulative_{c}": points[c].cumsum() for c in ("macs", "shortcut_macs", "neurons")}
    return points.assign(**sums)
