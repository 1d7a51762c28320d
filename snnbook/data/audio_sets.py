"""Recorded sounds: GTZAN (music), UrbanSound8K and ESC-10/50, from WAV files in their published layout.

Pieces of one track, slices of one recording and clips of one source never part: GTZAN is split by track, the
others by their official folds, and calibration and validation samples by recording.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd

from ..checks import check
from .audio import chunks, fit, log_mel, mfcc, read_wav
from .cache import cached
from .compact import compact_file, read_images, real_values
from .errors import damaged, md5, missing
from .registry import Source, register

GTZAN_GENRES = ("blues", "classical", "country", "disco", "hiphop", "jazz", "metal", "pop", "reggae", "rock")
GTZAN_BROKEN = "jazz.00054"  # not readable in the published archive
GTZAN_RATE, GTZAN_SAMPLES, GTZAN_CHUNKS = 22050, 660_000, 8
URBAN_RATE, ESC_RATE, ESC_SECONDS = 22050, 16000, 5

GTZAN_SOURCE = "GTZAN music genres (Tzanetakis and Cook 2002), no licence stated, for research"
URBAN_SOURCE = "UrbanSound8K (Salamon, Jacoby and Bello 2014), CC BY-NC 3.0"
ESC10_SOURCE = "ESC-10 (Piczak 2015), CC BY 3.0"
ESC50_SOURCE = "ESC-50 (Piczak 2015), CC BY-NC 3.0"
ESC_HOW = (
    "Fetch https://github.com/karolpiczak/ESC-50/archive/master.zip (600 MB) and unpack it; it cannot be "
    "fetched automatically."
)


def read_table(name: str, path: Path, columns: list[str], how: str) -> pd.DataFrame:
    """The ``columns`` of a metadata table.

    Raises:
        MissingData, DamagedFile: if it is not there, or lacks one of the columns.
    """
    if not path.is_file():
        raise missing(name, path, how)
    try:
        return pd.read_csv(path)[columns]
    except (KeyError, ValueError) as error:
        raise damaged(path, f"a CSV table with the columns {', '.join(columns)}") from error


def in_fold(test_fold: int, folds: np.ndarray) -> np.ndarray:
    """The samples of the test fold, bool [N]; ValueError with the known folds for any other."""
    known = sorted(int(f) for f in np.unique(folds))
    check("test_fold", test_fold, test_fold in known and len(known) > 1, f"one of the folds {known}")
    return folds == test_fold


def features(name: str, data_dir: Path, paths: list[Path], make: Callable[[Path], np.ndarray]) -> np.ndarray:
    """``make`` of every path, stacked, and kept for the next time; MissingData if some are not there."""
    gone = [path for path in paths if not path.is_file()]
    if gone:
        raise missing(
            name, gone[0], f"{len(gone)} of {len(paths)} sound files are missing; unpack the archive again."
        )
    return cached(data_dir, name, paths, {}, lambda: np.stack([make(path) for path in paths]))


def gtzan_images(path: Path) -> np.ndarray:
    """The first 30 s of a track as eight log-mel images, uint8 [8, 1, 96, 323]."""
    wave = read_wav("gtzan", path, GTZAN_RATE)
    pieces = chunks(wave, GTZAN_SAMPLES, GTZAN_CHUNKS)
    return log_mel(pieces, GTZAN_RATE, bands=96, n_fft=512, hop=256).numpy()


def urban_image(path: Path) -> np.ndarray:
    """A slice of at most 4 s as MFCC, float32 [1, 40, 173]."""
    return mfcc(read_wav("urbansound8k", path, URBAN_RATE), URBAN_RATE).numpy()


def esc_image(path: Path) -> np.ndarray:
    """A clip of 5 s as a log-mel image, uint8 [1, 64, 157]."""
    wave = fit(read_wav("esc", path, ESC_RATE), ESC_SECONDS * ESC_RATE)
    return log_mel(wave[None], ESC_RATE)[0].numpy()


@register("gtzan", "GTZAN music genres, eight log-mel pieces per track, 1 x 96 x 323 (WAV; fetched by hand)")
def gtzan(data_dir: Path, time_steps: int, download: bool) -> Source:
    """GTZAN in data_dir/gtzan/<genre>/*.wav (or in genres or genres_original there), or one gtzan*.npz.

    The broken jazz.00054 is left out; tracks with the same content count as one.
    """
    roots = [data_dir / "gtzan" / folder for folder in ("", "genres", "genres_original")]
    root = next((r for r in roots if (r / "blues").is_dir()), None)
    packed = compact_file(data_dir, "gtzan", ("gtzan64",)) if root is None else None
    if packed is not None:
        archive = read_images(packed)
        x = archive["images"][:, None]
        return Source(
            "audio",
            archive["label"],
            lambda index: x[index],
            _names(archive),
            f"{GTZAN_SOURCE}; spectrograms of whole tracks in {packed.name}",
            archive["first_identical"],
        )
    if root is None:
        raise missing(
            "gtzan",
            roots[0] / "blues" / "blues.00000.wav",
            "Fetch the GTZAN genre collection (WAV files, 1.2 GB) from one of its mirrors; it cannot be "
            "fetched automatically.",
        )
    tracks = [
        p for genre in GTZAN_GENRES for p in sorted((root / genre).glob("*.wav")) if p.stem != GTZAN_BROKEN
    ]
    label = np.array([GTZAN_GENRES.index(p.parent.name) for p in tracks])
    for k, genre in enumerate(GTZAN_GENRES):
        if not (label == k).any():
            raise missing("gtzan", root / genre / f"{genre}.00000.wav", "Unpack the archive again.")
    group = np.unique([md5(p) for p in tracks], return_inverse=True)[1]

    def read(index: np.ndarray) -> np.ndarray:
        used, row = np.unique(index // GTZAN_CHUNKS, return_inverse=True)
        return features("gtzan", data_dir, [tracks[i] for i in used], gtzan_images)[row, index % GTZAN_CHUNKS]

    return Source(
        "audio",
        np.repeat(label, GTZAN_CHUNKS),
        read,
        GTZAN_GENRES,
        GTZAN_SOURCE,
        np.repeat(group, GTZAN_CHUNKS),
    )


def _names(archive: dict[str, np.ndarray]) -> tuple[str, ...]:
    """The class names of a packed file."""
    return tuple(str(name) for name in archive["class_names"])


@register("urbansound8k", "UrbanSound8K, MFCC 1 x 40 x 173, official folds (WAV; fetched by hand)")
def urbansound8k(data_dir: Path, time_steps: int, download: bool, test_fold: int = 10) -> Source:
    """UrbanSound8K in data_dir/UrbanSound8K (audio/fold1 ... fold10, metadata), or one urbansound8k*.npz.

    ``test_fold``: the official fold that is the test part. Groups are the original recordings.
    """
    root = data_dir / "UrbanSound8K"
    packed = compact_file(data_dir, "urbansound8k", ("us8k_mfcc",)) if not root.is_dir() else None
    if packed is not None:
        archive = read_images(packed)
        x = real_values(archive)[:, None]
        recording = np.array([int(str(n).split("-")[0]) for n in archive["name"]])
        return Source(
            "audio",
            archive["label"],
            lambda index: x[index],
            _names(archive),
            f"{URBAN_SOURCE}; {len(x):,} clips in {packed.name}",
            recording,
            in_fold(test_fold, archive["fold"]),
        )
    table = read_table(
        "urbansound8k",
        root / "metadata" / "UrbanSound8K.csv",
        ["slice_file_name", "fsID", "fold", "classID", "class"],
        "Fetch UrbanSound8K.tar.gz (6 GB) from https://urbansounddataset.weebly.com and unpack it "
        "there; it cannot be fetched automatically.",
    )
    paths = [root / "audio" / f"fold{r.fold}" / r.slice_file_name for r in table.itertuples()]
    return Source(
        "audio",
        table["classID"].to_numpy(),
        lambda index: features("urbansound8k", data_dir, [paths[i] for i in index], urban_image),
        _by_number(table, "classID", "class"),
        URBAN_SOURCE,
        table["fsID"].to_numpy(),
        in_fold(test_fold, table["fold"].to_numpy()),
    )


def _by_number(table: pd.DataFrame, number: str, name: str) -> tuple[str, ...]:
    """Class names in the order of their numbers, which are 0 ... K - 1."""
    pairs = table[[number, name]].drop_duplicates().sort_values(number)
    check(
        number,
        pairs[number].tolist(),
        pairs[number].tolist() == list(range(len(pairs))),
        "one name for each of the numbers 0, 1, 2, ...",
    )
    return tuple(pairs[name])


def _esc(name: str, data_dir: Path, test_fold: int, only_ten: bool, source: str) -> Source:
    """ESC-50, or those ten of its classes that are ESC-10, relabelled 0 ... 9 in the same order."""
    roots = [data_dir / folder for folder in ("ESC-50", "ESC-50-master")]
    root = next((r for r in roots if r.is_dir()), roots[0])
    columns = ["filename", "fold", "target", "category", "esc10", "src_file"]
    table = read_table(name, root / "meta" / "esc50.csv", columns, ESC_HOW)
    if only_ten:
        table = table[table["esc10"]].reset_index(drop=True)
        table["target"] = np.unique(table["target"], return_inverse=True)[1]
    paths = [root / "audio" / file for file in table["filename"]]
    return Source(
        "audio",
        table["target"].to_numpy(),
        lambda index: features(name, data_dir, [paths[i] for i in index], esc_image),
        _by_number(table, "target", "category"),
        source,
        groups=np.unique(table["src_file"].astype(str), return_inverse=True)[1],
        test=in_fold(test_fold, table["fold"].to_numpy()),
    )


@register("esc10", "ESC-10 environmental sounds, log-mel 1 x 64 x 157, official folds (WAV; fetched by hand)")
def esc10(data_dir: Path, time_steps: int, download: bool, test_fold: int = 5) -> Source:
    """ESC-10 from data_dir/ESC-50 (audio, meta/esc50.csv), or one esc10*.npz; ``test_fold``: 1 ... 5."""
    packed = compact_file(data_dir, "esc10", ("esc10",)) if not (data_dir / "ESC-50").is_dir() else None
    if packed is None:
        return _esc("esc10", data_dir, test_fold, True, ESC10_SOURCE)
    archive = read_images(packed)
    x = archive["images"][:, None]
    recording = np.unique([str(n).split("-")[1] for n in archive["name"]], return_inverse=True)[1]
    return Source(
        "audio",
        archive["label"],
        lambda index: x[index],
        _names(archive),
        f"{ESC10_SOURCE}; packed in {packed.name}",
        recording,
        in_fold(test_fold, archive["fold"]),
    )


@register("esc50", "ESC-50 environmental sounds, log-mel 1 x 64 x 157, official folds (WAV; fetched by hand)")
def esc50(data_dir: Path, time_steps: int, download: bool, test_fold: int = 5) -> Source:
    """ESC-50 in data_dir/ESC-50 (audio, meta/esc50.csv); ``test_fold``: 1 ... 5."""
    return _esc("esc50", data_dir, test_fold, False, ESC50_SOURCE)
