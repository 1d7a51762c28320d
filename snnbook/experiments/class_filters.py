"""Which filters serve which classes: APoZ as tables, and what a network pruned for some classes still knows of others.

Everything here looks at the unsplit network and at pruned copies with its own head; nothing is retrained.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from ..network import Network
from ..record import observe
from ..splitting.apoz import ClassZeros
from ..splitting.prune import Masks, chain, masks, prune
from .ec_snn import EcSnn, SplitPlan


def apoz_table(zeros: dict[str, ClassZeros]) -> pd.DataFrame:
    """APoZ of every filter for every class alone: columns ``layer`` (l, from 0), ``filter``, ``class``, ``apoz``."""
    rows = []
    for depth, counted in enumerate(zeros.values()):
        each = counted.each_class().numpy()  # [K, C]
        k, f = np.indices(each.shape)
        rows.append(pd.DataFrame({"layer": depth, "filter": f.ravel(), "class": k.ravel(), "apoz": each.ravel()}))
    return pd.concat(rows, ignore_index=True)


def bundle_apoz(zeros: dict[str, ClassZeros], parts: Sequence[Sequence[int]]) -> pd.DataFrame:
    """APoZ of every filter for every bundle of classes: columns ``layer``, ``filter``, ``device``, ``apoz``."""
    rows = []
    for depth, counted in enumerate(zeros.values()):
        for device, classes in enumerate(parts):
            apoz = counted.apoz(classes).numpy()
            columns = {"layer": depth, "filter": range(len(apoz)), "device": device, "apoz": apoz}
            rows.append(pd.DataFrame(columns))
    return pd.concat(rows, ignore_index=True)


def most_selective(zeros: ClassZeros, n: int) -> pd.DataFrame:
    """The ``n`` filters whose rate differs most between classes.

    Returns:
        Columns ``filter``, ``most`` and ``least`` (the classes where it fires most and least often), ``rate_most``,
        ``rate_least`` (1 − APoZ); the largest difference first, each filter for another class ``most`` if possible.
    """
    rates = 1 - zeros.each_class()  # [K, C]
    most, least = rates.argmax(0), rates.argmin(0)
    each = torch.arange(rates.shape[1])
    gap = rates[most, each] - rates[least, each]
    order = gap.argsort(descending=True, stable=True).tolist()
    first = [f for i, f in enumerate(order) if most[f] not in most[order[:i]]]
    chosen = (first + [f for f in order if f not in first])[:n]
    rows = [(f, int(most[f]), int(least[f]), rates[most[f], f].item(), rates[least[f], f].item()) for f in chosen]
    return pd.DataFrame(rows, columns=["filter", "most", "least", "rate_most", "rate_least"])


def firing_maps(net: Network, layer: str, x: Tensor) -> Tensor:
    """Spikes per step of every neuron of a layer: images [N, ...] to rates [N, C, h, w]."""
    found = {}

    def note(name, module, drive, output):
        if name == layer:
            found["maps"] = output.unflatten(0, (net.time_steps, -1)).mean(0)

    with torch.no_grad(), observe(net, neuron=note):
        net(x)
    return found["maps"]


def silenced(net: Network, masks: Masks) -> Network:
    """A copy of ``net``, as large as before, in which filters outside ``masks`` never fire: their drive is −1."""
    net = copy.deepcopy(net)
    with torch.no_grad():
        for _, norm, activation in chain(net):
            if activation in masks:
                net.get_submodule(norm).weight[~masks[activation]] = 0
                net.get_submodule(norm).bias[~masks[activation]] = -1
    return net


def _lowest(score: Tensor, n: int) -> Tensor:
    """Mask of the ``n`` filters with the lowest score."""
    mask = torch.zeros(len(score), dtype=torch.bool)
    mask[score.argsort(stable=True)[:n]] = True
    return mask


def _right(net: Network, e: EcSnn, split: str) -> tuple[Tensor, Tensor]:
    """Whether each sample is recognised, and its class."""
    net.eval()
    with torch.no_grad():
        pairs = [((net(x).mean(0).argmax(1) == y).cpu(), y.cpu()) for x, y in e.batches(split)]
    return tuple(torch.cat(column) for column in zip(*pairs, strict=True))


def crossed(e: EcSnn, plan: SplitPlan, split: str = "test") -> pd.DataFrame:
    """Accuracy on the classes of each device of a network that is pruned for the classes of each device.

    The unsplit network's own head answers. Returns columns ``pruned_for`` (device), ``tested_on``, ``accuracy``.
    """
    rows = []
    for i, net in enumerate(e.pruned(plan)):
        right, y = _right(net, e, split)
        for j, classes in enumerate(plan.parts):
            mine = torch.isin(y, torch.tensor(classes))
            rows.append((i, j, right[mine].double().mean().item()))
    return pd.DataFrame(rows, columns=["pruned_for", "tested_on", "accuracy"])


def _choices(e: EcSnn, chosen: Masks, classes: Sequence[int], draws: int, seed: int) -> dict[str, list[Masks]]:
    """Masks with as many filters in each layer as ``chosen``, by other rules; several for the random one."""
    others = [k for k in range(e.data.n_classes) if k not in classes]
    sizes, zeros = {n: int(m.sum()) for n, m in chosen.items()}, e.zeros()
    generator = torch.Generator().manual_seed(seed)

    def by(score) -> Masks:
        return {n: _lowest(score(z), sizes[n]) for n, z in zeros.items()}

    found = {
        "own classes": [chosen],
        "all classes": [by(lambda z: z.apoz())],
        "random": [by(lambda z: torch.rand(z.zeros.shape[1], generator=generator)) for _ in range(draws)],
        "last index": [by(lambda z: -torch.arange(z.zeros.shape[1]))],
        "highest APoZ": [by(lambda z: -z.apoz(classes))],
    }
    return found | ({"other classes": [by(lambda z: z.apoz(others))]} if others else {})


def choices(e: EcSnn, plan: SplitPlan, draws: int = 3, seed: int = 0, split: str = "test") -> pd.DataFrame:
    """Does it matter which filters stay? As many of them in each layer, chosen by other rules.

    Args:
        e: experiment.
        plan: its masks say how many filters stay in each layer.
        draws: random choices to average over.
        seed: of the random choices.
        split: where accuracy is measured.

    Returns:
        Columns ``rule`` (filters with the lowest APoZ for: own classes, all classes, other classes; random, last
        index, highest APoZ), ``device``, ``own`` and ``other`` (accuracy on C_i and on the other classes).
    """
    rows = []
    for device, (classes, chosen) in enumerate(zip(plan.parts, e.masks(plan), strict=True)):
        for rule, options in _choices(e, chosen, classes, draws, seed + device).items():
            found = [_shares(prune(e.parent(), option), e, classes, split) for option in options]
            rows.append((rule, device, *np.mean(found, axis=0)))
    return pd.DataFrame(rows, columns=["rule", "device", "own", "other"])


def _shares(net: Network, e: EcSnn, classes: Sequence[int], split: str) -> tuple[float, float]:
    right, y = _right(net, e, split)
    mine = torch.isin(y, torch.tensor(list(classes)))
    return right[mine].double().mean().item(), right[~mine].double().mean().item()


def overlap(masks_of: Sequence[Masks]) -> pd.DataFrame:
    """How alike the filters of two sub-models are, layer by layer, as a mean over pairs.

    Returns:
        Columns ``layer`` (from 0), ``filters`` (C), ``kept`` (mean number), ``shared`` (mean share of the smaller mask
        that is in the larger one too), ``by_chance`` (the same for random masks of these sizes).
    """
    rows = []
    for depth, name in enumerate(masks_of[0]):
        kept = [m[name] for m in masks_of]
        pairs = [(a, b) for i, a in enumerate(kept) for b in kept[i + 1 :]]
        shared = [(a & b).sum().item() / min(a.sum(), b.sum()).item() for a, b in pairs]
        chance = [max(a.sum(), b.sum()).item() / len(a) for a, b in pairs]
        size = sum(m.sum().item() for m in kept) / len(kept)
        mean = [float(np.mean(v)) if pairs else float("nan") for v in (shared, chance)]
        rows.append((depth, len(kept[0]), size, *mean))
    return pd.DataFrame(rows, columns=["layer", "filters", "kept", "shared", "by_chance"])


def kept_over_zeta(
    zeros: dict[str, ClassZeros], parts: Sequence[Sequence[int]], zetas: Sequence[float], min_filters: int
) -> pd.DataFrame:
    """Share of filters that stay in each layer: columns ``zeta``, ``layer`` (from 0), ``device``, ``kept`` (0 to 1)."""
    rows = []
    for zeta in zetas:
        for device, classes in enumerate(parts):
            chosen = masks({n: z.apoz(classes) for n, z in zeros.items()}, zeta, min_filters)
            rows += [(zeta, i, device, m.double().mean().item()) for i, m in enumerate(chosen.values())]
    return pd.DataFrame(rows, columns=["zeta", "layer", "device", "kept"])


def similarity(zeros: ClassZeros, parts: Sequence[Sequence[int]]) -> dict[str, float]:
    """Mean correlation of the filter rates of two classes, ``within`` parts and ``between`` them (nan if no pairs)."""
    correlation = torch.corrcoef(1 - zeros.each_class())
    part = {k: i for i, classes in enumerate(parts) for k in classes}
    pairs = [(a, b) for a in part for b in part if a < b]
    same = [correlation[a, b].item() for a, b in pairs if part[a] == part[b]]
    other = [correlation[a, b].item() for a, b in pairs if part[a] != part[b]]
    return {"within": float(np.mean(same or [np.nan])), "between": float(np.mean(other or [np.nan]))}
