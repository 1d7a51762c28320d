"""`Split` and `Data`: what a loaded data set is, and how batches are drawn from it.

A data set has four splits that share no sample and no group: networks are trained on `train`, thresholds and
statistics are collected on `calibration`, checkpoints and options are chosen on `validation`, and `test` is
looked at once.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property

import pandas as pd
import torch
from torch import Generator, Tensor

from ..checks import check, check_choice

KINDS = ("image", "events", "audio")
SPLITS = ("train", "calibration", "validation", "test")

Augment = Callable[[Tensor, Generator], Tensor]


@dataclass(frozen=True, eq=False)
class Split:
    """Samples and their labels.

    Attributes:
        x: uint8, int16 or float32; [N, C, H, W], or [N, T, C, H, W] for event data (counts of events).
        y: int64 [N], the class of each sample.
        groups: int64 [N] or None; samples of one group (track, recording, fold's clip) never part.
    """

    x: Tensor
    y: Tensor
    groups: Tensor | None = None

    def __len__(self) -> int:
        return len(self.y)

    def to(self, device: str | torch.device) -> Split:
        """The same samples on ``device``."""
        groups = None if self.groups is None else self.groups.to(device)
        return Split(self.x.to(device), self.y.to(device), groups)


@dataclass(frozen=True, eq=False)
class Data:
    """A data set, split and ready to be drawn from.

    Attributes:
        name: the name in the registry.
        kind: "image", "events" or "audio" (audio as one-channel time-frequency images).
        train, calibration, validation, test: disjoint splits, also in their groups.
        classes: the names of the classes, in the order of their labels.
        shape: of one sample, (C, H, W) or (T, C, H, W).
        mean, std: float32 [C], in the unit of ``x``, from the training split. Event frames are not centred,
            so that "no event" stays zero: there the mean is 0, and std is what stands for one event.
        source: one line: what it is, where it comes from, licence.
        synthetic: True where no measured data are behind it.
    """

    name: str
    kind: str
    train: Split
    calibration: Split
    validation: Split
    test: Split
    classes: tuple[str, ...]
    shape: tuple[int, ...]
    mean: Tensor
    std: Tensor
    source: str
    synthetic: bool = False

    @property
    def n_classes(self) -> int:
        """Number of classes."""
        return len(self.classes)

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 over the tensors of all splits (64 hex digits): equal exactly when the data are equal."""
        digest = hashlib.sha256()
        for split in (getattr(self, s) for s in SPLITS):
            for t in (split.x, split.y, split.groups):
                digest.update(f"{None if t is None else (t.dtype, tuple(t.shape))}".encode())
                if t is not None:
                    digest.update(memoryview(t.contiguous().numpy()).cast("B") if t.numel() else b"")
        return digest.hexdigest()

    def summary(self) -> pd.DataFrame:
        """One row per split: samples, classes present, groups, samples of the rarest and commonest class."""
        rows = []
        for name in SPLITS:
            split = getattr(self, name)
            counts = torch.bincount(split.y, minlength=self.n_classes)
            groups = 0 if split.groups is None else len(split.groups.unique())
            rows.append(
                {
                    "split": name,
                    "samples": len(split),
                    "classes": int((counts > 0).sum()),
                    "groups": groups,
                    "rarest class": int(counts.min()),
                    "commonest class": int(counts.max()),
                }
            )
        return pd.DataFrame(rows)

    def normalise(self, x: Tensor) -> Tensor:
        """Samples in the unit of ``x``, [..., C, H, W], as float32 with mean and std of the set taken out."""
        mean, std = self.mean[:, None, None].to(x.device), self.std[:, None, None].to(x.device)
        return x.to(torch.float32).sub_(mean).div_(std) if x.dtype != torch.float32 else (x - mean) / std

    def batches(
        self,
        split: str | Split,
        batch_size: int,
        generator: Generator | None = None,
        augment: Augment | None = None,
        drop_last: bool = False,
        rank: int = 0,
        world_size: int = 1,
        device: str | torch.device = "cpu",
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Draw batches.

        Args:
            split: name of a split, or a split.
            batch_size: samples of a global batch, over all ranks.
            generator: shuffles when given; otherwise the order is that of the split.
            augment: (samples as stored [N, C, H, W], generator) -> samples, before normalisation; images and sounds
                only, and only with a generator.
            drop_last: leave out a last, smaller batch.
            rank, world_size: this process takes elements ``rank::world_size`` of each global batch. Order and
                augmentation are made for the global batch, so all ranks together see what one process would,
                given equal generators. A last batch below ``world_size`` leaves some ranks an empty one.
            device: where the whole split is put, and each batch made. Random choices come from ``generator``, so
                that they are the same on every device.

        Returns:
            An iterator of (x, y): x float32, normalised, [N, C, H, W], or [T, N, C, H, W] for event data;
            y int64 [N].

        Raises:
            ValueError: for an unknown split, a size below 1, a rank outside 0 ... world_size - 1, or
                augmentation of events.
        """
        if isinstance(split, str):
            check_choice("split", split, SPLITS)
            split = getattr(self, split)
        check("batch_size", batch_size, batch_size >= 1, "at least 1")
        check("world_size", world_size, world_size >= 1, "at least 1")
        check("rank", rank, 0 <= rank < world_size, f"0 to {world_size - 1}")
        if augment is not None:
            check("augment", augment, self.kind != "events", "only images and sounds are augmented, not events")
            check("generator", generator, generator is not None, "a torch.Generator where augment is given")
        return self._batches(split.to(device), batch_size, generator, augment, drop_last, rank, world_size)

    def _batches(self, split: Split, batch_size: int, generator, augment, drop_last, rank, world_size):
        n = len(split)
        order = torch.arange(n) if generator is None else torch.randperm(n, generator=generator)
        for start in range(0, n - batch_size + 1 if drop_last else n, batch_size):
            index = order[start : start + batch_size].to(split.x.device)
            if augment is None:
                index = index[rank::world_size]
                x, y = split.x[index], split.y[index]
            else:
                x, y = augment(split.x[index], generator)[rank::world_size], split.y[index][rank::world_size]
            x = self.normalise(x)
            yield (x.transpose(0, 1) if x.dim() == 5 else x), y
