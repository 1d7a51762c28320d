"""SpikeBottleNet as one experiment: spiking backbones, networks with a codec in them, BottleNet++ on the ANN twin.

Spiking networks are trained in two steps (Hassan and Davy 2024): the backbone, here with one time step first and then
with all T; then backbone and codec together. BottleNet++ is trained in three: the ANN; its codec with the rest frozen;
both together. So a network with a codec has been trained for longer than the one that its drop refers to; the control
is that one, trained on by the same recipe without a codec.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial

import pandas as pd
from torch import nn

from ..bottleneck import baseline
from ..bottleneck.backbone import backbone, split_points, twin
from ..bottleneck.codec import compress, head
from ..bottleneck.energy import block_rates, counted, joules, snn_joules
from ..bottleneck.selection import Candidate
from ..bottleneck.sizes import Report
from ..cache import code_hash, kept_table, state_hash, trained
from ..checks import check
from ..data import Data
from ..evaluate import accuracy
from ..network import Network
from ..params import BottleneckNetworks
from ..side_by_side import Bare, together
from ..sources import behind
from ..train import Recipe, pick_device
from .samples import spread

#: Images of a batch whose operations are counted: all T steps of it are in memory at once.
COUNTED = 16


@dataclass(frozen=True)
class SpikeBottleNet(Bare):
    """Networks of one seed, trained when first asked for and cached by content.

    Attributes:
        data: data set of images.
        structure: arguments ``name``, ``width``, ``blocks`` and ``order`` of the backbone.
        neuron: arguments of :func:`snnbook.bottleneck.backbone.iterative_lif`.
        warm_up: recipe of the spiking network at T = 1.
        training: its recipe at T.
        ann_training: recipe of the ANN twin.
        codec_training: recipe of a BottleNet++ codec with the rest frozen.
        fine_tuning: recipe of a network with its codec.
        seed: of initial weights and recipes.
        device: where networks are trained and measured: auto, cpu or cuda.
    """

    data: Data
    structure: dict
    neuron: dict
    warm_up: Recipe
    training: Recipe
    ann_training: Recipe
    codec_training: Recipe
    fine_tuning: Recipe
    seed: int = 0
    device: str = "auto"
    _nets: dict[tuple, nn.Module] = field(default_factory=dict, init=False, repr=False, compare=False)
    _accuracies: dict[tuple, float] = field(default_factory=dict, init=False, repr=False, compare=False)

    def _options(self) -> dict:
        return {"n_classes": self.data.n_classes, "shape": self.data.shape, "seed": self.seed, **self.structure}

    def _train(self, net: Network, recipe: Recipe) -> Network:
        trained(net, self.data, replace(recipe, seed=self.seed), device=self.device)
        return net

    def untrained(self, time_steps: int) -> Network:
        """The spiking backbone at its start."""
        return backbone(time_steps, **self._options(), **self.neuron)

    def backbone(self, time_steps: int) -> Network:
        """The trained spiking backbone for T = ``time_steps``."""
        if ("warm",) not in self._nets:
            self._nets["warm",] = self._train(self.untrained(1), self.warm_up)
        if (time_steps,) not in self._nets:
            net = copy.deepcopy(self._nets["warm",])
            net.time_steps = time_steps
            self._nets[time_steps,] = self._train(net, self.training)
        return self._nets[time_steps,]

    def ann(self) -> Network:
        """The trained ANN twin: the same blocks in the order of an ordinary ResNet."""
        if ("ann",) not in self._nets:
            net = twin(**self._options() | {"order": "post"})
            self._nets["ann",] = self._train(net, self.ann_training)
        return self._nets["ann",]

    def trained_on(self, time_steps: int | None) -> Network:
        """The network without a codec after the training that one with a codec ends with: ``fine_tuning``.

        Args:
            time_steps: T of the spiking backbone; ``None``: the ANN.
        """
        if (key := ("trained on", time_steps)) not in self._nets:
            net = copy.deepcopy(self.ann() if time_steps is None else self.backbone(time_steps))
            self._nets[key] = self._train(net, self.fine_tuning)
        return self._nets[key]

    def compressed(self, candidate: Candidate) -> tuple[Network, Report]:
        """The backbone with a spike codec in it, fine-tuned as a whole, and what it sends."""
        split_point, channels, stride, T = candidate
        net, report = compress(self.backbone(T), self.data.shape, split_point, channels, stride, seed=self.seed)
        if candidate not in self._nets:
            self._nets[candidate] = self._train(net, self.fine_tuning)
        return self._nets[candidate], report

    def bottlenet(self, split_point: int, channels: int, stride: int = 1, bits: int = 8) -> tuple[Network, Report]:
        """The ANN with the codec of BottleNet++ in it, trained in three steps, and what it sends."""
        key = "bottlenet", split_point, channels, stride, bits
        net, report = baseline.compress(
            self.ann(), self.data.shape, split_point, channels, stride, bits=bits, seed=self.seed
        )
        if key not in self._nets:
            with baseline.frozen(net):
                self._train(net, self.codec_training)
            self._nets[key] = self._train(net, self.fine_tuning)
        return self._nets[key], report

    def accuracy(self, net: Network, data: Data | None = None, split: str = "test") -> float:
        """Accuracy on a split, 0 to 1; of other images of the same classes where ``data`` is given."""
        if data is not None:
            return accuracy(net, data, split, device=pick_device(self.device))
        if (key := (state_hash(net), net.time_steps, split)) not in self._accuracies:
            self._accuracies[key] = accuracy(net, self.data, split, device=pick_device(self.device))
        return self._accuracies[key]

    def accuracies(self, net: Network, data: Data | None = None) -> tuple[float, float]:
        """Accuracy on test images, and on validation images, by which alone something may be chosen."""
        return self.accuracy(net, data), self.accuracy(net, data, "validation")

    def points(self) -> pd.DataFrame:
        """The split points; see :func:`snnbook.bottleneck.backbone.split_points`."""
        return split_points(self.untrained(1), self.data.shape)

    def batches(self, samples: int) -> list:
        """``samples`` test images, all if there are no more, spread over the split, as batches of ``COUNTED``."""
        images = spread(self.data.test, samples)
        return list(self.data.batches(images, COUNTED, device=pick_device(self.device)))


def measure(experiment: SpikeBottleNet, candidate: Candidate, samples: int, best_steps: int) -> pd.DataFrame:
    """One candidate; see :func:`search` for the columns."""
    net, report = experiment.compressed(candidate)
    device, batches = head(net).to(pick_device(experiment.device)), experiment.batches(samples)
    rates = block_rates(device, batches).query("block != 'encoder'")
    rate = rates["cumulative_rate"].iloc[-1]
    macs = experiment.points()["cumulative_macs"].iloc[candidate.split_point - 1]
    nets = net, experiment.backbone(candidate.time_steps), experiment.backbone(best_steps)
    accuracies = {}
    for split, front in (("test", ""), ("validation", "validation_")):
        reached, own, most = (experiment.accuracy(one, split=split) for one in nets)
        found = {"accuracy": reached, "backbone_accuracy": own, "drop": own - reached, "drop_from_best": most - reached}
        accuracies |= {front + name: value for name, value in found.items()}
    row = candidate._asdict() | accuracies | {
        "bits": report.bits,
        "bytes": report.bytes,
        "compression": report.compression,
        "rate": rate,
        "paper_joules": snn_joules(macs, rate, candidate.time_steps),
        "counted_joules": joules(counted(device, batches)),
    }
    return pd.DataFrame([row])


def _decisive(experiment: SpikeBottleNet, candidate: Candidate, samples: int, best_steps: int) -> list:
    nets = [experiment.backbone(T) for T in (candidate.time_steps, best_steps)]
    parts = [*map(state_hash, nets), repr(nets[0]), experiment.data.fingerprint, list(candidate), samples, best_steps]
    parts += [repr(replace(experiment.fine_tuning, seed=experiment.seed)), pick_device(experiment.device)]
    return [*parts, code_hash(behind("experiments/spike_bottlenet"))]


def remembered(experiment: SpikeBottleNet, candidate: Candidate, samples: int, best_steps: int) -> pd.DataFrame:
    """:func:`measure`, or what it gave when the same was measured before."""
    given = experiment, candidate, samples, best_steps
    return kept_table(_decisive(*given), lambda: measure(*given))


def search(experiment: SpikeBottleNet, candidates: Sequence[Candidate], samples: int) -> pd.DataFrame:
    """Train and measure every candidate, side by side; a search that was stopped goes on with the next.

    Args:
        experiment: where networks come from.
        candidates: what to try, from :func:`snnbook.bottleneck.selection.grid`.
        samples: test images over which spikes and operations are counted; accuracy is that of all test images.

    Returns:
        One row a candidate: its four numbers; ``accuracy``; ``backbone_accuracy`` at the same T; ``drop`` from it and
        ``drop_from_best`` from the backbone at the largest T of all candidates (all 0 to 1); these four again as
        ``validation_…``, for :func:`snnbook.bottleneck.selection.choose`; ``bits``, ``bytes`` and
        ``compression`` of the payload; ``rate`` (f_r of the blocks on the device); ``paper_joules`` and
        ``counted_joules`` of the device's part at 45 nm, of the blocks' convolutions and of every operation: memory
        traffic and the radio are in neither.

    Raises:
        ValueError: if there are no candidates.
    """
    check("candidates", len(candidates), len(candidates) > 0, "at least one")
    best_steps = max(c.time_steps for c in candidates)
    together([partial(experiment.backbone, T) for T in sorted({c.time_steps for c in candidates})])
    parts = together([partial(remembered, experiment, c, samples, best_steps) for c in candidates])
    return pd.concat(parts, ignore_index=True)


def experiment(p: BottleneckNetworks, data: Data, seed: int) -> SpikeBottleNet:
    """The experiment of one ``seed`` with the parameters of a chapter."""
    common = {n: getattr(p, n) for n in ("batch_size", "label_smoothing", "augment", "weight_decay")}
    recipes = {
        "warm_up": Recipe(epochs=p.warm_epochs, lr=p.lr, **common),
        "training": Recipe(epochs=p.epochs, lr=p.lr, **common),
        "ann_training": Recipe(epochs=p.warm_epochs + p.epochs, lr=p.ann_lr, **common),
        "codec_training": Recipe(epochs=p.codec_epochs, lr=p.ann_lr, **common),
        "fine_tuning": Recipe(epochs=p.fine_tune_epochs, lr=p.fine_tune_lr, **common),
    }
    structure = {"name": p.model, "width": p.width, "blocks": tuple(p.blocks), "order": p.order}
    neuron = {n: getattr(p, n) for n in ("leak", "threshold", "window")}
    return SpikeBottleNet(data, structure, neuron, **recipes, seed=seed, device=p.device)
