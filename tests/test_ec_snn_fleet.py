"""From sub-models to files: a folder answers as the experiment's own networks do, with and without lost devices."""

from __future__ import annotations

import pytest
import torch
from tiny import blobs

from snnbook import store
from snnbook.evaluate import outputs
from snnbook.experiments import ec_snn_fleet, ec_snn_tables
from snnbook.experiments.ec_snn import EcSnn
from snnbook.link.folder import read_labels
from snnbook.splitting.submodel import device_part
from snnbook.train import Recipe

#: Of 24 test samples those that a folder of six holds.
ROWS = [0, 5, 9, 14, 18, 23]
COMMON = {"batch_size": 20, "loss": "mean_loss"}


@pytest.fixture(scope="module", params=["image", "events"])
def e(request, tmp_path_factory):
    """Three steps, four classes, a VGG-5 of a few channels."""
    shape = (1, 8, 8) if request.param == "image" else (3, 1, 8, 8)
    data = blobs(shape=shape, classes=4, kind=request.param, train=80, noise=20.0)
    warm, once = Recipe(epochs=15, lr=0.1, **COMMON), Recipe(epochs=2, lr=0.05, **COMMON)
    adam = Recipe(epochs=2, lr=0.01, optimizer="adam", **COMMON)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SNNBOOK_CACHE", str(tmp_path_factory.mktemp("networks")))
        yield EcSnn(data, "vgg5", 0.1, 3, warm, once, once, adam, device="cpu")


@pytest.fixture(scope="module")
def split(e):
    return e.plan(3, zeta=92.0, min_filters=2)


@pytest.fixture(scope="module", params=["mlp", "logit_average"])
def folder(e, split, request, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param)
    ec_snn_fleet.write(folder, e, split, request.param, samples=6, deadline=2.5)
    return folder, request.param


def test_files_answer_as_the_fusion_does_on_the_features_of_all_samples(e, split, folder):
    path, rule = folder
    expected = torch.cat([z for z, _ in outputs(e.fused(split, rule), e.features(split))], 1)[:, ROWS]
    torch.testing.assert_close(torch.cat(ec_snn_fleet.alone(path, range(6)), 1), expected, rtol=1e-4, atol=1e-5)
    assert torch.equal(read_labels(path), e.data.test.y[ROWS])


def test_a_lost_device_counts_as_silence(e, split, folder):
    path, rule = folder
    whole, _ = next(e.features(split).batches("test", 24))
    x = whole[:, ROWS]
    first = ec_snn_tables.feature_sizes(e.submodels(split))[0]
    x[:, :, :first] = 0
    with torch.no_grad():
        expected = e.fused(split, rule)(x)
    found = torch.cat(ec_snn_fleet.alone(path, range(6), lost=[0]), 1)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    assert not torch.equal(found, torch.cat(ec_snn_fleet.alone(path, range(6)), 1))


def test_each_device_holds_its_own_sub_model_only(e, split, folder):
    x, _ = next(e.data.batches("test", 1))
    sent = ec_snn_fleet.features(folder[0], 0)
    for i, net in enumerate(e.submodels(split)):
        module, about = store.load(folder[0] / f"part_{i}.safetensors")
        assert about["part"] == i and about["parts"] == [list(c) for c in split.parts]
        with torch.no_grad():
            assert torch.equal(sent[i], device_part(net)(x))
        assert sent[i].unique().tolist() in ([0.0], [1.0], [0.0, 1.0])
        held = sum(p.numel() for p in module.parameters())
        assert held == sum(p.numel() for p in device_part(net).parameters()) < sum(p.numel() for p in net.parameters())


def test_over_devices_is_the_sweep_of_each_rule_with_times(e):
    splits = [e.plan(n, zeta=92.0, min_filters=2) for n in (1, 2)]
    table = ec_snn_fleet.over_devices(e, splits, ["mlp", "logit_average"], samples=8)
    assert table[["fusion", "n_devices"]].values.tolist() == [
        ["mlp", 1], ["mlp", 2], ["logit_average", 1], ["logit_average", 2]]  # fmt: skip
    expected = ec_snn_tables.sweep(e, splits, "mlp", samples=8)
    assert table["accuracy"][:2].tolist() == expected["accuracy"].tolist()
    assert table["total_joules"][:2].tolist() == pytest.approx(expected["total_joules"].tolist())
    assert (table[["seconds_device", "seconds_fusion"]] > 0).all(axis=None)
