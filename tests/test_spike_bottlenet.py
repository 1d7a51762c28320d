"""The experiment on tiny networks: steps of training, sharing by content, a search that goes on."""

import copy
from dataclasses import replace

import pandas as pd
import pytest
import torch
from tiny import blobs, same_state

from snnbook import params
from snnbook.bottleneck.codec import head
from snnbook.bottleneck.selection import Candidate, grid
from snnbook.evaluate import accuracy
from snnbook.experiments import spike_bottlenet
from snnbook.experiments.spike_bottlenet import experiment, search
from snnbook.train import fit

SHAPE = (1, 8, 8)


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """A folder for trained networks that starts empty."""
    monkeypatch.setenv("SNNBOOK_CACHE", str(tmp_path))
    return tmp_path


@pytest.fixture
def p():
    return params.BottleneckNetworks(
        width=1 / 16, blocks=[1, 1], warm_epochs=1, epochs=1, codec_epochs=1, fine_tune_epochs=1, augment="",
        batch_size=20, samples=8,
    )  # fmt: skip


@pytest.fixture
def trial(p):
    return experiment(p, blobs(shape=SHAPE), 3)


def test_parameters_reach_networks_and_recipes(p, trial):
    p = replace(p, lr=0.05, ann_lr=0.02, fine_tune_lr=0.01, leak=0.5, threshold=0.7, window=2.0, order="post")
    trial = experiment(p, trial.data, 5)
    recipes = [trial.warm_up, trial.training, trial.ann_training, trial.codec_training, trial.fine_tuning]
    assert [r.lr for r in recipes] == [0.05, 0.05, 0.02, 0.02, 0.01]
    assert [r.epochs for r in recipes] == [1, 1, 2, 1, 1]
    assert {(r.batch_size, r.augment, r.weight_decay) for r in recipes} == {(20, "", 1e-4)}
    net = trial.untrained(2)
    neuron = net.body[0]  # order post: a neuron behind the stem
    assert (neuron.tau, neuron.v_threshold, neuron.surrogate_function.alpha) == (2.0, 0.7, 0.5)
    assert len(trial.points()) == 2 and trial.seed == 5


def test_backbones_start_from_one_network_trained_at_one_step(trial, cache):
    two, four = trial.backbone(2), trial.backbone(4)
    assert (two.time_steps, four.time_steps) == (2, 4)
    assert not same_state(two, four) and not same_state(two, trial.untrained(2))
    assert len(list(cache.glob("*.safetensors"))) == 3  # the warm start is shared
    assert trial.backbone(2) is two


def test_compressed_is_the_backbone_fine_tuned_with_its_codec(trial):
    before = {k: v.clone() for k, v in trial.backbone(2).state_dict().items()}
    net, report = trial.compressed(Candidate(2, 4, 2, 2))
    assert report.bytes == 2 * 4 * 2 * 2 // 8 and net.time_steps == 2
    assert not torch.equal(net.stem[0].weight, trial.backbone(2).stem[0].weight)
    assert all(torch.equal(v, before[k]) for k, v in trial.backbone(2).state_dict().items())
    with torch.no_grad():
        sent = head(net)(torch.rand(3, *SHAPE))
    assert sent.shape == (2, 3, 4, 2, 2)
    assert trial.compressed(Candidate(2, 4, 2, 2))[0] is net


def test_bottlenet_is_trained_in_three_steps(trial, cache):
    ann = trial.ann()
    net, report = trial.bottlenet(1, 4, bits=2)
    assert ann.time_steps is None and report.bytes == 2 * 4 * 64 // 8
    assert len(list(cache.glob("*.safetensors"))) == 3
    assert not torch.equal(net.stem[0].weight, ann.stem[0].weight)  # the third step moves everything
    assert all(parameter.requires_grad for parameter in net.parameters())


@pytest.mark.parametrize("time_steps", [2, None])
def test_trained_on_is_the_network_without_a_codec_after_the_recipe_of_one_with_it(p, trial, time_steps):
    trial = experiment(replace(p, device="cpu"), trial.data, 3)
    start = trial.backbone(2) if time_steps else trial.ann()
    before, again = copy.deepcopy(start), copy.deepcopy(start)
    net = trial.trained_on(time_steps)
    fit(again, trial.data, replace(trial.fine_tuning, seed=3), device="cpu")
    assert same_state(net, again) and not same_state(net, before) and same_state(start, before)
    assert net.time_steps == time_steps and trial.trained_on(time_steps) is net


def test_another_run_finds_all_in_the_cache(p, trial, monkeypatch):
    net = trial.compressed(Candidate(1, 4, 1, 2))[0]
    codec = trial.bottlenet(1, 4)[0]
    monkeypatch.setattr("snnbook.cache.fit", None)
    again = experiment(p, blobs(shape=SHAPE), 3)
    assert same_state(again.compressed(Candidate(1, 4, 1, 2))[0], net)
    assert same_state(again.bottlenet(1, 4)[0], codec)


def test_search_measures_each_candidate_once(trial, monkeypatch):
    candidates = grid(trial.points(), ratios=(4,), strides=(1,), time_steps=(1, 2))
    table = search(trial, candidates, samples=8)
    monkeypatch.setattr(spike_bottlenet, "measure", None)
    pd.testing.assert_frame_equal(search(trial, candidates, samples=8), table)
    with pytest.raises(TypeError):  # another question is measured anew
        search(trial, candidates, samples=9)


def test_columns_of_a_search(trial):
    candidates = [Candidate(1, 4, 1, 1), Candidate(2, 8, 2, 2)]
    table = search(trial, candidates, samples=8)
    first, second = table.iloc[0], table.iloc[1]
    assert [Candidate(*row) for row in table[list(Candidate._fields)].itertuples(index=False)] == candidates
    one, two = (trial.accuracy(trial.backbone(T)) for T in (1, 2))
    assert first["backbone_accuracy"] == one and first["drop"] == pytest.approx(one - first["accuracy"])
    assert first["drop_from_best"] == pytest.approx(two - first["accuracy"])
    assert second["drop"] == pytest.approx(second["drop_from_best"])
    validated = accuracy(trial.compressed(candidates[0])[0], trial.data, "validation")
    one = accuracy(trial.backbone(1), trial.data, "validation")
    assert first["validation_accuracy"] == validated and first["validation_backbone_accuracy"] == one
    assert first["validation_drop"] == pytest.approx(one - validated)
    assert table["bits"].tolist() == [1 * 4 * 64, 2 * 8 * 4]
    macs = trial.points()["cumulative_macs"]
    assert first["paper_joules"] == pytest.approx(first["rate"] * macs[0] * 0.9e-12)
    assert second["paper_joules"] == pytest.approx(2 * second["rate"] * macs[1] * 0.9e-12)
    assert (table["counted_joules"] > table["paper_joules"]).all()


def test_a_search_needs_candidates(trial):
    with pytest.raises(ValueError, match=r"^candidates = 0 is not allowed: at least one$"):
        search(trial, [], samples=8)


def test_a_copy_with_other_data_shares_neither_networks_nor_accuracies(trial):
    data = trial.data
    turned = replace(data, test=replace(data.test, y=(data.test.y + 1) % 3))
    reached, other = trial.accuracy(trial.backbone(1)), replace(trial, data=turned)
    assert other._nets is not trial._nets and not other._nets
    assert other.accuracy(trial.backbone(1)) == trial.accuracy(trial.backbone(1), turned) <= 1 - reached


def test_counted_images_are_spread_over_a_split_in_the_order_of_its_classes(trial):
    order = trial.data.test.y.argsort()
    ordered = replace(trial.data.test, x=trial.data.test.x[order], y=trial.data.test.y[order])
    sorted_trial = replace(trial, data=replace(trial.data, test=ordered))
    for samples in (3, 8, 10_000):
        labels = torch.cat([y for _, y in sorted_trial.batches(samples)])
        assert len(labels) == min(samples, len(order)) and set(labels.tolist()) == {0, 1, 2}


def test_accuracy_of_other_images(trial):
    data = trial.data
    turned = replace(data, test=replace(data.test, y=(data.test.y + 1) % 3))
    net = trial.backbone(1)
    assert trial.accuracy(net) == trial.accuracy(net, data)
    assert trial.accuracy(net, turned) <= 1 - trial.accuracy(net)
