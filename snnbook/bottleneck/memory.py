"""Bytes that the device's part reads and writes for one sample, layer by layer, in closed form.

All T steps of a layer are computed before the next: each weight is read once, potentials stay beside the adder, and a
map is written once and read by each layer that takes it. Spikes and payloads are packed bits. What a block hands to
the shortcut of the next is the ANN's activation, read once more; of a spiking network in MS-ResNet order it is a map of
potentials at every step, which the spikes behind it do not contain, written and read. Behind the stem it stands still.
"""

from __future__ import annotations

from math import prod

import pandas as pd

from .sizes import Report


def bytes_moved(
    points: pd.DataFrame, sent: Report, image: int, stem: int, spiking: bool, bits: int = 32
) -> float:
    """Bytes read and written on the device, batch size 1, with the codec that ``sent`` describes.

    Args:
        points: from :func:`snnbook.bottleneck.backbone.split_points`.
        sent: report of the codec; of a spiking network its ``bits_each`` is T.
        image: elements of the input.
        stem: elements of the map behind the stem.
        spiking: whether spikes are sent, or codes of an ANN.
        bits: of a weight, an activation and a potential.
    """
    before = points[points["split_point"] <= sent.split_point]
    maps = before["channels"] * before["height"] * before["width"]
    encoder = sent.encoder_macs // prod(sent.payload[1:]) + 2 * sent.payload[0]  # convolution and norm
    weights, handed = int(before["parameters"].iloc[-1]) + encoder, int(maps.iloc[:-1].sum())
    neurons = int(before["neurons"].sum()) + prod(sent.feature)
    if spiking:
        T = sent.bits_each
        words, packed = weights + image + 2 * stem + 2 * T * handed, 2 * T * neurons
    else:
        words, packed = weights + image + 2 * neurons + stem + handed, 0
    return (bits * words + packed + 2 * sent.bits) / 8
