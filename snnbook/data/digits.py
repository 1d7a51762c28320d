"""scikit-learn's handwritten digits, as images and as a simulated event camera sees them; no files needed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import Tensor
from torch.nn.functional import interpolate

from ..checks import check
from .camera import record_saccades
from .registry import Source, register

DIGITS_SOURCE = (
    "1,797 handwritten digits, 8 x 8 pixels, UCI Optical Recognition of Handwritten Digits "
    "(Alpaydin and Kaynak 1998) as in scikit-learn, CC BY 4.0"
)


def digit_images(size: int = 16) -> tuple[Tensor, np.ndarray]:
    """The digits, enlarged bilinearly from 8 x 8: uint8 [1797, 1, size, size], and labels [1797]."""
    check("size", size, 8 <= size <= 256, "8 to 256 pixels")
    digits = load_digits()
    x = torch.from_numpy(digits.images / 16.0)[:, None]
    x = interpolate(x, size=(size, size), mode="bilinear", align_corners=False)
    return (x * 255).round().to(torch.uint8), digits.target


@register("digits", "scikit-learn's handwritten digits, 1 x 16 x 16 (needs no files)")
def digits(data_dir: Path, time_steps: int, download: bool, size: int = 16) -> Source:
    """Real handwritten digits; ``size``: pixels per side."""
    x, y = digit_images(size)
    return Source("image", y, lambda index: x[index], tuple("0123456789"), DIGITS_SOURCE)


@register("digits_events", "the digits before a simulated event camera, T x 2 x 16 x 16 (needs no files)")
def digits_events(
    data_dir: Path, time_steps: int, download: bool, size: int = 16, threshold: float = 0.3
) -> Source:
    """Digits as event frames; ``size``: pixels per side, ``threshold``: change of log intensity per event."""
    x, y = digit_images(size)
    light = x[:, 0].numpy() / 255

    def read(index: np.ndarray) -> np.ndarray:
        recordings = record_saccades(light[index], threshold=threshold)
        return recordings.frames(np.arange(len(index)), time_steps)

    source = f"simulated event camera (three micro-saccades) before {DIGITS_SOURCE}"
    return Source("events", y, read, tuple("0123456789"), source)
