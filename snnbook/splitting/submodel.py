"""Sub-models: a pruned network with a head for the classes C_i and "other", cut in two for device and server.

Label 0 of a sub-model is "other", label i its class C_i[i − 1]. Its device runs stem and body up to the last spiking
layer and sends binary maps [T, C, H, W]; the server pools and flattens them.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Generator, Tensor, nn

from ..checks import check
from ..counts import count
from ..data import Data, Split
from ..data.core import SPLITS
from ..models import initialise
from ..network import Network
from .prune import chain, first_linear


def linear_stack(sizes: Sequence[int], dropout: Sequence[float]) -> list[nn.Module]:
    """Linear layers of ``sizes`` with dropout before each one; no neuron between, as in EC-SNN's code."""
    layers: list[nn.Module] = []
    for n, m, p in zip(sizes[:-1], sizes[1:], dropout, strict=True):
        layers += ([nn.Dropout(p)] if p else []) + [nn.Linear(n, m)]
    return layers


def with_fresh_head(
    pruned: Network, n_own: int, width: float = 1.0, hidden: Sequence[int] = (384, 192), seed: int = 0
) -> Network:
    """A copy of ``pruned`` with a new head F' → 384 → 192 → n_own + 1, dropout .5 before each linear layer.

    Args:
        pruned: network whose head is replaced.
        n_own: |C_i|, classes that the sub-model tells apart; label 0 of the head is "other".
        width: multiplier on the hidden widths, at least 4 remain.
        hidden: hidden widths.
        seed: of the new weights.

    Raises:
        ValueError: if ``n_own`` is below 1 or ``width`` not positive.
    """
    check("n_own", n_own, n_own >= 1, "at least 1")
    check("width", width, width > 0, "a positive number")
    net = copy.deepcopy(pruned)
    features = net.get_submodule(first_linear(net)).in_features
    sizes = [features, *(max(4, round(n * width)) for n in hidden), n_own + 1]
    head = nn.Sequential(nn.Flatten(), *linear_stack(sizes, [0.5] * (len(sizes) - 1)))
    net.head = initialise(head, seed)
    return net


def relabelled(y: Tensor, classes: Sequence[int], n_classes: int) -> Tensor:
    """Labels of a sub-model: i for class ``classes[i − 1]``, 0 for any other of the ``n_classes``."""
    own = torch.zeros(n_classes, dtype=y.dtype, device=y.device)
    own[list(classes)] = torch.arange(1, len(classes) + 1, dtype=y.dtype, device=y.device)
    return own[y]


def others_each(n_train: int, n_classes: int, n_own: int) -> int:
    """Samples of each other class in the retraining set: N_train/(10 K) − |C_i| (released code), at least 1."""
    return max(1, int(n_train / (10 * n_classes) - n_own))


def _resampled(split: Split, classes: Sequence[int], n_classes: int, each: int | None, generator: Generator) -> Split:
    """All samples of ``classes`` and ``each`` random ones of every other class (all with None), relabelled."""
    keep = torch.isin(split.y, torch.tensor(list(classes)))
    for other in sorted(set(range(n_classes)) - set(classes)):
        found = torch.nonzero(split.y == other).flatten()
        n = len(found) if each is None else min(each, len(found))
        keep[found[torch.randperm(len(found), generator=generator)[:n]]] = True
    groups = None if split.groups is None else split.groups[keep]
    return Split(split.x[keep], relabelled(split.y[keep], classes, n_classes), groups)


def retraining_set(data: Data, classes: Sequence[int], generator: Generator, per_other: int | None = None) -> Data:
    """What a sub-model is retrained on: all of C_i, and a few samples of each other class as "other".

    The validation and calibration splits are thinned by the same share, so that the best epoch is chosen on what is
    trained; the test split keeps every sample.

    Args:
        data: all classes.
        classes: C_i.
        generator: draws the samples of other classes.
        per_other: samples of each other class in the training split; by default :func:`others_each`.

    Returns:
        Data with the classes "other" and C_i.

    Raises:
        ValueError: for no class, or one that there is not.
    """
    known = len(classes) > 0 and set(classes) <= set(range(data.n_classes))
    check("classes", list(classes), known, f"at least one of 0 to {data.n_classes - 1}")
    if per_other is None:
        per_other = others_each(len(data.train), data.n_classes, len(classes))
    share, splits = per_other / max(1, len(data.train)), {}
    for name in SPLITS:
        split = getattr(data, name)
        each = None if name == "test" else max(1, round(share * len(split)))
        splits[name] = _resampled(split, classes, data.n_classes, each, generator)
    return replace(data, **splits, classes=("other", *(data.classes[c] for c in classes)))


def _cut(net: Network) -> int:
    """Number of layers of the body up to and with the last activation."""
    return 1 + int(chain(net)[-1][2].removeprefix("body."))


def device_part(net: Network) -> Network:
    """What a device runs: [N, C, H, W] or [T, N, C, H, W] to binary spikes [T, N, C', H', W'] of the last layer.

    It shares its layers with ``net``.
    """
    part = Network(net.stem, nn.Sequential(*list(net.body)[: _cut(net)]), nn.Identity())
    part.time_steps = net.time_steps
    return part.train(net.training)


def server_part(net: Network) -> nn.Sequential:
    """What the server does with a device's spikes [N, C', H', W'] before fusion: pool, and flatten to [N, F']."""
    return nn.Sequential(*list(net.body)[_cut(net) :], nn.Flatten())


def payload_shape(net: Network, shape: tuple[int, int, int]) -> tuple[int, int, int, int]:
    """(T, C', H', W') of the spikes that a device sends for one sample of ``shape`` (C, H, W)."""
    last = chain(net)[-1][0]
    return net.time_steps, *count(net, shape).set_index("layer").loc[last, "output"]


def payload_bits(net: Network, shape: tuple[int, int, int]) -> int:
    """Bits that a device sends for one sample, one for each neuron of the last layer and step."""
    return math.prod(payload_shape(net, shape))
