"""Early exit over time steps: the server answers as soon as it is sure, and further steps are not sent."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd
import torch
from torch import Generator, Tensor

from ..link.channels import Channel
from ..network import Network
from ..train import pick_device
from .halves import answers, bits_sent, sent
from .spike_bottlenet import SpikeBottleNet


def early_exit(logits: Tensor, y: Tensor, thresholds: Sequence[float], bits_a_step: int) -> pd.DataFrame:
    """Answer as soon as the server is sure enough; only then are further time steps not sent.

    After each step the logits so far are averaged; their largest softmax is the confidence.

    Args:
        logits: [T, N, K].
        y: labels [N].
        thresholds: confidences at which the server answers; above 1 it always waits for all T steps.
        bits_a_step: of one sample.

    Returns:
        Columns ``threshold``, ``steps`` and ``bits`` (means over samples), ``accuracy`` (0 to 1).
    """
    T = len(logits)
    mean = logits.cumsum(0) / torch.arange(1, T + 1)[:, None, None]
    confidence, predicted = mean.softmax(2).max(2)
    rows = []
    for threshold in thresholds:
        sure = confidence >= threshold
        sure[-1] = True
        at = sure.int().argmax(0)  # the first step that is sure
        reached = (predicted.gather(0, at[None])[0] == y).double().mean().item()
        steps = at.double().mean().item() + 1
        rows.append((threshold, steps, bits_a_step * steps, reached))
    return pd.DataFrame(rows, columns=["threshold", "steps", "bits", "accuracy"])


def exits(
    nets: dict[str, Network],
    e: SpikeBottleNet,
    channels: Sequence[Channel],
    thresholds: Sequence[float],
    seed: int = 0,
) -> pd.DataFrame:
    """:func:`early_exit` of each spiking network behind each channel, with ``network`` and ``level`` (of noise)."""
    parts, device = [], pick_device(e.device)
    for name, net in nets.items():
        spikes = sent(net, e).float()
        for link in channels:
            logits = answers(net, link(spikes, Generator().manual_seed(seed)), device)
            rows = early_exit(logits, e.data.test.y, thresholds, bits_sent(net, spikes) // len(spikes))
            parts.append(rows.assign(network=name, level=link.options[0][1]))
    return pd.concat(parts, ignore_index=True)
