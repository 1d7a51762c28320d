"""LMPC: layer-wise membrane potential calibration, equation (13) of the RMPE paper (Xiong et al. 2025).

    v_i(0) ← v_i(0) + (T/N) Σ_n [h̄(z_{i,n}) − φ_{i,n}(T)]

for every neuron i, over N calibration images; h̄ is the QC-ANN's activation and φ(T) the mean output θ·Σs/T. The paper
prints |h̄ − φ|, which can only add charge: it cures neurons that fire too little and feeds those that fire too much.
"""

from __future__ import annotations

from collections.abc import Iterable

from torch import Tensor

from ..checks import check, check_choice
from .layerwise import Layer
from .options import check_switches, check_whole, cut


def mean_gap(layer: Layer, split: int = 0, *, absolute: bool = False, per_channel: bool = False) -> Tensor:
    """Mean of h̄ − φ over the images of a split, [1, C, H, W] or [1, F].

    Args:
        layer: as :func:`~snnbook.conversion.layerwise.walk` shows it.
        split: 0 for the calibration images, 1 for those held out.
        absolute: the mean of |h̄ − φ|, as the paper prints it.
        per_channel: the mean over the places of a channel too, [1, C, 1, 1].
    """
    if absolute:
        gaps = [(target - y.mean(0)).abs().sum(0, keepdim=True) for y, target in layer.looks(split)]
        mean = sum(gaps) / sum(batch.images for batch in layer.splits[split])
    else:
        mean = layer.mean_target(split) - layer.mean_output(split)
    return mean.mean((2, 3), keepdim=True) if per_channel and mean.ndim == 4 else mean


def held_out_error(layer: Layer, criterion: str = "gap") -> float:
    """What a calibration of ``layer`` is judged by, over the images held out.

    Args:
        layer: as :func:`~snnbook.conversion.layerwise.walk` shows it; split 1 is held out.
        criterion: ``gap``: square of each neuron's :func:`mean_gap`, the error that equation (13) removes and the one
            that adds up over the inputs of the next layer. ``mse``: mean (φ − h̄)², equation (14).
    """
    check_choice("criterion", criterion, ("gap", "mse"))
    return layer.error(1) if criterion == "mse" else mean_gap(layer, 1).square().mean().item()


def calibrate_potential(
    layer: Layer,
    rounds: int = 3,
    *,
    absolute: bool = False,
    per_channel: bool = False,
    select: bool = True,
    criterion: str = "gap",
) -> float:
    """Equation (13) on one layer, ``rounds`` times.

    A round is kept only if :func:`held_out_error` falls; the next one takes half the step where it did not. From the
    first round that is kept the layer's v(0) is a tensor with one value a neuron, [1, C, H, W] or [1, F], or with
    ``per_channel`` one a channel, [1, C, 1, 1]; where none is kept it stays what it was.

    Args:
        layer: as :func:`~snnbook.conversion.layerwise.walk` shows it, with neurons.
        rounds: how many steps are tried.
        absolute: the printed equation instead of the signed one.
        per_channel: one value for all neurons of a channel.
        select: whether steps are selected; without it every one is taken as it is, and kept.
        criterion: ``gap`` or ``mse``.

    Returns:
        The held-out error that is left.

    Raises:
        ValueError: if ``rounds`` is no whole number from 1, for a switch that is none, or for another criterion.
    """
    check_whole("rounds", rounds, 1)
    check_switches(absolute=absolute, per_channel=per_channel, select=select)
    neuron, share, error = layer.neuron, 1.0, held_out_error(layer, criterion)
    for _ in range(rounds):
        before = neuron.v_init
        gap = mean_gap(layer, absolute=absolute, per_channel=per_channel)
        neuron.v_init = before + share * neuron.time_steps * gap
        new = held_out_error(layer, criterion)
        if not select:
            error = new
        elif new < error:
            error = new
        else:
            neuron.v_init, share = before, share / 2
    return error


def held_out(calibration: Iterable, validation: Iterable) -> tuple[list, list]:
    """Batches for calibration and for selection; without any of the latter, a quarter of the images is set apart.

    Args:
        calibration: batches (x, y).
        validation: batches (x, y), may be empty.

    Raises:
        ValueError: if there are fewer than two images to share out.
    """
    calibration, validation = list(calibration), list(validation)
    if validation:
        return calibration, validation
    images, size = sum(len(y) for _, y in calibration), len(calibration[0][1])
    check("calibration images", images, images >= 2, "at least 2: a quarter is held out where validation is empty")
    first, *more = cut(calibration, images - max(1, images // 4))
    return cut([first], size), cut(more, size)
