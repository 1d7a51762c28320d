"""The two-stage framework (Fig 2 of the RMPE paper) as one experiment: ReLU pre-training, fine-tuning with a
quantised or clipped activation, conversion, accuracy against time steps.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import pandas as pd
from torch import nn

from .cache import trained
from .checks import check_choice
from .conversion import METHODS, Report, clipped, convert, infinite_time, mean_outputs, quantised
from .data import Data
from .evaluate import accuracy, accuracy_over_time
from .models import build
from .params import TwoStageConversion
from .train import Recipe


@dataclass(frozen=True)
class TwoStage:
    """Source networks of one seed, trained when first asked for and cached by content.

    Attributes:
        data: data set; calibration images come from its ``calibration`` split.
        model: name of the architecture.
        width: its width multiplier.
        quant_steps: L of the quantised activations.
        pretraining: recipe of the ReLU network.
        fine_tuning: recipe of the networks with trained thresholds.
        seed: of initial weights and recipes.
        device: auto, cpu or cuda.
    """

    data: Data
    model: str
    width: float
    quant_steps: int
    pretraining: Recipe
    fine_tuning: Recipe
    seed: int = 0
    device: str = "auto"
    _nets: dict[str, nn.Module] = field(default_factory=dict)

    def calibration(self) -> list:
        """The calibration images as batches."""
        return list(self.data.batches("calibration", 32))

    def network(self, source: str) -> nn.Module:
        """The trained network with activation ``source``: relu, clip, qc or qcfs.

        Raises:
            ValueError: for another source.
        """
        check_choice("source", source, ("relu", "clip", "qc", "qcfs"))
        if source not in self._nets:
            self._nets[source] = self._train(source)
        return self._nets[source]

    def _train(self, source: str) -> nn.Module:
        if source == "relu":
            net = build(
                self.model,
                n_classes=self.data.n_classes,
                shape=self.data.shape,
                width=self.width,
                seed=self.seed,
            )
            recipe = self.pretraining
        else:
            relu, images = self.network("relu"), self.calibration()
            shift = 0.5 if source == "qcfs" else 0.0
            net = clipped(relu, images) if source == "clip" else quantised(relu, images, self.quant_steps, shift)
            recipe = self.fine_tuning
        trained(net, self.data, replace(recipe, seed=self.seed), device=self.device)
        return net

    def converted(self, method: str, time_steps: int) -> tuple[nn.Module, Report]:
        """The source network of ``method``, converted for T = ``time_steps``."""
        check_choice("method", method, METHODS)
        net = self.network(METHODS[method].source)
        return convert(net, method, time_steps=time_steps, calibration=self.calibration())

    def compare(self, methods: Sequence[str], time_steps: Sequence[int]) -> pd.DataFrame:
        """Test accuracy of each method's ANN, of its SNN at each T and of the limit T → ∞.

        Returns:
            Columns ``method``, ``seed``, ``ann_accuracy``, ``limit_accuracy``, ``time_steps``, ``accuracy`` (all
            0 to 1), ``loss`` (ANN minus SNN).
        """
        parts = []
        for method in methods:
            ann = accuracy(self.network(METHODS[method].source), self.data)
            snn, _ = self.converted(method, max(time_steps))
            limit = accuracy(infinite_time(snn), self.data)
            part = accuracy_over_time(snn, self.data, time_steps, batch_size=32).assign(method=method, seed=self.seed)
            parts.append(part.assign(ann_accuracy=ann, limit_accuracy=limit, loss=ann - part["accuracy"]))
        columns = ["method", "seed", "ann_accuracy", "limit_accuracy", "time_steps", "accuracy", "loss"]
        return pd.concat(parts, ignore_index=True)[columns]


def enough_steps(table: pd.DataFrame, within: float = 0.01) -> pd.DataFrame:
    """The smallest measured T from which the mean loss over seeds stays at most ``within``, for each method.

    Returns:
        Columns ``method``, ``time_steps`` (missing where it is never reached).
    """
    mean = table.groupby(["method", "time_steps"], sort=False)["loss"].mean().unstack("time_steps").sort_index(axis=1)
    good = (mean.iloc[:, ::-1] <= within).cummin(axis=1).iloc[:, ::-1]
    first = [row.idxmax() if row.any() else None for _, row in good.iterrows()]
    return pd.DataFrame({"method": mean.index, "time_steps": pd.array(first, dtype="Int64")})


def summary(table: pd.DataFrame, time_steps: Sequence[int]) -> pd.DataFrame:
    """Mean accuracies over seeds in percent, one row a method: ``ANN``, ``T = t`` for ``time_steps``, ``T → ∞``."""
    percent = table.assign(**{c: 100 * table[c] for c in ("ann_accuracy", "limit_accuracy", "accuracy")})
    grouped = percent.groupby("method", sort=False)
    wide = percent.pivot_table(index="method", columns="time_steps", values="accuracy", sort=False)[list(time_steps)]
    wide.columns = [f"T = {t}" for t in wide.columns]
    wide.insert(0, "ANN", grouped["ann_accuracy"].mean())
    wide["T → ∞"] = grouped["limit_accuracy"].mean()
    return wide.reset_index()


def thresholds(report: Report) -> pd.DataFrame:
    """θ of each layer of a conversion: columns ``method``, ``layer`` (number from 1), ``name``, ``threshold``."""
    names = list(report.thresholds)
    values = {"layer": range(1, len(names) + 1), "name": names, "threshold": list(report.thresholds.values())}
    return pd.DataFrame({"method": report.method, **values})


def experiments(p: TwoStageConversion, data: Data) -> list[TwoStage]:
    """One :class:`TwoStage` for each of the ``repeats`` seeds of the chapter's parameters."""
    common = {"batch_size": p.batch_size, "label_smoothing": p.label_smoothing, "augment": p.augment}
    pretraining = Recipe(epochs=p.epochs, lr=p.lr, **common)
    fine_tuning = Recipe(epochs=p.fine_tune_epochs, lr=p.fine_tune_lr, **common)
    seeds = range(p.seed, p.seed + p.repeats)
    return [TwoStage(data, p.model, p.width, p.quant_steps, pretraining, fine_tuning, s, p.device) for s in seeds]


def drift(experiment: TwoStage, method: str, time_steps: Sequence[int]) -> pd.DataFrame:
    """Mean over calibration images and neurons of (φ(T) − a) / θ: how far an SNN is above its ANN, layer by layer.

    Args:
        experiment: trained networks of one seed.
        method: a method whose ANN has trained thresholds.
        time_steps: values of T.

    Returns:
        Columns ``time_steps``, ``layer`` (from 1), ``drift`` (in units of θ).
    """
    images, rows = experiment.calibration(), []
    ann = mean_outputs(experiment.network(METHODS[method].source), images)
    for steps in time_steps:
        snn, report = experiment.converted(method, steps)
        spiking = mean_outputs(snn, images)
        for i, (name, theta) in enumerate(report.thresholds.items()):
            rows.append((steps, i + 1, (spiking[name] - ann[name]) / theta))
    return pd.DataFrame(rows, columns=["time_steps", "layer", "drift"])
