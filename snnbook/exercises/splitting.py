"""Checkers of the chapters on splitting: 20 (class-specific filters) to 24 (sensing modalities)."""

from __future__ import annotations

import math
from itertools import combinations, product

import numpy as np
import torch
from scipy.optimize import brentq
from scipy.sparse import csr_matrix
from scipy.sparse.csgraph import maximum_bipartite_matching
from torch import nn

from snnbook.data.events import frames_by_count
from snnbook.exercises.core import agree, call, close, equal, exercise, law, require, show
from snnbook.link.payload import pack
from snnbook.splitting import cost, placement
from snnbook.splitting.apoz import ClassZeros
from snnbook.splitting.devices import Device
from snnbook.splitting.prune import masks
from snnbook.splitting.submodel import others_each

FILTERS = "20_class_specific_filters"
TRADE_OFFS = "21_split_prune_tradeoffs"
PLACEMENT = "22_placement"
FUSION = "23_fused_inference"
MODALITIES = "24_sensing_modalities"


def _floats(rng: np.random.Generator, *size: int, digits: int = 2) -> list:
    """Random numbers between 0 and 1 with few digits, so that a message can show them."""
    return rng.random(size).round(digits).tolist()


@exercise("ex-apoz-by-hand", FILTERS)
def apoz_by_hand(answer):
    """APoZ for a bundle of classes, against the exact counts of the package."""

    def reference(spikes, labels, bundle, slots):
        samples = torch.bincount(torch.tensor(labels))
        fired = torch.bincount(torch.tensor(labels), weights=torch.tensor(spikes, dtype=torch.float64))
        zeros = (slots * samples - fired).long()
        return ClassZeros(zeros[:, None], slots * samples, samples).apoz(bundle).item()

    def mean_of_classes(spikes, labels, bundle, slots):
        return np.mean([reference(spikes, labels, [k], slots) for k in bundle])

    hand = [3, 1, 0], [0, 0, 1]
    rng = np.random.default_rng(20)
    cases = [(*hand, [0], 8), (*hand, [1], 8), (*hand, [0, 1], 8)]
    cases += [(rng.integers(0, 20, 6).tolist(), [0, 1, 2, 2, 1, 2], [1, 2], 20)]
    mistakes = {
        "The mean of the classes' APoZ gives every class the same weight, whatever its samples.": mean_of_classes,
        "That is the firing rate; APoZ is the share of zeros.": lambda *case: 1 - reference(*case),
    }
    close(answer, reference, cases, "A sample has `slots` outputs, each of them a spike or a zero.", mistakes)


@exercise("ex-apoz-no-prune", FILTERS)
def apoz_no_prune(answer):
    """Threshold that prunes nothing, against the rule itself, tried upwards on filters that never fire."""

    def all_stay(n_layers, zeta):
        silent = {str(layer): torch.ones(3) for layer in range(n_layers)}
        return all(mask.all() for mask in masks(silent, zeta, min_filters=1).values())

    def reference(n_layers):
        return next(zeta for zeta in range(90, 200) if all_stay(n_layers, zeta))

    mistakes = {
        "That threshold is safe for the first layer only.": lambda n: 100,
        "Layers are counted from 0.": lambda n: 100 + n,
    }
    equal(answer, reference, [(1,), (2,), (5,), (13,)], "The worst filter never fires: its APoZ is 1.", mistakes)


@exercise("ex-apoz-rule", FILTERS)
def apoz_rule(answer):
    """The threshold rule with depth term and floor, against the package's masks."""

    def reference(apoz, zeta, layer, floor, keep="lowest"):
        layers = {str(i): torch.zeros(1) for i in range(layer)} | {"this": torch.tensor(apoz, dtype=torch.float64)}
        return torch.nonzero(masks(layers, zeta, floor, keep)["this"]).flatten().tolist()

    rng = np.random.default_rng(21)
    cases = [([0.97, 0.91, 0.93, 0.99], 94.5, 0, 1), ([0.97, 0.91, 0.93, 0.99], 94.5, 2, 1)]
    cases += [([0.97, 0.99, 0.98, 0.96], 94.5, 0, 2), ([0.99, 0.98], 90, 0, 4)]
    cases += [((0.8 + 0.2 * rng.random(8)).round(3).tolist(), 91.25, layer, 3) for layer in (0, 1, 4, 9)]
    cases += [([1.0, 0.5, 0.75], 100, 0, 1), ([0.75, 0.5, 1.0], 76, 1, 1)]
    mistakes = {
        "Where is the depth term? Layer l is held to ζ − l.": lambda a, z, layer, floor: reference(a, z, 0, floor),
        "The floor is filled with the last-indexed filters, as in the released code; here the lowest APoZ fill it.":
            lambda a, z, layer, floor: reference(a, z, layer, floor, "last"),
        "The floor is missing.":
            lambda a, z, layer, floor: [f for f, one in enumerate(a) if one <= (z - layer) / 100],
        "A filter whose APoZ is just the limit stays: ≤, not <.":
            lambda a, z, layer, floor: reference(a, z - 1e-9, layer, floor),
    }
    equal(answer, reference, cases, "Indices of the filters that stay, in ascending order.", mistakes)


@exercise("ex-apoz-chance", FILTERS)
def apoz_chance(answer):
    """Shared filters of random masks, against the mean over all pairs of masks."""

    def reference(a, b, n_filters):
        one, other = (list(map(set, combinations(range(n_filters), n))) for n in (a, b))
        return np.mean([len(x & y) / min(a, b) for x, y in product(one, other)])

    mistakes = {
        "That counts what both share among all filters, not among those of the smaller mask.":
            lambda a, b, n: a * b / n**2,
        "That is the share of the larger mask.": lambda a, b, n: min(a, b) / n,
    }
    close(answer, reference, [(2, 3, 6), (4, 2, 5), (1, 1, 4), (3, 3, 6), (5, 1, 5)], mistakes=mistakes)


def _size(net: nn.Module) -> int:
    return sum(w.numel() for w in net.parameters())


@exercise("ex-split-linear", TRADE_OFFS)
def split_linear(answer):
    """Parameters of a head, against layers of torch."""

    def reference(features, hidden, outputs):
        sizes = [features, *hidden, outputs]
        stack = nn.Sequential(*(nn.Linear(m, n) for m, n in zip(sizes, sizes[1:], strict=False)))
        return _size(stack), _size(nn.Linear(features, outputs))

    def no_biases(features, hidden, outputs):
        sizes = [features, *hidden, outputs]
        return sum(m * n for m, n in zip(sizes, sizes[1:], strict=False)), features * outputs

    cases = [(48, [10], 3), (2048, [384, 192], 3), (20, [6, 5, 4], 2), (7, [], 3)]
    equal(answer, reference, cases, "Two numbers: as trained, and multiplied out.", {"Biases count too.": no_biases})


@exercise("ex-split-collapse", TRADE_OFFS)
def split_collapse(answer):
    """Linear layers multiplied out, against what the stack does to zero and to each unit vector."""

    def reference(layers):
        def stack(x):
            for weight, bias in layers:
                x = weight @ x + bias
            return x

        bias = stack(np.zeros(layers[0][0].shape[1]))
        return np.stack([stack(unit) - bias for unit in np.eye(layers[0][0].shape[1])], 1), bias

    def biases_added(layers):
        size = len(layers[-1][1])
        return reference(layers)[0], sum(bias for _, bias in layers if len(bias) == size)

    def case(*sizes):
        rng = np.random.default_rng(sum(sizes))
        pairs = zip(sizes, sizes[1:], strict=False)
        return ([(rng.normal(size=(n, m)).round(1), rng.normal(size=n).round(1)) for m, n in pairs],)

    hint = "A matrix and a bias: W2 (W1 x + b1) + b2 = (W2 W1) x + (W2 b1 + b2)."
    mistakes = {"A bias passes through the layers behind it.": biases_added}
    close(answer, reference, [case(4, 3), case(2, 2, 2), case(4, 3, 2), case(5, 4, 3, 2)], hint, mistakes)


@exercise("ex-split-others", TRADE_OFFS)
def split_others(answer):
    """Size of a retraining set, against drawing it sample by sample."""

    def reference(counts, own, each=None):
        each = others_each(sum(counts), len(counts), len(own)) if each is None else each
        taken = [0] * len(counts)
        for label in np.repeat(np.arange(len(counts)), counts):
            taken[label] += label in own or taken[label] < each
        return sum(taken)

    mistakes = {
        "A class that has fewer samples than that gives all it has.":
            lambda counts, own: sum(counts[k] for k in own)
            + (len(counts) - len(own)) * others_each(sum(counts), len(counts), len(own)),
        "Those are the samples of the device's own classes; where are the others?":
            lambda counts, own: reference(counts, own, 0),
        "From the quota of each other class, the number of own classes is subtracted.":
            lambda counts, own: reference(counts, own, int(sum(counts) / (10 * len(counts)))),
    }
    cases = [([500] * 10, [0, 1]), ([5000] * 10, [3]), ([300, 20, 400, 400, 400], [0, 2]), ([30, 30, 30], [1])]
    cases += [([7, 7, 7], [0, 1]), ([299] * 10, [0])]
    equal(answer, reference, cases, "The quota is rounded down, and at least 1.", mistakes)


@exercise("ex-split-total", TRADE_OFFS)
def split_total(answer):
    """Break-even share of filters, against accumulates counted in a chain of layers."""

    def accumulates(share):
        filters = [share * n for n in (64, 128, 256, 256)]
        return sum(spiking * reached for spiking, reached in zip(filters, filters[1:], strict=False))

    def reference(n_devices):
        return brentq(lambda share: n_devices * accumulates(share) - accumulates(1.0), 1e-3, 1, xtol=1e-13)

    mistakes = {
        "Both ends of a connection are pruned: the spikes and what they reach.": lambda n: 1 / n,
        "That is the share of accumulates that one sub-model may need, not of filters.": lambda n: 1 / n**2,
    }
    close(answer, reference, [(2,), (5,), (9,), (64,)], mistakes=mistakes)


def _fleet(memory, budget=None, mac_rate=None, link_rate=None) -> list[Device]:
    """Devices on which a MAC takes one joule and a bit none."""
    n = len(memory)
    columns = (memory, budget or [1e9] * n, mac_rate or [1.0] * n, link_rate or [1.0] * n)
    figures = enumerate(zip(*columns, strict=True))
    return [Device(f"device {i}", m, e, r, r, bits, 1, 1, 0) for i, (m, e, r, bits) in figures]


def _demands(sizes, joules, bits=None) -> list[cost.Demand]:
    asked = zip(sizes, joules, bits or [0] * len(sizes), strict=True)
    return [cost.Demand(f"sub-model {i}", n, macs, 0, payload) for i, (n, macs, payload) in enumerate(asked)]


@exercise("ex-placement-seconds", PLACEMENT)
def placement_seconds(answer):
    """Latency of a placement, against the package's account of each device."""

    def devices(assignment, macs, bits, mac_rate, link_rate):
        fleet = _fleet([1e9] * len(mac_rate), None, mac_rate, link_rate)
        return cost.per_device(_demands([1] * len(macs), macs, bits), fleet, assignment)

    def alone(assignment, macs, bits, mac_rate, link_rate):
        return max(n / mac_rate[d] + p / link_rate[d] for d, n, p in zip(assignment, macs, bits, strict=True))

    mistakes = {
        "Sub-models on one device work one after the other.": alone,
        "Devices work side by side: the slowest decides, not the sum.":
            lambda *case: devices(*case)[["compute_seconds", "link_seconds"]].sum().sum(),
        "The link is missing.": lambda *case: devices(*case)["compute_seconds"].max(),
    }
    rng = np.random.default_rng(22)
    cases = [([0, 1], [6, 4], [2, 8], [2, 1], [1, 4]), ([0, 0, 1], [6, 4, 5], [2, 8, 1], [2, 1], [1, 4])]
    asked, rates = rng.integers(1, 50, (2, 5)).tolist(), rng.integers(1, 9, (2, 3)).tolist()
    cases += [(rng.integers(0, 3, 5).tolist(), *asked, *rates)]
    close(answer, lambda *case: cost.totals(devices(*case))["seconds_with_link"], cases, mistakes=mistakes)


def _greedy(sizes, joules, memory, budget) -> list[int] | None:
    """The package's greedy by memory; None where it fails."""
    try:
        return placement.greedy(_demands(sizes, joules), _fleet(memory, budget))
    except placement.InfeasiblePlacement:
        return None


def _first_fit(sizes, joules, memory, budget, order=None) -> list[int] | None:
    found = {}
    for s in sorted(range(len(sizes)), key=lambda s: -sizes[s]):
        free = (d for d in range(len(memory)) if d not in found.values())
        found[s] = next((d for d in free if sizes[s] <= memory[d] and joules[s] <= budget[d]), None)
    return None if None in found.values() else [found[s] for s in range(len(sizes))]


@exercise("ex-placement-greedy", PLACEMENT)
def placement_greedy(answer):
    """Greedy by memory, against the package's."""
    rng = np.random.default_rng(23)
    cases = [([9, 8], [20, 25], [20, 10], [100, 30]), ([9, 8], [20, 90], [10, 20], [100, 30])]
    cases += [([5], [30], [10], [30])]
    for _ in range(8):
        sizes, memory = rng.permutation(np.arange(4, 24))[:7].tolist(), rng.permutation(np.arange(8, 30))[:4].tolist()
        cases.append((sizes[:3], rng.integers(5, 40, 3).tolist(), memory, rng.integers(15, 60, 4).tolist()))
    mistakes = {"That is the first device that fits, not the one with the least memory left over.": _first_fit}
    hint = "Largest first; one sub-model a device, which may need all that the device has; None if one finds no device."
    equal(answer, _greedy, cases, hint, mistakes)


@exercise("ex-placement-monotone", PLACEMENT)
def placement_monotone(answer):
    """Larger sub-models that greedy places although it fails with smaller ones."""
    lower, memory, budget = [(9, 20), (8, 90)], [10, 20], [100, 30]
    pairs = np.shape(answer) == (2, 2)
    require(pairs, f"two pairs (bytes, joules) were expected, of large and of small, not {show(answer)}.")
    for name, now, before in zip(("large", "small"), answer, lower, strict=True):
        grown = now[0] >= before[0] and now[1] >= before[1]
        require(grown, f"{name} asks for {show(now)}, less than {show(before)} at the lower threshold.")
    found = _greedy([pair[0] for pair in answer], [pair[1] for pair in answer], memory, budget)
    require(found is not None, f"Greedy by memory fails with {show(answer)} too. When does large leave tight to small?")


@exercise("ex-placement-exact", PLACEMENT)
def placement_exact(answer):
    """Least latency of any placement, against a matching under a rising limit."""

    def reference(seconds, fits):
        seconds, fits = np.array(seconds), np.array(fits)
        for limit in np.unique(seconds):
            allowed = csr_matrix(fits & (seconds <= limit))
            if (maximum_bipartite_matching(allowed, "column") >= 0).all():
                return float(limit)
        return None

    def one_by_one(seconds, fits):
        rows = zip(seconds, fits, strict=True)
        best = [min((t for t, f in zip(*row, strict=True) if f), default=None) for row in rows]
        return None if None in best else max(best)

    rng = np.random.default_rng(24)
    cases = [([[4, 2], [3, 1]], [[True, True], [True, True]]), ([[4, 2], [3, 1]], [[True, False], [True, False]])]
    for n, d in ((2, 3), (3, 3), (3, 4), (4, 5)):
        cases.append((rng.integers(1, 60, (n, d)).tolist(), (rng.random((n, d)) < 0.7).tolist()))
    mistakes = {"Two sub-models cannot have the same device.": one_by_one}
    equal(answer, reference, cases, "The slowest device decides; None if there is no placement.", mistakes)


@exercise("ex-fused-bits", FUSION)
def fused_bits(answer):
    """Bytes of packed spikes, against packing them."""

    def reference(*shape):
        return len(pack(torch.zeros(shape)))

    mistakes = {
        "Those are bits.": lambda *shape: math.prod(shape),
        "A byte that is not full is sent as well.": lambda *shape: math.prod(shape) // 8,
    }
    equal(answer, reference, [(5, 128, 16, 16), (2, 8, 4, 4), (1, 3, 3, 3), (3, 5, 7, 1)], mistakes=mistakes)


@exercise("ex-fused-partial", FUSION)
def fused_partial(answer):
    """Number of devices from which on answers are partial too often, by trying."""

    def reference(q, share):
        return next(n for n in range(1, 10_000) if 1 - (1 - q) ** n >= share)

    mistakes = {
        "Several devices may fail at once, so probabilities do not just add up.": lambda q, share: math.ceil(share / q),
        "With that many the share is not reached yet.": lambda q, share: reference(q, share) - 1,
        "With one device fewer the share is reached already.": lambda q, share: reference(q, share) + 1,
    }
    cases = [(0.01, 0.1), (0.01, 0.5), (0.05, 0.3), (0.2, 0.9), (0.3, 0.25), (0.001, 0.123), (0.5, 0.75)]
    equal(answer, reference, cases, "An answer is whole if no device fails.", mistakes)


@exercise("ex-fused-vote", FUSION)
def fused_vote(answer):
    """Logits over all classes: their softmax has to share out the probability of "other"."""

    def shared(logits, own, n_classes):
        p = torch.tensor(logits, dtype=torch.float64).softmax(0)
        every = torch.full((n_classes,), p[0].item() / max(1, n_classes - len(own)), dtype=torch.float64)
        every[own] = p[1:]
        return every

    def holds(got, logits, own, n_classes):
        values = torch.as_tensor(np.array(got), dtype=torch.float64)
        if len(own) == n_classes:  # no class is left for "other": the odds of the own ones among themselves
            own_odds = torch.tensor(logits[1:], dtype=torch.float64).softmax(0)
            return values.shape == (n_classes,) and agree(values[own].softmax(0), own_odds, 1e-6, 1e-9)
        return values.shape == (n_classes,) and agree(values.softmax(0), shared(logits, own, n_classes), 1e-6, 1e-9)

    cases = [(np.log([0.8, 0.1, 0.1]).round(6).tolist(), [0, 1], 10), ([0.5, 2.0, -1.0, 0.3], [4, 2, 0], 6)]
    cases += [([1.5, -0.5], [3], 4), ([3.0, 1.0, 2.0], [1, 2], 3 + 1), ([0.0, 1.0, 2.0], [1, 0], 2)]
    says = 'the softmax over all classes gives each own class its probability and every other an equal share of "other"'
    says += '; if there are no others, "other" is left out'
    law(answer, cases, holds, says)


@exercise("ex-fused-lost", FUSION)
def fused_lost(answer):
    """A fusion without some devices, against one matrix on all features, with zeros for the lost ones."""

    def reference(features, weights, bias, lost):
        heard = [f * (i not in lost) for i, f in enumerate(features)]
        steps = np.concatenate(heard, 1) @ np.concatenate(weights, 1).T + bias
        return steps.mean(0)

    def rescaled(features, weights, bias, lost):
        kept = len(features) / (len(features) - len(lost))
        return bias + kept * (reference(features, weights, bias, lost) - bias)

    rng = np.random.default_rng(25)
    features = [rng.integers(0, 2, (3, n)).astype(float) for n in (4, 2, 3)]
    weights = [rng.normal(size=(2, n)).round(1) for n in (4, 2, 3)]
    mistakes = {
        "The bias is added once, not once a device.":
            lambda f, w, b, lost: reference(f, w, b, lost) + (len(f) - len(lost) - 1) * b,
        "That is the sum over time steps; the answer is their mean.":
            lambda f, w, b, lost: len(f[0]) * reference(f, w, b, lost),
        "Nobody told the fusion to make up for the lost devices: zeros stand in their place.": rescaled,
    }
    cases = [(features, weights, np.array([0.5, -1.0]), lost) for lost in ([], [1], [0, 2])]
    close(answer, reference, cases, mistakes=mistakes)


@exercise("ex-modality-events", MODALITIES)
def modality_events(answer):
    """Energy of dense MACs over that of additions, counted one by one."""

    def reference(counts, mac, ac):
        dense = additions = 0.0
        for count in np.ravel(counts):
            dense += mac
            for _ in range(int(count)):
                additions += ac
        return dense / additions

    mistakes = {
        "A count of 3 takes three additions.":
            lambda counts, mac, ac: np.size(counts) * mac / (np.count_nonzero(counts) * ac),
        "Dense MACs are spent on zeros too.":
            lambda counts, mac, ac: np.count_nonzero(counts) * mac / (np.sum(counts) * ac),
        "That is the other way round.": lambda *case: 1 / reference(*case),
    }
    rng = np.random.default_rng(26)
    cases = [(np.array([[0, 1], [0, 0]]), 4.6, 0.9), (np.array([[0, 3], [1, 0]]), 4.6, 0.9)]
    cases += [(rng.poisson(mean, (2, 4, 4)), 0.23, 0.03) for mean in (0.2, 1, 6)]
    close(answer, reference, cases, mistakes=mistakes)


@exercise("ex-modality-frames", MODALITIES)
def modality_frames(answer):
    """Events as frames, against the loader's."""

    def reference(x, y, p, time_steps, height, width):
        return frames_by_count({"x": x, "y": y, "p": p, "t": np.arange(len(x))}, time_steps, height, width)

    def even(x, y, p, time_steps, height, width):
        out = np.zeros((time_steps, 2, height, width), int)
        for step, part in enumerate(np.array_split(np.arange(len(x)), time_steps)):
            np.add.at(out[step], (p[part], y[part], x[part]), 1)
        return out

    def case(n, time_steps, height, width):
        rng = np.random.default_rng(n)
        return (*(rng.integers(0, limit, n) for limit in (width, height, 2)), time_steps, height, width)

    mistakes = {
        "Rows are y, columns are x.": lambda *c: reference(c[1], c[0], *c[2:]),
        "Channel 0 is OFF (p = 0), channel 1 is ON.": lambda *c: reference(*c)[:, ::-1],
        "All frames hold n // T events, and the last one the remainder as well.": even,
    }
    cases = [case(6, 3, 2, 2), case(11, 3, 3, 3), case(40, 4, 2, 5), case(2, 3, 2, 2)]
    equal(answer, reference, cases, "An integer array [T, 2, height, width].", mistakes)


@exercise("ex-modality-equal", MODALITIES)
def modality_equal(answer):
    """The smallest threshold that leaves enough filters: the rule just there, and just below."""

    def kept(apoz, zeta):
        return int(masks({"first": torch.tensor(apoz, dtype=torch.float64)}, zeta, 1)["first"].sum())

    rng = np.random.default_rng(27)
    cases = [([0.91, 0.97, 0.88, 0.99], 2), ([0.91, 0.97, 0.88, 0.99], 4)]
    cases += [((low + (1 - low) * rng.random(8)).round(4).tolist(), n) for low, n in ((0.5, 2), (0.9, 5), (0.8, 8))]
    for apoz, n in cases:
        zeta = float(call(answer, apoz, n))
        given = f"{getattr(answer, '__name__', 'the function')}({show(apoz)}, {n}) returned {show(zeta)}"
        stay = kept(apoz, zeta + 1e-6)
        require(zeta > 1, f"{given}, but ζ is in percent.")
        require(stay >= n, f"{given}; of the {len(apoz)} filters {stay} would stay there, not {n}.")
        require(kept(apoz, zeta - 1e-6) < n, f"{given}; {n} filters stay at a lower ζ too.")
