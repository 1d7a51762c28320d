"""The search: a table worked by hand, the Pareto front against its definition."""

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from snnbook.bottleneck.selection import Candidate, best, choose, envelope, grid, pareto
from snnbook.exercises.compression import _interval

POINTS = pd.DataFrame({"split_point": [1, 2], "channels": [32, 48], "height": [8, 3], "width": [8, 3]})

TABLE = pd.DataFrame(
    [  # split_point, channels, stride, T, accuracy, drop, drop_from_best, bits, paper_joules, counted_joules
        (1, 8, 1, 2, 0.90, 0.020, 0.025, 1024, 1.0, 5.0),
        (1, 4, 1, 2, 0.89, 0.030, 0.035, 512, 1.0, 4.9),
        (1, 4, 1, 4, 0.91, 0.015, 0.015, 1024, 2.0, 6.0),
        (1, 2, 1, 2, 0.88, 0.040, 0.045, 256, 1.0, 4.8),
        (2, 8, 1, 2, 0.80, 0.120, 0.125, 128, 3.0, 9.0),
        (2, 8, 1, 4, 0.89, 0.035, 0.035, 256, 3.5, 8.0),
        (3, 8, 1, 2, 0.92, 0.000, 0.005, 512, 4.0, 7.0),
        (3, 8, 2, 2, 0.91, 0.010, 0.015, 128, 4.0, 7.5),
        (3, 2, 1, 2, 0.90, 0.020, 0.025, 128, 4.0, 7.2),
    ],
    columns=[*Candidate._fields, "accuracy", "drop", "drop_from_best", "bits", "paper_joules", "counted_joules"],
)
MEASURED = ["accuracy", "drop", "drop_from_best"]
TABLE = TABLE.assign(**{f"validation_{name}": TABLE[name] for name in MEASURED})


def rows(table):
    return [Candidate(*row) for row in table[list(Candidate._fields)].itertuples(index=False)]


def test_grid_holds_what_fits():
    found = grid(POINTS, ratios=(8, 32), strides=(1, 2), time_steps=(2, 4))
    expected = [Candidate(1, c, s, T) for c in (4, 1) for s in (1, 2) for T in (2, 4)]
    expected += [Candidate(2, 6, 1, T) for T in (2, 4)]
    assert sorted(found) == sorted(expected)
    assert {c.split_point for c in grid(POINTS, ratios=(8,), split_points=[2])} == {2}
    with pytest.raises(ValueError, match=r"^split_points = \[0, 99\] is not allowed: 1 to 2$"):
        grid(POINTS, ratios=(8,), split_points=[99, 2, 0])


def test_choose_takes_the_fewest_bits_within_the_limit():
    assert rows(choose(TABLE)) == [Candidate(1, 4, 1, 2), Candidate(3, 8, 2, 2)]


def test_choose_with_another_reference_and_relaxed_limits():
    stricter = rows(choose(TABLE, drop="validation_drop_from_best"))
    assert stricter == [Candidate(1, 4, 1, 4), Candidate(3, 8, 2, 2)]  # of 1024 bits, the more accurate
    relaxed = rows(choose(TABLE, relaxed={2: 0.04, 1: 0.04}))
    assert relaxed == [Candidate(1, 2, 1, 2), Candidate(2, 8, 1, 4), Candidate(3, 8, 2, 2)]
    assert choose(TABLE, limit=0.0)["split_point"].tolist() == [3]


def test_validation_images_choose_and_test_images_do_not():
    lucky = TABLE.assign(accuracy=0.99, drop=0.0, drop_from_best=0.0)  # on test images all are alike
    assert rows(choose(lucky)) == rows(choose(TABLE)) != rows(choose(lucky, drop="drop"))
    swapped = TABLE.copy()
    swapped.loc[[7, 8], "accuracy"] = [0.90, 0.91]  # of equal bits the better one on test images, but not on validation
    assert rows(choose(swapped))[-1] == Candidate(3, 8, 2, 2)
    assert rows(choose(swapped, drop="drop"))[-1] == Candidate(3, 2, 1, 2)


@pytest.mark.parametrize(
    "by, joules, expected",
    [
        ("energy", "paper_joules", [1]),
        ("energy", "counted_joules", [1]),
        ("bytes", "paper_joules", [3]),
        ("both", "paper_joules", [1, 3]),
    ],
)
def test_best_split_point(by, joules, expected):
    assert best(choose(TABLE), by, joules)["split_point"].tolist() == expected


def test_best_of_two_by_counted_energy():
    chosen = choose(TABLE, limit=0.04)
    assert best(chosen, "both", "paper_joules")["split_point"].tolist() == [1, 3]
    assert best(chosen, "both", "counted_joules")["split_point"].tolist() == [1, 3]
    cheaper = chosen.assign(counted_joules=[9.0, 8.0, 7.0])
    assert best(cheaper, "both", "counted_joules")["split_point"].tolist() == [3]


@settings(max_examples=60)
@given(st.lists(st.tuples(*[st.integers(0, 4)] * 3), min_size=1, max_size=12))
def test_pareto_is_its_definition(values):
    table = pd.DataFrame(values, columns=["joules", "bits", "accuracy"])

    def beats(a, b):
        no_worse = a[0] <= b[0] and a[1] <= b[1] and a[2] >= b[2]
        return no_worse and (a[0] < b[0] or a[1] < b[1] or a[2] > b[2])

    expected = [not any(beats(other, row) for other in values) for row in values]
    assert pareto(table, ("joules", "bits"), ("accuracy",)).tolist() == expected


def test_envelope_of_lines_worked_by_hand():
    found = envelope([0.0, 1.0, 2.0, 3.0], [24, 20, 8, 4])  # 24e = 2 + 8e at 1/8, 2 + 8e = 3 + 4e at 1/4
    assert found["cut"].tolist() == [0, 2, 3] and found["price"].tolist() == [0.0, 0.125, 0.25]
    assert envelope([1.0, 1.0, 1.0], [8, 4, 4])["cut"].tolist() == [1]  # of equal lines the first
    assert envelope([0.0, 1.0, 3.0], [4, 3, 1])["cut"].tolist() == [0, 2]  # the second only touches
    with pytest.raises(ValueError, match=r"^joules = 2 is not allowed"):
        envelope([1.0, 2.0], [1])
    with pytest.raises(ValueError, match=r"^joules = 0 is not allowed"):
        envelope([], [])


@settings(max_examples=60)
@given(st.lists(st.tuples(st.integers(0, 30), st.integers(1, 30)), min_size=1, max_size=9, unique=True))
def test_envelope_holds_every_line_that_is_lowest_somewhere_and_turns_where_two_meet(lines):
    work, bits = zip(*lines, strict=True)
    found = envelope(work, bits)
    assert sorted(found["cut"]) == [i for i in range(len(lines)) if _interval(i, work, bits)]
    assert found["price"].is_monotonic_increasing
    for before, after, price in zip(found["cut"], found["cut"][1:], found["price"][1:], strict=False):
        cost = [w + price * b for w, b in lines]
        assert cost[before] == pytest.approx(min(cost)) and cost[after] == pytest.approx(min(cost))


def test_nothing_within_the_limit():
    empty = choose(TABLE[TABLE["split_point"] == 2], limit=0.01)
    assert empty.empty
    with pytest.raises(ValueError, match=r"^rows of chosen = 0 is not allowed: at least one candidate"):
        best(empty)


def test_unknown_choices_are_refused():
    with pytest.raises(ValueError, match=r"^drop = 'accuracy' is not allowed: one of drop, drop_from_best, val"):
        choose(TABLE, drop="accuracy")
    with pytest.raises(ValueError, match=r"^by = 'time' is not allowed: one of energy, bytes, both$"):
        best(TABLE, "time")
    with pytest.raises(ValueError, match=r"^limit = 3 is not allowed: 0 to 1$"):
        choose(TABLE, limit=3)
