"""Joules of moving bytes, by the prices of a published table."""

from __future__ import annotations

from .checks import check_choice
from .papers import table as published


def memory_joules(bytes_moved: float, memory: str = "1 MB SRAM") -> float:
    """Joules to move ``bytes_moved`` through a memory of Horowitz's table (8 KB, 32 KB, 1 MB SRAM or DRAM).

    Raises:
        ValueError: for another memory.
    """
    prices = published("horowitz2014")
    reads = prices[prices["operation"].str.startswith("read from ")]
    per_word = dict(zip(reads["operation"].str.removeprefix("read from "), reads["picojoules"], strict=True))
    check_choice("memory", memory, per_word)
    return bytes_moved / 8 * per_word[memory] * 1e-12
