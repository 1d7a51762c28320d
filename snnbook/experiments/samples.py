"""Which samples of a split are counted where all would take too long."""

from __future__ import annotations

import torch

from ..checks import check
from ..data import Split


def spread(split: Split, samples: int | None = None) -> Split:
    """``samples`` samples evenly spaced over a split, which may be in the order of classes; all if there are no more.

    Raises:
        ValueError: for less than one sample.
    """
    if samples is None or samples >= len(split):
        return split
    check("samples", samples, samples >= 1, "at least 1")
    chosen = torch.linspace(0, len(split) - 1, samples, dtype=torch.float64).round().long().to(split.y.device)
    return Split(split.x[chosen], split.y[chosen])
