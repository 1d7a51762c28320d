"""Chapter 24's measurements: counts of events and operations by brute force, and what is read from recorded runs."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
import torch.nn.functional as F
from scipy.optimize import minimize
from scipy.special import logsumexp
from tiny import blobs

from snnbook import params
from snnbook.data import Split
from snnbook.experiments import ec_snn, modalities
from snnbook.experiments.ec_snn_tables import costs
from snnbook.experiments.samples import spread
from snnbook.record import firing_rates

T = 3


def trial(kind: str, **changes) -> ec_snn.EcSnn:
    """An untrained experiment in all but one epoch, on blobs of a kind."""
    shape = (T, 2, 6, 6) if kind == "events" else (1, 6, 6)
    data = blobs(shape=shape, kind=kind, noise=60.0)
    if kind == "events":
        counts = lambda s: Split((s.x // 100).to(torch.uint8), s.y)  # noqa: E731
        parts = {n: counts(getattr(data, n)) for n in ("train", "calibration", "validation", "test")}
        data = replace(data, **parts, mean=torch.zeros(2), std=torch.ones(2))
    options = {"model": "vgg5", "width": 0.1, "time_steps": T, "warm_epochs": 1, "epochs": 1, "rewarm_epochs": 0,
               "retrain_epochs": 1, "fusion_epochs": 1, "min_filters": 4, "augment": "", "device": "cpu"}  # fmt: skip
    return ec_snn.experiment(params.SensingModalities(**(options | changes)), data, 0)


@pytest.fixture(scope="module", params=["image", "audio", "events"])
def e(request, tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SNNBOOK_CACHE", str(tmp_path_factory.mktemp("networks")))
        made = trial(request.param)
        made.parent()
        yield made


def test_names_of_data_sets():
    assert modalities.names("digits, sounds,") == ["digits", "sounds"]
    for bad in ("", " , ", "digits,digits"):
        with pytest.raises(ValueError, match="dataset"):
            modalities.names(bad)


def test_one_experiment_for_each_set_and_seed():
    p = params.SensingModalities(dataset="digits,digits_events", repeats=2, seed=3, calibration=10, validation=20)
    found = modalities.experiments(p)
    assert list(found) == ["digits", "digits_events"] and [e.seed for e in found["digits"]] == [3, 4]
    assert found["digits_events"][0].data.kind == "events" and found["digits"][0].warm.augment == p.augment
    assert found["digits_events"][0].warm.augment == ""


def test_about_and_example(e):
    row = modalities.about(e.data)
    assert row["test"] == len(e.data.test) and row["shape"].split(" × ") == [str(n) for n in e.data.shape]
    at = modalities.example(e.data, 2)
    assert e.data.test.y[at] == 2 and (e.data.test.y[:at] != 2).all()


def test_frames_stand_still_but_for_events(e):
    x, stored = modalities.frames(e.data, 1, T), e.data.test.x[1].float()
    assert x.shape == (T, *e.shape)
    wanted = {"image": stored, "audio": stored.flip(1), "events": stored}[e.data.kind]
    assert torch.equal(x, wanted.expand(T, *e.shape))


def test_input_bits_by_hand(e):
    if e.data.kind == "events":
        events = e.data.test.x.double().sum().item() / len(e.data.test)
        assert modalities.events_per_sample(e.data) == pytest.approx(events)
        assert modalities.input_bits(e.data) == pytest.approx(events * 8)  # 3·2·6·6 = 216 addresses: 8 bits
    else:
        assert modalities.input_bits(e.data) == 8 * 36 and math.isnan(modalities.events_per_sample(e.data))


def test_work_of_the_first_layer_by_brute_force(e):
    row = modalities.first_layer(e, 10)
    conv = modalities._stem(e)
    x = e.data.normalise(spread(e.data.test, 10).x)
    maps = x.flatten(0, 1) if e.data.kind == "events" else x
    ones = torch.ones_like(conv.weight)  # every weight 1: the sum over outputs counts what each value reaches
    reach = F.conv2d(torch.ones_like(maps[:1]), ones, padding=1).sum().item()
    assert row["macs"] == reach * (T if e.data.kind == "events" else 1)
    assert row["nonzero"] == pytest.approx((x != 0).float().mean().item())
    assert row["passes"] == (T if e.data.kind == "events" else 1)
    if e.data.kind == "events":
        assert row["acs"] == pytest.approx(F.conv2d(maps, ones, padding=1).sum().item() / 10)
    else:
        assert math.isnan(row["acs"])


def test_rates_over_steps_average_to_the_firing_rates(e):
    table = modalities.rates(e, 10)
    wanted = firing_rates(e.parent(), e.batches("test", 10))
    assert table.groupby("layer")["rate"].mean().tolist() == pytest.approx(wanted["rate"].tolist())
    assert sorted(table["step"].unique()) == [1, 2, 3] and len(table) == 3 * len(wanted)


def test_first_spikes_are_those_of_one_sample(e):
    maps = modalities.first_spikes(e, 0)
    assert maps.shape == (T, 6, 6) and maps.min() >= 0 and maps.max() <= 1
    other = replace(e, data=replace(e.data, test=Split(e.data.test.x[:1], e.data.test.y[:1])))
    other.once("parent", e.parent)  # whatever the other data would have made of it
    rates = modalities.rates(other)
    assert maps.mean((1, 2)).tolist() == pytest.approx(rates[rates["layer"] == 1]["rate"].tolist())


def test_filters_count_what_the_rule_and_the_floor_leave(e):
    plan = e.plan(2, zeta=60.0, min_filters=4)
    table = modalities.filters(e, plan)
    for i, (row, (name, z)) in enumerate(zip(table.itertuples(), e.zeros().items(), strict=True)):
        rates = 1 - z.apoz()
        assert row.apoz == pytest.approx(1 - rates.mean().item())
        above = [(z.apoz(c) > (60 - i) / 100).double().mean().item() for c in plan.parts]
        assert row.above == pytest.approx(sum(above) / 2)
        left = [m[name].sum().item() for m in e.masks(plan)]
        assert row.pruned == pytest.approx(1 - sum(left) / (2 * row.filters)) and row.pruned <= row.above + 1e-9
    kept = modalities.kept(e, plan, [0.0, 60.0, 120.0])
    total = table["filters"].sum()
    assert kept["kept"].tolist()[1:] == pytest.approx([1 - (table["pruned"] * table["filters"]).sum() / total, 1.0])
    assert kept["kept"].iloc[0] == pytest.approx(sum(min(4, n) for n in table["filters"]) / total)


def test_a_split_is_one_row_of_accuracies_and_costs(e):
    plan = e.plan(2, zeta=95.0, min_filters=4)
    row = modalities.split(e, plan, "probe", samples=10)
    assert row["n_devices"] == 2 and row["kind"] == e.data.kind and row["seed"] == 0
    assert all(0 <= row[k] <= 1 for k in ("ann", "unsplit", "fused"))
    assert row["linear"] == modalities.linear_accuracy(e.data)
    assert row["largest_joules"] <= row["total_joules"] <= 2 * row["largest_joules"]
    assert row["largest_bits"] <= row["total_bits"] and row["largest_bits"] % T == 0
    assert row["input_bits"] == modalities.input_bits(e.data)
    table = costs(e, plan, 10).set_index("device")["joules"]
    assert row["features_joules"] == table["unsplit features"] < row["unsplit_joules"] == table["unsplit"]


@pytest.mark.parametrize("kind, time, noise", [("image", None, 300.0), ("audio", 3, 80.0), ("events", 1, 300.0)])
def test_the_linear_baseline_is_a_regularised_regression_on_mean_and_deviation_over_time(kind, time, noise):
    shape = (T, 2, 5, 6) if kind == "events" else (2, 5, 6)
    data = blobs(shape=shape, kind=kind, noise=noise)

    def seen(x):
        x = x.double().numpy()
        parts = [x] if time is None else [x.mean(time), x.std(time)]
        return np.concatenate([part.reshape(len(x), -1) for part in parts], 1)

    train, test, y = seen(data.train.x), seen(data.test.x), data.train.y.numpy()
    (m, s), k = (train.mean(0), train.std(0)), data.n_classes
    train, test = (train - m) / s, (test - m) / s

    def loss(flat):  # softmax regression: cross-entropy, and |W|²/2 over C
        w, b = flat[:-k].reshape(-1, k), flat[-k:]
        z = train @ w + b
        p = np.exp(z - logsumexp(z, 1, keepdims=True))
        error = p - np.eye(k)[y]
        gradient = np.r_[(train.T @ error + w / 0.1).ravel(), error.sum(0)]
        return (logsumexp(z, 1) - z[np.arange(len(y)), y]).sum() + (w**2).sum() / 0.2, gradient

    found = minimize(loss, np.zeros((train.shape[1] + 1) * k), jac=True, method="L-BFGS-B").x
    answers = (test @ found[:-k].reshape(-1, k) + found[-k:]).argmax(1)
    expected = (answers == data.test.y.numpy()).mean()
    assert 1 / k < expected and modalities.linear_accuracy(data) == pytest.approx(expected, abs=1.5 / len(answers))


def recorded(dataset: str, n: list[int], fused: list[float], model: str = "vgg9"):
    splits = pd.DataFrame({"dataset": dataset, "n_devices": n, "unsplit": 0.9, "fused": fused})
    return {"parameters": {"model": model, "width": 0.5}}, {"splits": splits}


def test_recorded_runs_stand_beside_the_paper_and_missing_ones_say_so():
    found = {"a": recorded("gtzan", [1, 3, 3], [0.8, 0.7, 0.6]), "b": recorded("nmnist", [5], [0.95], "vgg5")}
    table = modalities.beside_paper(found).set_index("paper's set")
    assert table.loc["GTZAN", ["unsplit", "N = 1", "N = 3"]].tolist() == pytest.approx([90, 80, 65])
    assert math.isnan(table.loc["GTZAN", "N = 5"]) and table.loc["GTZAN", "paper, N = 5"] == 87.30
    assert table["linear"].isna().all()
    found["a"][1]["splits"]["linear"] = 0.75
    assert modalities.beside_paper(found).set_index("paper's set").loc["GTZAN", "linear"] == pytest.approx(75)
    assert table.loc["–", "here"] == "nmnist" and table.loc["–", "model"] == "vgg5 × 0.5"
    assert table.loc["Caltech101", "here"] == "caltech101: not recorded"
    assert math.isnan(table.loc["Caltech101", "unsplit"])
    assert set(modalities.beside_paper({})["here"].str.endswith("not recorded")) == {True}
