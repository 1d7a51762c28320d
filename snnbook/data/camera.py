"""An event camera that makes saccades before still images.

An event camera reports at each pixel, on its own, when the logarithm of the light has changed by a threshold:
ON events (p = 1) where it got brighter, OFF events (p = 0) where darker. A still picture in front of it gives
events only when the camera moves; N-MNIST and N-Caltech101 were recorded that way, with three micro-saccades
along a triangle (Orchard et al. 2015, "Converting Static Image Datasets to Spiking Neuromorphic Datasets
Using Saccades"). `record_saccades` simulates this; real sensors also have noise, dead time and mismatched
pixels.
"""

from __future__ import annotations

import numpy as np

from ..checks import check
from .events import Events


def saccade_path(amplitude: float, steps: int) -> np.ndarray:
    """Positions of the camera along a triangle of three saccades.

    Args:
        amplitude: side of the triangle's bounding box, in pixels.
        steps: positions per saccade.

    Returns:
        float64 [3 * steps + 1, 2], rows (dy, dx); starts and ends at (0, 0).
    """
    corners = amplitude * np.array([[0.0, 0.0], [1.0, 0.5], [0.0, 1.0], [0.0, 0.0]])
    at = np.arange(3 * steps + 1) / steps
    return np.stack([np.interp(at, np.arange(4), corners[:, k]) for k in (0, 1)], axis=1)


def record_saccades(
    images: np.ndarray,
    threshold: float = 0.3,
    amplitude: float = 2.0,
    steps: int = 12,
    duration: int = 300_000,
    dark: float = 0.1,
) -> Events:
    """Record still images with an event camera that makes three micro-saccades.

    A pixel remembers the logarithm of the light at its last event, L*. When log(I + dark) has moved from L*
    by a multiple of ``threshold``, it emits that many events, at the times when each level was crossed
    (linear between two positions), and L* moves along.

    Args:
        images: [N, H, W], light in 0 ... 1; outside the image it is dark.
        threshold: change of log intensity per event.
        amplitude: size of the saccades, in pixels.
        steps: positions simulated per saccade.
        duration: of the recording, in microseconds.
        dark: light of a black pixel, which bounds the contrast.

    Returns:
        Events of N recordings on a sensor of H x W pixels.
    """
    for name, value in (("threshold", threshold), ("amplitude", amplitude), ("steps", steps), ("dark", dark)):
        check(name, value, value > 0, "above 0")
    light = images.astype(np.float64)
    start, path = np.log(light + dark), saccade_path(amplitude, steps)
    before, level, found = np.zeros_like(light), np.zeros(light.shape, np.int64), []
    for k, (dy, dx) in enumerate(path[1:]):
        # In units of the threshold from the start, so that a return to the start is a return to exactly 0.
        now = (np.log(shifted(light, dy, dx) + dark) - start) / threshold
        count = np.trunc(now - level).astype(np.int64)
        where = np.nonzero(count)
        found.append(_crossings(where, count[where], level[where], before[where], now[where], k))
        level += count
        before = now
    sample, y, x, p, t = (np.concatenate(parts) for parts in zip(*found, strict=True))
    order = np.lexsort((t, sample))
    offsets = np.searchsorted(sample[order], np.arange(len(images) + 1))
    micro = (t[order] * (duration / (3 * steps))).astype(np.int64)
    return Events(x[order], y[order], p[order], micro, offsets, images.shape[1:])


def shifted(images: np.ndarray, dy: float, dx: float) -> np.ndarray:
    """What a camera sees that has moved by (dy, dx) >= 0 pixels down and right: bilinear, dark outside.

    Args:
        images: float [N, H, W].
        dy, dx: pixels.

    Returns:
        float [N, H, W].
    """
    _, h, w = images.shape
    top, left = int(dy), int(dx)
    padded = np.pad(images, ((0, 0), (0, top + 1), (0, left + 1)))
    rows = (1 - (dy - top)) * padded[:, top : top + h] + (dy - top) * padded[:, top + 1 : top + 1 + h]
    right, further = rows[:, :, left : left + w], rows[:, :, left + 1 : left + 1 + w]
    return (1 - (dx - left)) * right + (dx - left) * further


def _crossings(where, count, level, before, now, k: int) -> tuple[np.ndarray, ...]:
    """The events of one step: sample, row, column, polarity and time in steps, one element per event."""
    n = np.abs(count)
    sign = np.repeat(np.sign(count), n)
    nth = np.arange(n.sum()) - np.repeat(np.cumsum(n) - n, n) + 1
    crossed = np.repeat(level, n) + sign * nth
    fraction = (crossed - np.repeat(before, n)) / np.repeat(now - before, n)
    sample, y, x = (np.repeat(axis, n) for axis in where)
    return sample, y, x, (sign > 0).astype(np.int64), k + np.clip(fraction, 0, 1)
