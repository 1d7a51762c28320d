"""What the engine is held to: ratios within one run, and what they would be if ours ran at the roofline."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd


@dataclass(frozen=True)
class Bar:
    """``slow`` over ``fast`` in one workload, each the best of some contenders.

    Attributes:
        what: in words.
        workload: name in the tables.
        slow: contenders whose time stands above, the fastest of them counts.
        fast: contenders whose time stands below, the fastest of them counts.
        wanted: the bar.
        at_least: whether the ratio must be at least ``wanted``; at most otherwise.
    """

    what: str
    workload: str
    slow: tuple[str, ...]
    fast: tuple[str, ...]
    wanted: float
    at_least: bool = True


_FULL = ("ours", "ours_fp32", "ours_eager")
_ANN = ("ann", "ann_nchw")
BARS = (
    Bar("IF forward: SpikingJelly / ours", "neuron forward", ("spikingjelly",), _FULL, 10),
    Bar("VGG-16 T=4: SpikingJelly / ours, fp32", "vgg16 T=4", ("spikingjelly",), _FULL, 3),
    Bar("VGG-16 T=4: SpikingJelly / ours, any precision", "vgg16 T=4", ("spikingjelly",),
        (*_FULL, "ours_bf16", "ours_int8"), 3),
    Bar("VGG-16 T=4: ours, fp32 / ANN", "vgg16 T=4", _FULL, _ANN, 2.5, False),
    Bar("VGG-16 T=4: ours, bf16 / ANN", "vgg16 T=4", ("ours_bf16",), _ANN, 2.5, False),
    Bar("VGG-16 T=4: ours, int8 / ANN", "vgg16 T=4", ("ours_int8",), _ANN, 1.5, False),
    Bar("VGG-9 T=5 training: SpikingJelly / ours", "vgg9 training T=5", ("spikingjelly",), (*_FULL, "ours_bf16"), 3),
    Bar("operation counting / inference", "vgg16 counting T=4", ("ours_counting",), ("ours",), 1.1, False),
)  # fmt: skip


def _fastest(times: pd.DataFrame, contenders: tuple[str, ...]) -> pd.Series | None:
    """The row of ``times`` (one workload) with the lowest median among ``contenders``."""
    rows = times[times["contender"].isin(contenders)]
    return None if rows.empty else rows.loc[rows["median_s"].idxmin()]


def ratio(bar: Bar, samples: pd.DataFrame, times: pd.DataFrame) -> dict | None:
    """Row of one bar: the ratio round by round, and at the roofline; ``None`` if it was not measured."""
    here = times[times["workload"] == bar.workload]
    slow, fast = _fastest(here, bar.slow), _fastest(here, bar.fast)
    if slow is None or fast is None:
        return None
    rounds = samples[samples["workload"] == bar.workload].pivot(index="repeat", columns="contender", values="seconds")
    each = rounds[slow["contender"]] / rounds[fast["contender"]]
    at_bound = slow["median_s"] / fast["bound_s"] if bar.at_least else slow["bound_s"] / fast["median_s"]
    if slow["kind"] == "counting":
        at_bound = None  # counting is no work of the network
    reached = each.median() >= bar.wanted if bar.at_least else each.median() <= bar.wanted
    return {
        "bar": bar.what, "above": slow["contender"], "below": fast["contender"], "wanted": bar.wanted,
        "sense": "at least" if bar.at_least else "at most", "measured": each.median(), "lowest": each.min(),
        "highest": each.max(), "at_roofline": at_bound, "reached": bool(reached),
    }  # fmt: skip


def memory_ratio(used: pd.DataFrame) -> dict | None:
    """Row of the bar on memory: T = 64 over T = 4 of ours."""
    if used.empty or "ours" not in set(used["contender"]):
        return None
    mib = used[used["contender"] == "ours"].set_index("time_steps")["peak_mib"]
    grown = mib[64] / mib[4]
    return {"bar": "memory of VGG-9: T=64 / T=4", "above": "ours", "below": "ours", "wanted": 1.3, "sense": "at most",
            "measured": grown, "lowest": grown, "highest": grown, "reached": bool(grown <= 1.3)}  # fmt: skip


def bars(samples: pd.DataFrame, times: pd.DataFrame, used: pd.DataFrame) -> pd.DataFrame:
    """Every bar that was measured: columns ``bar``, ``above``, ``below``, ``wanted``, ``sense``, ``measured``,
    ``lowest``, ``highest``, ``at_roofline``, ``reached``."""
    columns = ["bar", "above", "below", "wanted", "sense", "measured", "lowest", "highest", "at_roofline", "reached"]
    rows = [ratio(bar, samples, times) for bar in BARS] + [memory_ratio(used)]
    return pd.DataFrame([row for row in rows if row], columns=columns)
