"""Checks of what a user gives to a method: numbers, switches, and batches of images, which are cut to one size."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from ..checks import check, is_finite, is_whole

#: Images of a batch that a method sees, however many a batch of its caller has.
BATCH = 32


def check_whole(name: str, value: object, low: int) -> None:
    """ValueError unless ``value`` is a whole number from ``low``."""
    check(name, value, is_whole(value) and value >= low, f"a whole number, at least {low}")


def check_positive(name: str, value: object) -> None:
    """ValueError unless ``value`` is a finite number above 0."""
    check(name, value, is_finite(value) and value > 0, "a positive number")


def check_finite(name: str, value: object) -> None:
    """ValueError unless ``value`` is a finite number."""
    check(name, value, is_finite(value), "a finite number")


def check_switches(**switches: object) -> None:
    """ValueError for the first of ``switches`` that is neither True nor False."""
    for name, value in switches.items():
        check(name, value, isinstance(value, bool), "True or False")


def _labels(y: object) -> Tensor | None:
    """``y`` as a tensor, None where it cannot be one."""
    try:
        return torch.as_tensor(y)
    except (TypeError, ValueError, RuntimeError):
        return None


def checked_batches(name: str, batches: Iterable, device: torch.device) -> list[tuple[Tensor, Tensor]]:
    """``batches`` as a list of pairs (x, y) of tensors.

    Args:
        name: of the argument.
        batches: pairs of images [N, C, H, W] or events [T, N, C, H, W] and N labels, a tensor, array or list.
        device: where the tensors are put.

    Raises:
        ValueError: for what is no such pair, for a pair without an image or with another number of labels, and for
            images with NaN or infinite values.
    """
    check(name, type(batches).__name__, isinstance(batches, Iterable), "batches, pairs (x, y) of images and labels")
    pairs = []
    for i, batch in enumerate(batches):
        pair = isinstance(batch, tuple | list) and len(batch) == 2 and isinstance(batch[0], Tensor)
        check(f"{name}[{i}]", type(batch).__name__, pair, "a pair (x, y) of images and labels")
        x, y = batch[0], _labels(batch[1])
        images = x.shape[_axis(x)] if x.ndim else 0
        labels = len(y) if y is not None and y.ndim else None
        shapes = f"x of shape {tuple(x.shape)} with {labels} labels"
        check(f"{name}[{i}]", shapes, images > 0 and labels == images, "at least one image, and a label for each")
        check(f"{name}[{i}]", "x with NaN or infinite values", bool(x.isfinite().all()), "images of finite numbers")
        pairs.append((x.to(device), y.to(device)))
    return pairs


def _axis(x: Tensor) -> int:
    """Axis of the images of ``x``: events have T before it."""
    return 1 if x.ndim == 5 else 0


def cut(batches: list, size: int) -> list[tuple[Tensor, Tensor]]:
    """``batches`` of tensors (x, y) with ``size`` images each, the last perhaps with fewer.

    Raises:
        ValueError: for images of several shapes, which no batch holds.
    """
    sizes = [len(y) for _, y in batches]
    if all(n == size for n in sizes[:-1]) and max(sizes[-1:], default=0) <= size:
        return batches
    axis = _axis(batches[0][0])
    shapes = sorted({tuple(x.select(_axis(x), 0).shape) for x, _ in batches})
    check("shapes of images", shapes, len(shapes) == 1, "one shape")
    x, y = torch.cat([x for x, _ in batches], axis), torch.cat([y for _, y in batches])
    return list(zip(x.split(size, axis), y.split(size), strict=True))


def _prints(batches: list) -> set[int]:
    """A hash of each image."""
    return {hash(image.float().cpu().numpy().tobytes()) for x, _ in batches for image in x.detach().unbind(_axis(x))}


def check_disjoint(calibration: list, validation: list) -> None:
    """ValueError where images to decide on are calibrated on too, but for one in a hundred: data sets have doubles."""
    held = _prints(validation)
    shared = len(held & _prints(calibration))
    other = "images that are not in calibration"
    check("validation", f"{shared} images of calibration", 100 * shared <= len(held), other)
