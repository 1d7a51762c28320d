"""LWC: layer-wise weight calibration, equations (14) to (17) of the RMPE paper (Xiong et al. 2025), and Phase II whole.

A layer's weights and biases are trained to bring φ = θ·Σs/T to the QC-ANN's activation h̄, on the spikes that the
calibrated layers before it really send:

    L = mean (φ − h̄)²                                                          (14)
    ∂s/∂v⁻ ≈ f(v⁻) = (γ/θ)·max(0, 1 − |v⁻ − θ|/θ)                              (15), for any θ
    ∂L/∂W_ij = (θ_i/T) ∂L/∂φ_i Σ_t Σ_{t' ≤ t} [∂s_i(t)/∂v_i⁻(t')] θ_j s_j(t')  (16), with the presynaptic factor
    ∂s_i(t)/∂v_i⁻(t') = f(v_i⁻(t)), or that only where s_i(t) = 1              (17)

The reset is not differentiated, so that v⁻(t) depends on every drive up to t with derivative 1. (14) is over weights
alone; biases are trained with them here unless they are left alone on request (``biases``).

The paper prints (16) without the presynaptic factor and (17) with f at v(t'), the step of the drive. A spike at t is
decided by the potential of step t, so f stands at v⁻(t) here. (15) is printed with its peak at v = 0; a spike is in
the balance at v⁻ = θ. (12), from which the paper gets (13), asks φ(T) = h̄ of
each neuron; it is printed with the output of the layer before in the place of the drive z. (9), cross-entropy with the
labels, is the loss with which the QC-ANN was trained.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import pandas as pd
import torch
from spikingjelly.activation_based.surrogate import SurrogateFunctionBase, heaviside
from torch import Tensor

from ..checks import check, check_choice
from ..network import Network
from ..neurons import Dynamics, multi_step, spiking_layers
from .layerwise import Layer, walk
from .lmpc import calibrate_potential, held_out, held_out_error
from .options import check_positive, check_switches, check_whole
from .rewrite import activations
from .thresholds import spiking, trained_thresholds

#: Steps of Phase II in the paper's order.
PHASE_TWO = ("lmpc", "lwc", "lmpc")
#: Updates of a layer's weights, about, where their number is left open.
UPDATES = 48


class _Spike(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, gamma, at_spikes):
        ctx.save_for_backward(x)
        ctx.constants = gamma, at_spikes
        return heaviside(x)

    @staticmethod
    def backward(ctx, grad):
        return Triangle.backward(grad, *ctx.saved_tensors, *ctx.constants), None, None


class Triangle(SurrogateFunctionBase):
    """Surrogate of equation (15) for θ = 1, γ·max(0, 1 − |x|) at x = v⁻ − 1, for any SpikingJelly neuron.

    Args:
        gamma: γ, its largest value.
        at_spikes: whether it is 0 where no spike is sent, equation (17).

    Raises:
        ValueError: if ``gamma`` is not positive or ``at_spikes`` neither True nor False.
    """

    def __init__(self, gamma: float = 0.3, at_spikes: bool = False):
        check_positive("gamma", gamma)
        check_switches(spike_times_only=at_spikes)
        super().__init__(gamma=gamma, at_spikes=at_spikes)

    @staticmethod
    def spiking_function(x: Tensor, gamma: float, at_spikes: bool) -> Tensor:
        """1[x ≥ 0] with the surrogate derivative."""
        return _Spike.apply(x, gamma, at_spikes)

    @staticmethod
    def backward(grad_output: Tensor, x: Tensor, gamma: float, at_spikes: bool) -> Tensor:
        """``grad_output`` times the surrogate derivative at ``x``."""
        f = gamma * (1 - x.abs()).clamp(min=0)
        return grad_output * (f * (x >= 0) if at_spikes else f)


def output_with_gradient(layer: Layer, drive: Tensor, surrogate: Triangle) -> Tensor:
    """θ·s [T, N, ...] of a layer for its ``drive``, with the surrogate gradient of equations (15) to (17).

    Potentials are in units of θ here, so that the surrogate is the same for every layer.
    """
    neuron = layer.neuron
    if neuron is None:
        return drive
    theta = neuron.v_threshold
    if neuron.step_bias is not None:
        drive = drive + neuron.step_bias
    return multi_step(drive / theta, neuron.v_init / theta, Dynamics(1.0), surrogate, True, neuron.emit)[0]


def loss(layer: Layer, batch, surrogate: Triangle) -> Tensor:
    """Equation (14) over one batch: mean of (φ − h̄)², with a graph that ends at ``layer.parameters``."""
    y = output_with_gradient(layer, layer.drive(batch), surrogate)
    return (y.mean(0) - layer.target(batch)).square().mean()


def _optimiser(name: str, learnt: list, theta: float, lr: float) -> torch.optim.Optimizer:
    """Adam with steps of ``lr`` times the size of each tensor (a bias: of θ), or SGD with momentum 0.9."""
    if name == "sgd":
        return torch.optim.SGD(learnt, lr, momentum=0.9)
    size = [p.detach().square().mean().sqrt().item() if p.ndim > 1 else theta for p in learnt]
    return torch.optim.Adam([{"params": [p], "lr": lr * s} for p, s in zip(learnt, size, strict=True)])


def calibrate_weights(
    layer: Layer,
    epochs: int | None = None,
    lr: float = 0.01,
    *,
    optimiser: str = "adam",
    biases: bool = True,
    surrogate: Triangle | None = None,
    generator: torch.Generator | None = None,
    select: bool = True,
) -> float:
    """Train the weights and biases of one layer on its recorded input; those with the lowest held-out error stay.

    Args:
        layer: as :func:`~snnbook.conversion.layerwise.walk` shows it: split 0 for calibration, 1 held out.
        epochs: passes over the calibration images; by default as many as make ``UPDATES`` updates, 2 to 8.
        lr: of Adam in units of the root mean square of each weight tensor (of θ for a bias); plain for SGD.
        optimiser: ``adam`` or ``sgd`` (momentum 0.9).
        biases: whether biases are trained too; equation (14) is over weights only.
        surrogate: equation (15) with γ = 0.3 by default.
        generator: order of the batches.
        select: whether the best epoch, or none, is chosen; without it the last one stays.

    Returns:
        The held-out error that is left.

    Raises:
        ValueError: if ``epochs`` is no whole number from 1, ``lr`` is not positive, for ``select`` or ``biases`` that
            is neither True nor False, or for another optimiser.
    """
    epochs = min(max(2, math.ceil(UPDATES / len(layer.splits[0]))), 8) if epochs is None else epochs
    check_whole("epochs", epochs, 1)
    check_positive("lr", lr)
    check_switches(select=select, biases=biases)
    check_choice("optimiser", optimiser, ("adam", "sgd"))
    error, learnt = layer.error(1), [p for p in layer.parameters if biases or p.ndim > 1]
    if not learnt:
        return error
    theta = layer.neuron.v_threshold if layer.neuron is not None else 1.0
    surrogate, stepper = surrogate or Triangle(), _optimiser(optimiser, learnt, theta, lr)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(stepper, epochs * len(layer.splits[0]))
    best = [p.detach().clone() for p in learnt]
    for _ in range(epochs):
        for i in torch.randperm(len(layer.splits[0]), generator=generator).tolist():
            with torch.enable_grad():
                grads = torch.autograd.grad(loss(layer, layer.splits[0][i], surrogate), learnt)
            for p, g in zip(learnt, grads, strict=True):
                p.grad = g
            stepper.step()
            schedule.step()
        new = layer.error(1)
        if new < error or not select:
            error, best = new, [p.detach().clone() for p in learnt]
    with torch.no_grad():
        for p, value in zip(learnt, best, strict=True):
            p.copy_(value)
            p.grad = None
    return error


def start_potentials(net: Network) -> dict[str, float]:
    """v(0) in units of θ with which neurons best stand for each activation at T = L: its shift, 0 where it has none."""
    return {name: getattr(m, "shift", 0.0) for name, m in activations(net).items()}


def _check_steps(steps: Sequence[str]) -> None:
    several = isinstance(steps, Sequence) and not isinstance(steps, str)
    check("steps", steps, several, "a sequence of lmpc and lwc, such as ('lmpc', 'lwc')")
    for step in steps:
        check_choice("steps", step, ("lmpc", "lwc"))


def calibrate(
    snn: Network,
    ann: Network,
    calibration: list,
    validation: list,
    steps: Sequence[str] = PHASE_TWO,
    *,
    order: str = "forward",
    head: bool = True,
    rounds: int = 3,
    absolute: bool = False,
    per_channel: bool = False,
    select: bool = True,
    criterion: str = "gap",
    seed: int = 0,
    gamma: float = 0.3,
    spike_times_only: bool = False,
    **training,
) -> pd.DataFrame:
    """Phase II: calibrate each layer of ``snn`` in place, layers input to output, all ``steps`` on one before the next.

    Args:
        snn: converted network, which is changed.
        ann: the network it was made from, batch norm folded: the teacher.
        calibration: batches (x, y); labels are not used.
        validation: batches held out, on which steps are selected.
        steps: of ``lmpc`` and ``lwc``, in order.
        order: ``forward``, or ``backward`` as if layers were taken from output to input.
        head: whether LWC takes the last weights too; their logits are compared with the teacher's.
        rounds, absolute, per_channel, criterion: of :func:`~snnbook.conversion.lmpc.calibrate_potential`.
        select: whether a step is kept only where the held-out error falls.
        seed: of the order of the batches.
        gamma, spike_times_only: of the surrogate, equations (15) and (17).
        training: ``epochs``, ``lr``, ``optimiser`` and ``biases`` of :func:`calibrate_weights`.

    Returns:
        Columns ``layer``, ``step`` (``start``, then the steps), ``mse`` and ``gap``: the two criteria of
        :func:`~snnbook.conversion.lmpc.held_out_error` after it.

    Raises:
        ValueError: for an unknown step or order, or another option that is not allowed.
    """
    _check_steps(steps)
    check_switches(head=head)
    check_whole("seed", seed, 0)
    generator, surrogate = torch.Generator().manual_seed(seed), Triangle(gamma, spike_times_only)
    learn_head, rows = head and "lwc" in steps, []
    for layer in walk(snn, ann, calibration, validation, order=order, head=learn_head):
        rows.append((layer.name, "start", layer.error(1), held_out_error(layer)))
        for step in steps:
            if step == "lwc":
                calibrate_weights(layer, surrogate=surrogate, generator=generator, select=select, **training)
            elif layer.neuron is not None:
                calibrate_potential(
                    layer, rounds, absolute=absolute, per_channel=per_channel, select=select, criterion=criterion
                )
            rows.append((layer.name, step, layer.error(1), held_out_error(layer)))
    return pd.DataFrame(rows, columns=["layer", "step", "mse", "gap"])


def phase_two(
    net: Network, calibration: list, validation: list, time_steps: int, steps: Sequence[str] = PHASE_TWO, **options
) -> Network:
    """The SNN of a QC-ANN after Phase II: θ = λ, v(0) = shift·θ, then :func:`calibrate`.

    Args:
        net: ANN with trained thresholds, batch norm folded.
        calibration: batches (x, y).
        validation: batches held out; if there are none, a quarter of the calibration images is set apart.
        time_steps: T.
        steps: of ``lmpc`` and ``lwc``, in order.
        options: of :func:`calibrate`.

    Returns:
        The network; its ``calibration_errors`` is the table of :func:`calibrate`.

    Raises:
        ValueError: for an activation without a trained λ, or an unknown step or order.
    """
    snn = spiking(net, trained_thresholds(net), time_steps)
    for name, potential in start_potentials(net).items():
        neuron = spiking_layers(snn)[name]
        neuron.v_init = neuron.v_init + potential * neuron.v_threshold
    snn.calibration_errors = calibrate(snn, net, *held_out(calibration, validation), steps, **options)
    return snn
