"""A data set of one's own, in one .npz file of plain arrays.

| key | content |
|---|---|
| ``x`` | uint8, int16 or float32: [N, C, H, W], [N, H, W] (one channel), or [N, T, C, H, W] (event frames) |
| ``y`` | integers [N], 0 ... K - 1, of each at least one |
| ``kind`` | "image", "events" or "audio"; without it, from the shape |
| ``split`` | optional, [N]: "train" or "test"; without it a fifth is set apart |
| ``groups`` | optional, integers or text [N]: samples that must stay together |
| ``classes`` | optional, text [K] |
| ``source`` | optional, text: what it is, where from, licence |
| ``synthetic`` | optional, true where no measured data are behind it |

Events that are not framed yet come as ``events`` [M, 4] (columns x, y, p, t), all recordings end to end, with
``offsets`` [N + 1] and ``size`` (H, W) in place of ``x``.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np

from ..checks import check, check_choice
from .audio_sets import esc10, gtzan, urbansound8k
from .compact import open_npz
from .core import KINDS
from .errors import missing
from .event_sets import nmnist
from .events import Events
from .images import caltech101
from .registry import Source, register

#: Packed forms of known sets (see `compact`), by the kind written in the file.
PACKED = {
    "mosaic_rgb": caltech101,
    "gtzan64": gtzan,
    "us8k_mfcc": urbansound8k,
    "esc10": esc10,
    "nmnist1ms": nmnist,
}


@register("npz", "a .npz file of one's own with x and y (data_dir is the file)")
def npz(data_dir: Path, time_steps: int, download: bool) -> Source:
    """The set in the file ``data_dir``; see the module for its keys."""
    if not data_dir.is_file():
        raise missing("npz", data_dir, "Give the path of a .npz file with the keys x and y as data_dir.")
    archive = open_npz(data_dir)
    packed = PACKED.get(str(archive.get("kind", "")))
    if packed is not None:
        return packed(data_dir, time_steps, download)
    lacking = [key for key in ("y",) if key not in archive] + (
        [] if {"x", "events"} & set(archive) else ["x"]
    )
    check("keys", sorted(archive), not lacking, f"{data_dir} lacks {' and '.join(lacking)}")
    y = _labels(archive["y"])
    n, kind, read = _samples(archive, time_steps)
    check("y", y.shape, y.shape == (n,), f"one label for each of the {n} samples")
    classes = tuple(str(c) for c in archive.get("classes", np.arange(y.max() + 1)))
    check("classes", classes, len(classes) > y.max(), f"a name for each of the labels 0 to {y.max()}")
    empty = np.setdiff1d(np.arange(len(classes)), y).tolist()
    every = f"a sample of each class 0 to {len(classes) - 1}; labels begin at 0, and classes names no others"
    check("y", f"no sample of class {empty[:5]}", not empty, every)
    return Source(
        kind,
        y,
        read,
        classes,
        str(archive.get("source", f"the file {data_dir.name}")),
        _groups(archive, n),
        _test(archive, n),
        bool(archive.get("synthetic", False)),
    )


def _labels(y: np.ndarray) -> np.ndarray:
    whole = y.dtype.kind in "iu" and y.ndim == 1 and y.size > 0
    check("y", f"{y.dtype.name} of shape {y.shape}", whole, "integers from 0 of shape (N,), one per sample")
    check("y", int(y.min()), y.min() >= 0, "integers from 0, one per sample")
    return y.astype(np.int64)


def _samples(archive: dict[str, np.ndarray], time_steps: int) -> tuple[int, str, Callable]:
    """Number of samples, kind, and how to read some of them."""
    if "events" in archive:
        recordings = _recordings(archive)
        return len(recordings), "events", partial(recordings.frames, time_steps=time_steps)
    x = archive["x"]
    check("x", x.dtype.name, x.dtype in (np.uint8, np.int16, np.float32), "uint8, int16 or float32")
    kind = str(archive.get("kind", "events" if x.ndim == 5 else "image"))
    check_choice("kind", kind, KINDS)
    if x.dtype.kind == "f":
        bad = np.flatnonzero([not np.isfinite(sample).all() for sample in x])
        check("x", f"not finite in sample {bad[:1].tolist()}", len(bad) == 0, "finite numbers")
    if x.ndim == 3:
        x = x[:, None]
    last = x.ndim == 4 and x.shape[-1] in (1, 3, 4) and min(x.shape[1:3]) > x.shape[-1]
    check("x", x.shape, not last, "[N, C, H, W]; channels are last here: save x.transpose(0, 3, 1, 2)")
    if kind == "events":
        check("x", x.shape, x.ndim == 5, "[N, T, C, H, W] for events")
        check(
            "time_steps",
            time_steps,
            x.shape[1] == time_steps,
            f"the file's event frames have T = {x.shape[1]}",
        )
        check("x", x.min(initial=0).item(), x.min(initial=0) >= 0, "numbers of events, at least 0")
    check("x", x.shape, x.ndim == (5 if kind == "events" else 4), "[N, C, H, W] for images and audio")
    return len(x), kind, lambda index: x[index]


def _recordings(archive: dict[str, np.ndarray]) -> Events:
    """Unframed events of a file."""
    for key in ("offsets", "size"):
        check("keys", sorted(archive), key in archive, f"events need {key} too")
    events, offsets = archive["events"], archive["offsets"].astype(np.int64)
    check("events", events.shape, events.ndim == 2 and events.shape[1] == 4, "[M, 4]: x, y, p, t")
    check("events", events.dtype.name, events.dtype.kind in "biuf" and np.isfinite(events).all(), "finite numbers")
    in_order = (
        len(offsets) > 1 and offsets[0] == 0 and offsets[-1] == len(events) and (np.diff(offsets) >= 0).all()
    )
    check(
        "offsets", offsets[:3].tolist(), in_order, f"ascending from 0 to the number of events, {len(events)}"
    )
    polarity, t = np.unique(events[:, 2]).tolist(), events[:, 3]
    check("p", polarity[:5], set(polarity) <= {0, 1}, "0 for OFF and 1 for ON events")
    back = np.flatnonzero(np.diff(t) < 0) + 1  # only where a recording begins may time go back
    unsorted = back[~np.isin(back, offsets)]
    check("t", unsorted[:5].tolist(), len(unsorted) == 0, "ascending within a recording (these events are earlier)")
    size = archive["size"]
    pair = size.shape == (2,) and size.dtype.kind in "iu" and size.min() >= 1
    check("size", size.tolist(), pair, "two integers of at least 1, (H, W)")
    return Events(*events.T, offsets, (int(size[0]), int(size[1])))


def _groups(archive: dict[str, np.ndarray], n: int) -> np.ndarray | None:
    if "groups" not in archive:
        return None
    check(
        "groups", archive["groups"].shape, archive["groups"].shape == (n,), f"one for each of the {n} samples"
    )
    return np.unique(archive["groups"], return_inverse=True)[1]


def _test(archive: dict[str, np.ndarray], n: int) -> np.ndarray | None:
    if "split" not in archive:
        return None
    split = archive["split"].astype(str)
    ok = split.shape == (n,) and set(split) == {"train", "test"}
    check(
        "split",
        sorted(set(split.ravel())),
        ok,
        f"'train' or 'test', both present, for each of the {n} samples",
    )
    return split == "test"
