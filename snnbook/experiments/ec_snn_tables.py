"""Tables of an EC-SNN experiment: accuracy recovery, sizes, spikes and joules for each device, latency, sweeps of ζ.

What EC-SNN adds up or leaves out is kept apart: pruned features and new head, one device and all of them, the ANN once.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

import pandas as pd
import torch
from torch import Tensor, nn

from .. import store
from ..cache import code_hash, kept_table, state_hash
from ..checks import check
from ..counts import count
from ..energy import ann_operations, count_operations, joules
from ..evaluate import accuracy
from ..network import Network
from ..sources import behind
from ..splitting.apoz import atsan, class_zeros
from ..splitting.cost import Demand, latency_compute, latency_link
from ..splitting.devices import device
from ..splitting.fusion import collapsed, feature_sizes
from ..splitting.prune import pruned_size
from ..splitting.submodel import device_part, payload_bits, relabelled, server_part
from ..train import pick_device
from .ec_snn import EcSnn, SplitPlan


def _predicted(net: Network, e: EcSnn, split: str) -> tuple[Tensor, Tensor]:
    """Predicted labels and true classes of a split."""
    with torch.no_grad():
        pairs = [(_mean(net(x)).argmax(1).cpu(), y.cpu()) for x, y in e.batches(split)]
    return tuple(torch.cat(column) for column in zip(*pairs, strict=True))


def _mean(logits: Tensor) -> Tensor:
    """Logits [N, K], averaged over T where they have it."""
    return logits.mean(0) if logits.ndim == 3 else logits


def _recalls(found: Tensor, label: Tensor) -> dict[str, float]:
    """Share of own samples given their class, of others given "other" (nan without any), and the mean over labels."""
    each = [(found[label == k] == k).double().mean().item() for k in sorted(set(label.tolist()))]
    own, other = label > 0, label == 0
    return {
        "own": (found[own] == label[own]).double().mean().item(),
        "other": (found[other] == 0).double().mean().item(),
        "balanced": sum(each) / len(each),
    }


def recovery(e: EcSnn, plan: SplitPlan, split: str = "test") -> pd.DataFrame:
    """How well each sub-model tells its classes from each other and from "other": before, after pruning, retrained.

    Before retraining the parent's own head answers; any class outside C_i counts as "other".

    Returns:
        Columns ``device``, ``classes`` ("0 1"), ``stage`` (unsplit, pruned, retrained), ``own`` (share of samples of
        C_i given their class), ``other`` (share of the others given "other"), ``balanced`` (mean over labels).
    """
    rows, K = [], e.data.n_classes
    unsplit, y = _predicted(e.parent(), e, split)
    for i, (classes, small, net) in enumerate(zip(plan.parts, e.pruned(plan), e.submodels(plan), strict=True)):
        label = relabelled(y, classes, K)
        stages = {
            "unsplit": relabelled(unsplit, classes, K),
            "pruned": relabelled(_predicted(small, e, split)[0], classes, K),
            "retrained": _predicted(net, e, split)[0],
        }
        for stage, found in stages.items():
            rows.append({"device": i, "classes": names(classes), "stage": stage} | _recalls(found, label))
    return pd.DataFrame(rows)


def names(classes: Sequence[int]) -> str:
    """Classes as text: "0 1"."""
    return " ".join(map(str, classes))


def stored_bytes(module: nn.Module) -> int:
    """Size of the file that :func:`snnbook.store.save` makes of a module."""
    with TemporaryDirectory() as folder:
        return store.save(Path(folder) / "part.safetensors", module).stat().st_size


def dense_macs(net: Network, shape: tuple[int, int, int], static: bool) -> float:
    """MACs of one sample over all T steps if zeros were multiplied too; static input passes the stem once."""
    table = count(net, shape)
    times = [1 if static and layer.startswith("stem.") else net.time_steps or 1 for layer in table["layer"]]
    return float((table["macs"] * times).sum())


def sizes(e: EcSnn, plan: SplitPlan) -> pd.DataFrame:
    """What pruning saves and what the new head saves, apart, and the files that devices hold.

    Returns:
        A row for the unsplit network (``device`` "unsplit") and for each sub-model: ``filters``, ``features_bytes``
        and ``head_bytes`` (tensors; the head of a sub-model is its own), ``map_bytes`` (that head multiplied out to
        one linear layer), ``file_bytes`` (of what a device stores: features only).
    """
    parent = e.parent()
    whole = pruned_size(parent, {}, e.shape).groupby("part")[["kept", "bytes"]].sum()
    rows = [_size("unsplit", parent, whole)]
    for i, (net, chosen) in enumerate(zip(e.submodels(plan), e.masks(plan), strict=True)):
        part = pruned_size(parent, chosen, e.shape).groupby("part")[["kept", "bytes"]].sum()
        rows.append(_size(str(i), net, part))
    return pd.DataFrame(rows)


def _size(name: str, net: Network, part: pd.DataFrame) -> dict[str, object]:
    def held(module):
        return sum(t.numel() * t.element_size() for t in module.state_dict().values())

    return {
        "device": name,
        "filters": int(part.loc["features", "kept"]),
        "features_bytes": int(part.loc["features", "bytes"]),
        "head_bytes": held(net.head),
        "map_bytes": held(collapsed(net.head)),
        "file_bytes": stored_bytes(device_part(net)),
    }


#: Device whose joules per bit price what is sent, in columns of joules with the link.
SENDER = "raspberry_pi_4b"


def costs(e: EcSnn, plan: SplitPlan, samples: int | None = None, model: str = "45nm_fp32") -> pd.DataFrame:
    """Spikes, operations, joules and bits of one sample, device by device, as measured on test samples.

    Args:
        e: experiment.
        plan: how it is split.
        samples: test samples over which spikes are counted; all by default.
        model: name in ``ENERGY_MODELS``.

    Returns:
        Rows "ann" (dense, once), "unsplit" (whole SNN), "unsplit features" (without head) and one a device, from 0.
        Columns ``device``, ``classes``, ``atsan`` (non-zero outputs of convolutions), ``macs``, ``acs`` (everything
        counted, T steps), ``joules``, ``dense_macs`` (over T steps, zeros multiplied too), ``payload_bits`` (0 where
        nothing is sent), ``bytes`` (tensors held), ``joules_with_link`` (and for the bits, as :data:`SENDER` sends
        them).
    """
    rows = list(e.once(("references", samples, model), lambda: _references(e, samples, model)))
    for i, (classes, net) in enumerate(zip(plan.parts, e.submodels(plan), strict=True)):
        row = _cost(str(i), names(classes), device_part(net), e, samples, model)
        rows.append(row | {"payload_bits": payload_bits(net, e.shape)})
    table = pd.DataFrame(rows)
    return table.assign(joules_with_link=with_link(table))


def joules_to_send(bits: pd.Series | float) -> pd.Series | float:
    """Joules that :data:`SENDER` needs to send ``bits``."""
    return bits * device(SENDER).joules_per_bit


def with_link(rows: pd.DataFrame | pd.Series) -> pd.Series | float:
    """Joules of one row or of each, with those of the bits that it sends."""
    return rows["joules"] + joules_to_send(rows["payload_bits"])


def _references(e: EcSnn, samples: int | None, model: str) -> list[dict[str, object]]:
    parent = e.parent()
    rows = [_ann_cost(e, samples, model), _cost("unsplit", "", parent, e, samples, model)]
    features = _cost("unsplit features", "", device_part(parent), e, samples, model)
    return [*rows, features | {"payload_bits": payload_bits(parent, e.shape)}]


def _ann_cost(e: EcSnn, samples: int | None, model: str) -> dict[str, object]:
    net = e.ann()
    operations = ann_operations(net, e.shape)
    frames = e.time_steps if e.data.kind == "events" else 1
    operations = operations.assign(operations=operations["operations"] * frames)
    macs = float(operations["operations"].sum())
    zeros = class_zeros(net, e.batches("test", samples), e.data.n_classes)
    return {
        "device": "ann", "classes": "", "atsan": atsan(zeros), "macs": macs, "acs": 0.0,
        "joules": joules(operations, model), "dense_macs": macs, "payload_bits": 0, "bytes": _tensor_bytes(net),
    }  # fmt: skip


def _tensor_bytes(net: nn.Module) -> int:
    return sum(t.numel() * t.element_size() for t in net.state_dict().values())


def _cost(name: str, classes: str, net: Network, e: EcSnn, samples: int | None, model: str) -> dict[str, object]:
    zeros = class_zeros(net, e.batches("test", samples), e.data.n_classes)
    operations = count_operations(net, e.batches("test", samples))
    kinds = operations.groupby("kind")["operations"].sum()
    return {
        "device": name, "classes": classes, "atsan": atsan(zeros), "macs": float(kinds.get("mac", 0.0)),
        "acs": float(kinds.get("ac", 0.0)), "joules": joules(operations, model),
        "dense_macs": dense_macs(net, e.shape, e.data.kind != "events"), "payload_bits": 0,
        "bytes": _tensor_bytes(net),
    }  # fmt: skip


def _timed(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def _seconds(calls: Sequence[Callable[[], object]], repeats: int) -> list[float]:
    """Median time of each call in seconds. They take turns, so that other load on the machine meets all of them."""
    rounds = [[_timed(call) for call in calls] for _ in range(repeats + 1)]
    return [median(times) for times in zip(*rounds[1:], strict=True)]  # the first round does not count


#: Rows of a table of latencies that are no device: the whole network, it without its head, what the server does.
NOT_DEVICES = ("unsplit", "unsplit features", "fusion")


def host_latency(e: EcSnn, plan: SplitPlan, rule: str = "mlp", repeats: int = 20) -> pd.DataFrame:
    """Seconds for one sample over all T steps on this machine's CPU, batch 1, one part at a time, no link.

    Returns:
        Columns ``device`` (names in ``NOT_DEVICES``, and devices from 0), ``seconds`` (median). Devices work at the
        same time: the latency of the whole is the largest of theirs plus that of fusion.
    """
    x, _ = next(e.data.batches("test", 1))
    nets = [net.cpu() for net in e.submodels(plan)]
    features = torch.zeros(e.time_steps, 1, sum(feature_sizes(nets)))
    fuse = e.fused(plan, rule).cpu().fuse
    parent = e.parent().cpu()
    parts = {"unsplit": (parent, x), "unsplit features": (device_part(parent), x)}
    parts |= {str(i): (device_part(net), x) for i, net in enumerate(nets)}
    parts["fusion"] = fuse, features
    with torch.no_grad():
        seconds = _seconds([partial(net, x) for net, x in parts.values()], repeats)
    return pd.DataFrame({"device": list(parts), "seconds": seconds})


def latencies(
    e: EcSnn, plan: SplitPlan, profile: str = "raspberry_pi_4b", rule: str = "mlp", repeats: int = 20
) -> pd.DataFrame:
    """Seconds for one sample: measured on this machine, and computed for a device with its link; they do not mix.

    Args:
        e: experiment.
        plan: how it is split.
        profile: device profile by name.
        rule: fusion.
        repeats: measured calls.

    Returns:
        Columns ``device`` (names in ``NOT_DEVICES``, and devices from 0), ``host_seconds``, ``device_seconds`` (dense
        MACs at the device's rate; missing for fusion, which runs on the server), ``link_seconds``. Devices have no
        heads; "unsplit features" is what to compare them with.
    """
    board = device(profile)
    rows = costs(e, plan, 1).set_index("device").drop("ann")
    demands = {n: Demand(n, r.bytes, r.macs, r.acs, r.payload_bits, r.dense_macs) for n, r in rows.iterrows()}
    table = host_latency(e, plan, rule, repeats).rename(columns={"seconds": "host_seconds"})
    for column, measure in (("device_seconds", latency_compute), ("link_seconds", latency_link)):
        table[column] = table["device"].map({n: measure(d, board) for n, d in demands.items()})
    return table


def original_and_pruned(e: EcSnn, plan: SplitPlan, samples: int | None = None, repeats: int = 20) -> pd.DataFrame:
    """ANN and SNN before and after pruning on one device, as in Fig 2 of EC-SNN.

    Args:
        e: experiment.
        plan: with one part, all classes.
        samples: test samples over which outputs are counted; all by default.
        repeats: measured calls.

    Returns:
        Columns ``network`` (ANN, SNN), ``state`` (original, pruned), ``accuracy`` (0 to 1), ``atsan`` (the ANN's
        counted once), ``seconds`` (of one sample on this machine, batch 1).

    Raises:
        ValueError: for a plan with several parts.
    """
    check("plan.parts", plan.parts, len(plan.parts) == 1, "one part, all classes on one device")
    x, _ = next(e.data.batches("test", 1))
    nets = {("ANN", "original"): e.ann(), ("ANN", "pruned"): e.pruned_ann(plan)}
    nets |= {("SNN", "original"): e.parent(), ("SNN", "pruned"): e.submodels(plan)[0]}
    rows = []
    for (network, state), net in nets.items():
        found, y = _predicted(net, e, "test")
        zeros = class_zeros(net, e.batches("test", samples), e.data.n_classes)
        right = (found == (relabelled(y, plan.parts[0], e.data.n_classes) if state == "pruned" else y)).double()
        rows.append((network, state, right.mean().item(), atsan(zeros)))
    with torch.no_grad():
        seconds = _seconds([partial(net.cpu(), x) for net in nets.values()], repeats)
    return pd.DataFrame(rows, columns=["network", "state", "accuracy", "atsan"]).assign(seconds=seconds)


def fused_accuracy(e: EcSnn, plan: SplitPlan, rules: Sequence[str] = ("mlp",), split: str = "test") -> pd.DataFrame:
    """Accuracy of the unsplit network and of fusions of its sub-models: ``fusion`` ("unsplit", ...), ``accuracy``."""
    device = pick_device(e.device)
    rows = [("unsplit", accuracy(e.parent(), e.data, split, device=device))]
    rows += [(rule, accuracy(e.fused(plan, rule), e.features(plan), split, device=device)) for rule in rules]
    return pd.DataFrame(rows, columns=["fusion", "accuracy"])


def trade_off(
    e: EcSnn, plan: SplitPlan, rule: str = "mlp", samples: int | None = None, model: str = "45nm_fp32"
) -> dict[str, float]:
    """One point of a sweep: accuracy, and what the largest device and all devices together need for a sample.

    Returns:
        ``accuracy`` of test images and ``validation_accuracy`` (0 to 1); ``largest_…`` and ``total_…`` of ``bytes``,
        ``atsan``, ``joules``, ``joules_with_link``, ``dense_macs``, ``payload_bits``; ``filters`` (mean share kept).
    """
    table = costs(e, plan, samples, model)
    devices = table[~table["device"].isin(["ann", "unsplit", "unsplit features"])]
    splits = {"accuracy": "test", "validation_accuracy": "validation"}
    row = {name: float(fused_accuracy(e, plan, [rule], split)["accuracy"].iloc[1]) for name, split in splits.items()}
    shares = [torch.cat(list(chosen.values())).double().mean().item() for chosen in e.masks(plan)]
    row["filters"] = sum(shares) / len(shares)
    for column in ("bytes", "atsan", "joules", "joules_with_link", "dense_macs", "payload_bits"):
        row[f"largest_{column}"] = float(devices[column].max())
        row[f"total_{column}"] = float(devices[column].sum())
    return row


def _decisive(e: EcSnn, plan: SplitPlan, *options) -> list:
    nets = [state_hash(net) for net in (e.parent(), *e.submodels(plan))]
    parts = [*nets, e.time_steps, e.hard_reset, repr(plan), e.data.fingerprint, repr(device(SENDER)), *options]
    parts += [repr(replace(e.fuse, seed=e.seed)), e.width, e.hide, e.views, e.warm.augment if e.views else ""]
    return [*parts, pick_device(e.device), code_hash(behind("experiments/ec_snn_tables"))]


def remembered(
    e: EcSnn, plan: SplitPlan, rule: str = "mlp", samples: int | None = None, model: str = "45nm_fp32"
) -> pd.DataFrame:
    """:func:`trade_off` as a table of one row, or what it gave when the same was measured before."""
    given = plan, rule, samples, model
    return kept_table(_decisive(e, *given), lambda: pd.DataFrame([trade_off(e, *given)]))


def sweep(e: EcSnn, plans: Sequence[SplitPlan], rule: str = "mlp", **options) -> pd.DataFrame:
    """:func:`trade_off` of several plans: columns ``n_devices``, ``zeta`` and those of a point.

    A sweep that was stopped goes on with the next plan; options as there.
    """
    points = [remembered(e, plan, rule, **options) for plan in plans]
    about = {"n_devices": [len(plan.parts) for plan in plans], "zeta": [plan.zeta for plan in plans]}
    return pd.concat([pd.DataFrame(about), pd.concat(points, ignore_index=True)], axis=1)


def dense_of_devices(e: EcSnn, plan: SplitPlan) -> list[float]:
    """Dense MACs of one sample over all T steps of each device of a plan, from the sizes of masks."""
    found = []
    for chosen in e.masks(plan):
        macs = pruned_size(e.parent(), chosen, e.shape).query("part == 'features'")["macs"]
        copies = 0 if e.data.kind == "events" else e.time_steps - 1  # of static input, which passes the stem once
        found.append(float(e.time_steps * macs.sum() - copies * macs.iloc[0]))
    return found


def one_as_large(e: EcSnn, plan: SplitPlan) -> SplitPlan:
    """A plan for one device that computes about as much as all devices of ``plan`` together: a control for splitting.

    Same ζ; the floor is raised until dense MACs are at least those of the others, or all filters stay.
    """
    wanted, classes = sum(dense_of_devices(e, plan)), (tuple(range(e.data.n_classes)),)
    most = max(z.zeros.shape[1] for z in e.zeros().values())
    alone = (replace(plan, parts=classes, min_filters=floor) for floor in range(plan.min_filters, most + 1))
    enough = (p for p in alone if sum(dense_of_devices(e, p)) >= wanted)
    return next(enough, replace(plan, parts=classes, min_filters=most))


def pools(e: EcSnn, plan: SplitPlan) -> list[nn.Sequential]:
    """What the server does with each device's spikes before fusion."""
    return [server_part(net) for net in e.submodels(plan)]


def device_parts(e: EcSnn, plan: SplitPlan) -> list[Network]:
    """What each device runs."""
    return [device_part(net) for net in e.submodels(plan)]


def feature_bits(e: EcSnn, plan: SplitPlan) -> int:
    """Bits of all devices together for one sample."""
    return sum(payload_bits(net, e.shape) for net in e.submodels(plan))
