"""SNN Calibration: thresholds by grid search, then biases, potentials or weights layer by layer.

Li et al., A free lunch from ANN: towards efficient, accurate spiking neural networks calibration, ICML 2021. A ReLU
network is the teacher; all is done for one T, with v(0) = θ/2.

    threshold   θ minimises Σ (a − clip-floor(a))² over calibration activations a, among 95 shares of the largest
    bias        each channel's bias gets the mean over images and places of a − φ(T)
    potential   each neuron's v(0) gets T times the mean over images of a − φ(T), with its sign
    weights     each layer's weights minimise the mean of (clip-floor(W x̄ + b) − a)² by Adam, x̄ the mean over T of
                what it receives; the floor has derivative 1. Kept where the error of the spiking layer falls

with clip-floor(z) = θ·clip(⌊T·z/θ + ½⌋, 0, T)/T where neurons start at θ/2 (without the ½ in the grid search). Layers
are taken from input to output, with the activity of the calibrated layers before.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..checks import check
from ..network import Network
from ..quantise import quantise_clip
from .layerwise import Batch, Layer, walk
from .options import check_positive, check_whole, is_finite
from .rewrite import activations, each_output
from .thresholds import SMALLEST, spiking

#: Shares of the largest activation that the grid search tries: 1, 0.99, ... 0.06.
SHARES = 1 - 0.01 * torch.arange(95, dtype=torch.double)
#: Activations of a layer that the grid search looks at; of more, a random sample of this size.
SAMPLE = 2**21


def clip_floor_errors(a: Tensor, thresholds: Tensor, time_steps: int, shift: float = 0.0) -> Tensor:
    """Σ (a − clip-floor(a))² for each threshold, exactly, from sums between the steps of the staircase.

    Args:
        a: activations, any shape.
        thresholds: θ > 0, [m].
        time_steps: T.
        shift: v(0)/θ.

    Returns:
        [m], double.
    """
    a = a.flatten().double().sort().values
    sums = torch.stack([torch.ones_like(a), a]).cumsum(1)
    sums = torch.cat([sums.new_zeros(2, 1), sums], 1)
    k = torch.arange(1, time_steps + 1, dtype=torch.double, device=a.device)
    thresholds = thresholds.double().unsqueeze(1)
    from_step = sums[:, -1:, None] - sums[:, torch.searchsorted(a, (k - shift) * thresholds / time_steps)]
    # Step k adds θ/T to the output of all that reach it: (a − kθ/T)² − (a − (k−1)θ/T)² = (θ/T)²(2k − 1) − 2aθ/T.
    height = thresholds / time_steps
    return a.square().sum() + (height**2 * (2 * k - 1) * from_step[0] - 2 * height * from_step[1]).sum(1)


def _sampled(net: nn.Module, batches: list, seed: int) -> dict[str, Tensor]:
    """Outputs of each activation over ``batches``: all, or about ``SAMPLE`` drawn at random."""
    generator, images = torch.Generator().manual_seed(seed), sum(len(y) for _, y in batches)
    kept: dict[str, list[Tensor]] = {name: [] for name in activations(net)}

    def keep(name: str, y: Tensor) -> None:
        share = SAMPLE / (y[0].numel() * images)
        values = y.flatten()
        if share < 1:
            at = torch.randint(len(values), (max(1, round(share * len(values))),), generator=generator)
            values = values[at.to(values.device)]
        kept[name].append(values.clone())

    each_output(net, activations(net), batches, keep)
    return {name: torch.cat(values) for name, values in kept.items() if values}


def mse_thresholds(
    net: nn.Module, batches: Iterable, time_steps: int, shift: float = 0.0, seed: int = 0
) -> dict[str, float]:
    """θ of each activation by grid search of the squared error of the clip-floor function at T.

    Args:
        net: ReLU network, batch norm folded.
        batches: calibration batches (x, y).
        time_steps: T.
        shift: v(0)/θ in the clip-floor function, 0 as in the paper.
        seed: of the sample in large layers.

    Returns:
        Name to θ, of the activations that run.
    """
    check("shift", shift, is_finite(shift) and 0 <= shift < 1, "0 to below 1")
    check_whole("seed", seed, 0)
    found = {}
    for name, a in _sampled(net, list(batches), seed).items():
        candidates = SHARES.to(a.device) * max(a.max().item(), SMALLEST)
        found[name] = candidates[clip_floor_errors(a, candidates, time_steps, shift).argmin()].item()
    return found


def _missing(layer: Layer) -> Tensor:
    """Mean over calibration images of a − φ(T), [1, ...]."""
    total, images = 0.0, 0
    for y, target in layer.looks():
        total, images = total + (target - y.mean(0)).sum(0, keepdim=True), images + len(target)
    return total / images


def per_channel(x: Tensor) -> Tensor:
    """Mean over the places (H, W) of each channel: [N, C, H, W] to [N, C, 1, 1]; [N, F] as it is."""
    return x.mean((2, 3), keepdim=True) if x.ndim == 4 else x


def correct_bias(layer: Layer) -> None:
    """Add each channel's mean of a − φ(T) to the drive at each step."""
    neuron, missing = layer.neuron, per_channel(_missing(layer)).unsqueeze(0)
    neuron.step_bias = missing if neuron.step_bias is None else neuron.step_bias + missing


def correct_potential(layer: Layer) -> None:
    """Add T times each neuron's mean of a − φ(T) to its v(0)."""
    layer.neuron.v_init = layer.neuron.v_init + layer.neuron.time_steps * _missing(layer)


def correct_weights(layer: Layer, epochs: int = 5, lr: float = 5e-4) -> None:
    """Fit the weights that lead to ``layer`` through the clip-floor function of its mean drive.

    They are put back where the layer's error over the calibration images, with its spikes, is not smaller then.

    Args:
        layer: from :func:`~snnbook.conversion.layerwise.walk`.
        epochs: passes over the calibration batches.
        lr: of Adam, falling to 0 along half a cosine.
    """
    weights = [p for p in layer.parameters if p.ndim > 1]
    if not weights or not epochs:
        return
    before, error = [w.detach().clone() for w in weights], layer.error()
    adam = torch.optim.Adam(weights, lr)
    falling = torch.optim.lr_scheduler.CosineAnnealingLR(adam, epochs * len(layer.splits[0]))
    for batch in layer.splits[0] * epochs:
        _descend(layer, batch, weights)
        adam.step()
        falling.step()
    if layer.error() >= error:
        with torch.no_grad():
            for weight, old in zip(weights, before, strict=True):
                weight.copy_(old)


def _descend(layer: Layer, batch: Batch, weights: list[nn.Parameter]) -> None:
    """Gradients of the squared error of one batch, by the straight-through estimator."""
    with torch.enable_grad():
        phi = quantise_clip(layer.drive(batch).mean(0), layer.neuron.v_threshold, layer.neuron.time_steps, 0.5)
        grads = torch.autograd.grad(F.mse_loss(phi, layer.target(batch)), weights)
    for weight, grad in zip(weights, grads, strict=True):
        weight.grad = grad


def snn_calibration(
    net: Network,
    batches: Iterable,
    time_steps: int,
    stages: Iterable[str] = (),
    shift: float = 0.0,
    epochs: int = 5,
    lr: float = 5e-4,
    seed: int = 0,
) -> Network:
    """``net`` as a spiking network with :func:`mse_thresholds`, v(0) = θ/2 and the given stages, one after the other.

    Args:
        net: ReLU network, batch norm folded; it is left as it was.
        batches: calibration batches (x, y).
        time_steps: T.
        stages: of ``bias``, ``potential`` and ``weights``.
        shift: of :func:`mse_thresholds`.
        epochs: of :func:`correct_weights`.
        lr: of :func:`correct_weights`.
        seed: of :func:`mse_thresholds`.

    Raises:
        ValueError: if ``epochs`` or ``seed`` is no whole number from 0, ``lr`` is not positive, and for ``shift``.
    """
    check_whole("epochs", epochs, 0)
    check_positive("lr", lr)
    batches = list(batches)
    snn = spiking(net, mse_thresholds(net, batches, time_steps, shift, seed), time_steps, 0.5)
    rules = {"bias": correct_bias, "potential": correct_potential}
    rules["weights"] = lambda layer: correct_weights(layer, epochs, lr)
    for stage in stages:
        for layer in walk(snn, net, batches):
            rules[stage](layer)
    return snn
