"""Class partitions: covering, disjoint, balanced; k-means and local search against brute force."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from snnbook.splitting.partition import PARTITIONS, _assign, check_parts, contiguous, joint, kmeans, sizes

#: The lists that EC-SNN's released code has for K = 10.
RELEASED = {
    3: ((0, 1, 2, 3), (4, 5, 6), (7, 8, 9)),
    5: ((0, 1), (2, 3), (4, 5), (6, 7), (8, 9)),
    7: ((0, 1), (2,), (3,), (4, 5), (6, 7), (8,), (9,)),
    9: ((0, 1), (2,), (3,), (4,), (5,), (6,), (7,), (8,), (9,)),
}


def instance():
    return st.integers(1, 12).flatmap(lambda k: st.tuples(st.just(k), st.integers(1, k), st.integers(0, 2**31)))


@settings(deadline=None, max_examples=60)
@given(instance())
def test_every_partition_covers_is_disjoint_and_balanced(case):
    k, n, seed = case
    features = np.random.default_rng(seed).normal(size=(k, 3))
    for partition in PARTITIONS.values():
        parts = partition.make(features, n, seed, lambda q: sum(q[0]))
        assert check_parts(parts, k) == parts and len(parts) == n
        lengths = [len(p) for p in parts]
        assert max(lengths) - min(lengths) <= 1


def test_contiguous_is_the_released_list_up_to_which_parts_are_larger():
    for n, released in RELEASED.items():
        ours = contiguous(10, n)
        assert sorted(map(len, ours)) == sorted(map(len, released))
        assert all(p == tuple(range(p[0], p[-1] + 1)) for p in ours + released)
        assert (ours == released) == (n != 7)
    assert sizes(10, 4) == [3, 3, 2, 2]


def test_more_parts_than_classes_or_none_is_refused():
    for n in (0, 11):
        with pytest.raises(ValueError, match=f"n_parts = {n} is not allowed: 1 to 10"):
            contiguous(10, n)
    with pytest.raises(ValueError, match="n_parts = 4"):
        kmeans(np.zeros((3, 2)), 4)


@settings(deadline=None, max_examples=40)
@given(st.integers(2, 6), st.integers(2, 3), st.integers(0, 10**6))
def test_the_assignment_step_is_the_best_balanced_one(k, n, seed):
    n = min(n, k)
    rng = np.random.default_rng(seed)
    features, centres = rng.normal(size=(k, 2)), rng.normal(size=(n, 2))
    distances = ((features[:, None] - centres) ** 2).sum(2)
    counts = {tuple(c) for c in permutations(sizes(k, n))}
    every = (np.array(p) for c in counts for p in set(permutations(np.repeat(np.arange(n), c))))
    least = min(distances[np.arange(k), label].sum() for label in every)
    label = _assign(features, centres, sizes(k, n))
    assert distances[np.arange(k), label].sum() == pytest.approx(least)
    assert tuple(np.bincount(label, minlength=n)) in counts


def test_kmeans_finds_pairs_that_lie_apart():
    rng = np.random.default_rng(1)
    pairs = ((0, 7), (1, 4), (2, 9), (3, 5), (6, 8))
    features = np.zeros((10, 5))
    for i, pair in enumerate(pairs):
        features[list(pair), i] = 10
    found = kmeans(features + rng.normal(size=features.shape) * 0.1, 5, seed=3)
    assert found == pairs
    assert kmeans(features, 5, seed=3) == pairs  # same seed, same parts; ordered by their first class


@pytest.mark.parametrize(
    "features, message",
    [(np.arange(4.0), r"features = \(4,\) .* \[K, F\]"), (np.full((4, 3), np.nan), "features = .* finite numbers"),
     ([[1, np.inf], [2, 3]], "finite numbers")],
)  # fmt: skip
def test_features_of_classes_are_rows_of_finite_numbers(features, message):
    with pytest.raises(ValueError, match=f"(?s){message}"):
        kmeans(features, 2)


def test_joint_finds_what_only_swaps_can_reach():
    wanted = ((0, 5), (1, 3), (2, 4))
    together = {frozenset(p) for p in wanted}

    def cost(parts):
        return -sum(frozenset(p) in together for p in parts)

    start = contiguous(6, 3)
    found = joint(start, cost)
    assert cost(start) == 0 and {frozenset(p) for p in found} == together and check_parts(found, 6)
    neighbours = joint(((0, 1), (2, 3)), lambda p: abs(p[0][0] - 0) + abs(p[0][1] - 3))
    assert neighbours == ((0, 3), (1, 2))
    assert joint(wanted, cost) == wanted  # already the best: left alone


def test_joint_is_a_local_minimum_and_never_worse():
    weights = np.random.default_rng(0).random(8)

    def cost(parts):
        return max(sum(weights[list(p)]) for p in parts)

    start = contiguous(8, 3)
    found = joint(start, cost)
    assert cost(found) <= cost(start)
    for a in range(8):
        for b in range(a + 1, 8):
            swap = {a: b, b: a}
            assert cost(tuple(tuple(swap.get(c, c) for c in p) for p in found)) >= cost(found) - 1e-12


def test_check_parts_refuses_what_is_no_partition():
    assert check_parts([[1, 0], [2]], 3) == ((0, 1), (2,))
    for bad in ([[0], [0, 1, 2]], [[0, 1]], [[0, 1, 2], []], [[0, 1, 2, 3]]):
        with pytest.raises(ValueError, match="exactly one part"):
            check_parts(bad, 3)
