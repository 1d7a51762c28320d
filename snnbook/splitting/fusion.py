"""Fusion on the server: features of all devices, concatenated, to logits of the K classes.

Neither the heads nor the fusion MLP of EC-SNN's released code have a neuron between their linear layers. Without
dropout each is one affine map (:func:`collapsed`), which is all that has to be deployed.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from .. import store
from ..checks import check, check_choice
from ..data import Data, Split
from ..data.core import SPLITS, Augment
from ..engine import prepare
from ..models import initialise
from ..network import Network
from .partition import Parts
from .prune import first_linear
from .submodel import device_part, linear_stack, server_part

#: Samples of a batch where features are computed and measured.
BATCH = 256


def feature_sizes(subs: Sequence[Network]) -> list[int]:
    """F' of each sub-model: the features that it contributes at each step."""
    return [net.get_submodule(first_linear(net)).in_features for net in subs]


def _window(net: Network) -> int:
    """Neurons that one feature averages: a feature is a whole number of spikes over this window."""
    pools = [m for m in server_part(net) if isinstance(m, nn.AvgPool2d)]
    return pools[0].kernel_size ** 2 if pools else 1


def _counter(net: Network, example: Tensor) -> Callable[[Tensor], Tensor]:
    """From samples like ``example`` to a sub-model's features as whole numbers of spikes, uint8 [T, N, F']."""
    device, server, window = prepare(device_part(net), example), server_part(net), _window(net)

    def counts(x: Tensor) -> Tensor:
        spikes = device(x)
        features = server(spikes.flatten(0, 1)).unflatten(0, spikes.shape[:2])
        return (features * window).round().to(torch.uint8)

    return counts


def _features(counters: Sequence[Callable[[Tensor], Tensor]], batches) -> Split:
    """Features of all sub-models for ``batches`` of (x, y)."""
    rows, labels = [], []
    with torch.no_grad():
        for x, y in batches:
            rows.append(torch.cat([counts(x) for counts in counters], 2).transpose(0, 1).cpu())
            labels.append(y.cpu())
    return Split(torch.cat(rows)[..., None, None].contiguous(), torch.cat(labels))


def feature_data(
    subs: Sequence[Network],
    data: Data,
    device: str = "cpu",
    views: int = 0,
    augment: Augment | None = None,
    seed: int = 0,
) -> Data:
    """Features of all sub-models for all splits, computed once, as a data set to train a fusion on.

    Args:
        subs: sub-models, in eval mode; all with the same T and the same pooling.
        data: what the devices sense.
        device: where to compute.
        views: augmented copies of the training images that follow the images themselves.
        augment: how; see :meth:`snnbook.data.Data.batches`.
        seed: of the augmentation.

    Returns:
        Data of kind "events": x uint8 [N, T, ΣF', 1, 1], spikes in a pooling window; normalised, x is what
        :func:`snnbook.splitting.submodel.server_part` gives.

    Raises:
        ValueError: if the sub-models pool differently.
    """
    windows = {_window(net) for net in subs}
    check("subs", sorted(windows), len(windows) == 1, "sub-models with the same pooling")
    example, _ = next(data.batches("train", 1, device=device))
    counters = [_counter(net.eval().to(device), example) for net in subs]
    splits = {name: _features(counters, data.batches(name, BATCH, device=device)) for name in SPLITS}
    generator, seen = torch.Generator().manual_seed(seed), [splits["train"]]
    for _ in range(views):
        seen.append(_features(counters, data.batches("train", BATCH, generator, augment, device=device)))
    splits["train"] = Split(torch.cat([s.x for s in seen]), torch.cat([s.y for s in seen]))
    shape = tuple(splits["train"].x.shape[1:])
    mean, std = torch.zeros(shape[1]), torch.full((shape[1],), float(windows.pop()))
    return replace(data, kind="events", **splits, shape=shape, mean=mean, std=std)


class HideDevices(nn.Module):
    """While training, set all features of a device to zero with probability ``p``, for each sample apart.

    The zeros are those that the server sees of a device that it lost. [T, N, ΣF'] to the same.
    """

    def __init__(self, sizes: Sequence[int], p: float):
        super().__init__()
        check("p", p, 0 <= p < 1, "0 to below 1")
        self.sizes, self.p = tuple(sizes), p

    def extra_repr(self) -> str:
        """Everything that decides what it does (the cache relies on it)."""
        return f"sizes={self.sizes}, p={self.p}"

    def forward(self, x: Tensor) -> Tensor:
        """As the class says; nothing happens in eval mode."""
        if not self.training or self.p == 0:
            return x
        stays = torch.rand(x.shape[-2], len(self.sizes)) >= self.p  # one draw on the CPU, whatever the device
        return x * device_mask(stays, self.sizes).to(x)


def device_mask(stays: Tensor, sizes: Sequence[int]) -> Tensor:
    """Flags of devices, bool [..., P], as flags of their features, bool [..., ΣF']."""
    return stays.repeat_interleave(torch.tensor(sizes), -1)


def collapsed(head: nn.Sequential) -> nn.Linear:
    """The one affine map that a stack of linear layers is in eval mode, multiplied out in float64.

    Raises:
        ValueError: if anything but Flatten and Dropout stands between the linear layers.
    """
    others = [type(m).__name__ for m in head if not isinstance(m, nn.Linear | nn.Flatten | nn.Dropout)]
    check("head", others, not others, "linear layers with nothing but Flatten and Dropout between")
    linear = [m for m in head if isinstance(m, nn.Linear)]
    weight = torch.eye(linear[0].in_features, dtype=torch.float64)
    bias = torch.zeros(linear[0].in_features, dtype=torch.float64)
    for m in linear:
        w = m.weight.detach().double().cpu()
        weight, bias = w @ weight, w @ bias + (0 if m.bias is None else m.bias.detach().double().cpu())
    return _linear(weight, bias)


def _linear(weight: Tensor, bias: Tensor) -> nn.Linear:
    new = nn.Linear(weight.shape[1], weight.shape[0])
    with torch.no_grad():
        new.weight.copy_(weight)
        new.bias.copy_(bias)
    return new


def votes(head: nn.Sequential, classes: Sequence[int], n_classes: int) -> nn.Linear:
    """A sub-model's own head as an affine map from its features to log-odds of all K classes.

    Its label i ≥ 1 speaks for class ``classes[i − 1]``. Its "other" is shared out evenly: each of the K − |C_i|
    classes outside gets the logit of "other" minus log(K − |C_i|), so that probabilities still add up to one.
    """
    own = collapsed(head)
    outside = sorted(set(range(n_classes)) - set(classes))
    spread = torch.zeros(n_classes, own.out_features, dtype=torch.float64)
    spread[list(classes), list(range(1, len(classes) + 1))] = 1
    spread[outside, 0] = 1
    bias = spread @ own.bias.detach().double()
    bias[outside] -= np.log(max(1, len(outside)))
    return _linear(spread @ own.weight.detach().double(), bias)


@store.register
class LogitAverage(nn.Module):
    """Mean over devices of their :func:`votes`: the product of experts. Needs no training.

    A device whose features are all zero at a step, as those of a lost one, has no vote at that step.

    Args:
        votes: one affine map F'_i → K for each device.
    """

    def __init__(self, votes: nn.ModuleList):
        super().__init__()
        self.votes = votes

    def forward(self, x: Tensor) -> Tensor:
        """Features [..., ΣF'] to logits [..., K]."""
        return self.shares(x).sum(0)

    def shares(self, x: Tensor) -> Tensor:
        """What each device adds to the logits, [P, ..., K]."""
        parts = x.split([m.in_features for m in self.votes], -1)
        heard = [m(part) * part.any(-1, keepdim=True) for m, part in zip(self.votes, parts, strict=True)]
        return torch.stack(heard) / len(heard)


def logit_average(subs: Sequence[Network], parts: Parts, n_classes: int, width: float, seed: int) -> nn.Module:
    """Each sub-model keeps its own head; see :class:`LogitAverage`. ``width`` and ``seed`` do nothing."""
    maps = [votes(net.head, classes, n_classes) for net, classes in zip(subs, parts, strict=True)]
    return LogitAverage(nn.ModuleList(maps))


def mlp(subs: Sequence[Network], parts: Parts, n_classes: int, width: float, seed: int) -> nn.Module:
    """The paper's fusion for P devices: ΣF' → 384 P → 192 P → K P → K, dropout .5 after the first two.

    ``width`` multiplies 384 and 192, ``seed`` gives the first weights.
    """
    P = len(subs)
    hidden = [max(4, round(n * width)) * P for n in (384, 192)]
    sizes = [sum(feature_sizes(subs)), *hidden, n_classes * P, n_classes]
    return initialise(nn.Sequential(*linear_stack(sizes, [0, 0.5, 0.5, 0])), seed)


def probe(subs: Sequence[Network], parts: Parts, n_classes: int, width: float, seed: int) -> nn.Module:
    """A linear probe: ΣF' → K in one layer, the map that :func:`mlp` is after training; ``width`` does nothing."""
    return initialise(nn.Sequential(nn.Linear(sum(feature_sizes(subs)), n_classes)), seed)


@dataclass(frozen=True)
class Rule:
    """A fusion: ``make(subs, parts, n_classes, width, seed)``, one line of help, and how it is trained.

    Attributes:
        trained: whether it is.
        pace: multiplier on the learning rate; one layer alone takes longer steps than a product of four.
    """

    make: Callable[[Sequence[Network], Parts, int, float, int], nn.Module]
    help: str
    trained: bool = True
    pace: float = 1.0


#: Fusions by name.
FUSIONS = {
    "mlp": Rule(mlp, "linear layers with dropout between, as in the paper"),
    "logit_average": Rule(logit_average, "mean of the sub-models' own logits", trained=False),
    "probe": Rule(probe, "one linear layer", pace=10.0),
}


def fusion(
    rule: str,
    subs: Sequence[Network],
    parts: Parts,
    n_classes: int,
    width: float = 1.0,
    hide: float = 0.0,
    seed: int = 0,
) -> nn.Sequential:
    """A fusion ready to be trained on :func:`feature_data`.

    Args:
        rule: name in ``FUSIONS``.
        subs: sub-models, frozen.
        parts: their classes.
        n_classes: K.
        width: multiplier on the hidden widths of ``mlp``.
        hide: probability that training hides a device; see :class:`HideDevices`.
        seed: of the first weights.

    Returns:
        Modules ``flat``, ``hide`` and ``fuse``: [T, N, ΣF', 1, 1] to logits [T, N, K]. The server runs ``fuse``,
        on [..., ΣF'].

    Raises:
        ValueError: for an unknown rule.
    """
    check_choice("rule", rule, FUSIONS)
    top = FUSIONS[rule].make(subs, parts, n_classes, width, seed)
    layers = {"flat": nn.Flatten(2), "hide": HideDevices(feature_sizes(subs), hide), "fuse": top}
    return nn.Sequential(OrderedDict(layers))


def losses(n_devices: int, most: int, seed: int = 0) -> Iterator[tuple[int, ...]]:
    """Sets of lost devices: for each number 0 to P all of them, or ``most`` random ones where there are more."""
    rng = np.random.default_rng(seed)
    for lost in range(n_devices + 1):
        every = list(combinations(range(n_devices), lost)) if n_devices <= 16 else None
        if every is not None and len(every) <= most:
            yield from every
        elif every is not None:
            yield from (every[i] for i in sorted(rng.choice(len(every), most, replace=False)))
        else:
            drawn = {tuple(sorted(rng.choice(n_devices, lost, replace=False).tolist())) for _ in range(most)}
            yield from sorted(drawn)


def shares(fuse: nn.Module, sizes: Sequence[int]) -> Callable[[Tensor], Tensor]:
    """A fusion as a sum over devices, which all rules of ``FUSIONS`` are in eval mode.

    Args:
        fuse: the module ``fuse`` of a :func:`fusion`.
        sizes: F' of each device.

    Returns:
        Function of features [T, N, ΣF'] that gives mean logits over T as shares [P + 1, N, K]: one for each device, and
        the bias, which stays when all are lost.
    """
    if isinstance(fuse, LogitAverage):
        return lambda x: nn.functional.pad(fuse.shares(x).mean(1), (0, 0, 0, 0, 0, 1))
    one = collapsed(fuse)
    weights = one.weight.detach().split(list(sizes), 1)

    def call(x: Tensor) -> Tensor:
        parts = x.mean(0).cpu().split(list(sizes), -1)
        devices = [part @ w.T for part, w in zip(parts, weights, strict=True)]
        return torch.stack([*devices, one.bias.detach().expand_as(devices[0])])

    return call


def accuracy_of_losses(
    net: nn.Sequential, features: Data, most: int = 64, seed: int = 0, device: str = "cpu"
) -> pd.DataFrame:
    """Test accuracy of a fusion for each set of lost devices, whose features are zero.

    Args:
        net: from :func:`fusion`, trained where it has to be.
        features: from :func:`feature_data`.
        most: sets of each size that are tried at most.
        seed: draws them.
        device: where features are normalised.

    Returns:
        Columns ``lost`` (number), ``devices`` (lost ones, "0 2", from 0), ``accuracy`` (0 to 1).
    """
    P = len(net.hide.sizes)
    parts, sets, total = shares(net.eval().cpu().fuse, net.hide.sizes), list(losses(P, most, seed)), 0
    stays = torch.tensor([[float(i not in lost) for i in range(P + 1)] for lost in sets])  # the bias always stays
    right = torch.zeros(len(sets), dtype=torch.int64)
    with torch.no_grad():
        for x, y in features.batches("test", BATCH, device=device):
            logits = torch.einsum("sp,pnk->snk", stays, parts(x.flatten(2).cpu()))
            right += (logits.argmax(2) == y.cpu()).sum(1)
            total += len(y)
    names = [" ".join(map(str, lost)) for lost in sets]
    return pd.DataFrame({"lost": list(map(len, sets)), "devices": names, "accuracy": (right / total).tolist()})
