"""The registry of data sets, and `load`: from a name to splits that never overlap."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import platformdirs
import torch
from torch import Tensor

from ..checks import check, check_choice
from .carve import amount, carve
from .core import Data, Split

#: Share of the samples that is the test part of a set without an official one, and the seed that picks it.
#: Fixed, so that runs with other seeds are compared on the same test samples.
TEST_FRACTION, TEST_SEED = 0.2, 0

_LOADERS: dict[str, tuple[Callable, str]] = {}


@dataclass(frozen=True, eq=False)
class Source:
    """What a loader hands over: everything about the samples but the samples, and how to read those.

    Attributes:
        kind: "image", "events" or "audio".
        y: int [N], classes.
        read: samples of an ascending int array of positions -> array or tensor [n, ...].
        classes: names, in the order of the labels.
        source: one line for the reader.
        groups: int [N] or None.
        test: bool [N], the official test part, or None where there is none.
        synthetic: no measured data behind it.
        unit: for event data, how much of ``x`` is one event.
    """

    kind: str
    y: np.ndarray
    read: Callable[[np.ndarray], np.ndarray | Tensor]
    classes: tuple[str, ...]
    source: str
    groups: np.ndarray | None = None
    test: np.ndarray | None = None
    synthetic: bool = False
    unit: float = 1.0


def register(name: str, help: str) -> Callable:
    """Decorate a loader (data_dir, time_steps, download, **options) -> Source, and list it under ``name``."""

    def add(loader: Callable) -> Callable:
        _LOADERS[name] = (loader, help)
        return loader

    return add


def datasets() -> dict[str, str]:
    """The known data sets: name -> one line of help."""
    return {name: help for name, (_, help) in _LOADERS.items()}


def data_folder(data_dir: str | os.PathLike | None) -> Path:
    """Where data sets live: ``data_dir``, else the variable SNNBOOK_DATA, else the user's data folder."""
    return Path(
        data_dir or os.environ.get("SNNBOOK_DATA") or platformdirs.user_data_dir("snnbook")
    ).expanduser()


def load(
    name: str,
    data_dir: str | os.PathLike | None = None,
    seed: int = 0,
    time_steps: int = 5,
    calibration: int | float = 0.05,
    validation: int | float = 0.1,
    limit: int | None = None,
    download: bool = False,
    **options,
) -> Data:
    """Load a data set and split it.

    Args:
        name: one of `datasets()`.
        data_dir: folder of the data sets, or one .npz file; None or "" stands for the environment variable
            SNNBOOK_DATA or, without one, the user's data folder.
        seed: picks calibration and validation samples; the test part does not depend on it.
        time_steps: T, number of frames of event data; images and audio have no time axis.
        calibration, validation: number (int) or fraction (float) of the official training part to set apart.
        limit: use at most so many samples of the official training part, and of the test part.
        download: fetch a missing set, where the set allows that.
        options: of the set, for instance ``size``; a wrong name is refused with the known ones.

    Returns:
        Data; the same for the same arguments and files.

    Raises:
        ValueError: for an unknown name or option, a number out of range, or a part asked for that would have no sample.
        MissingData: if files are missing; says which belong where and how to get them.
        DamagedFile: if a file's checksum or format is wrong.
    """
    check_choice("name", name, _LOADERS)
    check(
        "time_steps", time_steps, isinstance(time_steps, int) and time_steps >= 1, "an integer of at least 1"
    )
    check("limit", limit, limit is None or (isinstance(limit, int) and limit >= 1), "None, or at least 1")
    loader = _LOADERS[name][0]
    known = list(inspect.signature(loader).parameters)[3:]
    for option in options:
        check("option", option, option in known, f"{name} knows {', '.join(known) or 'no options'}")
    source = loader(data_folder(data_dir), time_steps, download, **options)
    return assemble(name, source, seed, calibration, validation, limit)


def split_indices(source: Source, seed: int, calibration, validation, limit: int | None) -> list[np.ndarray]:
    """Positions of train, calibration, validation and test samples in ``source``, each ascending."""
    y, groups, everything = source.y, source.groups, np.arange(len(source.y))
    test = source.test
    if test is None:
        test = carve(y, groups, round(TEST_FRACTION * len(y)), TEST_SEED)
    elif groups is not None:
        shared = np.intersect1d(groups[test], groups[~test])
        check(
            "groups", shared[:5].tolist(), len(shared) == 0, "no group in both the training and the test part"
        )

    def pick(
        index: np.ndarray, n: int, seed: int, whole_groups: bool = True
    ) -> tuple[np.ndarray, np.ndarray]:
        chosen = carve(y[index], groups[index] if whole_groups and groups is not None else None, n, seed)
        return index[chosen], index[~chosen]

    rest, tested = everything[~test], everything[test]
    if limit is not None:
        rest, tested = (pick(part, limit, TEST_SEED, whole_groups=False)[0] for part in (rest, tested))
    n_validation, n_calibration = (
        amount(what, part, len(rest))
        for what, part in (("validation", validation), ("calibration", calibration))
    )
    check(
        "calibration + validation",
        n_calibration + n_validation,
        n_calibration + n_validation < len(rest),
        f"less than the {len(rest)} samples of the official training part",
    )
    validated, rest = pick(rest, n_validation, seed)
    calibrated, rest = pick(rest, n_calibration, seed)
    for what, found, asked in (
        ("train", rest, 1),
        ("calibration", calibrated, n_calibration),
        ("validation", validated, n_validation),
        ("test", tested, 1),
    ):
        some = len(found) > 0 or asked == 0
        check(what, len(found), some, "at least one sample (groups are never split: are they too large?)")
    return [rest, calibrated, validated, tested]


def assemble(
    name: str,
    source: Source,
    seed: int = 0,
    calibration: int | float = 0.05,
    validation: int | float = 0.1,
    limit: int | None = None,
) -> Data:
    """Split what a loader handed over and read the samples; arguments as for `load`."""
    parts = split_indices(source, seed, calibration, validation, limit)
    used = np.sort(np.concatenate(parts))
    x = source.read(used)
    groups = None if source.groups is None else np.unique(source.groups, return_inverse=True)[1]

    def split(index: np.ndarray) -> Split:
        rows = np.searchsorted(used, index)
        samples = x[torch.from_numpy(rows)] if isinstance(x, Tensor) else torch.from_numpy(x[rows])
        return Split(
            samples,
            torch.from_numpy(source.y[index].astype(np.int64)),
            None if groups is None else torch.from_numpy(groups[index].astype(np.int64)),
        )

    splits = [split(index) for index in parts]
    if source.kind == "events":
        channels = splits[0].x.shape[-3]
        mean, std = torch.zeros(channels), torch.full((channels,), source.unit, dtype=torch.float32)
    else:
        mean, std = channel_statistics(splits[0].x)
    return Data(
        name,
        source.kind,
        *splits,
        source.classes,
        tuple(splits[0].x.shape[1:]),
        mean,
        std,
        source.source,
        source.synthetic,
    )


def channel_statistics(x: Tensor, elements: int = 2**22) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of each channel (third axis from the end), float32 [C], via float64.

    About so many ``elements`` are in memory as float64 at a time. Sums of integers do not depend on it.
    """
    n, piece = x.numel() // x.shape[-3], max(1, elements // x[0].numel())
    total = square = torch.zeros(x.shape[-3], dtype=torch.float64)
    for part in x.split(piece):
        values = part.to(torch.float64).transpose(0, -3).flatten(1)
        total, square = total + values.sum(1), square + values.square().sum(1)
    mean = total / n
    std = (square / n - mean.square()).clamp_min(0).sqrt()
    return mean.float(), torch.where(std > 0, std, torch.ones_like(std)).float()
