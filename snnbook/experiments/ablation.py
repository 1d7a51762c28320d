"""Chapter 12's questions to Phase II: where residual potentials are, and what each of its choices is worth."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import pandas as pd
import torch
from torch import Tensor, nn

from ..checks import check
from ..conversion import convert
from ..data import Split
from ..evaluate import accuracy
from ..neurons import spiking_layers
from ..record import observe
from ..residual import residual_shares
from ..train import pick_device
from .two_stage import BATCH, TwoStage


class ResidualShares:
    """Shares of residual potentials of every spiking layer, accumulated over batches; pass it as ``neuron``."""

    def __init__(self) -> None:
        self._sums: dict[str, pd.Series] = {}
        self._images: dict[str, int] = {}

    def __call__(self, name: str, layer: nn.Module, drive: Tensor, output: Tensor) -> None:
        steps = layer.time_steps
        n = (output.unflatten(0, (steps, -1)) != 0).sum(0)
        shares = pd.Series(residual_shares(n, layer.v, steps, layer.v_threshold)) * len(n)
        self._sums[name] = self._sums.get(name, 0.0) + shares
        self._images[name] = self._images.get(name, 0) + len(n)

    def table(self) -> pd.DataFrame:
        """Columns ``layer`` (from 1), ``name`` and those of :func:`snnbook.residual.residual_shares`, 0 to 1."""
        rows = [{"name": name, **(total / self._images[name])} for name, total in self._sums.items()]
        table = pd.DataFrame(rows)
        table.insert(0, "layer", range(1, len(table) + 1))
        return table


def residuals(snn: nn.Module, batches: Iterable) -> pd.DataFrame:
    """Residual potentials of each layer at the end of T steps over batches (x, y); see :class:`ResidualShares`."""
    shares = ResidualShares()
    with torch.no_grad(), observe(snn, neuron=shares):
        for x, _ in batches:
            snn(x)
    return shares.table()


def layer_errors(snn: nn.Module) -> pd.DataFrame:
    """What Phase II did to the held-out errors of each layer of a calibrated network.

    Args:
        snn: from ``convert`` with a method of Phase II.

    Returns:
        Columns ``layer`` (from 1), ``position`` (0 for the start), ``step``, and two errors in thresholds of the layer:
        ``error``, the root mean square over neurons of their mean of h̄ − φ over images; ``single``, the root mean
        square of h̄ − φ over neurons and images.
    """
    rows, layers = snn.calibration_errors, spiking_layers(snn)
    rows = rows[rows["layer"].isin(layers)]
    theta = rows["layer"].map({name: layer.v_threshold for name, layer in layers.items()})
    number = rows["layer"].map({name: i + 1 for i, name in enumerate(rows["layer"].unique())})
    about = {"layer": number, "position": rows.groupby("layer").cumcount(), "step": rows["step"]}
    errors = {"error": rows["gap"] ** 0.5 / theta, "single": rows["mse"] ** 0.5 / theta}
    return pd.DataFrame(about | errors).reset_index(drop=True)


def logit_error(snn: nn.Module, ann: nn.Module, batches: Iterable) -> float:
    """Root mean square of the SNN's mean logits minus the ANN's over batches (x, y), relative to the ANN's logits."""
    difference = size = 0.0
    with torch.no_grad():
        for x, _ in batches:
            target = ann(x)
            difference += (snn(x).mean(0) - target).square().sum().item()
            size += target.square().sum().item()
    return (difference / size) ** 0.5


def _measured(experiment: TwoStage, method: str, snn: nn.Module, time_steps: int) -> dict[str, float]:
    """Test accuracy and held-out logit error of one network."""
    found = accuracy(snn, experiment.data, batch_size=BATCH, device=pick_device(experiment.device))
    error = logit_error(snn, experiment.ann(method, time_steps), experiment.validation())
    return {"accuracy": found, "logit_error": error}


def variants(experiment: TwoStage, method: str, time_steps: int, options: Mapping[str, dict]) -> pd.DataFrame:
    """One method with different options.

    Args:
        experiment: trained networks of one seed.
        method: name in ``METHODS``.
        time_steps: T.
        options: name of a variant to options of the method.

    Returns:
        Columns ``variant``, ``time_steps``, ``seed``, ``accuracy`` (test, 0 to 1), ``logit_error`` (validation images,
        by which steps of a calibration are kept too).
    """
    rows = []
    for name, given in options.items():
        snn, _ = experiment.converted(method, time_steps, **given)
        about = {"variant": name, "time_steps": time_steps, "seed": experiment.seed}
        rows.append(about | _measured(experiment, method, snn, time_steps))
    return pd.DataFrame(rows)


def by_images(experiment: TwoStage, method: str, time_steps: int, images: Sequence[int]) -> pd.DataFrame:
    """One method with the first few images of the calibration split, and none beside them.

    A method that decides by held-out images whether a step is kept sets a quarter of the few apart for that.

    Args:
        experiment: trained networks of one seed.
        method: name in ``METHODS``.
        time_steps: T.
        images: numbers of images, those set apart among them.

    Returns:
        Columns ``images``, ``time_steps``, ``seed``, ``accuracy`` (test, 0 to 1), ``logit_error`` (validation images,
        which choose nothing here).

    Raises:
        ValueError: for a number below 1 or above that of the split, and for 1 with a method that sets some apart.
    """
    rows, all_images = [], experiment.data.calibration
    for n in images:
        check("images", n, 1 <= n <= len(all_images), f"1 to {len(all_images)}, the calibration images there are")
        some = Split(all_images.x[:n], all_images.y[:n])
        batches = list(experiment.data.batches(some, BATCH, device=pick_device(experiment.device)))
        snn, _ = convert(experiment.ann(method, time_steps), method, time_steps=time_steps, calibration=batches)
        about = {"images": n, "time_steps": time_steps, "seed": experiment.seed}
        rows.append(about | _measured(experiment, method, snn, time_steps))
    return pd.DataFrame(rows)
