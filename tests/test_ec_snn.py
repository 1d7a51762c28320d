"""The EC-SNN experiment on small data: what is trained and when, and every table by other means."""

from __future__ import annotations

import dataclasses
from dataclasses import replace

import pandas as pd
import pytest
import torch
from tiny import blobs, same_state

from snnbook import cache, store
from snnbook.counts import count
from snnbook.data.core import SPLITS
from snnbook.energy import count_operations, joules
from snnbook.evaluate import accuracy
from snnbook.experiments import ec_snn, ec_snn_tables
from snnbook.experiments.ec_snn import EcSnn, SplitPlan
from snnbook.experiments.samples import spread
from snnbook.models import build
from snnbook.neurons import spiking_layers
from snnbook.params import (
    ClassSpecificFilters,
    FusedInference,
    Placement,
    PrunedNetworks,
    RepeatedSplitNetworks,
    SplitNetworks,
)
from snnbook.record import firing_rates
from snnbook.splitting.cost import latency_compute, latency_link
from snnbook.splitting.devices import device
from snnbook.splitting.fusion import FUSIONS
from snnbook.splitting.partition import PARTITIONS
from snnbook.splitting.prune import prune
from snnbook.splitting.scoring import scorer
from snnbook.splitting.submodel import device_part, others_each, retraining_set, with_fresh_head
from snnbook.train import Recipe

SHAPE, K = (1, 8, 8), 4
COMMON = {"batch_size": 20, "loss": "mean_loss"}
RECIPES = {
    "warm": Recipe(epochs=15, lr=0.1, **COMMON),
    "tune": Recipe(epochs=2, lr=0.05, **COMMON),
    "retrain": Recipe(epochs=6, lr=0.05, **COMMON),
    "fuse": Recipe(epochs=8, lr=0.005, optimizer="adam", **COMMON),
}


def made(kind="image", **changes):
    shape = SHAPE if kind == "image" else (3, *SHAPE)
    data = blobs(shape=shape, classes=K, kind=kind, train=80, noise=20.0)
    return EcSnn(data, "vgg5", 0.1, 3, **(RECIPES | changes), device="cpu")


@pytest.fixture(scope="module", autouse=True)
def folder(tmp_path_factory):
    patch = pytest.MonkeyPatch()
    patch.setenv("SNNBOOK_CACHE", str(tmp_path_factory.mktemp("networks")))
    yield
    patch.undo()


@pytest.fixture(scope="module")
def e(folder):
    return made()


@pytest.fixture(scope="module")
def plan(e):
    return e.plan(2, zeta=92.0, min_filters=3)


def test_the_parent_is_trained_with_one_step_and_then_with_all(e):
    net = build("vgg5", "lif", n_classes=K, shape=SHAPE, width=0.1, time_steps=1, head="mlp", seed=0)
    cache.fit(net, e.data, RECIPES["warm"], device="cpu")
    net.time_steps = 3
    cache.fit(net, e.data, RECIPES["tune"], device="cpu")
    assert same_state(net, e.parent()) and e.parent().time_steps == 3
    assert e.parent() is e.parent() and accuracy(e.parent(), e.data) > 0.6
    assert [m for m in e.ann().modules() if isinstance(m, torch.nn.MaxPool2d)] and e.ann().time_steps is None


def test_what_is_cached_is_not_trained_again(e, plan, monkeypatch):
    expected = e.fused(plan, "mlp")
    monkeypatch.setattr(cache, "fit", lambda *a, **k: pytest.fail("trained again"))
    again = made()
    assert same_state(again.fused(again.plan(2, 92.0, 3), "mlp"), expected)


def test_networks_of_one_seed_are_not_those_of_another(e):
    parent, other = e.parent(), replace(e, seed=1)
    assert other != e and replace(e) == e and "_kept" not in repr(e)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(EcSnn, "_make_parent", lambda one: one._built("lif", time_steps=3))
        assert not same_state(other.parent(), parent)
    assert e.parent() is parent


@pytest.mark.parametrize("hard", [False, True])
def test_the_reset_of_the_paper_can_be_chosen(hard):
    short = {name: replace(recipe, epochs=1) for name, recipe in RECIPES.items()}
    e = made(**short, hard_reset=hard)
    plan = e.plan(2, zeta=92.0, min_filters=3)
    for net in (e.parent(), *e.submodels(plan)):
        assert {layer.v_reset for layer in spiking_layers(net).values()} == {0.0 if hard else None}


@pytest.mark.parametrize("samples, at", [(1, [0]), (2, [0, 23]), (5, [0, 6, 12, 17, 23]), (24, None), (99, None)])
def test_samples_are_spread_over_a_split_in_the_order_of_classes(e, samples, at):
    split = e.data.test
    order = split.y.argsort(stable=True)
    split = type(split)(split.x[order], split.y[order])
    chosen = spread(split, samples)
    rows = torch.tensor(range(24) if at is None else at)
    assert torch.equal(chosen.x, split.x[rows]) and torch.equal(chosen.y, split.y[rows])
    sorted_ = replace(e, data=replace(e.data, test=split))
    found = torch.cat([y for _, y in sorted_.batches("test", samples, 3)])
    assert torch.equal(found, split.y[rows]) and (samples < 5 or set(found.tolist()) == set(range(K)))


def test_no_sample_at_all_is_refused(e):
    with pytest.raises(ValueError, match="samples = 0"):
        e.batches("test", 0)


def test_zeros_are_those_of_the_training_split(e):
    rates = firing_rates(e.parent(), e.data.batches("train", 7)).set_index("layer")["rate"]
    for name, zeros in e.zeros().items():
        assert zeros.samples.tolist() == [20] * K
        assert 1 - zeros.apoz().mean().item() == pytest.approx(rates[name])


def test_plans_and_masks(e, plan):
    assert plan == SplitPlan(((0, 1), (2, 3)), 92.0, 3, "lowest")
    assert e.plan(2, partition=[[3, 0], [1, 2]]).parts == ((0, 3), (1, 2))
    for bad in ({"n_devices": 5}, {"n_devices": 2, "partition": "random"}, {"n_devices": 2, "partition": [[0]]}):
        with pytest.raises(ValueError, match="n_parts|partition|parts"):
            e.plan(**bad)
    for classes, chosen in zip(plan.parts, e.masks(plan), strict=True):
        for depth, (name, mask) in enumerate(chosen.items()):
            apoz = e.zeros()[name].apoz(classes)
            assert mask[apoz <= (92 - depth) / 100].all() and mask.sum() >= 3
    assert sorted(c for part in e.parts(3, "kmeans") for c in part) == list(range(K))


def test_joint_partition_is_the_one_whose_slowest_board_is_fastest(e):
    score = scorer(e.parent(), e.zeros(), SHAPE, 1)
    board = device("raspberry_pi_4b")

    def slowest(parts):
        return max(latency_compute(d, board) + latency_link(d, board) for d in score(parts, 90.0))

    every = [((0, 1), (2, 3)), ((0, 2), (1, 3)), ((0, 3), (1, 2))]  # one swap from each to each
    found = e.parts(2, "joint", 90.0, 1)
    assert tuple(sorted(found)) in every and slowest(found) == min(map(slowest, every))
    assert e.plan(2, 90.0, 1, "joint").parts == found


def test_sub_models_are_pruned_parents_retrained_with_their_own_heads(e, plan):
    for classes, small, net, chosen in zip(plan.parts, e.pruned(plan), e.submodels(plan), e.masks(plan), strict=True):
        assert same_state(small, prune(e.parent(), chosen))
        assert net.head[-1].out_features == len(classes) + 1
        assert net.stem[0].weight.shape == small.stem[0].weight.shape
        assert not torch.equal(net.stem[0].weight, small.stem[0].weight)


def test_a_fusion_sees_the_frozen_features(e, plan):
    before = [{k: v.clone() for k, v in net.state_dict().items()} for net in e.submodels(plan)]
    fused = e.fused(plan, "mlp")
    assert all(same_state(net, old) for net, old in zip(e.submodels(plan), before, strict=True))
    assert accuracy(fused, e.features(plan)) > 0.6
    ((x, _),) = e.data.batches("test", 24)
    ((z, _),) = e.features(plan).batches("test", 24)
    with torch.no_grad():
        parts = zip(ec_snn_tables.device_parts(e, plan), ec_snn_tables.pools(e, plan), strict=True)
        features = [pool(device(x).flatten(0, 1)).unflatten(0, (3, 24)) for device, pool in parts]
        assert torch.equal(fused.fuse(torch.cat(features, 2)), fused(z))
    other = e.fused(plan, "mlp", hide=0.5)
    assert other is not fused and e.fused(plan, "mlp", hide=0.1) is fused
    assert e.fused(plan, "logit_average").fuse.votes[0].out_features == K


def test_features_of_older_plans_are_forgotten_where_memory_is_short(plan, monkeypatch):
    e, other = made(), replace(plan, min_filters=plan.min_filters + 1)
    first, second = e.features(plan), e.features(other)
    assert e.features(plan) is first and e.features(other) is second
    monkeypatch.setattr(ec_snn, "FEATURES_BYTES", sum(getattr(first, s).x.nbytes for s in SPLITS))
    assert e.features(other) is second and e.features(plan) is not first
    assert torch.equal(e.features(plan).train.x, first.train.x) and e.features(other) is not second
    monkeypatch.setattr(ec_snn, "FEATURES_BYTES", 0)
    assert e.features(other) is e.features(other)  # those asked for last stay
    assert not [k for k in e._kept if k == ("features", plan)] and ("submodels", plan) in e._kept


def test_sub_models_can_be_warmed_up_with_one_step(e, plan):
    warmed = made(rewarm=replace(RECIPES["retrain"], epochs=2), views=1, warm=replace(RECIPES["warm"], augment="flip"))
    warmed.once("parent", e.parent)
    net = warmed.submodels(plan)[0]
    data = retraining_set(e.data, plan.parts[0], torch.Generator().manual_seed(0))
    other = with_fresh_head(e.pruned(plan)[0], 2, 0.1)
    other.time_steps = 1
    cache.fit(other, data, replace(RECIPES["retrain"], epochs=2), device="cpu")
    other.time_steps = 3
    cache.fit(other, data, RECIPES["retrain"], device="cpu")
    assert same_state(net, other) and net.time_steps == 3
    assert len(warmed.features(plan).train) == 2 * len(e.data.train)


def test_events_have_all_steps_from_the_first_epoch():
    e = made("events", warm=replace(RECIPES["warm"], epochs=1), tune=replace(RECIPES["tune"], epochs=1),
             retrain=replace(RECIPES["retrain"], epochs=1), fuse=replace(RECIPES["fuse"], epochs=1))  # fmt: skip
    plan = e.plan(4, 95.0, 3)
    table = ec_snn_tables.costs(e, plan, 8).set_index("device")
    assert e.features(plan).shape[0] == 3 and len(table) == 7
    dense = count(e.parent(), SHAPE)["macs"].sum()
    assert table.loc["unsplit", "dense_macs"] == 3 * dense  # no step is a copy of the first
    assert table.loc["ann", "macs"] == 3 * count(e.ann(), SHAPE)["macs"].sum()


def test_recovery_by_hand(e, plan):
    table = ec_snn_tables.recovery(e, plan).set_index(["device", "stage"])
    assert list(table.index.get_level_values("stage")) == ["unsplit", "pruned", "retrained"] * 2
    ((x, y),) = e.data.batches("test", 24)
    with torch.no_grad():
        classes = e.parent()(x).mean(0).argmax(1)
        found = e.submodels(plan)[1](x).mean(0).argmax(1)
    own = y >= 2
    row = table.loc[(1, "unsplit")]
    assert row["classes"] == "2 3" and row["own"] == pytest.approx((classes[own] == y[own]).double().mean().item())
    assert row["other"] == pytest.approx((classes[~own] < 2).double().mean().item())
    row = table.loc[(1, "retrained")]
    recalls = [(found[y == 2] == 1), (found[y == 3] == 2), (found[~own] == 0)]
    assert row["own"] == pytest.approx(torch.cat(recalls[:2]).double().mean().item())
    assert row["balanced"] == pytest.approx(sum(r.double().mean().item() for r in recalls) / 3)
    whole = ec_snn_tables.recovery(e, e.plan(1, 92.0, 3))
    assert whole["other"].isna().all() and whole.loc[0, "own"] == pytest.approx(accuracy(e.parent(), e.data))


def test_sizes_are_those_of_tensors_and_files(e, plan, tmp_path):
    table = ec_snn_tables.sizes(e, plan).set_index("device")

    def held(*modules):
        return sum(t.numel() * t.element_size() for m in modules for t in m.state_dict().values())

    for name, net in {"unsplit": e.parent(), "0": e.submodels(plan)[0], "1": e.submodels(plan)[1]}.items():
        row = table.loc[name]
        assert row["features_bytes"] == held(net.stem, net.body) and row["head_bytes"] == held(net.head)
        file = store.save(tmp_path / "part.safetensors", device_part(net))
        assert row["file_bytes"] == file.stat().st_size > row["features_bytes"]
        outputs = net.head[-1].out_features
        inputs = net.head[2].in_features
        assert row["map_bytes"] == 4 * outputs * (inputs + 1)
        assert row["filters"] == sum(m.out_channels for m in net.modules() if isinstance(m, torch.nn.Conv2d))
    assert table.loc["0", "file_bytes"] < table.loc["unsplit", "file_bytes"]


def test_costs_by_other_means(e, plan):
    table = ec_snn_tables.costs(e, plan, 10).set_index("device")
    assert list(table.index) == ["ann", "unsplit", "unsplit features", "0", "1"]
    batches = list(e.data.batches(spread(e.data.test, 10), 24))
    for name, net in {"unsplit": e.parent(), "1": device_part(e.submodels(plan)[1])}.items():
        row = table.loc[name]
        assert row["atsan"] == pytest.approx(firing_rates(net, batches)["spikes"].sum() / 10)
        operations = count_operations(net, batches)
        assert row["joules"] == pytest.approx(joules(operations))
        assert row["macs"] + row["acs"] == pytest.approx(operations["operations"].sum())
        dense = count(net, SHAPE).set_index("layer")["macs"]
        assert row["dense_macs"] == 3 * dense.sum() - 2 * dense["stem.0"]
    with torch.no_grad():
        assert table.loc["1", "payload_bits"] == device_part(e.submodels(plan)[1])(batches[0][0][:1]).numel()
    assert table.loc["ann", "macs"] == count(e.ann(), SHAPE)["macs"].sum()
    assert ec_snn_tables.feature_bits(e, plan) == table.loc[["0", "1"], "payload_bits"].sum()
    sent = (table["joules_with_link"] - table["joules"]).drop(["ann", "unsplit"]) / table["payload_bits"]
    assert sent.dropna().tolist() == pytest.approx([device("raspberry_pi_4b").joules_per_bit] * 3)
    assert (table.loc[["ann", "unsplit"], "joules_with_link"] == table.loc[["ann", "unsplit"], "joules"]).all()


def test_a_point_of_the_sweep_sums_up_its_devices(e, plan):
    point = ec_snn_tables.sweep(e, [plan], samples=10).iloc[0]
    devices = ec_snn_tables.costs(e, plan, 10).iloc[3:]
    for column in ("bytes", "atsan", "joules", "joules_with_link", "dense_macs", "payload_bits"):
        assert point[f"largest_{column}"] == pytest.approx(devices[column].max())
        assert point[f"total_{column}"] == pytest.approx(devices[column].sum())
    table = ec_snn_tables.fused_accuracy(e, plan, list(FUSIONS)).set_index("fusion")["accuracy"]
    assert point["accuracy"] == table["mlp"] and table["unsplit"] == accuracy(e.parent(), e.data)
    assert (point["n_devices"], point["zeta"]) == (2, 92.0) and 0 < point["filters"] <= 1


def test_points_of_a_sweep_are_kept(e, plan, monkeypatch):
    first = ec_snn_tables.sweep(e, [plan], samples=10)
    again = replace(e)  # nothing in memory
    monkeypatch.setattr(ec_snn_tables, "trade_off", lambda *_: pytest.fail("measured again"))
    pd.testing.assert_frame_equal(ec_snn_tables.sweep(again, [plan], samples=10), first)
    slower = replace(e.fuse, lr=e.fuse.lr / 2)
    for other in ({"fuse": slower}, {"hide": 0.7}, {"views": 1}, {}):
        with pytest.raises(pytest.fail.Exception, match="measured again"):
            ec_snn_tables.remembered(replace(e, **other), plan, samples=10 if other else 11)


def test_host_latency_is_measured_for_every_part(e, plan):
    table = ec_snn_tables.host_latency(e, plan, repeats=2)
    assert list(table["device"]) == ["unsplit", "unsplit features", "0", "1", "fusion"] and (table["seconds"] > 0).all()


def test_latency_of_a_device_is_dense_macs_at_its_rate(e, plan):
    table = ec_snn_tables.latencies(e, plan, repeats=2).set_index("device")
    costs, board = ec_snn_tables.costs(e, plan, 1).set_index("device"), device("raspberry_pi_4b")
    for name in ("unsplit", "unsplit features", "0", "1"):
        assert table.loc[name, "device_seconds"] == pytest.approx(costs.loc[name, "dense_macs"] / board.mac_rate)
        assert table.loc[name, "link_seconds"] == pytest.approx(costs.loc[name, "payload_bits"] / board.link_rate)
    assert table.loc["fusion"].isna().tolist() == [False, True, True] and (table["host_seconds"] > 0).all()


def test_original_and_pruned_networks_on_one_device(e):
    one = e.plan(1, 88.0, 3)
    table = ec_snn_tables.original_and_pruned(e, one, 10, 2).set_index(["network", "state"])
    assert table.loc[("SNN", "original"), "accuracy"] == pytest.approx(accuracy(e.parent(), e.data))
    assert table.loc[("ANN", "original"), "accuracy"] == pytest.approx(accuracy(e.ann(), e.data))
    recovered = ec_snn_tables.recovery(e, one).set_index("stage")["own"]
    assert table.loc[("SNN", "pruned"), "accuracy"] == pytest.approx(recovered["retrained"])
    convs = [[m.out_channels for m in net.modules() if isinstance(m, torch.nn.Conv2d)]
             for net in (e.pruned_ann(one), e.submodels(one)[0])]  # fmt: skip
    assert convs[0] == convs[1] and e.pruned_ann(one).head[-1].out_features == K + 1
    with torch.no_grad():
        x, y = next(e.data.batches("test", 24))
        found = e.pruned_ann(one)(x).argmax(1) - 1
    assert table.loc[("ANN", "pruned"), "accuracy"] == pytest.approx((found == y).double().mean().item())
    assert table.loc[("ANN", "pruned"), "atsan"] < table.loc[("ANN", "original"), "atsan"]
    with pytest.raises(ValueError, match="plan.parts"):
        ec_snn_tables.original_and_pruned(e, e.plan(2, 88.0, 3))


def test_one_device_as_large_as_all_together(e):
    plan = e.plan(4, 85.0, 2)
    alone = ec_snn_tables.one_as_large(e, plan)
    assert alone.parts == ((0, 1, 2, 3),) and alone.zeta == 85.0 and alone.min_filters > 2
    less = replace(alone, min_filters=alone.min_filters - 1)
    dense = [ec_snn_tables.costs(e, q, 4)["dense_macs"].iloc[3:].sum() for q in (less, plan, alone)]
    assert dense[0] < dense[1] <= dense[2]
    assert ec_snn_tables.dense_of_devices(e, plan) == ec_snn_tables.costs(e, plan, 4)["dense_macs"].iloc[3:].tolist()
    everything = ec_snn_tables.one_as_large(e, e.plan(4, 110.0, 2))
    assert everything.min_filters == 13


def test_parameters_make_the_experiment():
    p = RepeatedSplitNetworks(seed=3, repeats=2, warm_epochs=7, lr=0.2, augment="flip", augment_sounds="shift")
    first, second = ec_snn.experiments(p, blobs(shape=SHAPE))
    assert (first.seed, second.seed, first.hide, first.time_steps) == (3, 4, 0.1, 5)
    common = {"batch_size": 64, "label_smoothing": 0.1, "loss": "mean_loss"}
    assert first.warm == Recipe(epochs=7, lr=0.2, augment="flip", **common)
    assert first.ann_lr == p.ann_lr
    assert first.fuse == Recipe(epochs=20, lr=0.003, optimizer="adam", **common)
    audio = blobs(shape=SHAPE, kind="audio")
    assert ec_snn.experiment(p, audio, 0).retrain.augment == "shift"
    events = blobs(shape=(3, *SHAPE), kind="events")
    assert ec_snn.experiment(p, events, 0).retrain.augment == ""
    data = ec_snn.load_data(SplitNetworks(calibration=50, validation=70))
    assert (len(data.calibration), len(data.validation)) == (50, 70)


@pytest.mark.parametrize("cls", [ClassSpecificFilters, Placement, FusedInference])
def test_what_a_chapter_does_not_take_has_its_default(cls):
    made, full = (ec_snn.experiment(p(lr=0.2), blobs(), 0) for p in (cls, RepeatedSplitNetworks))
    assert (made.warm, made.retrain, made.rewarm, made.fuse) == (full.warm, full.retrain, full.rewarm, full.fuse)
    assert (made.hide, made.ann_lr) == (full.hide, full.ann_lr)


@pytest.mark.parametrize("cls", [ClassSpecificFilters, Placement])
def test_chapters_that_retrain_nothing_take_no_parameters_of_retraining_or_fusion(cls):
    idle = set(SplitNetworks.help()) - set(PrunedNetworks.help())
    assert {"fusion", "retrain_lr", "views", "samples", "energy_model"} < idle and not idle & set(cls.help())


def test_the_twin_has_a_rate_of_its_own_and_as_many_epochs_as_the_snn(monkeypatch):
    made, seen = ec_snn.experiment(RepeatedSplitNetworks(ann_lr=0.04), blobs(shape=SHAPE), 3), []
    monkeypatch.setattr(ec_snn, "trained", lambda net, data, recipe, **options: seen.append(recipe))
    made.ann()
    made.parent()
    twin, *snn = seen
    assert twin.lr == 0.04 and twin.epochs == sum(recipe.epochs for recipe in snn)
    assert replace(twin, lr=snn[0].lr, epochs=snn[0].epochs) == snn[0]


@pytest.mark.parametrize(("asked", "each"), [(0, None), (7, 7)])
def test_a_sub_model_sees_as_many_others_as_asked_for_and_by_default_those_of_the_equation(monkeypatch, asked, each):
    data, seen = blobs(shape=SHAPE), []
    made = ec_snn.experiment(RepeatedSplitNetworks(other_samples=asked, rewarm_epochs=0), data, 3)
    monkeypatch.setattr(ec_snn, "trained", lambda net, data, recipe, **options: seen.append(data.train.y))
    classes = (1, 2)
    made._retrain(0, classes, made._built("lif", time_steps=2))
    each = others_each(len(data.train), data.n_classes, len(classes)) if each is None else each
    assert (seen[0] == 0).sum() == each * (data.n_classes - len(classes))
    assert (seen[0] > 0).sum() == torch.isin(data.train.y, torch.tensor(classes)).sum()


def test_choices_of_parameters_are_the_registries():
    fields = {f.name: f.metadata["choices"] for f in dataclasses.fields(SplitNetworks)}
    assert fields["partition"] == tuple(PARTITIONS) and fields["fusion"] == tuple(FUSIONS)
