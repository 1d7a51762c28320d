"""Accuracy of ANNs and SNNs, at one or at every number of time steps."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pandas as pd
import torch
from torch import Tensor, nn

from .checks import check, check_choice
from .data import Data
from .data.core import SPLITS
from .fold import takes_channels_last
from .network import evaluating


def outputs(
    net: nn.Module, data: Data, split: str = "test", batch_size: int = 256, device: str | torch.device = "cpu"
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield (logits, labels) batch by batch, in eval mode, without gradient; the modes of its modules are put back.

    Args:
        net: a network with logits [N, K] or [T, N, K].
        data: the data set.
        split: train, calibration, validation or test.
        batch_size: samples a batch.
        device: where to compute; the network is left there.
    """
    last = None
    with evaluating(net.to(device)), torch.no_grad():
        for x, y in data.batches(split, batch_size, device=device):
            last = x.ndim == 4 and takes_channels_last(net, x) if last is None else last
            yield net(x.contiguous(memory_format=torch.channels_last) if last else x), y


def _check_split(data: Data, split: str) -> None:
    check_choice("split", split, SPLITS)
    check(f"data.{split}", len(getattr(data, split)), len(getattr(data, split)) > 0, "at least one sample")


def accuracy(net: nn.Module, data: Data, split: str = "test", **options) -> float:
    """Share of samples, 0 to 1, whose largest logit (averaged over T) is at the label; options as :func:`outputs`.

    Raises:
        ValueError: for an unknown split, or one without samples.
    """
    _check_split(data, split)
    right = total = 0
    for logits, y in outputs(net, data, split, **options):
        mean = logits.mean(0) if logits.ndim == 3 else logits
        right += (mean.argmax(1) == y).sum().item()
        total += len(y)
    return right / total


def accuracy_over_time(
    net: nn.Module, data: Data, time_steps: Sequence[int], split: str = "test", **options
) -> pd.DataFrame:
    """Accuracy after each of ``time_steps`` of one run of max(time_steps) steps.

    Valid where the network does not depend on T; a network calibrated for one T is measured by :func:`accuracy`.

    Returns:
        Columns ``time_steps``, ``accuracy`` (0 to 1).

    Raises:
        ValueError: for a network without time steps, a T below 1, an unknown split, or one without samples.
    """
    _check_split(data, split)
    check("time_steps", list(time_steps), len(time_steps) > 0 and min(time_steps) >= 1, "numbers of at least 1")
    check(
        "net.time_steps",
        getattr(net, "time_steps", None),
        getattr(net, "time_steps", None) is not None,
        "a spiking network",
    )
    before, net.time_steps = net.time_steps, max(time_steps)
    at = torch.tensor(sorted(time_steps))
    right, total = torch.zeros(len(at), dtype=torch.float64), 0
    try:
        for logits, y in outputs(net, data, split, **options):
            summed = logits.cumsum(0)[at - 1]
            right += (summed.argmax(2) == y).sum(1).cpu()
            total += len(y)
    finally:
        net.time_steps = before
    return pd.DataFrame({"time_steps": at.tolist(), "accuracy": (right / total).tolist()})
