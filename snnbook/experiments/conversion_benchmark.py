"""Conversion methods side by side: accuracy, steps, spikes and operations of each at each T.

What is measured is kept by content beside the trained networks: a benchmark that was stopped goes on with the next
method, and chapters share what they have in common.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import pandas as pd
from torch import Tensor, nn

from ..cache import code_hash, kept_table, state_hash
from ..conversion import METHODS
from ..energy import count_operations
from ..evaluate import accuracy
from ..record import observe
from ..side_by_side import together
from ..sources import behind
from ..train import pick_device
from .samples import spread
from .two_stage import TwoStage

#: Images of a batch whose operations are counted: all T steps of it are in memory at once.
COUNTED = 16


class Spikes:
    """Spikes of all layers per step; pass it as ``neuron`` to :func:`snnbook.record.observe`.

    Runs of different lengths add up step by step.
    """

    def __init__(self) -> None:
        self.per_step: dict[int, float] = {}

    def __call__(self, name: str, layer: nn.Module, drive: Tensor, output: Tensor) -> None:
        steps = output.unflatten(0, (layer.time_steps, -1)) if layer.time_steps else output[None]
        for step, spikes in enumerate(steps):
            self.per_step[step + 1] = self.per_step.get(step + 1, 0.0) + spikes.count_nonzero().item()


def _run(snn: nn.Module, batches: list, time_steps: int) -> pd.DataFrame:
    """Per step of one run: columns ``step``, ``spikes``, ``mac``, ``ac``, ``all_mac``, ``all_ac``, per image."""
    spikes, before, snn.time_steps = Spikes(), snn.time_steps, time_steps
    try:
        with observe(snn, neuron=spikes):
            operations = count_operations(snn, batches)
    finally:
        snn.time_steps = before
    images = sum(len(y) for _, y in batches)
    table = pd.DataFrame({"spikes": spikes.per_step}) / images
    for prefix, rows in (("", operations[operations["part"] == "connection"]), ("all_", operations)):
        wide = rows.pivot_table(index="step", columns="kind", values="operations", aggfunc="sum")
        for kind in ("mac", "ac"):
            table[prefix + kind] = wide.get(kind, pd.Series(dtype=float)).reindex(table.index).fillna(0.0)
    return table.rename_axis("step").reset_index()


def operations_over_time(
    snn: nn.Module, batches: list, time_steps: Sequence[int], prerun: bool = False
) -> pd.DataFrame:
    """Spikes and operations per image up to each T.

    Args:
        snn: converted network.
        batches: (x, y) pairs.
        time_steps: values of T.
        prerun: whether steps come before the T that count: then each T is a run of its own, and all its steps count.

    Returns:
        Columns ``time_steps``; ``spikes`` of all neurons; ``mac`` and ``ac`` of connections, as papers count;
        ``all_mac`` and ``all_ac`` with neurons, pools and residual additions.
    """
    if prerun:
        rows = [_run(snn, batches, t).drop(columns="step").sum() for t in time_steps]
    else:
        summed = _run(snn, batches, max(time_steps)).set_index("step").cumsum()
        rows = [summed.loc[t] for t in time_steps]
    return pd.DataFrame(rows).reset_index(drop=True).assign(time_steps=list(time_steps))


def measure(experiment: TwoStage, method: str, time_steps: Sequence[int], samples: int) -> pd.DataFrame:
    """Accuracy, steps, spikes and operations of one method; see :func:`benchmark` for the columns."""
    device, images = pick_device(experiment.device), spread(experiment.data.test, samples)
    batches = list(experiment.data.batches(images, COUNTED, device=device))
    parts = []
    for steps, snn, report in experiment.networks(method, time_steps):
        counted = operations_over_time(snn, batches, steps, prerun=report.prerun_steps > 0)
        part = experiment.accuracies(snn, report, steps).merge(counted, on="time_steps")
        part = part.assign(calibration_images=report.calibration_images, spike_type=report.spikes)
        part = part.assign(validation_images=report.validation_images, training_images=report.training_images)
        parts.append(part.assign(ann_accuracy=experiment.ann_accuracy(method, max(steps))))
    table = pd.concat(parts, ignore_index=True)
    net, data = experiment.network("relu"), experiment.data
    relu, validated = (accuracy(net, data, part, device=device) for part in ("test", "validation"))
    about = {"method": method, "source": METHODS[method].source, "seed": experiment.seed, "relu_accuracy": relu}
    about["relu_validation_accuracy"] = validated
    return table.assign(**about, loss=table["ann_accuracy"] - table["accuracy"], relu_loss=relu - table["accuracy"])


def _decisive(experiment: TwoStage, method: str, time_steps: Sequence[int], samples: int) -> list:
    nets = {id(net): net for net in (experiment.ann(method, t) for t in time_steps)}
    parts = [state_hash(net) for net in (experiment.network("relu"), *nets.values())]
    parts += [experiment.data.fingerprint, method, samples, list(time_steps), experiment.seed]
    parts += [repr(experiment.tuning), pick_device(experiment.device)]
    return [*parts, code_hash(behind("experiments/conversion_benchmark"))]


def remembered(experiment: TwoStage, method: str, time_steps: Sequence[int], samples: int) -> pd.DataFrame:
    """:func:`measure`, or what it gave when the same was measured before."""
    given = experiment, method, time_steps, samples
    return kept_table(_decisive(*given), lambda: measure(*given))


def benchmark(
    experiments: Sequence[TwoStage], methods: Sequence[str], time_steps: Sequence[int], samples: int
) -> pd.DataFrame:
    """Every method at every T for every seed, side by side.

    Args:
        experiments: trained networks, one for each seed.
        methods: names in ``METHODS``.
        time_steps: values of T.
        samples: test images over which spikes and operations are counted; accuracy is that of all test images.

    Returns:
        Columns ``method``, ``source`` (activation of its ANN), ``seed``, ``ann_accuracy``, ``time_steps``,
        ``total_steps`` (with steps before the T that count), ``accuracy``, ``loss`` (against its own ANN),
        ``relu_loss`` (against the ReLU network), ``relu_accuracy``, ``limit_accuracy``, ``validation_accuracy``,
        ``relu_validation_accuracy`` (all 0 to 1; of test images but the last two), the columns of
        :func:`operations_over_time`, ``seconds`` of conversion, ``calibration_images``, ``spike_type``,
        ``validation_images`` (on which it was decided whether a step is kept), ``training_images`` (that the spiking
        network was trained on).
    """
    for e in experiments:
        e.prepare(methods, time_steps)
    parts = together([partial(remembered, e, m, time_steps, samples) for e in experiments for m in methods])
    first = ["method", "source", "seed", "ann_accuracy", "time_steps", "total_steps", "accuracy", "loss"]
    table = pd.concat(parts, ignore_index=True)
    return table[first + [c for c in table.columns if c not in first]]
