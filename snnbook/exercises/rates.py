"""Checkers of the chapter on compression and accuracy (32)."""

from __future__ import annotations

import numpy as np
import pandas as pd
import torch

from snnbook.bottleneck.selection import choose
from snnbook.bottleneck.sizes import pack_codes
from snnbook.exercises.core import close, equal, exercise
from snnbook.link.payload import pack

CHAPTER = "32_compression_accuracy"


def _packed(channels: int, bits_each: int, height: int, width: int) -> int:
    """Bytes of packed codes, or of packed spikes of as many steps: both are really packed, and must agree."""
    codes = pack_codes(torch.zeros(channels, height, width, dtype=torch.uint8), bits_each)
    spikes = pack(torch.zeros(bits_each, 1, channels, height, width))
    assert len(codes) == len(spikes)
    return len(codes)


@exercise("ex-rate-channels", CHAPTER)
def channels_in_a_budget(answer):
    """Most channels that fit, by packing one more until the budget is passed."""

    def by_packing(n_bytes, bits_each, height, width):
        channels = 0
        while _packed(channels + 1, bits_each, height, width) <= n_bytes:
            channels += 1
        return channels

    mistakes = {
        "A byte has eight bits.": lambda n, b, h, w: n // (b * h * w),
        "Each channel is h·w elements large.": lambda n, b, h, w: 8 * n // b,
    }
    cases = [(64, 4, 4, 4), (64, 8, 4, 4), (64, 1, 4, 4), (100, 2, 4, 4), (5, 8, 4, 4), (17, 3, 3, 2), (256, 2, 4, 4)]
    equal(answer, by_packing, cases, "A channel that fits only in part cannot be sent.", mistakes)


@exercise("ex-rate-scales", CHAPTER)
def two_scales(answer):
    """Both compressions, from bytes that are really packed."""

    def from_bytes(shape, sent, time_steps):
        c, h, w = sent
        whole = _packed(shape[0], time_steps, *shape[1:])
        payload = _packed(c, time_steps, h, w)
        return whole / payload, 4 * shape[0] * shape[1] * shape[2] / payload

    def steps_forgotten(shape, sent, time_steps):
        spikes, _ = from_bytes(shape, sent, time_steps)
        return spikes, 32 * spikes

    cases = [((2048, 4, 4), (32, 2, 2), 4), ((256, 32, 32), (16, 32, 32), 2), ((512, 16, 16), (64, 16, 16), 8)]
    mistakes = {"An element of the payload takes T bits, one of the float map 32.": steps_forgotten}
    close(answer, from_bytes, cases, "Return (spikes for each spike, float bits for each bit).", mistakes)


@exercise("ex-rate-select", CHAPTER)
def selected(answer):
    """The paper's choice at each split point, against the package's search on random candidates."""

    def reference(rows, limit):
        table = pd.DataFrame(rows, columns=["split_point", "bits", "drop"]).assign(accuracy=0.0)
        found = choose(table, limit, drop="drop")
        return {int(s): int(b) for s, b in zip(found["split_point"], found["bits"], strict=True)}

    def without_limit(rows, limit):
        return {s: min(b for t, b, _ in rows if t == s) for s, *_ in rows}

    def most_accurate(rows, limit):
        within = [row for row in rows if row[2] <= limit]
        return {s: min((d, b) for t, b, d in within if t == s)[1] for s, *_ in within}

    rng = np.random.default_rng(32)
    cases = [([(1, 512, 0.01), (1, 256, 0.02), (1, 128, 0.05), (2, 64, 0.03), (3, 64, 0.2)], 0.03)]
    for _ in range(10):
        points, bits = rng.integers(1, 5, 12), rng.permutation(np.arange(1, 13)) * 64
        drops = rng.integers(0, 8, 12) / 128
        rows = [(int(s), int(b), float(d)) for s, b, d in zip(points, bits, drops, strict=True)]
        cases.append((rows, 0.03125))
    mistakes = {
        "Candidates above the limit are not allowed, and a split point may have none.": without_limit,
        "Among those within the limit the fewest bits count, not the smallest drop.": most_accurate,
    }
    equal(answer, reference, cases, "A dict from each split point to its fewest bits within the limit.", mistakes)
