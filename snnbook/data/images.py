"""Photographs: CIFAR-10, CIFAR-100 and Caltech101."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch.nn.functional import interpolate

from ..checks import check, check_choice
from .cache import cached
from .compact import compact_file, read_images
from .errors import check_files, check_md5, damaged, missing
from .registry import Source, register

CALTECH_ZIP_MD5 = "3138e1922a9193bfa496528edbbc45d0"

#: The ten largest classes of Caltech101 without the clutter and without Faces_easy (cuttings from Faces).
CALTECH_TOP10 = (
    "airplanes",
    "Motorbikes",
    "Faces",
    "watch",
    "Leopards",
    "bonsai",
    "car_side",
    "ketch",
    "chandelier",
    "hawksbill",
)
#: The ten classes of EC-SNN, where Faces and its cuttings count as two classes.
CALTECH_ECSNN = (
    "airplanes",
    "Motorbikes",
    "Faces",
    "Faces_easy",
    "watch",
    "Leopards",
    "bonsai",
    "car_side",
    "ketch",
    "chandelier",
)


def _cifar(name: str, kind: type, data_dir: Path, download: bool, source: str) -> Source:
    """CIFAR in torchvision's layout. No file is unpickled before its published MD5 has been seen on it."""
    archive = data_dir / kind.filename
    files = [*kind.train_list, *kind.test_list, (kind.meta["filename"], kind.meta["md5"])]
    how = f"Set download=True, or unpack {kind.filename} from {kind.url} there."
    check_files(name, data_dir / kind.base_folder, files, how, missing_ok=download)
    if download and archive.is_file():
        check_md5(archive, kind.tgz_md5)
    try:
        parts = [kind(data_dir, train=train, download=download) for train in (True, False)]
    except (OSError, RuntimeError) as error:
        raise missing(name, data_dir / kind.base_folder, f"Fetching it failed ({error}). {how}") from error
    x = np.ascontiguousarray(np.concatenate([part.data for part in parts]).transpose(0, 3, 1, 2))
    y = np.array(parts[0].targets + parts[1].targets)
    test, picture = np.arange(len(y)) >= len(parts[0]), same_pictures(x)
    keep = np.flatnonzero(test | ~np.isin(picture, picture[test]))
    if len(keep) < len(y):
        source += f"; without {len(y) - len(keep)} training pictures that are in the test part too"
    classes = tuple(parts[0].classes)
    return Source("image", y[keep], lambda i: x[keep[i]], classes, source, picture[keep], test[keep])


def same_pictures(x: np.ndarray) -> np.ndarray:
    """Groups of equal pictures: int [N], the same number exactly for the same pixels."""
    digests = [hashlib.sha256(picture.tobytes()).hexdigest() for picture in x]
    return np.unique(digests, return_inverse=True)[1]


@register("cifar10", "CIFAR-10 photographs, 3 x 32 x 32 (torchvision; can be downloaded)")
def cifar10(data_dir: Path, time_steps: int, download: bool) -> Source:
    """CIFAR-10 in data_dir/cifar-10-batches-py."""
    from torchvision.datasets import CIFAR10  # here, because it takes seconds to import

    return _cifar(
        "cifar10",
        CIFAR10,
        data_dir,
        download,
        "CIFAR-10 (Krizhevsky 2009), 60,000 photographs, 32 x 32 pixels; no licence stated, for research",
    )


@register("cifar100", "CIFAR-100 photographs, 3 x 32 x 32, fine labels (torchvision; can be downloaded)")
def cifar100(data_dir: Path, time_steps: int, download: bool) -> Source:
    """CIFAR-100 in data_dir/cifar-100-python."""
    from torchvision.datasets import CIFAR100

    return _cifar(
        "cifar100",
        CIFAR100,
        data_dir,
        download,
        "CIFAR-100 (Krizhevsky 2009), 60,000 photographs, 32 x 32 pixels; no licence stated, for research",
    )


def caltech_classes(classes: str, present: list[str]) -> tuple[str, ...]:
    """Names of the classes in use: "top10", "ecsnn", or "all" that are present but clutter and Faces_easy."""
    check_choice("classes", classes, ("top10", "ecsnn", "all"))
    if classes == "all":
        drop = {"BACKGROUND_Google"} | ({"Faces_easy"} if "Faces" in present else set())
        return tuple(sorted(set(present) - drop))
    return CALTECH_TOP10 if classes == "top10" else CALTECH_ECSNN


def photograph_groups(names: list[str]) -> np.ndarray:
    """Group of each "class/image" name; Faces_easy/image_0001, cut from Faces/image_0001, is in its group."""
    return np.unique([n.replace("Faces_easy/", "Faces/") for n in names], return_inverse=True)[1]


@register(
    "caltech101", "Caltech101 photographs, its ten largest object classes (torchvision; can be downloaded)"
)
def caltech101(
    data_dir: Path, time_steps: int, download: bool, size: int | None = None, classes: str = "top10"
) -> Source:
    """Caltech101 in data_dir/caltech101/101_ObjectCategories, or one caltech101*.npz.

    ``size``: pixels per side (224; what the .npz holds), ``classes``: "top10", "ecsnn" (with
    Faces_easy) or "all".
    """
    check("size", size, size is None or 8 <= size <= 1024, "None, or 8 to 1024 pixels")
    source = "Caltech101 (Fei-Fei, Fergus and Perona 2004), CC BY 4.0"
    root = data_dir / "caltech101" / "101_ObjectCategories"
    packed = compact_file(data_dir, "caltech101", ("mosaic_rgb",)) if not root.is_dir() else None
    if packed is not None:
        return _caltech_packed(packed, size, classes, source)
    if not root.is_dir():
        _fetch_caltech(data_dir, root, download)
    known = caltech_classes(classes, sorted(f.name for f in root.iterdir() if f.is_dir()))
    files = [file for name in known for file in sorted((root / name).glob("*.jpg"))]
    for name in known:
        if not any((root / name).glob("*.jpg")):
            raise missing("caltech101", root / name / "image_0001.jpg", "Unpack the archive again.")
    y = np.array([known.index(file.parent.name) for file in files])
    side = size or 224

    def read(index: np.ndarray) -> np.ndarray:
        chosen = [files[i] for i in index]
        return cached(
            data_dir,
            "caltech101",
            chosen,
            {"size": side},
            lambda: np.stack([_photograph(file, side) for file in chosen]),
        )

    groups = photograph_groups([f"{file.parent.name}/{file.name}" for file in files])
    return Source("image", y, read, known, source, groups)


def _fetch_caltech(data_dir: Path, root: Path, download: bool) -> None:
    """Have torchvision download and unpack Caltech101, or say how to get it."""
    how = (
        "Set download=True, or unpack caltech-101.zip from https://data.caltech.edu/records/mzrjq-6wc02, and "
        "the 101_ObjectCategories.tar.gz in it, there."
    )
    if not download:
        raise missing("caltech101", root, how)
    archive = data_dir / "caltech101" / "caltech-101.zip"
    if archive.is_file():
        check_md5(archive, CALTECH_ZIP_MD5)
    from torchvision.datasets import Caltech101

    try:
        Caltech101(data_dir, download=True)
    except (OSError, RuntimeError) as error:
        raise missing("caltech101", root, f"Fetching it failed ({error}). {how}") from error


def _photograph(file: Path, size: int) -> np.ndarray:
    """A photograph as uint8 [3, size, size], grey ones with three equal channels."""
    try:
        with Image.open(file) as image:
            small = image.convert("RGB").resize((size, size), Image.Resampling.BILINEAR)
    except (UnidentifiedImageError, OSError) as error:
        raise damaged(file, "a readable JPEG image") from error
    return np.asarray(small).transpose(2, 0, 1)


def _caltech_packed(path: Path, size: int | None, classes: str, source: str) -> Source:
    """Caltech101 from one .npz, with the classes that are in it."""
    archive = read_images(path)
    names = [str(n) for n in archive["class_names"]]
    present = [names[k] for k in np.unique(archive["label"])]
    known = tuple(k for k in caltech_classes(classes, present) if k in present)
    category = np.array([known.index(names[k]) if names[k] in known else -1 for k in archive["label"]])
    keep = category >= 0
    x = torch.from_numpy(archive["images"][keep]).permute(0, 3, 1, 2).contiguous()
    if size is not None and size != x.shape[-1]:
        x = interpolate(x, size=(size, size), mode="bilinear", antialias=True)
    absent = sorted(set(caltech_classes(classes, present)) - set(known))
    note = f"; without {', '.join(absent)}, not in the file" if absent else ""
    groups = photograph_groups([str(n) for n in archive["name"][keep]])
    return Source(
        "image",
        category[keep],
        lambda index: x[index],
        known,
        f"{source}, packed at {archive['images'].shape[1]} x {archive['images'].shape[2]} in "
        f"{os.path.basename(path)}{note}",
        groups,
    )
