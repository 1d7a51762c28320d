"""Table 1 on trained networks: the paper's payloads at any width, beside codes of BottleNet++ at 8 and at T bits.

The paper's reductions are taken as shares of the channels, C/c', so that they can be had at any width.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from itertools import chain

import pandas as pd

from ..bottleneck import energy
from ..bottleneck.codec import head
from ..bottleneck.selection import Candidate
from ..checks import check
from ..network import Network
from ..papers import table as published
from ..side_by_side import together
from ..train import pick_device
from .spike_bottlenet import SpikeBottleNet

#: Residual blocks of each stage of the paper's ResNet-50; the channels behind its first stage.
STAGES, FIRST = (3, 4, 6, 3), 256


def paper_block(split_point: int, blocks: Sequence[int]) -> tuple[int, int]:
    """The block of the paper's ResNet-50 that stands where a split point of another depth does.

    Args:
        split_point: blocks on the device, from 1.
        blocks: residual blocks of each stage, four at most.

    Returns:
        Its number, 1 to 16: in the same stage, as far in it; and the stage, from 0.

    Raises:
        ValueError: if there is no such block.
    """
    check("blocks", list(blocks), 1 <= len(blocks) <= len(STAGES), f"1 to {len(STAGES)} stages")
    check("split_point", split_point, 1 <= split_point <= sum(blocks), f"1 to {sum(blocks)}")
    stage, within = 0, split_point
    while within > blocks[stage]:
        within -= blocks[stage]
        stage += 1
    return sum(STAGES[:stage]) - (-within * STAGES[stage] // blocks[stage]), stage


def paper_cuts(points: pd.DataFrame, blocks: Sequence[int], split_points: Sequence[int]) -> pd.DataFrame:
    """The payloads of Table 1 at the width of another network.

    Args:
        points: from :func:`snnbook.bottleneck.backbone.split_points`.
        blocks: residual blocks of each stage.
        split_points: which.

    Returns:
        Columns ``split_point``, ``block`` (of Table 1), ``paper_steps`` (T of Table 1), ``stride`` (1 where the map
        does not divide), ``channels``, ``code_channels`` (c' of spikes and of BottleNet++), ``full_bytes``,
        ``full_code_bytes`` (as printed, at full width) and ``relaxed`` (whether the paper relaxed its limit there).

    Raises:
        ValueError: for a split point that is not there.
    """
    printed, rows = published("spikebottlenet_table1").set_index("split_point"), []
    for s in split_points:
        block, stage = paper_block(s, blocks)
        here, there = points.set_index("split_point").loc[s], printed.loc[block]
        stride = int(there["stride"])
        stride = stride if here["height"] % stride == 0 and here["width"] % stride == 0 else 1
        wanted = (there[c] * here["channels"] / (FIRST * 2**stage) for c in ("snn_channels", "ann_channels"))
        channels = (min(max(1, round(c)), int(here["channels"])) for c in wanted)
        sizes = int(there["snn_bytes"]), int(there["ann_bytes"])
        rows.append((s, block, int(there["time_steps"]), stride, *channels, *sizes, bool(there["relaxed"])))
    columns = ["split_point", "block", "paper_steps", "stride", "channels", "code_channels"]
    return pd.DataFrame(rows, columns=[*columns, "full_bytes", "full_code_bytes", "relaxed"])


def paper_candidates(cuts: pd.DataFrame, time_steps: Sequence[int]) -> list[Candidate]:
    """The cuts of :func:`paper_cuts` at each T; 0 stands for the T of Table 1."""
    rows = zip(cuts["split_point"], cuts["channels"], cuts["stride"], cuts["paper_steps"], strict=True)
    found = [Candidate(int(s), int(c), int(r), int(T or own)) for s, c, r, own in rows for T in time_steps]
    return list(dict.fromkeys(found))


def rows_of(table: pd.DataFrame, candidates: Sequence[Candidate]) -> pd.DataFrame:
    """The rows of a search that belong to ``candidates``, in their order."""
    indexed = table.set_index(list(Candidate._fields))
    return indexed.loc[[tuple(c) for c in candidates]].reset_index()


def codes(e: SpikeBottleNet, split_point: int, channels: int, stride: int, bits: int) -> dict:
    """A trained BottleNet++, its accuracy, its drop from the ANN (0 to 1), and what it sends."""
    net, report = e.bottlenet(split_point, channels, stride, bits)
    reached, validated = e.accuracies(net)
    drop = e.accuracy(e.ann()) - reached
    found = {"accuracy": reached, "validation_accuracy": validated, "drop": drop}
    return found | {"bytes": report.bytes, "net": net}


def ann_joules(e: SpikeBottleNet, net: Network, split_point: int) -> tuple[float, float]:
    """Joules of the device part of a BottleNet++: as the paper counts, and of every operation, without padding."""
    blocks = float(e.points()["cumulative_macs"].iloc[split_point - 1])
    device = head(net).eval().to(pick_device(e.device))
    return energy.ann_joules(blocks), energy.joules(energy.counted(device, e.batches(1)))


def cells(e: SpikeBottleNet, cuts: pd.DataFrame, table: pd.DataFrame, radio: str = "Wi-Fi") -> pd.DataFrame:
    """Table 1 on trained networks: spikes, the 8-bit baseline, and the control that sends T bits an element.

    Args:
        e: the experiment.
        cuts: from :func:`paper_cuts`.
        table: rows of :func:`snnbook.experiments.spike_bottlenet.search` for candidates of :func:`paper_candidates`.
        radio: of the device, for ``counted_ratio`` and ``equal_ratio``.

    Returns:
        The rows of ``table`` with the columns of ``cuts``, ``full_bytes`` at the T of the row; ``float32``
        (compression of 32-bit floats); ``ann_accuracy``; ``code_bytes``, ``code_accuracy``, ``code_drop`` of
        BottleNet++ at 8 bits with the paper's channels; ``equal_bytes``, ``equal_accuracy``, ``equal_drop`` of the
        control of T bits with as many elements as the spikes. E_ANN/E_SNN of the device: ``paper_ratio`` as the paper
        counts, ``work_ratio`` with every operation and ``counted_ratio`` with the radio too, all against the baseline;
        ``equal_ratio`` with both against the control, which sends the same bytes. Memory traffic is in none. Both
        controls' drops are from the ANN; fractions are 0 to 1.
    """
    e.ann()
    rows, wide = [], cuts.set_index("split_point")["code_channels"]
    rivals = [[(row.split_point, int(wide[row.split_point]), row.stride, 8),
               (row.split_point, row.channels, row.stride, row.time_steps)] for row in table.itertuples()]  # fmt: skip
    together([partial(e.bottlenet, *rival) for rival in dict.fromkeys(chain(*rivals))])
    for row, pair in zip(table.itertuples(), rivals, strict=True):
        eight, equal = (codes(e, *rival) for rival in pair)
        controls = {f"{name}_{key}": found[key] for name, found in (("code", eight), ("equal", equal))
                    for key in ("bytes", "accuracy", "validation_accuracy", "drop")}  # fmt: skip
        ann = dict(zip(("ann_accuracy", "ann_validation_accuracy"), e.accuracies(e.ann()), strict=True))
        whole = {"float32": 32 * row.compression / row.time_steps} | ann
        rows.append(whole | controls | _energy_ratios(e, row, eight, equal, radio))
    joined = table.reset_index(drop=True).merge(cuts.drop(columns=["channels", "stride"]), on="split_point", how="left")
    joined["full_bytes"] = joined["full_bytes"] * joined["time_steps"] // joined["paper_steps"]
    return pd.concat([joined, pd.DataFrame(rows)], axis=1)


def _energy_ratios(e: SpikeBottleNet, row: tuple, eight: dict, equal: dict, radio: str) -> dict[str, float]:
    """The four ratios of :func:`cells`: E_ANN/E_SNN of the device, by what is counted and against which control."""
    (paper, work), (_, control) = (ann_joules(e, found["net"], row.split_point) for found in (eight, equal))
    air = {name: energy.radio_joules(8 * n, radio) for name, n in
           (("eight", eight["bytes"]), ("equal", equal["bytes"]), ("spikes", row.bytes))}  # fmt: skip
    spikes = row.counted_joules + air["spikes"]
    return {
        "paper_ratio": paper / row.paper_joules,
        "work_ratio": work / row.counted_joules,
        "counted_ratio": (work + air["eight"]) / spikes,
        "equal_ratio": (control + air["equal"]) / spikes,
    }


def longer(e: SpikeBottleNet, time_steps: Sequence[int]) -> pd.DataFrame:
    """Networks without a codec, as drops refer to them and after as much more training as a codec comes with.

    Args:
        e: the experiment.
        time_steps: T of the spiking networks.

    Returns:
        Columns ``network`` ("spikes" or "ANN"), ``time_steps`` (0 of the ANN), ``accuracy`` and ``longer_accuracy`` of
        test images, and both of validation images as ``validation_…`` (0 to 1).
    """
    rows = []
    together([partial(e.trained_on, T or None) for T in [*time_steps, 0]])
    for T in [*time_steps, 0]:
        nets = e.backbone(T) if T else e.ann(), e.trained_on(T or None)
        (before, validated), (after, validated_after) = map(e.accuracies, nets)
        rows.append(("spikes" if T else "ANN", T, before, after, validated, validated_after))
    names = ["accuracy", "longer_accuracy", "validation_accuracy", "validation_longer_accuracy"]
    return pd.DataFrame(rows, columns=["network", "time_steps", *names])


def drops_from_longer(cell_table: pd.DataFrame, longer_table: pd.DataFrame) -> pd.DataFrame:
    """The drops of :func:`cells` beside those from networks that were trained on without a codec.

    Args:
        cell_table: from :func:`cells`.
        longer_table: from :func:`longer`, with every T of the cells.

    Returns:
        Columns ``split_point``, ``time_steps``; ``longer_accuracy``, ``longer_ann_accuracy`` (of both references);
        ``drop``, ``code_drop``, ``equal_drop``; and these as ``longer_…``, from the references (0 to 1).
    """
    reached = longer_table.set_index("time_steps")["longer_accuracy"]
    spikes, ann = cell_table["time_steps"].map(reached), reached[0]
    table = cell_table[["split_point", "time_steps"]].assign(longer_accuracy=spikes, longer_ann_accuracy=ann)
    for name, whole in (("", spikes), ("code_", ann), ("equal_", ann)):
        table[f"{name}drop"] = cell_table[f"{name}drop"]
        table[f"longer_{name}drop"] = whole - cell_table[f"{name}accuracy"]
    return table
