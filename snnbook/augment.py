"""Augmentation of whole batches of images or sounds, [N, C, H, W], of any dtype, with every choice from one generator.

Each augmentation is a function of a batch and a `torch.Generator`, as `Data.batches` wants it; `compose`
makes one of several.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Generator, Tensor
from torch.nn.functional import pad

from .checks import check, check_choice


def _check_batch(x: Tensor) -> None:
    check("x", tuple(x.shape), x.dim() == 4, "a batch of images [N, C, H, W]")


def random_crop(x: Tensor, generator: Generator, padding: int = 4) -> Tensor:
    """Pad every image with zeros on all sides and cut out its original size at a random place.

    Args:
        x: [N, C, H, W].
        generator: of the offsets, uniform over 0 ... 2 * padding, one pair per image.
        padding: pixels on each side.

    Returns:
        [N, C, H, W], the dtype of ``x``.
    """
    _check_batch(x)
    check("padding", padding, padding >= 0, "at least 0")
    n, _, h, w = x.shape
    offset = torch.randint(0, 2 * padding + 1, (2, n, 1), generator=generator)
    rows = (torch.arange(h) + offset[0])[:, :, None].to(x.device)  # [N, H, 1]
    columns = (torch.arange(w) + offset[1])[:, None, :].to(x.device)  # [N, 1, W]
    padded = pad(x, [padding] * 4).permute(0, 2, 3, 1)  # [N, H', W', C]
    image = torch.arange(n, device=x.device)[:, None, None]
    return padded[image, rows, columns].permute(0, 3, 1, 2).contiguous()


def random_flip(x: Tensor, generator: Generator, p: float = 0.5) -> Tensor:
    """Mirror each image left to right with probability ``p``; [N, C, H, W]."""
    _check_batch(x)
    check("p", p, 0 <= p <= 1, "0 to 1")
    flip = torch.rand(len(x), generator=generator) < p
    return torch.where(flip[:, None, None, None].to(x.device), x.flip(-1), x)


def cutout(x: Tensor, generator: Generator, size: int = 16) -> Tensor:
    """Set a square around a random pixel to zero; at the border only part of it lies inside.

    DeVries and Taylor 2017, "Improved Regularization of Convolutional Neural Networks with Cutout".

    Args:
        x: [N, C, H, W].
        generator: of the centres, uniform over all pixels, one per image.
        size: side of the square, in pixels.

    Returns:
        [N, C, H, W], the dtype of ``x``.
    """
    _check_batch(x)
    check("size", size, size >= 1, "at least 1")
    n, _, h, w = x.shape
    top = torch.randint(0, h, (n, 1), generator=generator) - size // 2
    left = torch.randint(0, w, (n, 1), generator=generator) - size // 2
    rows = (torch.arange(h) >= top) & (torch.arange(h) < top + size)  # [N, H]
    columns = (torch.arange(w) >= left) & (torch.arange(w) < left + size)  # [N, W]
    return x.masked_fill((rows[:, :, None] & columns[:, None, :])[:, None].to(x.device), 0)


def random_shift(x: Tensor, generator: Generator, most: int | None = None) -> Tensor:
    """Roll each map along its width: what leaves at one end comes in at the other.

    For sounds, whose width is time: a clip that begins elsewhere is the same sound.

    Args:
        x: [N, C, H, W].
        generator: of the shifts, uniform over ``-most`` ... ``most``, one per sample.
        most: columns either way; by default any shift is as likely as any other.

    Returns:
        [N, C, H, W], the dtype of ``x``.
    """
    _check_batch(x)
    width = x.shape[3]
    check("most", most, most is None or most >= 1, "at least 1")
    low, high = (0, width) if most is None else (-most, most + 1)
    shift = torch.randint(low, high, (len(x), 1), generator=generator)
    columns = (torch.arange(width) - shift) % width  # [N, W]
    return x.gather(3, columns.to(x.device)[:, None, None, :].expand(x.shape))


def compose(*steps: Callable[[Tensor, Generator], Tensor]) -> Callable[[Tensor, Generator], Tensor]:
    """One augmentation that does ``steps`` in turn."""

    def augment(x: Tensor, generator: Generator) -> Tensor:
        for step in steps:
            x = step(x, generator)
        return x

    return augment


def standard(
    padding: int = 4, flip: bool = True, cutout_size: int = 0
) -> Callable[[Tensor, Generator], Tensor]:
    """The usual training augmentation: crop, then flip and cutout if asked for (0 pixels: no cutout)."""
    steps = [partial(random_crop, padding=padding)]
    steps += [random_flip] if flip else []
    steps += [partial(cutout, size=cutout_size)] if cutout_size else []
    return compose(*steps)


#: Augmentations by name, for recipes; a number behind the name is its first option ("crop4,flip,cutout16").
AUGMENTATIONS = {"crop": random_crop, "flip": random_flip, "cutout": cutout, "shift": random_shift}


def augmentation(names: str) -> Callable[[Tensor, Generator], Tensor]:
    """One augmentation from comma-separated names, each with an optional whole number: "crop4,flip".

    Raises:
        ValueError: for an unknown name, with the known ones.
    """
    steps = []
    for item in names.split(","):
        name = item.strip().rstrip("0123456789")
        check_choice("augmentation", name, AUGMENTATIONS)
        option = item.strip()[len(name) :]
        keyword = {"crop": "padding", "cutout": "size", "shift": "most"}.get(name)
        check("augmentation", item, not option or keyword is not None, f"{name} without a number")
        steps.append(partial(AUGMENTATIONS[name], **({keyword: int(option)} if option else {})))
    return compose(*steps)
