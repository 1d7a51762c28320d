"""EC-SNN as one experiment: an SNN, split by classes into pruned and retrained sub-models, fused on a server.

    parent ─ APoZ of every class ─ masks for C_i ─ prune ─ retrain with "other" ─ features ─ fusion
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from types import SimpleNamespace

import torch
from torch import Tensor, nn

from ..augment import augmentation
from ..cache import trained
from ..checks import check_choice
from ..data import Data, load
from ..data.core import SPLITS
from ..models import build
from ..network import Network
from ..params import ClassSpecificFilters, PrunedNetworks, RepeatedSplitNetworks
from ..side_by_side import Bare, together
from ..splitting import devices
from ..splitting.apoz import ClassZeros, class_zeros
from ..splitting.cost import latency_compute, latency_link
from ..splitting.fusion import FUSIONS, feature_data, fusion
from ..splitting.partition import PARTITIONS, Parts, check_parts
from ..splitting.prune import Masks, masks, prune
from ..splitting.scoring import scorer
from ..splitting.submodel import retraining_set, with_fresh_head
from ..train import Recipe, pick_device
from .samples import spread

#: Samples of a batch in passes without gradient.
BATCH = 128
#: Bytes of features that an experiment keeps of all its plans together; those asked for last are kept in any case.
FEATURES_BYTES = 8 * 2**30


@dataclass(frozen=True)
class SplitPlan:
    """How a network is split: classes of each sub-model, ζ, the floor, and what fills the floor."""

    parts: Parts
    zeta: float
    min_filters: int
    keep: str = "lowest"


@dataclass(frozen=True)
class EcSnn(Bare):
    """Networks of one seed, trained when first asked for and cached by content.

    Attributes:
        data: data set; static, or events with T = ``time_steps`` frames.
        model: name of the architecture, a VGG or CifarNet.
        width: its width multiplier, also that of the hidden layers of heads and fusion.
        time_steps: T.
        warm: recipe of the parent with one time step (with all of them for events).
        tune: recipe of the parent with T time steps, afterwards.
        retrain: recipe of the sub-models.
        fuse: recipe of a fusion.
        rewarm: recipe of the sub-models with one time step, before ``retrain``; none by default, none for events.
        per_other: samples of each other class that a sub-model is retrained on; ``None`` as in equation (others),
            :func:`snnbook.splitting.submodel.others_each`.
        ann_lr: peak learning rate of the ANN twin.
        hide: probability that training hides a device from the fusion.
        views: augmented copies of the training images that a fusion sees besides the images themselves.
        seed: of initial weights and of drawn samples.
        device: where to compute: auto, cpu or cuda.
        hard_reset: whether a spike sets a potential to 0, as the paper writes, and not down by the threshold, as its
            released code does.
    """

    data: Data
    model: str
    width: float
    time_steps: int
    warm: Recipe
    tune: Recipe
    retrain: Recipe
    fuse: Recipe
    rewarm: Recipe | None = None
    per_other: int | None = None
    ann_lr: float = RepeatedSplitNetworks.ann_lr
    hide: float = 0.1
    views: int = 0
    seed: int = 0
    device: str = "auto"
    hard_reset: bool = False
    _kept: dict = field(default_factory=dict, init=False, repr=False, compare=False)

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W) of one frame."""
        return self.data.shape[-3:]

    def once(self, key, make):
        """``make()``, the first time that ``key`` is asked for; what it gave, from then on."""
        if key not in self._kept:
            self._kept[key] = make()
        return self._kept[key]

    def _trained(self, net: nn.Module, data: Data, recipe: Recipe) -> nn.Module:
        trained(net, data, replace(recipe, seed=self.seed), device=self.device)
        return net.eval()

    def batches(self, split: str, samples: int | None = None, size: int = BATCH) -> Iterator[tuple[Tensor, Tensor]]:
        """``samples`` samples spread evenly over a split (all by default) as batches of normalised (x, y)."""
        chosen = spread(getattr(self.data, split), samples)
        return self.data.batches(chosen, size, device=pick_device(self.device))

    def _built(self, activation: str, **options) -> Network:
        options |= {"n_classes": self.data.n_classes, "shape": self.shape, "width": self.width, "seed": self.seed}
        return build(self.model, activation, head="mlp", **options)

    def parent(self) -> Network:
        """The unsplit SNN: first with T = 1, which is cheap, then with T = ``time_steps``; events always with T."""
        return self.once("parent", self._make_parent).to(pick_device(self.device))

    def _make_parent(self) -> Network:
        reset = {"v_reset": 0.0} if self.hard_reset else {}
        net = self._built("lif", time_steps=self.time_steps, **reset)
        return self._twice(net, self.data, self.warm, self.tune)

    def _twice(self, net: Network, data: Data, first: Recipe | None, then: Recipe) -> Network:
        """Train with T = 1, and then with all steps; events, whose frames differ, always with all."""
        if first is not None:
            net.time_steps = self.time_steps if data.kind == "events" else 1
            self._trained(net, data, first)
            net.time_steps = self.time_steps
        return self._trained(net, data, then)

    def ann(self) -> Network:
        """The ANN twin with ReLU and max pooling: as many epochs as the SNN in both trainings, at its own rate."""
        recipe = replace(self.warm, lr=self.ann_lr, epochs=self.warm.epochs + self.tune.epochs)
        net = self.once("ann", lambda: self._trained(self._built("relu", pool="max"), self.data, recipe))
        return net.to(pick_device(self.device))

    def zeros(self) -> dict[str, ClassZeros]:
        """Zeros of every filter of the parent for every class, over the training split."""
        return self.once("zeros", lambda: class_zeros(self.parent(), self.batches("train"), self.data.n_classes))

    def parts(
        self, n_devices: int, partition: str = "contiguous", zeta: float = 95.0, min_filters: int = 16
    ) -> Parts:
        """Classes of each of ``n_devices`` sub-models.

        k-means looks at the rates of the last layer for each class. A joint partition swaps neighbouring labels as
        long as the slowest of equal boards (Raspberry Pi 4B) gets faster with its link, at ``zeta`` and
        ``min_filters``; for boards that differ see chapter 22.

        Raises:
            ValueError: for an unknown partition, or more devices than classes.
        """
        check_choice("partition", partition, PARTITIONS)
        rates = 1 - list(self.zeros().values())[-1].each_class()
        given = self.parent(), self.zeros(), self.shape, min_filters, self.data.kind != "events"
        score = self.once(("score", min_filters), lambda: scorer(*given))
        board = devices.device("raspberry_pi_4b")

        def slowest(parts: Parts) -> float:
            return max(latency_compute(asked, board) + latency_link(asked, board) for asked in score(parts, zeta))

        return PARTITIONS[partition].make(rates.nan_to_num().numpy(), n_devices, self.seed, slowest)

    def plan(
        self,
        n_devices: int,
        zeta: float = 95.0,
        min_filters: int = 16,
        partition: str | Parts = "contiguous",
        keep: str = "lowest",
    ) -> SplitPlan:
        """A :class:`SplitPlan`, with the parts of a named partition, or with parts that are given."""
        named = isinstance(partition, str)
        if named:
            parts = self.parts(n_devices, partition, zeta, min_filters)
        else:
            parts = check_parts(partition, self.data.n_classes)
        return SplitPlan(parts, zeta, min_filters, keep)

    def masks(self, plan: SplitPlan) -> list[Masks]:
        """Filters that each sub-model keeps."""
        apoz = [{name: z.apoz(classes) for name, z in self.zeros().items()} for classes in plan.parts]
        return [masks(a, plan.zeta, plan.min_filters, plan.keep) for a in apoz]

    def pruned(self, plan: SplitPlan) -> list[Network]:
        """The parent without the other filters, for each sub-model; its head as it was, nothing retrained."""
        return [prune(self.parent(), chosen).eval() for chosen in self.masks(plan)]

    def submodels(self, plan: SplitPlan) -> list[Network]:
        """Each sub-model with a head of its own, retrained on its classes and "other"."""
        nets = self.once(("submodels", plan), lambda: self._retrained(plan))
        return [net.to(pick_device(self.device)) for net in nets]

    def _retrained(self, plan: SplitPlan) -> list[Network]:
        pruned = [net.cpu() for net in self.pruned(plan)]
        numbered = enumerate(zip(plan.parts, pruned, strict=True))
        return together([partial(self._retrain, i, classes, net) for i, (classes, net) in numbered])

    def _own_and_other(self, i: int, classes: Sequence[int]) -> Data:
        return retraining_set(self.data, classes, torch.Generator().manual_seed(self.seed * 1009 + i), self.per_other)

    def _retrain(self, i: int, classes: Sequence[int], net: Network) -> Network:
        data = self._own_and_other(i, classes)
        fresh = with_fresh_head(net, len(classes), self.width, seed=self.seed)
        return self._twice(fresh, data, None if data.kind == "events" else self.rewarm, self.retrain)

    def pruned_ann(self, plan: SplitPlan) -> Network:
        """The ANN twin with as many filters in each layer as the first sub-model has, those of lowest APoZ, retrained.

        Its head is a fresh one, of the same kind as that of the sub-model. It gets the recipes of a sub-model with
        twice the epochs, which are cheap with a single step.
        """
        return self.once(("pruned ann", plan), lambda: self._make_pruned_ann(plan)).to(pick_device(self.device))

    def _make_pruned_ann(self, plan: SplitPlan) -> Network:
        classes, sizes = plan.parts[0], [int(m.sum()) for m in self.masks(plan)[0].values()]
        zeros = class_zeros(self.ann(), self.batches("train"), self.data.n_classes)
        apoz = {name: z.apoz(classes) for name, z in zeros.items()}
        chosen = {name: masks({name: a}, 0, n)[name] for (name, a), n in zip(apoz.items(), sizes, strict=True)}
        data = self._own_and_other(0, classes)
        net = with_fresh_head(prune(self.ann(), chosen).cpu(), len(classes), self.width, seed=self.seed)
        for recipe in (self.rewarm, self.retrain):
            net = net if recipe is None else self._trained(net, data, replace(recipe, epochs=2 * recipe.epochs))
        return net

    def features(self, plan: SplitPlan) -> Data:
        """What the server receives for every sample of every split, as a data set."""
        augment = augmentation(self.warm.augment) if self.views else None
        options = {"device": pick_device(self.device), "views": self.views, "augment": augment, "seed": self.seed}
        found = self.once(("features", plan), lambda: feature_data(self.submodels(plan), self.data, **options))
        self._make_room(plan)
        return found

    def _make_room(self, last: SplitPlan) -> None:
        """Forget features, those of the oldest plan first, never the ``last``, while all need over FEATURES_BYTES."""
        held = {k: sum(getattr(d, s).x.nbytes for s in SPLITS) for k, d in self._kept.items() if k[0] == "features"}
        for key in [key for key in held if key != ("features", last)]:
            if sum(held.values()) > FEATURES_BYTES:
                del self._kept[key], held[key]

    def fused(self, plan: SplitPlan, rule: str = "mlp", hide: float | None = None) -> nn.Sequential:
        """A trained fusion of :meth:`features`; its module ``fuse`` maps [..., ΣF'] to logits [..., K].

        ``hide`` in the place of the experiment's own; a single device is never hidden, as nothing would be left.
        """
        hide = 0.0 if len(plan.parts) == 1 else self.hide if hide is None else hide
        return self.once(("fused", plan, rule, hide), lambda: self._make_fused(plan, rule, hide))

    def _make_fused(self, plan: SplitPlan, rule: str, hide: float) -> nn.Sequential:
        subs = [net.cpu() for net in self.submodels(plan)]
        net = fusion(rule, subs, plan.parts, self.data.n_classes, self.width, hide, self.seed)
        if not FUSIONS[rule].trained:
            return net.eval()
        return self._trained(net, self.features(plan), replace(self.fuse, lr=self.fuse.lr * FUSIONS[rule].pace))


def load_data(p: PrunedNetworks) -> Data:
    """The data set of a chapter's parameters; its split does not depend on ``seed``."""
    options = {"time_steps": p.time_steps, "calibration": p.calibration, "validation": p.validation}
    return load(p.dataset, p.data_dir, **options)


def experiment(p: PrunedNetworks, data: Data, seed: int) -> EcSnn:
    """The experiment of one ``seed`` with a chapter's parameters; what the chapter does not take has its default."""
    p = SimpleNamespace(**(RepeatedSplitNetworks().asdict() | p.asdict()))
    augment = {"image": p.augment, "audio": p.augment_sounds, "events": ""}[data.kind]
    common = {"batch_size": p.batch_size, "label_smoothing": p.label_smoothing, "loss": "mean_loss"}
    warm = Recipe(epochs=p.warm_epochs, lr=p.lr, augment=augment, **common)
    tune = Recipe(epochs=p.epochs, lr=p.tune_lr, augment=augment, **common)
    retrain = Recipe(epochs=p.retrain_epochs, lr=p.retrain_lr, augment=augment, **common)
    fuse = Recipe(epochs=p.fusion_epochs, lr=p.fusion_lr, optimizer="adam", **common)
    recipes = {"warm": warm, "tune": tune, "retrain": retrain, "fuse": fuse}
    if p.rewarm_epochs:
        recipes["rewarm"] = replace(retrain, epochs=p.rewarm_epochs)
    options = {"hide": p.feature_dropout, "views": p.views if augment else 0, "seed": seed, "device": p.device}
    options |= {"hard_reset": p.hard_reset, "ann_lr": p.ann_lr, "per_other": p.other_samples or None}
    return EcSnn(data, p.model, p.width, p.time_steps, **recipes, **options)


def experiments(p: RepeatedSplitNetworks | ClassSpecificFilters, data: Data) -> list[EcSnn]:
    """One :class:`EcSnn` for each of the ``repeats`` seeds of a chapter's parameters."""
    return [experiment(p, data, seed) for seed in range(p.seed, p.seed + p.repeats)]


def plan(p: PrunedNetworks, e: EcSnn, **changes) -> SplitPlan:
    """The plan of a chapter's parameters; ``changes`` of n_devices, zeta, min_filters, partition or keep."""
    given = {n: getattr(p, n) for n in ("n_devices", "zeta", "min_filters", "partition")}
    return e.plan(**(given | changes))
