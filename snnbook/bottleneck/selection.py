"""Which reduction and which split point: the search of SpikeBottleNet over a table of measured candidates.

For each split point the paper keeps the candidate of the highest compression whose accuracy drops by at most 3 %
(4 % at some points), then the split point of least energy, fewest bytes, or both. The drop has two references, the
uncompressed network at the same T, and the one at the largest T; the paper does not say which is meant. Nor does it
say on which images it chooses: here on validation images, so that test images only tell what the choice is worth.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd

from ..checks import check, check_choice


class Candidate(NamedTuple):
    """One configuration: blocks on the device, c', s of the spatial reduction, T."""

    split_point: int
    channels: int
    stride: int
    time_steps: int


def grid(
    points: pd.DataFrame,
    ratios: Sequence[int],
    strides: Sequence[int] = (1, 2),
    time_steps: Sequence[int] = (2, 4),
    split_points: Sequence[int] | None = None,
) -> list[Candidate]:
    """Every candidate that fits.

    Args:
        points: from :func:`snnbook.bottleneck.backbone.split_points`.
        ratios: C/c'; those that do not divide C are left out.
        strides: s; those that do not divide height and width are left out.
        time_steps: T.
        split_points: which; all by default.

    Raises:
        ValueError: for split points that are not there.
    """
    unknown = sorted(set(split_points or ()) - set(points["split_point"]))
    check("split_points", unknown, not unknown, f"1 to {len(points)}")
    chosen = points if split_points is None else points[points["split_point"].isin(split_points)]
    return [
        Candidate(int(p.split_point), int(p.channels) // ratio, stride, T)
        for p in chosen.itertuples()
        for ratio in ratios
        for stride in strides
        for T in time_steps
        if p.channels % ratio == 0 and p.height % stride == 0 and p.width % stride == 0
    ]


def choose(
    table: pd.DataFrame,
    limit: float = 0.03,
    relaxed: Mapping[int, float] | None = None,
    drop: str = "validation_drop",
) -> pd.DataFrame:
    """The candidate of the fewest bits at each split point among those within the limit, the most accurate of equals.

    Args:
        table: measured candidates: ``split_point``, ``bits``, the column ``drop``, and the accuracy of the same images.
        limit: largest drop of accuracy, 0 to 1.
        relaxed: other limits for some split points.
        drop: which drop counts: ``validation_drop`` against the same T, ``validation_drop_from_best`` against the
            largest T; ``drop`` and ``drop_from_best`` choose by test images, as papers do.

    Returns:
        Rows of ``table``; split points where no candidate is within the limit are missing.
    """
    check_choice("drop", drop, [c for c in table.columns if c.removeprefix("validation_").startswith("drop")])
    check("limit", limit, 0 <= limit <= 1, "0 to 1")
    limits = table["split_point"].map(relaxed or {}).astype(float).fillna(limit)
    within = table[table[drop] <= limits + 1e-12]
    accuracy = "validation_accuracy" if drop.startswith("validation") else "accuracy"
    ordered = within.sort_values(["split_point", "bits", accuracy], ascending=[True, True, False], kind="stable")
    return ordered.groupby("split_point").head(1).reset_index(drop=True)


def pareto(table: pd.DataFrame, least: Sequence[str] = ("paper_joules", "bits"), most: Sequence[str] = ()) -> pd.Series:
    """Which rows no other row beats: at least as good in every column and better in one.

    Args:
        table: candidates.
        least: columns of which less is better.
        most: columns of which more is better.

    Returns:
        Booleans with the index of ``table``.
    """
    values = np.column_stack([table[list(least)], -table[list(most)]]).astype(float)
    beaten = [bool(((values <= row).all(1) & (values < row).any(1)).any()) for row in values]
    return pd.Series(np.logical_not(beaten), index=table.index, dtype=bool)


def envelope(joules: Sequence[float], bits: Sequence[float]) -> pd.DataFrame:
    """Which cuts are best at some price of a bit, and from which price on: the lower envelope of their lines.

    At a price e > 0 cut i takes ``joules[i] + e·bits[i]``. From the cut of least work the envelope turns, wherever the
    first line of fewer bits crosses, into that line.

    Args:
        joules: work of each cut, in joules.
        bits: bits that it sends.

    Returns:
        Columns ``cut`` (position in ``joules``) and ``price`` (joules a bit from which on it is the best, 0 for the
        first), prices ascending. Of lines that are equal, the first.

    Raises:
        ValueError: without cuts, or for lists of different lengths.
    """
    check("joules", len(joules), 0 < len(joules) == len(bits), "as many as there are bits, at least one")
    order = sorted(range(len(joules)), key=lambda i: (joules[i], bits[i], i))
    rows = [(order[0], 0.0)]
    while further := [i for i in order if bits[i] < bits[rows[-1][0]]]:
        last = rows[-1][0]
        price, _, cut = min(((joules[i] - joules[last]) / (bits[last] - bits[i]), bits[i], i) for i in further)
        rows.append((cut, float(price)))
    return pd.DataFrame(rows, columns=["cut", "price"])


def best(chosen: pd.DataFrame, by: str = "both", joules: str = "paper_joules") -> pd.DataFrame:
    """The last step of the search, over what :func:`choose` gave.

    Args:
        chosen: one row a split point, with ``bits`` and the column ``joules``.
        by: ``energy`` (least joules), ``bytes`` (fewest bits) or ``both`` (the Pareto front of the two).
        joules: column of the energy: ``paper_joules`` or ``counted_joules``.

    Raises:
        ValueError: for another ``by``, or where there is nothing to choose from.
    """
    check_choice("by", by, ("energy", "bytes", "both"))
    check("rows of chosen", len(chosen), len(chosen) > 0, "at least one candidate within the limit")
    if by == "both":
        return chosen[pareto(chosen, (joules, "bits"))].reset_index(drop=True)
    columns = [joules, "bits"] if by == "energy" else ["bits", joules]
    return chosen.sort_values(columns, kind="stable").head(1).reset_index(drop=True)
