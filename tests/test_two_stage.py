"""The two-stage experiment on a data set of the tests: what is trained, what is reported, what T does."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch
from tiny import blobs

from snnbook import conversion
from snnbook.conversion import METHODS, infinite_time, mean_outputs
from snnbook.evaluate import accuracy
from snnbook.experiments import two_stage
from snnbook.params import TwoStageConversion
from snnbook.quantise import ClippedReLU, QuantClip
from snnbook.train import Recipe


def test_each_source_has_its_activation_and_is_trained_once(experiment):
    kinds = {"relu": torch.nn.ReLU, "clip": ClippedReLU, "qc": QuantClip, "qcfs": QuantClip}
    for source, kind in kinds.items():
        net = experiment.network(source)
        assert {type(a) for a in conversion.activations(net).values()} == {kind}
        assert experiment.network(source) is net
    shifts = {s: {a.shift for a in conversion.activations(experiment.network(s)).values()} for s in ("qc", "qcfs")}
    assert shifts == {"qc": {0.0}, "qcfs": {0.5}}
    with pytest.raises(ValueError, match="source = 'gelu'"):
        experiment.network("gelu")


def test_compare_agrees_with_separate_runs(experiment):
    table = experiment.compare(["robust_norm", "qcfs"], [1, 3, 8])
    assert list(table["time_steps"]) == [1, 3, 8] * 2
    for row in table.itertuples():
        snn, report = experiment.converted(row.method, row.time_steps)
        assert report.total_steps == row.time_steps
        assert row.accuracy == pytest.approx(accuracy(snn, experiment.data))
        ann = experiment.network(METHODS[row.method].source)
        assert row.ann_accuracy == pytest.approx(accuracy(ann, experiment.data))
        assert row.limit_accuracy == pytest.approx(accuracy(infinite_time(snn), experiment.data))
        assert row.loss == pytest.approx(row.ann_accuracy - row.accuracy)
    with pytest.raises(ValueError, match="method = 'magic'"):
        experiment.converted("magic", 4)


def test_a_method_made_for_one_time_is_made_for_each(experiment):
    table = experiment.compare(["opt", "matched"], [1, 3, 8]).set_index(["method", "time_steps"])
    assert table["limit_accuracy"].isna().all() and (table["total_steps"] == table.index.get_level_values(1)).all()
    for method, T in table.index:
        snn, _ = experiment.converted(method, T)
        assert table.loc[(method, T), "accuracy"] == pytest.approx(accuracy(snn, experiment.data))
    for T, levels in ((1, 1), (3, 3), (8, 8), (64, 8)):
        found = {a.levels for a in conversion.activations(experiment.ann("matched", T)).values()}
        assert found == {levels}
        if T <= 8:
            own = accuracy(experiment.ann("matched", T), experiment.data)
            assert table.loc[("matched", T), "ann_accuracy"] == pytest.approx(own)
    for method in ("qcfs_l4", "step_bias_l4"):
        nets = [experiment.ann(method, T) for T in (1, 8)]
        assert nets[0] is nets[1] is experiment.network("qcfs", 4)
        assert {(a.levels, a.shift) for a in conversion.activations(nets[0]).values()} == {(4, 0.5)}
    biases = [experiment.converted("opt", T)[0].body[0].step_bias.max().item() for T in (1, 4)]
    assert biases[0] == pytest.approx(4 * biases[1])


def test_steps_before_the_steps_count_and_may_depend_on_T(experiment):
    table = experiment.compare(["srp", "cos"], [1, 6]).set_index(["method", "time_steps"])
    assert table["total_steps"].to_dict() == {("srp", 1): 5, ("srp", 6): 10, ("cos", 1): 8, ("cos", 6): 10}
    assert table["limit_accuracy"].isna().all()


def test_calibration_and_validation_images_are_those_of_the_splits(experiment):
    for split, batches in (("calibration", experiment.calibration()), ("validation", experiment.validation())):
        expected = torch.cat([x for x, _ in experiment.data.batches(split, 7)])
        assert torch.equal(torch.cat([x for x, _ in batches]), expected)


def test_infinite_time_is_where_long_runs_go(experiment):
    x, _ = experiment.calibration()[0]
    snn, _ = experiment.converted("qc", 4)
    limit, errors = infinite_time(snn)(x), []
    for steps in (16, 256):
        snn.time_steps = steps
        errors.append((snn(x).mean(0) - limit).abs().max().item())
    assert errors[1] < errors[0] / 8


def test_drift_is_the_mean_difference_in_thresholds(experiment):
    table = two_stage.drift(experiment, "qc", [4])
    snn, report = experiment.converted("qc", 4)
    batches = experiment.calibration()
    phi, a = mean_outputs(snn, batches), mean_outputs(experiment.network("qc"), batches)
    expected = [(phi[n] - a[n]) / theta for n, theta in report.thresholds.items()]
    np.testing.assert_allclose(table["drift"], expected)
    assert list(table["layer"]) == list(range(1, len(expected) + 1))


def test_drift_is_against_the_network_that_was_converted(experiment):
    """At T = 2 a matched method converts a network of two levels."""
    table, batches = two_stage.drift(experiment, "matched", [2, 8]), experiment.calibration()
    expected = []
    for T in (2, 8):
        snn, report = experiment.converted("matched", T)
        phi, a = mean_outputs(snn, batches), mean_outputs(experiment.network("qcfs", T), batches)
        expected += [(phi[n] - a[n]) / theta for n, theta in report.thresholds.items()]
    np.testing.assert_allclose(table["drift"], expected)


def test_mean_outputs_by_hand():
    net = torch.nn.Sequential(torch.nn.ReLU())
    batches = [(torch.tensor([[1.0, -1.0]]), None), (torch.tensor([[3.0, 2.0], [0.0, 0.0]]), None)]
    assert mean_outputs(net, batches) == {"0": pytest.approx(1.0)}


def compared():
    """Losses of two methods and two seeds that can be checked by eye."""
    rows = [("a", s, t, loss) for s, bump in ((0, 0.0), (1, 0.002)) for t, loss in
            ((1, 0.5), (2, 0.005 + bump), (4, 0.02), (8, 0.001))]  # fmt: skip
    rows += [("b", 0, t, loss) for t, loss in ((1, 0.5), (2, 0.3), (4, 0.2), (8, 0.1))]
    table = pd.DataFrame(rows, columns=["method", "seed", "time_steps", "loss"])
    return table.assign(ann_accuracy=0.9, limit_accuracy=0.8, accuracy=0.9 - table["loss"])


def test_enough_steps_must_stay_enough():
    found = two_stage.enough_steps(compared(), 0.01).set_index("method")["time_steps"]
    assert found["a"] == 8  # T = 2 is good enough, but T = 4 is not
    assert pd.isna(found["b"])
    assert two_stage.enough_steps(compared(), 0.02).set_index("method")["time_steps"]["a"] == 2


def test_summary_is_the_mean_over_seeds_in_percent():
    wide = two_stage.summary(compared(), [2, 8]).set_index("method")
    assert list(wide.columns) == ["ANN", "T = 2", "T = 8", "T → ∞"]
    np.testing.assert_allclose(wide.loc["a"], [90, 100 * (0.9 - 0.006), 89.9, 80])


def test_thresholds_in_order(experiment):
    _, report = experiment.converted("qc", 2)
    table = two_stage.thresholds(report)
    assert dict(zip(table["name"], table["threshold"], strict=True)) == report.thresholds
    assert list(table["layer"]) == list(range(1, len(table) + 1)) and set(table["method"]) == {"qc"}


def test_one_experiment_a_seed():
    p = TwoStageConversion(seed=5, repeats=2, epochs=3, fine_tune_epochs=2, lr=0.2, augment="")
    made = two_stage.experiments(p, blobs())
    assert [e.seed for e in made] == [5, 6]
    assert made[0].pretraining == Recipe(epochs=3, batch_size=64, lr=0.2)
    assert made[0].fine_tuning == Recipe(epochs=2, batch_size=64, lr=0.01)
