"""How the K classes are dealt out to N sub-models: C = ⋃ C_i, disjoint, sizes that differ by at most one.

EC-SNN asks for balance only; its released code deals by hand for K = 10: 0123|456|789, pairs, 01|2|3|45|67|8|9, and
01 before eight singletons, for N = 3, 5, 7, 9. Those lists are balanced, and each part is a run of neighbours; only
for N = 7 do the larger parts not come first, as they do here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import linear_sum_assignment

from ..checks import check

#: Classes of each sub-model, ascending.
Parts = tuple[tuple[int, ...], ...]


def _check_sizes(n_classes: int, n_parts: int) -> None:
    check("n_classes", n_classes, n_classes >= 1, "at least 1")
    check("n_parts", n_parts, 1 <= n_parts <= n_classes, f"1 to {n_classes}: each sub-model needs a class")


def sizes(n_classes: int, n_parts: int) -> list[int]:
    """Numbers of classes of balanced parts, larger ones first.

    Raises:
        ValueError: for fewer classes than parts, or no part at all.
    """
    _check_sizes(n_classes, n_parts)
    return [n_classes // n_parts + (i < n_classes % n_parts) for i in range(n_parts)]


def _parts(label: np.ndarray, n_parts: int) -> Parts:
    """Parts from the part of each class [K]."""
    return tuple(tuple(int(c) for c in np.flatnonzero(label == i)) for i in range(n_parts))


def contiguous(n_classes: int, n_parts: int) -> Parts:
    """Neighbouring classes together, in the order of their labels; ValueError for fewer classes than parts."""
    return _parts(np.repeat(np.arange(n_parts), sizes(n_classes, n_parts)), n_parts)


def _assign(features: np.ndarray, centres: np.ndarray, size: list[int]) -> np.ndarray:
    """The part of each class [K] with the least sum of squared distances, exact for sizes balanced within one.

    Every part has ``min(size)`` seats, and as many have one more as there are classes left; which ones is free.
    """
    n, k, low = len(centres), len(features), min(size)
    distances = ((features[:, None] - centres[None]) ** 2).sum(2)  # [K, N]
    first = np.repeat(np.arange(n), low)
    cost = np.hstack([distances[:, first], distances])  # seats that must be taken, and one more for each part
    empty = n * low + n - k  # rows that fill the seats left empty: only the additional ones may stay so
    if empty:
        forbidden = np.full((empty, n * low), 1e6 * (1 + distances.max()))
        cost = np.vstack([cost, np.hstack([forbidden, np.zeros((empty, n))])])
    rows, seats = linear_sum_assignment(cost)
    return np.concatenate([first, np.arange(n)])[seats[np.argsort(rows)][:k]]


def kmeans(features: np.ndarray, n_parts: int, seed: int = 0, restarts: int = 10, iterations: int = 50) -> Parts:
    """Similar classes together: balanced k-means on class features, as sensAI groups classes.

    Each assignment step is a linear sum assignment to seats (Malinen and Fränti 2014, balanced k-means).

    Args:
        features: [K, F], one row a class, for instance its mean APoZ or its mean features.
        n_parts: N.
        seed: of the first centres.
        restarts: the best of so many runs is taken.
        iterations: of one run at most.

    Raises:
        ValueError: for fewer classes than parts, features of another shape, or one that is not finite.
    """
    features = np.asarray(features, dtype=np.float64)
    check("features", features.shape, features.ndim == 2, "[K, F], one row a class")
    check("features", features, bool(np.isfinite(features).all()), "finite numbers")
    size, rng, best = sizes(len(features), n_parts), np.random.default_rng(seed), None
    for _ in range(restarts):
        centres = features[rng.choice(len(features), n_parts, replace=False)]
        label = None
        for _ in range(iterations):
            new = _assign(features, centres, size)
            if label is not None and (new == label).all():
                break
            label, centres = new, np.stack([features[new == i].mean(0) for i in range(n_parts)])
        inertia = ((features - centres[label]) ** 2).sum()
        if best is None or inertia < best[0] - 1e-12:
            best = inertia, label
    order = np.argsort([np.flatnonzero(best[1] == i)[0] for i in range(n_parts)])
    return tuple(_parts(best[1], n_parts)[i] for i in order)


def joint(start: Parts, cost: Callable[[Parts], float], sweeps: int = 10) -> Parts:
    """Local search over swaps of two classes that lowers ``cost``, for instance that of the best placement.

    Args:
        start: parts to begin with; their sizes stay.
        cost: of parts; lower is better.
        sweeps: passes over all pairs of classes at most.

    Returns:
        Parts that no single swap improves, or the last after ``sweeps``.
    """
    best, lowest = start, cost(start)
    for _ in range(sweeps):
        before = lowest
        for a, b in _pairs(start):
            swapped = _swap(best, a, b)
            if swapped != best and (found := cost(swapped)) < lowest:
                best, lowest = swapped, found
        if lowest == before:
            break
    return best


def _pairs(parts: Parts) -> list[tuple[int, int]]:
    classes = sorted(c for part in parts for c in part)
    return [(a, b) for i, a in enumerate(classes) for b in classes[i + 1 :]]


def _swap(parts: Parts, a: int, b: int) -> Parts:
    """Parts with classes ``a`` and ``b`` exchanged."""
    other = {a: b, b: a}
    return tuple(tuple(sorted(other.get(c, c) for c in part)) for part in parts)


@dataclass(frozen=True)
class Partition:
    """A way to deal out classes: ``make(features [K, F], n_parts, seed, cost)`` and one line of help.

    ``cost`` is a number for parts, lower for better ones, as :func:`joint` takes it; the others do without.
    """

    make: Callable[[np.ndarray, int, int, Callable[[Parts], float]], Parts]
    help: str


#: Partitions by name.
PARTITIONS = {
    "contiguous": Partition(lambda x, n, seed, cost: contiguous(len(x), n), "neighbouring labels together"),
    "kmeans": Partition(lambda x, n, seed, cost: kmeans(x, n, seed), "classes with similar features together"),
    "joint": Partition(lambda x, n, seed, cost: joint(contiguous(len(x), n), cost), "classes swapped for speed"),
}


def check_parts(parts: Sequence[Sequence[int]], n_classes: int) -> Parts:
    """``parts`` as tuples.

    Raises:
        ValueError: unless every class is in exactly one part and no part is empty.
    """
    found = sorted(c for part in parts for c in part)
    good = found == list(range(n_classes)) and all(len(part) for part in parts)
    check("parts", parts, good, f"every class of 0 to {n_classes - 1} in exactly one part, no part empty")
    return tuple(tuple(sorted(int(c) for c in part)) for part in parts)
