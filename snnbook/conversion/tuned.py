"""The book's own method: a start that is right on average at every step, then a short training at its own T.

    source   QC-ANN with ½ shift trained at L = min(T, L): what it can say is what T steps can say (Bu 2022)
    start    v(0) = θ/2, and a bias for each channel and step that makes mean outputs right (:mod:`.stepwise`)
    tuning   backpropagation through time on training images, which also sees what no mean shows: who fires when

What comes out is strict: one pass of T steps, binary spikes, nothing before them. Thresholds are not trained, because
θ, W, b and v(0) times one factor give the same spikes: training the weights around a layer trains its threshold.

The gradient is chosen so that it cannot grow with T. The surrogate g is a triangle of width θ on each side and height
1/θ, and the gradient passes through the reset. For an IF neuron with soft reset, ∂h(t+1)/∂h(t) = 1 − θ·g(h(t)), and a
charge at step t' changes the total output by

    ∂(θ·n)/∂x(t') = Σ_{t ≥ t'} θ·g(t) Π_{t' ≤ u < t} (1 − θ·g(u)) = 1 − Π_{t ≥ t'} (1 − θ·g(t))

which is a number from 0 to 1 because θ·g is: a layer hands back no more gradient than the clipped ReLU of its ANN. With
a detached reset the sum is Σ θ·g(t), up to T, and the product over layers explodes.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable

from spikingjelly.activation_based.surrogate import PiecewiseQuadratic
from torch import nn

from ..cache import trained
from ..checks import check
from ..data import Data
from ..evaluate import accuracy
from ..network import Network
from ..neurons import spiking_layers
from ..train import Recipe, pick_device
from .stepwise import step_bias


def use_bounded_gradient(snn: nn.Module) -> None:
    """Give the IF neurons of ``snn`` the gradient of this module: triangle of height 1/θ, reset not detached."""
    for layer in spiking_layers(snn).values():
        layer.surrogate_function = PiecewiseQuadratic(1 / layer.v_threshold)
        layer.detach_reset = False


def tune(snn: Network, data: Data, recipe: Recipe, device: str = "auto") -> bool:
    """Train the weights and biases of ``snn`` in place, and keep that only if more validation images are right.

    Args:
        snn: a converted network with T steps; v(0), biases per step and thresholds stay.
        data: its ``train`` split is trained on, its ``validation`` split chooses the epoch.
        recipe: how; a network of folded batch norms wants a small learning rate, 0.01 or less.
        device: auto, cpu or cuda.

    Returns:
        Whether the tuned weights were kept.
    """
    use_bounded_gradient(snn)
    snn.requires_grad_()
    before = accuracy(snn, data, "validation", device=pick_device(device))
    start = copy.deepcopy(snn.to("cpu").state_dict())
    history = trained(snn, data, recipe, device=device)
    better = bool(history["validation_accuracy"].max() > before)
    if not better:
        snn.load_state_dict(start)
    return better


def tuned(
    net: Network,
    batches: Iterable,
    time_steps: int,
    data: Data | None = None,
    recipe: Recipe | None = None,
    device: str = "auto",
    **start,
) -> Network:
    """``net`` with trained thresholds as a spiking network with step biases, then trained for T = ``time_steps``.

    Args:
        net: network with trained thresholds, batch norm folded; best trained at L = min(T, L) with ½ shift.
        batches: calibration batches (x, y), for the biases.
        time_steps: T.
        data: training and validation images for the tuning.
        recipe: of the tuning; 3 epochs of SGD at 0.01 by default.
        device: where to train: auto, cpu or cuda.
        start: options of :func:`~snnbook.conversion.stepwise.step_bias`.

    Raises:
        ValueError: without ``data``, and for options of ``step_bias``.
    """
    check("data", data, isinstance(data, Data), "a data set to tune on; matched is the same method without tuning")
    snn = step_bias(net, batches, time_steps, **start)
    tune(snn, data, recipe or Recipe(epochs=3, lr=0.01), device)
    return snn
