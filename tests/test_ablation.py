"""The ablation of Phase II: residual potentials, errors and choices are what an independent count says."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from snnbook.conversion import convert
from snnbook.evaluate import accuracy
from snnbook.experiments import ablation
from snnbook.neurons import spiking_layers


def test_residuals_are_those_of_each_neuron_counted_one_by_one(experiment):
    snn, _ = experiment.converted("qc", 3)
    x = torch.cat([x for x, _ in experiment.validation()])
    table = ablation.residuals(snn, experiment.validation())
    layers, spikes = spiking_layers(snn), {}
    handles = [m.register_forward_hook(lambda m, i, y, n=n: spikes.update({n: y})) for n, m in layers.items()]
    with torch.no_grad():
        snn(x)
    for handle in handles:
        handle.remove()
    assert list(table["name"]) == list(layers) and list(table["layer"]) == list(range(1, len(layers) + 1))
    for row in table.itertuples():
        layer = layers[row.name]
        theta, T = layer.v_threshold, 3
        counts = (spikes[row.name].unflatten(0, (T, -1)) / theta).sum(0).round().flatten()
        ends = layer.v.flatten()
        # total charge = v(T) + θ·n: what it is worth, clipped to what T steps can say
        worth = [min(max((v + theta * n) // theta, 0), T) for v, n in zip(ends.tolist(), counts.tolist(), strict=True)]
        assert row.corrected == pytest.approx(np.mean(np.array(worth) != counts.numpy()))
        assert row.plain == pytest.approx(np.mean((ends.numpy() < 0) | (ends.numpy() >= theta)))


def test_first_layer_has_no_wrong_count(experiment):
    """A constant drive spreads its spikes evenly: no order can be wrong."""
    for method, T in (("qc", 4), ("qcfs", 5)):
        table = ablation.residuals(experiment.converted(method, T)[0], experiment.validation())
        assert table["corrected"].iloc[0] == 0 and table["plain"].iloc[0] > 0


def test_layer_errors_are_roots_in_thresholds(experiment):
    snn, report = experiment.converted("lmpc_lwc", 2)
    table, raw = ablation.layer_errors(snn), snn.calibration_errors
    raw = raw[raw["layer"] != "head"].reset_index(drop=True)
    assert len(table) == len(raw) == 4 * len(report.thresholds)
    assert list(table["position"]) == [0, 1, 2, 3] * len(report.thresholds)
    theta = raw["layer"].map(report.thresholds)
    np.testing.assert_allclose((table["single"] * theta) ** 2, raw["mse"])
    np.testing.assert_allclose((table["error"] * theta) ** 2, raw["gap"])
    assert (table["error"] <= table["single"] + 1e-9).all()  # a mean is never further off than what it is a mean of


def test_logit_error_by_hand():
    ann = torch.nn.Identity()
    batches = [(torch.tensor([[3.0, 4.0]]), None), (torch.tensor([[0.0, 5.0]]), None)]
    twice = torch.nn.Module()
    twice.forward = lambda x: torch.stack([x, 3 * x])  # mean over T is 2x, so the error is |x| / |x|
    assert ablation.logit_error(twice, ann, batches) == pytest.approx(1.0)


def test_variants_are_conversions_with_their_options(experiment):
    table = ablation.variants(experiment, "lmpc", 4, {"signed": {}, "absolute": {"absolute": True, "select": False}})
    assert list(table["variant"]) == ["signed", "absolute"]
    for row, options in zip(table.itertuples(), ({}, {"absolute": True, "select": False}), strict=True):
        snn, _ = experiment.converted("lmpc", 4, **options)
        assert row.accuracy == pytest.approx(accuracy(snn, experiment.data))
    assert table["logit_error"].iloc[0] < table["logit_error"].iloc[1]


def test_by_images_takes_the_first_ones_only(experiment):
    """Three of four to calibrate and the fourth to decide which steps are kept."""
    table = ablation.by_images(experiment, "lmpc", 2, [4, 16])
    x = torch.cat([x for x, _ in experiment.calibration()])
    images = {"calibration": [(x[:3], torch.zeros(3))], "validation": [(x[3:4], torch.zeros(1))]}
    snn, _ = convert(experiment.network("qc"), "lmpc", time_steps=2, **images)
    expected = ablation.logit_error(snn, experiment.network("qc"), experiment.validation())
    assert table["logit_error"].iloc[0] == pytest.approx(expected, rel=1e-5)
    assert list(table["images"]) == [4, 16]
    with pytest.raises(ValueError, match="images = 17 is not allowed"):
        ablation.by_images(experiment, "lmpc", 2, [17])


def test_matched_source_has_as_many_levels_as_steps(experiment):
    """In the two-stage experiment; at T = L = 1 the SNN is the ANN at every depth (exact check 2)."""
    for T, levels in ((1, 1), (3, 3), (20, 8)):
        activations = [m for m in experiment.ann("matched", T).modules() if hasattr(m, "levels")]
        assert activations and {m.levels for m in activations} == {levels}
    ann = experiment.ann("matched", 1)
    snn, _ = convert(ann, "qcfs", time_steps=1, calibration=experiment.calibration())
    x, _ = experiment.validation()[0]
    torch.testing.assert_close(snn(x).mean(0), ann(x), rtol=1e-4, atol=1e-4)


def test_tuned_gets_data_and_recipe_from_the_experiment(experiment):
    snn, report = experiment.converted("tuned", 1)
    assert report.training_images == len(experiment.data.train) and report.total_steps == 1
    start, _ = experiment.converted("matched", 1)
    assert accuracy(snn, experiment.data, "validation") >= accuracy(start, experiment.data, "validation")
