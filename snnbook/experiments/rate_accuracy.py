"""Every way to send what a device saw, at equal bytes: spikes, codes of BottleNet++, image files, coded spikes.

    spikes     T·c'·h'·w' bits          codes of b bits     b·c'·h'·w' bits

A budget of B bytes leaves room for c' = 8·B / (T·h'·w') channels of spikes and 8·B / (b·h'·w') of codes. The paper's
own reductions are taken as shares of the channels, C/c', so that they can be had at any width.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from itertools import chain

import pandas as pd
from torch import nn

from ..bottleneck import baseline, energy
from ..bottleneck.codec import head
from ..bottleneck.selection import Candidate
from ..checks import check
from ..data import Data
from ..evaluate import accuracy
from ..network import Network
from ..papers import table as published
from ..params import CompressionAccuracy
from ..side_by_side import together
from ..train import pick_device
from .coded_spikes import chosen_contexts, lossless
from .halves import bits_sent, sent
from .noisy_networks import masked, spiking
from .spike_bottlenet import SpikeBottleNet

#: Residual blocks of each stage of the paper's ResNet-50; the channels behind its first stage.
STAGES, FIRST = (3, 4, 6, 3), 256

#: Columns of :func:`rates`.
COLUMNS = ("family", "split_point", "channels", "stride", "bits_each", "bytes", "accuracy", "validation_accuracy")

#: Columns of :func:`coded_rates`.
CODED = ("network", "context", "rate", "model", "packed", "ideal", "actual", "framed", "validation_actual",
         "accuracy", "validation_accuracy")  # fmt: skip


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


def code_family(bits: int) -> str:
    """Name of BottleNet++ at so many bits an element."""
    return f"codes, {bits} bit{'s' * (bits > 1)}"


def channels_for(size: float, bits_each: int, plane: int) -> int | None:
    """c' that fills a budget exactly, or None where no whole number does.

    Args:
        size: bytes of the payload.
        bits_each: bits of an element, T of spikes or b of codes.
        plane: h'·w'.
    """
    bits = round(8 * size)
    return bits // (bits_each * plane) if bits and bits % (bits_each * plane) == 0 else None


def spike_rates(
    e: SpikeBottleNet, split_point: int, budgets: Sequence[int], time_steps: Sequence[int]
) -> list[tuple[Candidate, tuple[float, float]]]:
    """Candidates of a split point that fill a budget exactly without spatial reduction, and their accuracies."""
    here = e.points().set_index("split_point").loc[split_point]
    plane, fits = int(here["height"] * here["width"]), []
    for T in time_steps:
        fitting = [c for c in (channels_for(size, T, plane) for size in budgets) if c is not None]
        fits += [Candidate(split_point, c, 1, T) for c in fitting if c <= here["channels"]]
    together([partial(e.compressed, c) for c in fits])
    return [(c, e.accuracies(e.compressed(c)[0])) for c in fits]


def code_rates(e: SpikeBottleNet, split_point: int, budgets: Sequence[int], bits: Sequence[int]) -> list[tuple]:
    """Rows of :func:`rates`: BottleNet++ at each number of bits, where a budget is filled exactly."""
    here = e.points().set_index("split_point").loc[split_point]
    plane, fits = int(here["height"] * here["width"]), []
    for b in bits:
        fitting = [(channels_for(size, b, plane), size) for size in budgets]
        fits += [(c, b, size) for c, size in fitting if c is not None and c <= here["channels"]]
    together([partial(e.bottlenet, split_point, c, 1, b) for c, b, _ in fits])
    found = [codes(e, split_point, c, 1, b) for c, b, _ in fits]
    return [(code_family(b), split_point, c, 1, b, float(size), one["accuracy"], one["validation_accuracy"])
            for (c, b, size), one in zip(fits, found, strict=True)]  # fmt: skip


def image_files(net: nn.Module, data: Data, qualities: Sequence[int], device: str = "auto") -> pd.DataFrame:
    """Accuracy of an ANN, as it is, on images that went through a file.

    Args:
        net: the ANN.
        data: data set of uint8 images.
        qualities: of JPEG and WebP, 0 to 100.
        device: where to compute.

    Returns:
        Columns ``file`` (raw, or a name in ``IMAGE_CODECS``), ``quality``, ``bytes`` (mean), ``accuracy`` of test
        images and ``validation_accuracy`` (0 to 1).
    """
    lossless = [("png", None), ("webp_lossless", None)]
    rows = [("raw", None, data.test.x[0].numel(), data)]
    for name, quality in lossless + [(codec, q) for codec in ("jpeg", "webp") for q in qualities]:
        images, size = baseline.recoded(data, name, 90 if quality is None else quality)
        rows.append((name, quality, size, images))
    where = pick_device(device)
    rows = [(*row, *(accuracy(net, images, s, device=where) for s in ("test", "validation"))) for *row, images in rows]
    return pd.DataFrame(rows, columns=["file", "quality", "bytes", "accuracy", "validation_accuracy"])


def image_rates(e: SpikeBottleNet, qualities: Sequence[int]) -> pd.DataFrame:
    """Columns of :func:`rates`: :func:`image_files` of the ANN without the raw image; their split point is 0."""
    files = image_files(e.ann(), e.data, qualities, e.device).iloc[1:]
    named = {"png": "PNG", "webp_lossless": "WebP, lossless", "jpeg": "JPEG", "webp": "WebP"}
    return files.assign(family=files["file"].map(named), split_point=0).reindex(columns=COLUMNS)


def coded_rates(
    e: SpikeBottleNet, nets: Mapping[str, tuple[Candidate, float]], contexts: Sequence[str], samples: int
) -> pd.DataFrame:
    """Entropy-coded spikes: :func:`~snnbook.experiments.coded_spikes.lossless` with the accuracies of each network.

    Args:
        e: the experiment.
        nets: name to a candidate and the weight of the entropy penalty that it is trained with, 0 for none.
        contexts: names in ``snnbook.link.coding.CONTEXTS``.
        samples: test images, and validation images, that are coded.

    Returns:
        Columns ``CODED``.
    """
    trained = {name: spiking(e, candidate, penalty=price) for name, (candidate, price) in nets.items()}
    table = lossless(trained, e, contexts, samples)
    reached = pd.DataFrame({name: e.accuracies(net) for name, net in trained.items()}, CODED[-2:])
    return table.join(reached.T, on="network")


def mask_rate(e: SpikeBottleNet, candidate: Candidate, keep: float) -> tuple:
    """Row of :func:`rates`: a random choice of places of a wider map, in as many bits as ``candidate``."""
    net = masked(e, candidate, keep)
    size = bits_sent(net, sent(net, e)) / 8
    s, channels, stride, T = candidate
    return f"random mask, T = {T}", s, round(channels / keep), stride, T, size, *e.accuracies(net)


def rows_of(table: pd.DataFrame, candidates: Sequence[Candidate]) -> pd.DataFrame:
    """The rows of a search that belong to ``candidates``, in their order."""
    indexed = table.set_index(list(Candidate._fields))
    return indexed.loc[[tuple(c) for c in candidates]].reset_index()


def measured_rates(table: pd.DataFrame, cell_table: pd.DataFrame) -> pd.DataFrame:
    """What :func:`~snnbook.experiments.spike_bottlenet.search` and :func:`cells` measured, as rows of :func:`rates`."""
    rows = []
    for row in table.itertuples():
        own = row.split_point, row.channels, row.stride
        reached = row.accuracy, row.validation_accuracy
        rows.append((f"spikes, T = {row.time_steps}", *own, row.time_steps, row.bits / 8, *reached))
    for row in cell_table.itertuples():
        own = row.split_point, row.channels, row.stride
        eight = row.split_point, row.code_channels, row.stride
        reached = row.code_accuracy, row.code_validation_accuracy
        rows.append((code_family(8), *eight, 8, float(row.code_bytes), *reached))
        reached = row.equal_accuracy, row.equal_validation_accuracy
        rows.append((code_family(row.time_steps), *own, row.time_steps, float(row.equal_bytes), *reached))
    return pd.DataFrame(rows, columns=COLUMNS).drop_duplicates(list(COLUMNS[:5]))


def rates(
    e: SpikeBottleNet,
    split_point: int,
    budgets: Sequence[int],
    time_steps: Sequence[int],
    bits: Sequence[int],
    keep: float = 0.25,
) -> pd.DataFrame:
    """Rate against accuracy at one split point: spikes at each T, codes at each b, a random mask.

    Args:
        e: the experiment.
        split_point: where; 0: nowhere, the table is empty.
        budgets: bytes of a payload; a family has a point where a whole number of channels fills one.
        time_steps: T of the spikes.
        bits: b of the codes.
        keep: share of a wider map that the mask leaves, at the largest budget and T.

    Returns:
        Columns ``family``, ``split_point``, ``channels``, ``stride``, ``bits_each``, ``bytes``, ``accuracy`` and
        ``validation_accuracy`` (0 to 1).

    Raises:
        ValueError: if no budget fits any number of channels of spikes.
    """
    if not split_point:
        return pd.DataFrame(columns=COLUMNS)
    found = spike_rates(e, split_point, budgets, time_steps)
    check("budgets", list(budgets), len(found) > 0, "bytes that whole numbers of channels fill at this split point")
    rows = [(f"spikes, T = {c.time_steps}", c.split_point, c.channels, c.stride, c.time_steps,
             c.time_steps * c.channels * _plane(e, c) / 8, *reached) for c, reached in found]  # fmt: skip
    rows += code_rates(e, split_point, budgets, bits)
    widest = [c for c, _ in found if c.channels / keep <= _channels(e, split_point)]
    rows += [mask_rate(e, max(widest, key=lambda c: (c.time_steps, c.channels)), keep)] if widest else []
    return pd.DataFrame(rows, columns=COLUMNS)


def _channels(e: SpikeBottleNet, split_point: int) -> int:
    return int(e.points().set_index("split_point").loc[split_point, "channels"])


def _plane(e: SpikeBottleNet, candidate: Candidate) -> int:
    here = e.points().set_index("split_point").loc[candidate.split_point]
    return int(here["height"] * here["width"]) // candidate.stride**2


def within(table: pd.DataFrame, budgets: Sequence[int]) -> pd.DataFrame:
    """Accuracy of each family in at most so many bytes: ``family`` and a column for each budget, nan: none.

    Validation images choose the payload, of equals the smallest; the accuracy is that of test images.
    """
    columns, ordered = {}, table.sort_values(["validation_accuracy", "bytes"], ascending=[False, True], kind="stable")
    for size in sorted(budgets):
        fits = ordered[ordered["bytes"] <= size + 1e-9]
        columns[f"{size} B"] = fits.groupby("family")["accuracy"].first()
    order = list(dict.fromkeys(table["family"]))
    return pd.DataFrame(columns).reindex(order).rename_axis("family").reset_index()


def beside_published(found: Mapping[str, tuple[dict, dict]]) -> pd.DataFrame:
    """Accuracy drops of Table 1 beside those of recorded runs of this comparison at the same split point and T.

    Args:
        found: name to manifest and tables, from :func:`snnbook.experiments.conversion_tables.recorded_runs`.

    Returns:
        Columns ``split_point``, ``time_steps``, ``published`` (drop, %, nan where Table 1 has another T), and for each
        run on CIFAR-100 with the paper's 16 blocks a column of that name: the drop from its own uncompressed network at
        the same T, in points, nan where it has none.
    """
    table = published("spikebottlenet_table1")[["split_point", "time_steps", "accuracy_drop"]]
    table = table.rename(columns={"accuracy_drop": "published"})
    for name, (manifest, tables) in found.items():
        if _as_in_the_paper(manifest):
            own = tables["cells"][["split_point", "time_steps"]].assign(**{name: 100 * tables["cells"]["drop"]})
            table = table.merge(own, how="outer", on=["split_point", "time_steps"])
    return table.sort_values(["split_point", "time_steps"], ignore_index=True)


def _as_in_the_paper(manifest: dict) -> bool:
    """Whether a run has the data and the blocks of the paper; its width may be another."""
    given = manifest["parameters"]
    return given["dataset"] == "cifar100" and tuple(given["blocks"]) == STAGES


def in_words(found: Mapping[str, tuple[dict, dict]]) -> str:
    """How the networks of recorded runs were trained, and how far their backbones are from the paper's.

    Args:
        found: as for :func:`beside_published`.

    Returns:
        A sentence for each run, or one that says that there is none.
    """
    printed, said = published("spikebottlenet_table2").set_index("time_steps")["accuracy"], []
    for name, (manifest, tables) in found.items():
        given = manifest["parameters"]
        own = 100 * tables["cells"].groupby("time_steps")["backbone_accuracy"].first()
        beside = printed if _as_in_the_paper(manifest) else {}
        reached = [f"{v:.2f} % at T = {T}" + (f" (paper: {beside[T]:.2f} %)" if T in beside else "")
                   for T, v in own.items()]  # fmt: skip
        said.append(f"Run {name}: {given['dataset']}, {given['width']:g} of the width, "
                    f"{_epochs(given['warm_epochs'])} at T = 1 and {given['epochs']} more at its own T, "
                    f"{_epochs(given['fine_tune_epochs'])} with the codec, before it {given['codec_epochs']} of codes "
                    f"on their own; its backbone has {', '.join(reached)}.")  # fmt: skip
    return " ".join(said) if said else "No run of it is recorded yet."


def _epochs(n: int) -> str:
    return f"{n} epoch{'s' * (n != 1)}"


def recorded_rows(found: Mapping[str, tuple[dict, dict]], table: str) -> pd.DataFrame:
    """One table of all recorded runs that have it, with ``run``, ``dataset`` and ``width`` in front.

    Args:
        found: as for :func:`beside_published`.
        table: its name.

    Returns:
        The rows; empty where no run has the table.
    """
    have = {name: run for name, run in found.items() if table in run[1]}
    parts = [_in_front(tables[table], name, manifest) for name, (manifest, tables) in have.items()]
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame()


def _in_front(rows: pd.DataFrame, name: str, manifest: dict) -> pd.DataFrame:
    given = manifest["parameters"]
    about = {"run": name, "dataset": given["dataset"], "width": given["width"]}
    return pd.concat([pd.DataFrame(about, index=rows.index), rows], axis=1)


def recorded_cells(found: Mapping[str, tuple[dict, dict]]) -> pd.DataFrame:
    """:func:`recorded_rows` of :func:`cells`; ``drop_from_best`` is nan in a run with one T, where it is ``drop``."""
    rows = recorded_rows(found, "cells")
    if len(rows):
        several = rows.groupby("run")["time_steps"].transform("nunique") > 1
        rows["drop_from_best"] = rows["drop_from_best"].where(several)
    return rows


def recorded_drops(found: Mapping[str, tuple[dict, dict]]) -> pd.DataFrame:
    """:func:`drops_from_longer` of all recorded runs that have networks trained on, as :func:`recorded_rows` has it."""
    both = {name: (manifest, {"drops": drops_from_longer(tables["cells"], tables["longer"])})
            for name, (manifest, tables) in found.items() if "longer" in tables}  # fmt: skip
    return recorded_rows(both, "drops")


def literature(found: Mapping[str, tuple[dict, dict]]) -> pd.DataFrame:
    """Uncompressed spiking networks on CIFAR-100: published ones, and the backbones of recorded runs.

    Args:
        found: name to manifest and tables, from :func:`snnbook.experiments.conversion_tables.recorded_runs`.

    Returns:
        Columns ``method``, ``network``, one for each T as ``T = …`` (test accuracy, %, nan where there is none) and
        ``source``.
    """
    spikes = published("spikebottlenet_table2").assign(method="SpikeBottleNet's backbone")
    printed = pd.concat([published("spikebottlenet_literature"), spikes])
    printed["source"] += [f"; {note}" if note else "" for note in printed["note"]]
    columns = ["method", "model", "time_steps", "accuracy", "source"]
    parts = [printed[printed["dataset"] == "CIFAR-100"][columns]]
    for name, (manifest, tables) in found.items():
        given = manifest["parameters"]
        if given["dataset"] == "cifar100":
            own = tables["cells"].groupby("time_steps", as_index=False)["backbone_accuracy"].first()
            own["accuracy"] = 100 * own["backbone_accuracy"]
            about = {"method": name, "model": f"{given['model']}, width {given['width']:g}", "source": "recorded"}
            parts.append(own.assign(**about)[columns])
    rows = pd.concat(parts).rename(columns={"model": "network"})
    wide = rows.pivot_table(index=["method", "network", "source"], columns="time_steps", values="accuracy", sort=False)
    wide = wide[sorted(wide.columns)].rename(columns="T = {:d}".format).reset_index().rename_axis(columns=None)
    return wide[[c for c in wide.columns if c != "source"] + ["source"]]


def largest(table: pd.DataFrame, time_steps: int) -> Candidate:
    """The candidate of most bytes among the spikes of :func:`rates` at one T.

    Raises:
        ValueError: if there is none.
    """
    rows = table[table["family"] == f"spikes, T = {time_steps}"].sort_values("bytes")
    check("time_steps", time_steps, len(rows) > 0, "one at which some spikes fill a budget")
    return Candidate(*(int(rows.iloc[-1][c]) for c in ("split_point", "channels", "stride")), time_steps)


def coded_as_rates(coded: pd.DataFrame, candidate: Candidate) -> pd.DataFrame:
    """Rows of :func:`rates`: each network of :func:`coded_rates` under one context, with its bytes of test images.

    The context is that of :func:`~snnbook.experiments.coded_spikes.chosen_contexts`.
    """
    own = candidate.split_point, candidate.channels, candidate.stride, candidate.time_steps
    best = chosen_contexts(coded).itertuples()
    rows = [(f"coded {r.network}", *own, r.actual, r.accuracy, r.validation_accuracy) for r in best]
    return pd.DataFrame(rows, columns=COLUMNS)


def curves(
    e: SpikeBottleNet, p: CompressionAccuracy, table: pd.DataFrame, cell_table: pd.DataFrame
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Everything that the rate-accuracy curves of chapter 32 show.

    Args:
        e: the experiment.
        p: parameters; ``rate_split_point`` 0 leaves only what is measured already, and the image codecs.
        table: from :func:`snnbook.experiments.spike_bottlenet.search`.
        cell_table: from :func:`cells`.

    Returns:
        The rows of :func:`rates` for all families; and the table of :func:`coded_rates`, empty without curves.
    """
    own = rates(e, p.rate_split_point, p.budgets, p.rate_steps, p.bits, p.keep)
    parts = [measured_rates(table, cell_table), own, image_rates(e, p.qualities)]
    coded = pd.DataFrame(columns=CODED)
    if len(own):
        cut = largest(own, max(p.rate_steps))
        nets = {f"spikes, T = {cut.time_steps}": (cut, 0.0), f"sparse spikes, T = {cut.time_steps}": (cut, p.penalty)}
        coded = coded_rates(e, nets, p.contexts, p.samples)
        parts.append(coded_as_rates(coded, cut))
    found = pd.concat([part for part in parts if len(part)], ignore_index=True)
    return found.drop_duplicates(list(COLUMNS[:5]) + ["bytes"], ignore_index=True), coded
