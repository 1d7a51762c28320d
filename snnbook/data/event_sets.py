"""Recordings of real event cameras: N-MNIST, CIFAR10-DVS, N-Caltech101, through `spikingjelly.datasets`.

SpikingJelly unpacks the published archives and keeps the events of each recording in one .npz below
``events_np``. The archives are checked here first, because SpikingJelly deletes a damaged one.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch.nn.functional import interpolate

from ..checks import check, check_choice
from .cache import cached
from .compact import compact_file, read_events
from .errors import check_files, damaged, missing
from .events import frames_by_count, stack_frames
from .images import caltech_classes
from .registry import Source, register

NMNIST_SOURCE = "N-MNIST (Orchard et al. 2015), recordings of MNIST digits by an event camera, CC BY-SA 4.0"


UNIT = 256  # resized frames hold fractions of an event: this much is one, and 127 events are the most


def prepare(name: str, kind: type, root: Path, download: bool) -> Path:
    """Have SpikingJelly unpack set ``kind`` below ``root``, unless it has; returns the folder of the events.

    Raises:
        MissingData: if an archive is missing (what belongs where, and how to get it), or an earlier unpacking
            was broken off.
        DamagedFile: if an archive has another checksum; it stays where it is.
    """
    events, marker = root / "events_np", root / "events_np.building"
    if marker.exists():
        raise missing(
            name,
            events,
            "Unpacking was broken off; remove the folders events_np and extract and the "
            f"file {marker}, then try again.",
        )
    if events.is_dir():
        return events
    resources = kind.resource_url_md5()
    how = f"Fetch {', '.join(r[0] for r in resources)} from {resources[0][1]} into {root / 'download'}"
    how += ", or set download=True." if kind.downloadable() else " (it cannot be fetched automatically)."
    fetch = download and kind.downloadable()
    check_files(name, root / "download", [(r[0], r[2]) for r in resources], how, missing_ok=fetch)
    root.mkdir(parents=True, exist_ok=True)
    try:
        kind(str(root))
    except (OSError, RuntimeError) as error:
        if not events.exists() and not (root / "extract").exists():
            marker.unlink(missing_ok=True)
        raise missing(name, root / "download", f"Fetching or unpacking failed ({error}). {how}") from error
    return events


def _recordings(folder: Path, classes: tuple[str, ...], name: str) -> list[Path]:
    """The event files of ``classes`` below ``folder``, by class and then by name."""
    for k in classes:
        if not any((folder / k).glob("*.npz")):
            raise missing(name, folder / k, "Remove the folder events_np and unpack the archives again.")
    return [file for k in classes for file in sorted((folder / k).glob("*.npz"))]


def _events(file: Path) -> dict[str, np.ndarray]:
    try:
        with np.load(file, allow_pickle=False) as archive:
            return {key: archive[key] for key in "xypt"}
    except (OSError, ValueError, KeyError, EOFError) as error:
        raise damaged(file, "a .npz file with the events x, y, p, t") from error


def _reader(
    root: Path,
    name: str,
    files: list[Path],
    time_steps: int,
    sensor: tuple[int, int],
    size: int | None = None,
):
    """How to read some of ``files`` as frames [n, T, 2, H, W]; with ``size``, resized, int16, in 256ths."""

    def make(chosen: list[Path]) -> np.ndarray:
        frames = (frames_by_count(_events(file), time_steps, *sensor) for file in chosen)
        if size is None:
            return stack_frames(frames, len(chosen), (time_steps, 2, *sensor))
        resized = (resize_frames(f, size) for f in frames)
        return stack_frames(resized, len(chosen), (time_steps, 2, size, size), np.int16)

    def read(index: np.ndarray) -> np.ndarray:
        chosen = [files[i] for i in index]
        return cached(root, name, chosen, {"time_steps": time_steps, "size": size}, partial(make, chosen))

    return read


def resize_frames(frames: np.ndarray, size: int) -> np.ndarray:
    """Frames [T, 2, H, W] resized bilinearly to size x size, as int16 in 256ths of an event (at most 127)."""
    x = interpolate(torch.from_numpy(frames).float(), size=(size, size), mode="bilinear", antialias=True)
    return (x * UNIT).round().clamp(0, 32767).to(torch.int16).numpy()


@register(
    "nmnist", "N-MNIST event-camera recordings of digits, T x 2 x 34 x 34 (spikingjelly; fetched by hand)"
)
def nmnist(data_dir: Path, time_steps: int, download: bool) -> Source:
    """N-MNIST in data_dir/NMNIST (Train.zip and Test.zip in its folder download), or one nmnist*.npz."""
    root, classes = data_dir / "NMNIST", tuple("0123456789")
    packed = None if root.is_dir() else compact_file(data_dir, "nmnist", ("nmnist1ms",))
    if packed is not None:
        recordings, archive = read_events(packed)
        y = archive["label"].astype(np.int64)
        return Source(
            "events",
            y,
            partial(recordings.frames, time_steps=time_steps),
            classes,
            f"{NMNIST_SOURCE}; {len(y):,} of them, at 1 ms, in {packed.name}",
            test=np.arange(len(y)) >= int(archive["n_train"]),
        )
    from spikingjelly.datasets import NMNIST  # here, because it takes seconds to import

    events = prepare("nmnist", NMNIST, root, download)
    parts = [_recordings(events / part, classes, "nmnist") for part in ("train", "test")]
    files = parts[0] + parts[1]
    y = np.array([int(file.parent.name) for file in files])
    return Source(
        "events",
        y,
        _reader(root, "nmnist", files, time_steps, (34, 34)),
        classes,
        NMNIST_SOURCE,
        test=np.arange(len(y)) >= len(parts[0]),
    )


@register(
    "cifar10dvs", "CIFAR10-DVS event-camera recordings, T x 2 x 128 x 128 (spikingjelly; can be downloaded)"
)
def cifar10dvs(data_dir: Path, time_steps: int, download: bool) -> Source:
    """CIFAR10-DVS in data_dir/CIFAR10DVS."""
    from spikingjelly.datasets import CIFAR10DVS

    root = data_dir / "CIFAR10DVS"
    events = prepare("cifar10dvs", CIFAR10DVS, root, download)
    classes = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
    files = _recordings(events, classes, "cifar10dvs")
    y = np.array([classes.index(file.parent.name) for file in files])
    return Source(
        "events",
        y,
        _reader(root, "cifar10dvs", files, time_steps, (128, 128)),
        classes,
        "CIFAR10-DVS (Li et al. 2017), 10,000 event-camera recordings of CIFAR-10 pictures, CC BY 4.0",
    )


def _ncaltech101_class() -> type:
    """SpikingJelly's class without the annotations and read-me files that it asks for and does not use."""
    from spikingjelly.datasets import NCaltech101

    class RecordingsOnly(NCaltech101):
        @classmethod
        def resource_url_md5(cls) -> list:
            return [r for r in NCaltech101.resource_url_md5() if r[0] == "Caltech101.zip"]

    return RecordingsOnly


@register(
    "ncaltech101", "N-Caltech101 event-camera recordings, T x 2 x 224 x 224 (spikingjelly; fetched by hand)"
)
def ncaltech101(
    data_dir: Path, time_steps: int, download: bool, size: int = 224, classes: str = "top10"
) -> Source:
    """N-Caltech101 in data_dir/NCaltech101; ``size``: pixels per side, ``classes``: "top10" or "all".

    The published set has Faces_easy and no Faces, so the ten largest classes take Faces_easy in its place.
    """
    check("size", size, 8 <= size <= 1024, "8 to 1024 pixels")
    check_choice("classes", classes, ("top10", "all"))
    root = data_dir / "NCaltech101"
    events = prepare("ncaltech101", _ncaltech101_class(), root, download)
    present = sorted(f.name for f in events.iterdir() if f.is_dir())
    known = caltech_classes(classes, present)
    known = tuple("Faces_easy" if k == "Faces" and k not in present else k for k in known)
    files = _recordings(events, known, "ncaltech101")
    y = np.array([known.index(file.parent.name) for file in files])
    return Source(
        "events",
        y,
        _reader(root, "ncaltech101", files, time_steps, (180, 240), size),
        known,
        "N-Caltech101 (Orchard et al. 2015), recordings of Caltech101 by an event camera, CC BY 4.0",
        unit=UNIT,
    )
