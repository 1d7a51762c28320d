"""The two-stage framework (Fig 2 of the RMPE paper) as one experiment: ReLU pre-training, fine-tuning with a
quantised or clipped activation, conversion, accuracy against time steps.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

import pandas as pd
from torch import nn

from ..cache import trained
from ..checks import check_choice
from ..conversion import METHODS, Report, clipped, convert, infinite_time, mean_outputs, quantised
from ..data import Data
from ..evaluate import accuracy, accuracy_over_time
from ..fields import Params
from ..models import build
from ..side_by_side import Bare, together
from ..train import Recipe, pick_device

#: Images of a calibration or test batch: a run of T steps holds a few times T of them in memory.
BATCH = 32


@dataclass(frozen=True)
class TwoStage(Bare):
    """Source networks of one seed, trained when first asked for and cached by content.

    Attributes:
        data: data set; methods calibrate on its ``calibration`` split, and decide on its ``validation`` split whether
            a step of theirs is kept.
        model: name of the architecture.
        width: its width multiplier.
        quant_steps: L of the quantised activations, where a method does not ask for another one.
        pretraining: recipe of the ReLU network.
        fine_tuning: recipe of the networks with trained thresholds.
        tuning: recipe of methods that train the spiking network; that of fine-tuning if there is none.
        seed: of initial weights and recipes.
        device: where networks are trained, calibrated and measured: auto, cpu or cuda.
    """

    data: Data
    model: str
    width: float
    quant_steps: int
    pretraining: Recipe
    fine_tuning: Recipe
    seed: int = 0
    device: str = "auto"
    tuning: Recipe | None = None
    _nets: dict[tuple[str, int], nn.Module] = field(default_factory=dict)
    _accuracies: dict[int, float] = field(default_factory=dict)

    def calibration(self) -> list:
        """The calibration images as batches."""
        return list(self.data.batches("calibration", BATCH, device=pick_device(self.device)))

    def validation(self) -> list:
        """The validation images as batches."""
        return list(self.data.batches("validation", BATCH, device=pick_device(self.device)))

    def network(self, source: str, levels: int | None = None) -> nn.Module:
        """The trained network with activation ``source``: relu, clip, qc or qcfs.

        Args:
            source: name of the activation.
            levels: L of a quantised one; ``quant_steps`` by default.

        Raises:
            ValueError: for another source.
        """
        check_choice("source", source, ("relu", "clip", "qc", "qcfs"))
        key = source, (levels or self.quant_steps) if source in ("qc", "qcfs") else 0
        if key not in self._nets:
            self._nets[key] = self._train(*key)
        return self._nets[key].to(pick_device(self.device))

    def _train(self, source: str, levels: int) -> nn.Module:
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
            net = clipped(relu, images) if source == "clip" else quantised(relu, images, levels, shift)
            recipe = self.fine_tuning
        trained(net, self.data, replace(recipe, seed=self.seed), device=self.device)
        return net

    def _source(self, method: str, time_steps: int) -> tuple[str, int | None]:
        """Activation and L of the network that ``method`` converts."""
        check_choice("method", method, METHODS)
        rule = METHODS[method]
        return rule.source, min(time_steps, self.quant_steps) if rule.matched else rule.levels

    def ann(self, method: str, time_steps: int) -> nn.Module:
        """The network that ``method`` converts for T = ``time_steps``: at its own L, or min(T, L) if matched."""
        return self.network(*self._source(method, time_steps))

    def prepare(self, methods: Sequence[str], time_steps: Sequence[int]) -> None:
        """Train, side by side, the networks that ``methods`` convert."""
        self.network("relu")
        asked = dict.fromkeys(self._source(method, t) for method in methods for t in time_steps)
        together([partial(self.network, *source) for source in asked])

    def ann_accuracy(self, method: str, time_steps: int) -> float:
        """Test accuracy, 0 to 1, of that network."""
        net = self.ann(method, time_steps)
        if id(net) not in self._accuracies:
            self._accuracies[id(net)] = accuracy(net, self.data, device=pick_device(self.device))
        return self._accuracies[id(net)]

    def converted(self, method: str, time_steps: int, **options) -> tuple[nn.Module, Report]:
        """The source network of ``method``, converted for T = ``time_steps``; ``options`` are those of the method."""
        check_choice("method", method, METHODS)
        rule = METHODS[method]
        images = {"calibration": self.calibration(), "validation": self.validation()}
        if "recipe" in rule.options:
            recipe = replace(self.tuning or self.fine_tuning, seed=self.seed)
            options = {"data": self.data, "recipe": recipe, "device": self.device} | options
        return convert(self.ann(method, time_steps), method, time_steps=time_steps, **images, **options)

    def networks(
        self, method: str, time_steps: Sequence[int], **options
    ) -> Iterator[tuple[list[int], nn.Module, Report]]:
        """Yield (T, network, report), for each T where the method depends on it, else once for all."""
        check_choice("method", method, METHODS)
        for steps in [[t] for t in time_steps] if METHODS[method].depends_on_T else [list(time_steps)]:
            yield steps, *self.converted(method, max(steps), **options)

    def accuracies(self, snn: nn.Module, report: Report, time_steps: Sequence[int]) -> pd.DataFrame:
        """Accuracy of a converted network at each T.

        Returns:
            Columns ``time_steps``, ``accuracy`` and ``validation_accuracy`` (0 to 1), ``total_steps`` (with steps
            before the T that count), ``seconds`` (of the conversion), ``limit_accuracy`` (T → ∞; missing where the
            network is made for one T or reacts to a pre-run).
        """
        device, method = pick_device(self.device), METHODS[report.method]
        options = {"batch_size": BATCH, "device": device}
        table = accuracy_over_time(snn, self.data, time_steps, **options)
        validated = accuracy_over_time(snn, self.data, time_steps, "validation", **options)
        table = table.merge(validated.rename(columns={"accuracy": "validation_accuracy"}), on="time_steps")
        fixed = not method.depends_on_T and not report.prerun_steps
        limit = accuracy(infinite_time(snn), self.data, device=device) if fixed else math.nan
        total = [total_steps(snn, report, t) for t in table["time_steps"]]
        return table.assign(total_steps=total, seconds=report.seconds, limit_accuracy=limit)

    def compare(self, methods: Sequence[str], time_steps: Sequence[int]) -> pd.DataFrame:
        """Test accuracy of each method's ANN, of its SNN at each T and of the limit T → ∞.

        Returns:
            Columns ``method``, ``seed``, ``ann_accuracy``, ``limit_accuracy``, ``time_steps``, ``total_steps``,
            ``accuracy`` (all 0 to 1), ``loss`` (ANN minus SNN), ``seconds``; see :meth:`accuracies`.
        """
        parts = []
        for method in methods:
            for steps, snn, report in self.networks(method, time_steps):
                ann = self.ann_accuracy(method, max(steps))
                part = self.accuracies(snn, report, steps).assign(method=method, seed=self.seed, ann_accuracy=ann)
                parts.append(part.assign(loss=ann - part["accuracy"]))
        columns = ["method", "seed", "ann_accuracy", "limit_accuracy", "time_steps", "total_steps", "accuracy", "loss"]
        return pd.concat(parts, ignore_index=True)[[*columns, "seconds"]]


def total_steps(snn: nn.Module, report: Report, time_steps: int) -> int:
    """T = ``time_steps`` and the steps that ``snn`` takes beside it, which may depend on T."""
    before, snn.time_steps = snn.time_steps, time_steps
    try:
        return time_steps + getattr(snn, "prerun_steps", report.prerun_steps)
    finally:
        snn.time_steps = before


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


def experiment(p: Params, data: Data, seed: int) -> TwoStage:
    """The experiment of one ``seed`` with the training parameters of a chapter on conversion."""
    common = {"batch_size": p.batch_size, "label_smoothing": p.label_smoothing, "augment": p.augment}
    pretraining = Recipe(epochs=p.epochs, lr=p.lr, **common)
    fine_tuning = Recipe(epochs=p.fine_tune_epochs, lr=p.fine_tune_lr, **common)
    tuning = Recipe(epochs=p.tune_epochs, lr=p.tune_lr, **common)
    return TwoStage(data, p.model, p.width, p.quant_steps, pretraining, fine_tuning, seed, p.device, tuning)


def experiments(p: Params, data: Data) -> list[TwoStage]:
    """One :class:`TwoStage` for each of the ``repeats`` seeds of a chapter's parameters."""
    return [experiment(p, data, seed) for seed in range(p.seed, p.seed + p.repeats)]


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
    for steps in time_steps:
        snn, report = experiment.converted(method, steps)
        ann, spiking = (mean_outputs(net, images) for net in (experiment.ann(method, steps), snn))
        for i, (name, theta) in enumerate(report.thresholds.items()):
            rows.append((steps, i + 1, (spiking[name] - ann[name]) / theta))
    return pd.DataFrame(rows, columns=["time_steps", "layer", "drift"])
