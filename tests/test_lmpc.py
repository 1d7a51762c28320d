"""Layer-wise membrane potential calibration, equation (13)."""

import copy

import pytest
import torch
from ordered import ordered
from test_conversion import SMALL, Own, batches, images, with_statistics, with_thresholds
from test_layerwise import pair, recorded
from tiny import blobs, same_state

from snnbook.conversion import METHODS, convert, quantised
from snnbook.conversion.layerwise import walk
from snnbook.conversion.lmpc import calibrate_potential, held_out, held_out_error, mean_gap
from snnbook.evaluate import accuracy
from snnbook.models import build
from snnbook.neurons import spiking_layers
from snnbook.quantise import QuantClip
from snnbook.residual import ordered_trains, outcome
from snnbook.train import Recipe, fit

# --- Fig 1(b): the decisive sign test


def over_firing():
    """Two spikes of weight +1 and three of weight −1 in 5 steps, θ = 1: (SNN, ANN, batches of all 100 orders)."""
    trains = ordered_trains((2, 3), 5).float().movedim(0, 1)
    return *ordered([[1.0, -1.0]], 5), [(trains, torch.zeros(100))]


def counts(snn, x):
    """How many orders give 0, 1, ... output spikes."""
    return snn(x).detach().sum(0).flatten().int().bincount().tolist()  # under gradient, so that T is not streamed


def test_signed_lmpc_cures_over_firing():
    snn, ann, data = over_firing()
    assert counts(snn, data[0][0]) == [75, 24, 1]
    (layer,) = walk(snn, ann, data, data)
    assert mean_gap(layer).item() == pytest.approx(-0.26 / 5, rel=1e-4)
    calibrate_potential(layer, 1)
    assert snn.body[2].v_init.item() == pytest.approx(-0.26)
    assert counts(snn, data[0][0]) == [99, 1]
    assert mean_gap(layer).item() == pytest.approx(-0.01 / 5, rel=1e-4)


def test_absolute_lmpc_as_printed_does_not():
    snn, ann, data = over_firing()
    (layer,) = walk(snn, ann, data, data)
    calibrate_potential(layer, 1, absolute=True, select=False)
    assert snn.body[2].v_init.item() == pytest.approx(0.26)
    assert counts(snn, data[0][0]) == [75, 24, 1]
    snn.body[2].v_init = torch.tensor(0.0)
    calibrate_potential(layer, 3, absolute=True)  # and no such step survives the held-out orders
    assert snn.body[2].v_init.item() == 0


def test_under_firing_is_cured_by_both_signs_alike():
    """Two inputs of one spike each: 24 orders give two spikes, one gives one; the ANN's rate is two."""
    trains = ordered_trains((1, 1), 5).float().movedim(0, 1)
    for absolute in (False, True):
        snn, ann = ordered([[1.0, 1.0]], 5)
        (layer,) = walk(snn, ann, [(trains, torch.zeros(25))], [(trains, torch.zeros(25))])
        assert counts(snn, trains) == [0, 1, 24]
        assert mean_gap(layer, absolute=absolute).item() == pytest.approx(0.04 / 5, rel=1e-4)


# --- equation (13) and what it is judged by


def test_the_mean_gap_by_hand():
    snn, ann = pair("vgg5", 3)
    data = batches(4, 3)
    expected, _ = recorded(snn, ann, data)
    for layer in walk(snn, ann, data[:1], data):
        gaps = torch.cat([a - y.mean(0) for _, y, a in expected[layer.name]])
        for split, n in ((0, 4), (1, 7)):
            torch.testing.assert_close(mean_gap(layer, split), gaps[:n].mean(0, keepdim=True))
            torch.testing.assert_close(mean_gap(layer, split, absolute=True), gaps[:n].abs().mean(0, keepdim=True))
        by_channel = mean_gap(layer, per_channel=True)
        assert by_channel.shape == (1, gaps.shape[1], 1, 1)
        torch.testing.assert_close(by_channel.flatten(), gaps[:4].mean((0, 2, 3)))
        assert held_out_error(layer) == pytest.approx(gaps.mean(0).square().mean().item(), rel=1e-4)
        assert held_out_error(layer, "mse") == pytest.approx(gaps.square().mean().item(), rel=1e-4)


def test_one_round_is_equation_13_for_each_neuron():
    snn, ann = pair("vgg5", 3)
    data = batches(6)
    for layer in walk(snn, ann, data, data):
        before, gap = layer.neuron.v_init, mean_gap(layer)
        calibrate_potential(layer, 1, select=False)
        torch.testing.assert_close(layer.neuron.v_init, before + 3 * gap)
        assert layer.neuron.v_init.shape == (1, *gap.shape[1:])


@pytest.mark.parametrize("criterion", ["gap", "mse"])
@pytest.mark.parametrize("name", ["vgg5", "resnet20", "own"])
def test_a_step_is_kept_only_where_the_held_out_error_falls(name, criterion):
    snn, ann = pair(name, 2)
    kept = 0
    for layer in walk(snn, ann, batches(8), batches(9)):
        start, error = layer.neuron.v_init, held_out_error(layer, criterion)
        left = calibrate_potential(layer, 3, criterion=criterion)
        assert left == pytest.approx(held_out_error(layer, criterion), rel=1e-6)
        changed = layer.neuron.v_init is not start
        assert left < error if changed else left == error
        kept += changed
    assert kept > 0 or criterion == "mse"


def test_a_step_that_fails_is_halved():
    """A neuron whose held-out images want the opposite of what calibration images want keeps its v(0)."""
    snn, ann, over = over_firing()
    under = torch.zeros(2, 5, 2)
    under[:, 0, 1], under[:, 1:4, 0] = 1, 1  # −1, then +1 three times: two spikes, which is what the rate says
    (layer,) = walk(snn, ann, over, [(under, torch.zeros(2))])
    assert mean_gap(layer, 1).item() == 0
    calibrate_potential(layer, 3)
    assert snn.body[2].v_init.item() == 0


# --- networks


@pytest.fixture(scope="module")
def trained():
    """(data, QC-ANN with L = 4 and floor) on blobs."""
    data = blobs(3, shape=(2, 8, 8))
    net = build("vgg5", "relu", width=1 / 8, shape=(2, 8, 8), n_classes=3)
    fit(net, data, Recipe(epochs=4, lr=0.05, batch_size=8), device="cpu")
    net = quantised(net, list(data.batches("calibration", 16)), 4, 0.0)
    fit(net, data, Recipe(epochs=3, lr=0.01, batch_size=8), device="cpu")
    return data, net


def splits(data):
    return {"calibration": list(data.batches("calibration", 8)), "validation": list(data.batches("validation", 8))}


@pytest.mark.parametrize("T", [2, 4])
def test_signed_is_never_worse_than_absolute(trained, T):
    data, net = trained
    errors = {}
    for absolute in (False, True):
        for select in (False, True):
            snn, _ = convert(net, "lmpc", time_steps=T, **splits(data), absolute=absolute, select=select)
            table = snn.calibration_errors
            errors[absolute, select] = table[table["step"] == "lmpc"].set_index("layer")["gap"]
    for select in (False, True):
        assert (errors[False, select] <= errors[True, select] * (1 + 1e-6)).all()
        assert (errors[False, select] < errors[True, select]).any()


def test_lmpc_repairs_phase_one(trained):
    data, net = trained
    phase_one, _ = convert(net, "qc", time_steps=2, **splits(data))
    better, report = convert(net, "lmpc", time_steps=2, **splits(data))
    assert accuracy(better, data) > accuracy(phase_one, data) + 0.1
    assert report.calibration_images == 16 and report.total_steps == 2 and METHODS["lmpc"].depends_on_T


def test_every_calibrated_neuron_obeys_the_identity(trained):
    """θ·Σs = Σx + v(0) − v(T), equation (6), with the potentials that LMPC found."""
    data, net = trained
    snn, _ = convert(net, "lmpc", time_steps=4, **splits(data), select=False)
    x = next(iter(data.batches("test", 8)))[0]
    drives = {}
    handles = [m.register_forward_hook(lambda m, i, y, n=n: drives.__setitem__(n, (i[0], y)))
               for n, m in spiking_layers(snn).items()]  # fmt: skip
    with torch.no_grad():
        snn(x)
    for handle in handles:
        handle.remove()
    for name, (drive, y) in drives.items():
        layer = snn.get_submodule(name)
        drive = drive if drive.ndim == 5 else drive.unflatten(0, (4, -1))
        y = y.unflatten(0, (4, -1))
        assert layer.v_init.shape == (1, *y.shape[2:])
        expected = drive.sum(0) + layer.v_init - layer.v
        torch.testing.assert_close(y.sum(0), expected, rtol=1e-4, atol=1e-4)
        n, v = outcome(drive.double(), layer.v_init.double(), layer.v_threshold)
        assert ((n - y.sum(0) / layer.emit).abs() > 0.5).float().mean() < 1e-3


def test_potentials_of_a_channel_are_shared_on_request(trained):
    data, net = trained
    snn, _ = convert(net, "lmpc", time_steps=2, **splits(data), per_channel=True)
    assert all(m.v_init.shape[2:] in ((1, 1), ()) for m in spiking_layers(snn).values())


def test_backward_order_differs_from_forward(trained):
    data, net = trained
    made = [convert(net, "lmpc", time_steps=2, **splits(data), order=order)[0] for order in ("forward", "backward")]
    first, last = ([m.v_init for m in spiking_layers(snn).values()] for snn in made)
    assert torch.equal(first[0], last[0]) and not torch.equal(first[-1], last[-1])


@pytest.mark.parametrize("method", ["lmpc", "qcfs_lmpc"])
def test_resnets_and_other_modules(method):
    source = METHODS[method].source
    own = Own(act=QuantClip(shift=0.5 * (source == "qcfs")))
    own.act2 = QuantClip(shift=0.5 * (source == "qcfs"))
    nets = [own.eval(), with_thresholds(with_statistics(build("resnet20", source, **SMALL)), 0.5, 1.0)]
    for net in nets:
        before = copy.deepcopy(net.state_dict())
        snn, report = convert(net, method, time_steps=3, calibration=batches(6), validation=batches(5, seed=9))
        assert same_state(net.state_dict(), before)
        again, _ = convert(net, method, time_steps=3, calibration=batches(6), validation=batches(5, seed=9))
        assert same_state(snn, again)
        changed = [m.v_init.ndim > 0 for m in spiking_layers(snn).values()]
        assert any(changed) and len(report.thresholds) == len(changed)
        with torch.no_grad():
            assert snn(images(2)).shape == (3, 2, 5)


# --- images to decide on


def test_a_quarter_is_held_out_where_nothing_else_is_given():
    data = [(images(5, seed=1), torch.arange(5)), (images(4, seed=2), torch.arange(5, 9))]
    calibration, validation = held_out(data, [])
    assert [len(y) for _, y in calibration] == [5, 2] and [len(y) for _, y in validation] == [2]
    labels = torch.cat([y for _, y in calibration + validation])
    assert labels.tolist() == list(range(9))
    torch.testing.assert_close(torch.cat([x for x, _ in calibration + validation]), torch.cat([x for x, _ in data]))
    assert held_out(data, data[:1]) == (data, data[:1])


def test_events_are_held_out_by_sample():
    calibration, validation = held_out([(images(3, 8, 2, 4, 4), torch.arange(8))], [])
    assert calibration[0][0].shape == (3, 6, 2, 4, 4) and validation[0][0].shape == (3, 2, 2, 4, 4)


@pytest.mark.parametrize("call, message", [
    (lambda: held_out(batches(1), []),
     "calibration images = 1 is not allowed: at least 2: a quarter is held out where validation is empty"),
    (lambda: convert(Own(act=QuantClip()), "lmpc", time_steps=2, calibration=batches(4)),
     "act2 = 'ReLU' is not allowed: ClippedReLU or QuantClip, since this method takes θ from a trained λ: put "
     "them in by snnbook.conversion.quantised or clipped, train that network, and convert it"),
    (lambda: convert(build("vgg5", "qc", **SMALL), "lmpc", time_steps=2, calibration=batches(4), rounds=0),
     "rounds = 0 is not allowed: a whole number, at least 1"),
    (lambda: convert(build("vgg5", "qc", **SMALL), "lmpc", time_steps=2, calibration=batches(4), criterion="x"),
     "criterion = 'x' is not allowed: one of gap, mse"),
    (lambda: convert(build("vgg5", "qc", **SMALL), "lmpc", time_steps=2, calibration=batches(4), order="x"),
     "order = 'x' is not allowed: one of forward, backward"),
])  # fmt: skip
def test_bad_arguments_are_refused(call, message):
    with pytest.raises(ValueError, match=f"^{message}$"):
        call()
