"""Every way to send what a device saw, at equal bytes: spikes, codes of BottleNet++, image files, coded spikes.

    spikes     T·c'·h'·w' bits          codes of b bits     b·c'·h'·w' bits

A budget of B bytes leaves room for c' = 8·B / (T·h'·w') channels of spikes and 8·B / (b·h'·w') of codes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial

import pandas as pd
from torch import nn

from ..bottleneck import baseline
from ..bottleneck.selection import Candidate
from ..checks import check
from ..data import Data
from ..evaluate import accuracy
from ..params import CompressionAccuracy
from ..side_by_side import together
from ..train import pick_device
from .coded_spikes import chosen_contexts, lossless
from .halves import bits_sent, sent
from .noisy_networks import masked, spiking
from .paper_payloads import codes
from .spike_bottlenet import SpikeBottleNet

#: Columns of :func:`rates`.
COLUMNS = ("family", "split_point", "channels", "stride", "bits_each", "bytes", "accuracy", "validation_accuracy")

#: Columns of :func:`coded_rates`.
CODED = ("network", "context", "rate", "model", "packed", "ideal", "actual", "framed", "validation_actual",
         "accuracy", "validation_accuracy")  # fmt: skip


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


def measured_rates(table: pd.DataFrame, cell_table: pd.DataFrame) -> pd.DataFrame:
    """What is measured already, as rows of :func:`rates`.

    Args:
        table: from :func:`~snnbook.experiments.spike_bottlenet.search`.
        cell_table: from :func:`~snnbook.experiments.paper_payloads.cells`.
    """
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
        cell_table: from :func:`~snnbook.experiments.paper_payloads.cells`.

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
