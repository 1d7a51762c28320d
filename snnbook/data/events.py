"""Event-camera data: events (x, y, p, t), and frames that hold equally many events each."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from ..checks import check


@dataclass(frozen=True, eq=False)
class Events:
    """Recordings of one camera, end to end, each sorted by time.

    Attributes:
        x, y: int [M], column and row.
        p: int [M], 1 = ON, 0 = OFF.
        t: int [M], time in microseconds (or the unit of the source), from the start of its recording.
        offsets: int [N + 1]; recording i is events offsets[i] ... offsets[i + 1] - 1.
        size: (H, W) of the sensor.
    """

    x: np.ndarray
    y: np.ndarray
    p: np.ndarray
    t: np.ndarray
    offsets: np.ndarray
    size: tuple[int, int]

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, i: int) -> dict[str, np.ndarray]:
        """Recording ``i`` as a dict of x, y, p, t, as SpikingJelly keeps events."""
        part = slice(self.offsets[i], self.offsets[i + 1])
        return {"x": self.x[part], "y": self.y[part], "p": self.p[part], "t": self.t[part]}

    def frames(self, index: np.ndarray, time_steps: int) -> np.ndarray:
        """Recordings ``index`` as frames [n, T, 2, H, W]; see `frames_by_count`."""
        frames = (frames_by_count(self[i], time_steps, *self.size) for i in index)
        return stack_frames(frames, len(index), (time_steps, 2, *self.size))


def frames_by_count(events: dict[str, np.ndarray], time_steps: int, height: int, width: int) -> np.ndarray:
    """Add events up into T frames that hold equally many each; the remainder goes to the last.

    With n events, frame k holds events k * (n // T) ... (k + 1) * (n // T) - 1, in order of time. Frames so
    defined do not depend on how fast the camera moved (SpikingJelly's ``split_by="number"``).

    Args:
        events: x, y, p, t of one recording, each [n], sorted by time.
        time_steps: T.
        height, width: of the sensor.

    Returns:
        int64 [T, 2, H, W]; channel 0 counts OFF events, channel 1 ON events.

    Raises:
        ValueError: if an event lies outside the sensor.
    """
    check("time_steps", time_steps, time_steps >= 1, "at least 1")
    x, y = events["x"].astype(np.int64), events["y"].astype(np.int64)
    inside = len(x) == 0 or (x.min() >= 0 and y.min() >= 0 and x.max() < width and y.max() < height)
    check("events", (height, width), inside, "every event must lie on the sensor (rows, columns)")
    each = len(x) // time_steps
    frame = np.minimum(np.arange(len(x)) // each, time_steps - 1) if each else np.full(len(x), time_steps - 1)
    cell = ((frame * 2 + (events["p"] != 0)) * height + y) * width + x
    return np.bincount(cell, minlength=time_steps * 2 * height * width).reshape(time_steps, 2, height, width)


def stack_frames(
    frames: Iterable[np.ndarray], n: int, shape: tuple[int, ...], dtype: type = np.uint8
) -> np.ndarray:
    """Frames of ``n`` recordings, each of ``shape``, as one array: uint8 if every count fits, else int16."""
    stacked = np.empty((n, *shape), dtype)
    for i, f in enumerate(frames):
        check("frames", int(f.max()), f.max() <= 32767, "at most 32767 events of a pixel in one frame")
        if f.max() > np.iinfo(stacked.dtype).max:
            stacked = stacked.astype(np.int16)
        stacked[i] = f
    return stacked
