"""Which filters a sub-model keeps, and the network without the others.

The rule (EC-SNN's released code): at convolution l, counted from 0 with the stem, filter f goes if its
APoZ > (ζ − l)/100, as long as ``min_filters`` remain. Pruning is structural: rows and columns of convolutions, batch
norms and the first linear layer are sliced, so that without filters which never fire nothing changes downstream.
"""

from __future__ import annotations

import copy
import math
import re
import warnings
from collections.abc import Mapping

import pandas as pd
import torch
from torch import Tensor, nn

from ..checks import check, check_choice
from ..counts import count
from ..fold import replace
from ..network import Network
from ..neurons import is_spiking

#: Masks of the filters that stay, bool [C], by the name of the activation after the convolution.
Masks = dict[str, Tensor]


def _kept(apoz: Tensor, limit: float, min_filters: int, keep: str) -> Tensor:
    stays = apoz <= limit
    missing = min(min_filters, len(apoz)) - int(stays.sum())
    if missing > 0:
        pruned = torch.nonzero(~stays).flatten()
        order = pruned.flip(0) if keep == "last" else pruned[apoz[pruned].argsort(stable=True)]
        stays[order[:missing]] = True
    return stays


def masks(apoz: Mapping[str, Tensor], zeta: float, min_filters: int = 16, keep: str = "lowest") -> Masks:
    """Filters that stay, layer by layer.

    Args:
        apoz: activation name → APoZ of its filters, 0 to 1, [C], in forward order.
        zeta: ζ in percent; 95 in the paper. Above 100 + number of layers nothing goes. Between 0 and 1 it is allowed
            and prunes down to the floor, with a warning: a share was written, most likely.
        min_filters: floor of every layer, 16 in the paper.
        keep: which filters fill up the floor: ``lowest`` APoZ, or the ``last``-indexed as in the released code.

    Returns:
        Activation name → bool [C].

    Raises:
        ValueError: for an unknown ``keep``, a ζ that is no number or a floor below 1.
    """
    check_choice("keep", keep, ("lowest", "last"))
    check("min_filters", min_filters, min_filters >= 1, "at least 1")
    check("zeta", zeta, not math.isnan(zeta), "a number in percent, such as 95")
    if 0 < zeta < 1:
        warnings.warn(f"zeta = {zeta} is taken in percent: did you mean {100 * zeta:g}?", stacklevel=2)
    return {
        name: _kept(layer.double(), (zeta - depth) / 100, min_filters, keep)
        for depth, (name, layer) in enumerate(apoz.items())
    }


def _letter(module: nn.Module) -> str:
    """C, B, A or P for what a plain chain is made of, else "?"."""
    if isinstance(module, nn.Conv2d) and module.groups == 1:
        return "C"
    kinds = {"B": nn.BatchNorm2d, "P": (nn.AvgPool2d, nn.MaxPool2d), "A": nn.ReLU}
    if is_spiking(module) and module.v_init.ndim == 0 and module.step_bias is None:
        return "A"
    return next((letter for letter, kind in kinds.items() if isinstance(module, kind)), "?")


def chain(net: Network) -> list[tuple[str, str, str]]:
    """Names of (convolution, batch norm, activation) of a plain chain such as a VGG, in forward order.

    Raises:
        ValueError: for any other network, for instance a residual one or one with constants for each channel.
    """
    named = [(f"{part}.{n}", m) for part in ("stem", "body") for n, m in getattr(net, part).named_children()]
    letters = "".join(_letter(m) for _, m in named)
    plain = re.fullmatch("(CBAP?)+", letters) is not None
    check("net", letters, plain, "a chain of convolution (C), batch norm (B), activation (A), maybe pooling (P)")
    names = [n for n, m in named if _letter(m) != "P"]
    return list(zip(names[::3], names[1::3], names[2::3], strict=True))


def first_linear(net: Network) -> str:
    """Name of the first linear layer of the head; ValueError if there is none."""
    name = next((n for n, m in net.head.named_modules() if isinstance(m, nn.Linear)), None)
    check("net.head", name, name is not None, "a head with a linear layer")
    return f"head.{name}"


def _all(n: int) -> Tensor:
    return torch.ones(n, dtype=torch.bool)


def _sliced(module: nn.Module, kept: dict[str, Tensor], **sizes: int) -> nn.Module:
    """A copy of ``module`` with tensors ``kept`` in the place of its own, and attributes ``sizes``."""
    new = copy.deepcopy(module)
    for name, value in kept.items():
        value = value.detach().clone()
        setattr(new, name, nn.Parameter(value) if isinstance(getattr(new, name), nn.Parameter) else value)
    for name, value in sizes.items():
        setattr(new, name, value)
    return new


def _sliced_conv(conv: nn.Conv2d, rows: Tensor, columns: Tensor) -> nn.Conv2d:
    kept = {"weight": conv.weight[rows][:, columns]} | ({} if conv.bias is None else {"bias": conv.bias[rows]})
    return _sliced(conv, kept, out_channels=int(rows.sum()), in_channels=int(columns.sum()))


def _sliced_norm(norm: nn.BatchNorm2d, rows: Tensor) -> nn.BatchNorm2d:
    names = ("weight", "bias", "running_mean", "running_var")
    return _sliced(norm, {n: getattr(norm, n)[rows] for n in names}, num_features=int(rows.sum()))


def _sliced_linear(linear: nn.Linear, channels: Tensor) -> nn.Linear:
    columns = channels.repeat_interleave(linear.in_features // len(channels))  # Flatten is channel-major
    return _sliced(linear, {"weight": linear.weight[:, columns]}, in_features=int(columns.sum()))


def prune(net: Network, masks: Masks) -> Network:
    """A smaller copy of ``net``: only filters of ``masks``, and only what reads them.

    Args:
        net: a VGG-like SNN or ANN; left as it was.
        masks: activation name → bool [C]; layers that are not named stay whole.

    Raises:
        ValueError: for another kind of network, an unknown layer, a mask of the wrong length or an empty one.
    """
    layers = chain(net)
    _check_masks(net, masks, layers)
    new, into = {}, _all(net.get_submodule(layers[0][0]).in_channels)
    for conv, norm, activation in layers:
        module = net.get_submodule(conv)
        out = masks.get(activation, _all(module.out_channels)).cpu()
        new[conv] = _sliced_conv(module, out, into)
        new[norm] = _sliced_norm(net.get_submodule(norm), out)
        into = out
    linear = first_linear(net)
    new[linear] = _sliced_linear(net.get_submodule(linear), into)
    return replace(net, new)


def _check_masks(net: Network, masks: Masks, layers: list[tuple[str, str, str]]) -> None:
    known = {activation: net.get_submodule(conv).out_channels for conv, _, activation in layers}
    for name, mask in masks.items():
        check_choice("masks", name, known)
        good = mask.dtype == torch.bool and mask.shape == (known[name],) and bool(mask.any())
        check(f"masks[{name!r}]", tuple(mask.shape), good, f"bool [{known[name]}] with at least one filter")


def pruned_size(net: Network, masks: Masks, shape: tuple[int, int, int]) -> pd.DataFrame:
    """Size of ``prune(net, masks)`` from the numbers of filters alone; nothing is built.

    Args:
        net: a VGG-like network.
        masks: activation name → bool [C].
        shape: input (C, H, W).

    Returns:
        A row for each convolution with its batch norm (``part`` "features") and for each linear layer ("head"):
        ``layer``, ``part``, ``filters`` before, ``kept``, ``parameters``, ``bytes`` (float32, with buffers), ``macs``
        (closed form, one time step).
    """
    layers, dense = chain(net), count(net, shape).set_index("layer")
    rows, into = [], shape[0]
    for conv, _, activation in layers:
        output, filters = dense.loc[conv, "output"], dense.loc[conv, "output"][0]
        kept = int(masks[activation].sum()) if activation in masks else filters
        module = net.get_submodule(conv)
        weights = kept * into * math.prod(module.kernel_size)
        learnt = weights + 2 * kept + (0 if module.bias is None else kept)
        size = 4 * (learnt + 2 * kept) + 8  # running mean and variance, and the count of batches
        size += 4 if is_spiking(net.get_submodule(activation)) else 0  # v(0)
        rows.append((conv, "features", filters, kept, learnt, size, weights * math.prod(output[1:])))
        into = kept
    share, first = into / dense.loc[layers[-1][0], "output"][0], first_linear(net)
    for name, module in net.named_modules():
        if isinstance(module, nn.Linear):
            columns = round(module.in_features * (share if name == first else 1))
            n = module.out_features * (columns + (module.bias is not None))
            out = module.out_features
            rows.append((name, "head", out, out, n, 4 * n, columns * out))
    return pd.DataFrame(rows, columns=["layer", "part", "filters", "kept", "parameters", "bytes", "macs"])
