"""Cutting one part of a data set off another: by class, reproducibly, and never through a group."""

from __future__ import annotations

import numpy as np

from ..checks import check


def quota(sizes: np.ndarray, n: int) -> np.ndarray:
    """Share min(n, sum(sizes)) over classes in proportion to ``sizes`` [K], by largest remainder."""
    total = int(sizes.sum())
    n = min(n, total)
    exact = sizes * (n / max(total, 1))
    share = np.floor(exact + 1e-9).astype(int)
    rest = np.argsort(-(exact - share), kind="stable")[: n - share.sum()]
    share[rest] += 1
    return share


def amount(name: str, part: int | float, total: int) -> int:
    """Number of samples meant by ``part``: a count (int) or a fraction of ``total`` (float below 1).

    Raises:
        ValueError: if ``part`` is negative, not a number, or not less than the whole.
    """
    number = isinstance(part, int | float) and not isinstance(part, bool)
    check(name, part, number and part >= 0, "a fraction from 0 to below 1, or a number of samples")
    n = part if isinstance(part, int) else round(part * total)
    check(
        name,
        part,
        n < total and (isinstance(part, int) or part < 1),
        f"less than the {total} samples of the official training part",
    )
    return n


def carve(y: np.ndarray, groups: np.ndarray | None, n: int, seed: int) -> np.ndarray:
    """Choose about ``n`` samples, in proportion to the classes, in whole groups.

    Groups are put in random order within each class (a group's class is its commonest) and taken while that
    brings the class closer to its share; one that is too large is passed over. Without groups the number is
    exact.

    Args:
        y: int [N], classes.
        groups: int [N], or None where every sample is its own group.
        n: how many samples to choose.
        seed: of the random order.

    Returns:
        bool [N], True for the chosen.
    """
    _, unit = (None, np.arange(len(y))) if groups is None else np.unique(groups, return_inverse=True)
    size = np.bincount(unit)
    votes = np.zeros((len(size), y.max(initial=0) + 1), int)
    np.add.at(votes, (unit, y), 1)
    unit_class = votes.argmax(axis=1)
    want = quota(np.bincount(unit_class, weights=size, minlength=votes.shape[1]).astype(int), n)
    order = np.random.default_rng(seed).permutation(len(size))
    chosen = np.zeros(len(size), bool)
    for k, target in enumerate(want):
        taken = 0
        for group in order[unit_class[order] == k]:
            if taken + size[group] / 2 < target:
                chosen[group] = True
                taken += size[group]
    return chosen[unit]
