"""Data sets packed in one .npz file: finding, opening and decoding them.

A packed file names its form in the key ``kind``. Pictures (photographs, spectrograms, MFCC maps) are tiles of
JPEG XL mosaics: the keys ``jxl_000``, ``jxl_001`` and so on hold the compressed bytes of ``per`` pictures
each, ``cols`` to a row; ``shape`` is [N, H, W] or [N, H, W, 3] of all. Real-valued maps are bytes b for
values ``lo + step * b``. Events ("nmnist1ms") are the differences of k = t * 2312 + p * 1156 + y * 34 + x
along each recording, xz-compressed: one byte each in ``lo``, where 255 refers to the next 16-bit number in
``esc``.
"""

from __future__ import annotations

import io
import lzma
import zipfile
import zlib
from pathlib import Path

import numpy as np

from ..checks import check
from .errors import damaged, missing
from .events import Events


def compact_file(data_dir: Path, name: str, kinds: tuple[str, ...]) -> Path | None:
    """The packed file of set ``name``: ``data_dir`` itself if it is a .npz, or the first ``name``*.npz in it.

    Files in a folder whose ``kind`` is not one of ``kinds`` are passed over; None where there is none.

    Raises:
        ValueError: if ``data_dir`` is a file of another kind.
        MissingData, DamagedFile: if it is a file that is not there or cannot be read.
    """
    if data_dir.suffix == ".npz" and not data_dir.is_dir():
        if not data_dir.is_file():
            raise missing(name, data_dir, "Give the path of an existing .npz file, or of a folder.")
        kind = str(open_npz(data_dir).get("kind", ""))
        check("kind", kind, kind in kinds, f"{name} is packed as {' or '.join(kinds)}")
        return data_dir
    found = (
        file for file in sorted(data_dir.glob(f"{name}*.npz")) if str(open_npz(file).get("kind", "")) in kinds
    )
    return next(found, None)


def open_npz(path: Path) -> dict[str, np.ndarray]:
    """All arrays of a .npz; never unpickles.

    Raises:
        ValueError: for an array of Python objects, by its key.
        DamagedFile: if it cannot be read as plain arrays.
    """
    arrays, key = {}, ""
    try:
        with np.load(path, allow_pickle=False) as archive:
            for key in archive.files:
                arrays[key] = archive[key]
            return arrays
    except (zipfile.BadZipFile, zlib.error, ValueError, EOFError, AttributeError, TypeError) as error:
        plain = f"an array of numbers or text in {path}; save {key}.astype(str), or the type of its numbers"
        check(key, "dtype object", not str(error).startswith("Object arrays"), plain)
        raise damaged(path, "a readable .npz file of plain arrays") from error


def decode_jpegxl(data: bytes) -> np.ndarray:
    """Pixels of one JPEG XL image, [H, W] or [H, W, 3], by whichever decoder is installed.

    Raises:
        ImportError: with the packages to install, if there is none.
    """
    try:
        import imagecodecs

        return imagecodecs.jpegxl_decode(data)
    except ImportError:
        pass
    try:
        import pillow_jxl  # noqa: F401  (makes Pillow read JPEG XL)
        from PIL import Image
    except ImportError as error:
        raise ImportError(
            "this file holds JPEG XL images, and no decoder is installed: pip install "
            "pillow-jxl-plugin (or: pip install imagecodecs)"
        ) from error
    with Image.open(io.BytesIO(data)) as image:
        return np.asarray(image)


def unmosaic(mosaic: np.ndarray, n: int, columns: int, height: int, width: int) -> np.ndarray:
    """The first ``n`` tiles [n, height, width(, 3)] of a mosaic [rows * height, columns * width(, 3)]."""
    colour = mosaic.shape[2:]
    tiles = mosaic.reshape(-1, height, columns, width, *colour).swapaxes(1, 2)
    return tiles.reshape(-1, height, width, *colour)[:n]


def read_images(path: Path) -> dict[str, np.ndarray]:
    """The arrays of a packed file; "images" are its decoded pictures, uint8 [N, H, W] or [N, H, W, 3]."""
    archive = open_npz(path)
    try:
        n, height, width = (int(v) for v in archive["shape"][:3])
        per, columns = int(archive["per"]), int(archive["cols"])
        mosaics = [archive.pop(key) for key in sorted(k for k in archive if k.startswith("jxl_"))]
        tiles = [
            unmosaic(decode_jpegxl(m.tobytes()), min(per, n - j * per), columns, height, width)
            for j, m in enumerate(mosaics)
        ]
        archive["images"] = np.concatenate(tiles)
        complete = len(archive["images"]) == n
    except (KeyError, ValueError, OSError, RuntimeError) as error:
        raise damaged(path, "packed JPEG XL pictures") from error
    if not complete:
        raise damaged(path, f"{n} packed pictures")
    return archive


def real_values(archive: dict[str, np.ndarray]) -> np.ndarray:
    """Bytes [N, H, W] as float32 values ``lo + step * byte``; lo and step are numbers, or one per row."""
    lo, step = (np.asarray(archive[key], np.float32).reshape(-1, 1) for key in ("lo", "step"))
    return archive["images"].astype(np.float32) * step + lo


def read_events(path: Path) -> tuple[Events, dict[str, np.ndarray]]:
    """The recordings of a packed N-MNIST file (t in milliseconds) and its other arrays."""
    archive = open_npz(path)
    try:
        step = np.frombuffer(lzma.decompress(archive.pop("lo").tobytes()), np.uint8).astype(np.int64)
        escaped = step == 255
        step[escaped] = np.frombuffer(lzma.decompress(archive.pop("esc").tobytes()), np.uint16)
        offsets = archive.pop("offsets").astype(np.int64)
    except (KeyError, ValueError, lzma.LZMAError) as error:
        raise damaged(path, "packed events") from error
    total = np.concatenate([[0], np.cumsum(step)])
    k = total[1:] - np.repeat(total[offsets[:-1]], np.diff(offsets))
    place = k % 2312
    return Events(place % 34, place % 1156 // 34, place // 1156, k // 2312, offsets, (34, 34)), archive
