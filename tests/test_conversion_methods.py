"""Conversion methods beside the norms and QCFS: Opt, RateNorm, SRP, COS and SpikingJelly's ann2snn."""

import pytest
import torch
import torch.nn.functional as F
from spikingjelly.activation_based import functional
from spikingjelly.activation_based.ann2snn import Converter, RateCodingRecipe
from test_conversion import NETS, SMALL, Own, batches, images, with_statistics, with_thresholds
from tiny import blobs
from torch import nn

from snnbook.conversion import METHODS, clipped, convert, fold_batchnorm, infinite_time, mean_outputs, quantised
from snnbook.conversion.prerun import SILENT, offset
from snnbook.conversion.ratenorm import RateNorm, rate_inference_loss, rate_thresholds
from snnbook.conversion.thresholds import largest
from snnbook.evaluate import accuracy, accuracy_over_time
from snnbook.models import build
from snnbook.network import Network
from snnbook.neurons import IF, if_run, spiking_layers
from snnbook.quantise import QuantClip, quantise_clip
from snnbook.record import observe
from snnbook.train import Recipe, fit


def small(source="relu", name="vgg5", **options):
    net = with_statistics(build(name, source, **SMALL, **options))
    return net if source == "relu" else with_thresholds(net, 0.5, 1.0, 2.0)


def watched(snn, x):
    """Name to (drive, output), both [T, N, ...], of each spiking layer."""
    seen = {}

    def note(name, layer, drive, y):
        T = layer.time_steps
        seen[name] = drive.unflatten(0, (T, -1)) if len(drive) == len(y) else drive, y.unflatten(0, (T, -1))

    with torch.no_grad(), observe(snn, neuron=note):
        snn(x)
    return seen


# --- charge


@pytest.mark.parametrize("once, spread, source", [("opi", "opt", "relu"), ("qc_opi", "qc_opt", "qc")])
@pytest.mark.parametrize("T", [1, 3, 8])
def test_opt_and_opi_inject_the_same_charge(once, spread, source, T):
    """θ·n + v(T) − Σx is what a neuron got beside its drive: θ/2, at once or in T parts."""
    net, x = small(source), images(5, seed=3)
    for method in (once, spread):
        snn, report = convert(net, method, time_steps=T, calibration=batches(8))
        for name, (drive, y) in watched(snn, x).items():
            theta, layer = report.thresholds[name], snn.get_submodule(name)
            got = y.sum(0) + layer.v - drive.sum(0)
            torch.testing.assert_close(got, torch.full_like(got, theta / 2), rtol=1e-4, atol=1e-4)
            start = layer.v_init.item()
            assert start == pytest.approx(theta / 2 if method == once else 0.0)
            assert layer.step_bias is None if method == once else layer.step_bias.item() == pytest.approx(theta / 2 / T)
    assert METHODS[spread].depends_on_T and not METHODS[once].depends_on_T


def test_opt_and_opi_differ_in_timing():
    """Constant drive 0.6θ, T = 2: with θ/2 at once it fires at 1 only, with θ/4 a step at 2 only."""
    x = torch.full((2, 1), 0.6)
    assert if_run(x, 0.5)[0].flatten().tolist() == [1, 0]
    assert if_run(x + 0.25, 0.0)[0].flatten().tolist() == [0, 1]


# --- quantisation


@pytest.mark.parametrize("T", [1, 2, 4, 8])
def test_constant_drive_from_half_a_threshold_counts_like_qcfs(T):
    theta = 1.7
    z = torch.linspace(-1, 3, 4001, dtype=torch.double)
    spikes, _ = if_run(z.expand(T, -1), torch.tensor(theta / 2, dtype=torch.double), theta)
    level = z * T / theta + 0.5
    clear = (level - level.round()).abs() > 1e-9
    assert torch.equal((theta * spikes.mean(0))[clear], quantise_clip(z, theta, T, 0.5)[clear])


# --- RateNorm


def test_a_rate_norm_layer_by_hand():
    layer = RateNorm(4.0, 0.0)  # θ = 4·σ(0) = 2
    assert layer(torch.tensor([-1.0, 0.5, 1.0, 3.0])).tolist() == [0, 0.5, 1, 2]
    assert layer.slowness.item() == pytest.approx((0.25 + 0.5 + 1) / (0.25**2 + 0.5**2 + 1))
    assert layer.threshold.item() == 2.0


def test_the_rate_inference_loss_by_hand():
    net = nn.Sequential(RateNorm(2.0, 0.0), nn.Linear(2, 2, bias=False))  # θ = 1
    with torch.no_grad():
        net[1].weight.copy_(torch.tensor([[1.0, 0.0], [1.0, 1.0]]))
    x = torch.tensor([[0.5, 3.0]])  # rates ½ and 1, logits ½ and 1½
    distance = 1 - (0.5 * 1 + 1.5 * 1) / (2.5**0.5 * 2**0.5)
    loss = rate_inference_loss(net, x, torch.tensor([[1.0, 1.0]]), 0.1)
    assert loss.item() == pytest.approx(distance + 0.1 * 1.5 / 1.25, rel=1e-5)
    loss.backward()
    p, h = net[0].p, 1e-3
    with torch.no_grad():
        values = []
        for step in (h, -h):
            p.add_(step)
            values.append(rate_inference_loss(net, x, torch.tensor([[1.0, 1.0]]), 0.1).item())
            p.sub_(step)
    assert p.grad.item() == pytest.approx((values[0] - values[1]) / (2 * h), rel=1e-2)


def test_rate_norm_trades_rates_against_logits():
    net, data = fold_batchnorm(small(), images(1)), batches(16, 16)
    maxima = largest(net, data)
    start = rate_thresholds(net, data, epochs=0, p=2.0)
    assert start == pytest.approx({n: m * torch.tensor(2.0).sigmoid().item() for n, m in maxima.items()}, rel=1e-5)
    faithful, fast = (rate_thresholds(net, data, weight=w, p=2.0) for w in (0.0, 1.0))
    assert all(0 < fast[n] < faithful[n] < maxima[n] for n in maxima)
    assert max(fast[n] / start[n] for n in maxima) < 0.9

    def distance(thresholds):
        limit = infinite_time(convert_with(net, thresholds))
        with torch.no_grad():
            return sum(1 - F.cosine_similarity(limit(x), net(x)).mean().item() for x, _ in data)

    assert distance(faithful) < distance(start) < distance(fast)


def convert_with(net, thresholds):
    snn = convert(net, "max_norm", time_steps=1, calibration=batches(1))[0]
    for name, layer in spiking_layers(snn).items():
        layer.v_threshold = thresholds[name]
    return snn


def test_rate_norm_is_deterministic_and_reports_its_thresholds():
    net, data = small(), batches(32, 8)
    thresholds = rate_thresholds(fold_batchnorm(net, images(1)), data, epochs=2)
    snn, report = convert(net, "rate_norm", time_steps=3, calibration=data, epochs=2)
    assert report.thresholds == thresholds and report.calibration_images == 40
    assert set(report.v_init.values()) == {0.0}
    for option, value in (("epochs", -1), ("epochs", 1.5), ("lr", 0.0), ("weight", -0.1), ("p", float("nan"))):
        with pytest.raises(ValueError, match=f"^{option} = {value} is not allowed"):
            convert(net, "rate_norm", time_steps=3, calibration=data, **{option: value})


# --- pre-runs


def step_by_step(snn, x, steps, silent=None):
    """Every layer of a chain one step after another, by the definition of an IF neuron: logits [T, N, K], v, spikes."""
    chain = [*snn.stem, *snn.body, *snn.head]
    silent = silent or {}
    v = {m: m.v_threshold / 2 for m in chain if isinstance(m, IF)}
    counts, logits = dict.fromkeys(v, 0), []
    for _ in range(steps):
        y = x
        for m in chain:
            if isinstance(m, IF):
                v[m] = v[m] + y
                s = (v[m] >= m.v_threshold).float() * (1 - silent.get(m, torch.zeros(())))
                v[m], y = v[m] - m.v_threshold * s, m.v_threshold * s
                counts[m] = counts[m] + s
            else:
                y = m(y)
        logits.append(y)
    return torch.stack(logits), v, counts


@pytest.mark.parametrize("T, steps", [(1, 4), (5, 4), (9, 2)])
def test_srp_silences_neurons_of_negative_residual_potential(T, steps):
    net, x = small("qcfs", head="fc", name="vgg9"), images(6, seed=7)
    snn, report = convert(net, "srp", time_steps=T, calibration=batches(1), prerun_steps=steps)
    with torch.no_grad():
        _, v, _ = step_by_step(snn, x, steps)
        silent = {m: (value < 0).float() for m, value in v.items()}
        expected, _, counts = step_by_step(snn, x, T, silent)
        torch.testing.assert_close(snn(x), expected, rtol=1e-4, atol=1e-4)
    assert all(0 < s.mean() < 1 for s in silent.values()) and next(iter(counts.values())).sum() > 0
    assert (report.prerun_steps, report.total_steps) == (steps, T + steps)
    assert [layer.v_init.item() for layer in spiking_layers(snn).values()] == pytest.approx(
        [t / 2 for t in report.thresholds.values()]
    )


def test_nothing_wakes_a_silenced_neuron():
    spikes, _ = if_run(torch.full((8, 3), 1e6), torch.full((3,), SILENT))
    assert not spikes.any()


@pytest.mark.parametrize("T", [3, 9])
def test_srp_passes_the_stem_once_and_gives_what_two_runs_give(T):
    """The plain network run for four steps, silenced by hand, and run again from the images."""
    net, x, calls = small("qcfs", name="vgg9"), images(4, seed=7), []
    snn, plain = (convert(net, method, time_steps=T, calibration=batches(1))[0] for method in ("srp", "qcfs"))
    with torch.no_grad():
        plain.time_steps = 4
        for layer in spiking_layers(plain).values():
            layer.keep_v = True
        plain(x)
        for layer in spiking_layers(plain).values():
            layer.keep_v, layer.v_init = False, torch.where(layer.v < 0, SILENT, layer.v_init)
        plain.time_steps = T
        assert torch.equal(snn(x), plain(x))
        stem = snn.stem
        stem.register_forward_hook(lambda *_: calls.append(1))
        snn(x)
    assert len(calls) == 1 and snn.stem is stem
    with pytest.raises(RuntimeError):
        snn(x[:, :1])
    assert snn.stem is stem and snn.time_steps == T


def test_srp_hooks_see_both_runs():
    snn, _ = convert(small("qcfs"), "srp", time_steps=3, calibration=batches(1))
    steps = []
    with torch.no_grad(), observe(snn, neuron=lambda n, m, d, y: steps.append(len(y) // 2)):
        snn(images(2))
    assert steps == [4] * 3 + [3] * 3


def test_an_offset_changes_the_spike_count_by_exactly_one():
    generator = torch.Generator().manual_seed(0)
    x = 1.5 * torch.randn(4, 100_000, generator=generator, dtype=torch.double) + 0.4
    theta = 1.3
    v0 = torch.tensor(theta / 2, dtype=torch.double)
    spikes, v = if_run(x, v0, theta)
    moved, _ = if_run(x, v0 + offset(x, v0, theta), theta)
    change, count = (moved - spikes).sum(0), spikes.sum(0)
    expected = ((v >= theta) & (count < 4)).double() - ((v < 0) & (count > 0)).double()
    assert torch.equal(change, expected)
    assert (expected == 1).sum() > 1000 and (expected == -1).sum() > 1000


def test_no_offset_under_constant_drive():
    z = torch.linspace(-2, 3, 501)
    _, v = if_run(z.expand(4, -1), 0.5)
    shift = offset(z.expand(4, -1), torch.tensor(0.5), 1.0)
    assert not shift.any() and ((v < 0) | (v >= 1)).any()  # silent and saturated neurons are right as they are


@pytest.mark.parametrize("T, steps", [(6, 4), (4, 3), (2, 4), (1, 1)])
def test_cos_calibrates_layer_by_layer(T, steps):
    net, x = small("qcfs", head="fc", name="vgg9"), images(4, seed=7)
    snn, report = convert(net, "cos", time_steps=T, calibration=batches(1), prerun_steps=steps)
    run, moved = max(T, steps), 0
    with torch.no_grad():
        trains = x.expand(run, *x.shape)  # the whole train of a layer before that of the next
        for m in [*snn.stem, *snn.body, *snn.head]:
            if isinstance(m, IF):
                v0 = torch.full(trains.shape[1:], m.v_threshold / 2)
                shift = offset(trains[:steps], v0, m.v_threshold)
                trains = m.v_threshold * if_run(trains, v0 + shift, m.v_threshold)[0]
                moved += shift.count_nonzero()
            else:
                trains = m(trains.flatten(0, 1)).unflatten(0, (run, -1))
        torch.testing.assert_close(snn(x), trains[:T], rtol=1e-4, atol=1e-4)
    assert moved > 0 or steps == 1
    extra = steps + max(steps - T, 0)  # every layer listens to ``steps`` corrected steps
    assert (report.prerun_steps, report.total_steps) == (extra, T + extra)


@pytest.mark.parametrize("method", ["srp", "cos"])
def test_a_prerun_does_not_depend_on_the_steps_that_follow(method):
    """So that one long run tells the accuracy at every T."""
    net, data = small("qcfs"), blobs(shape=(2, 8, 8), classes=5)
    x = images(6, seed=1)
    whole = convert(net, method, time_steps=12, calibration=batches(1))[0]
    with torch.no_grad():
        for T in (1, 3, 7):
            torch.testing.assert_close(
                convert(net, method, time_steps=T, calibration=batches(1))[0](x), whole(x)[:T], rtol=1e-5, atol=1e-5
            )
            assert whole.time_steps == 12
    table = accuracy_over_time(whole, data, [1, 2, 5])
    at_5 = convert(net, method, time_steps=5, calibration=batches(1))[0]
    assert table["accuracy"].iloc[-1] == accuracy(at_5, data) and not METHODS[method].depends_on_T


@pytest.mark.parametrize("method", ["srp", "cos"])
def test_preruns_refuse_what_they_cannot_do(method):
    net = small("qcfs")
    for steps in (0, 5, 2.5, True):
        with pytest.raises(ValueError, match=f"^prerun_steps = {steps} is not allowed: 1 to 4$"):
            convert(net, method, time_steps=2, calibration=batches(1), prerun_steps=steps)
    snn, _ = convert(net, method, time_steps=2, calibration=batches(1))
    with pytest.raises(ValueError, match=r"^x = \(2, 3, 2, 8, 8\) is not allowed: images \[N, C, H, W\]"):
        snn(images(2, 3, 2, 8, 8))
    with pytest.raises(ValueError, match=r"^body\.0 = 'ReLU' is not allowed"):
        convert(small(), method, time_steps=2, calibration=batches(1))


@pytest.mark.parametrize("method", ["srp", "cos"])
def test_a_vector_can_be_seen_twice(method):
    """An MLP on [N, F] and the same as 1 × 1 convolutions on [N, F, 1, 1]."""
    mlp = nn.Sequential(nn.Linear(6, 8), QuantClip(shift=0.5, lam=1.0), nn.Linear(8, 3)).eval()
    conv = nn.Sequential(nn.Conv2d(6, 8, 1), QuantClip(shift=0.5, lam=1.0), nn.Conv2d(8, 3, 1), nn.Flatten()).eval()
    conv.load_state_dict({k: v[..., None, None] if v.ndim == 2 else v for k, v in mlp.state_dict().items()})
    x, made = images(5, 6), []
    for net, like in ((mlp, x), (conv, x[..., None, None])):
        snn, _ = convert(net, method, time_steps=3, calibration=[(like, torch.zeros(5))])
        with torch.no_grad():
            made.append(snn(like))
    torch.testing.assert_close(*made)


# --- SpikingJelly's converter


@pytest.mark.parametrize("mode", ["Max", "99%", 0.5])
@pytest.mark.parametrize("name, options", NETS[:4])
def test_ann2snn_equals_spikingjellys_own_run(name, options, mode, capsys):
    """Its converter on the same modules, its neurons, its way to run them: one step at a time after a reset."""
    net, data, x, T = small(name=name, **options), batches(32, 6), images(3, seed=5), 7
    snn, report = convert(net, "ann2snn", time_steps=T, calibration=data, mode=mode)
    assert capsys.readouterr() == ("", "")
    folded = fold_batchnorm(net, images(1))
    reference = Converter(RateCodingRecipe(data, mode=mode)).convert(
        nn.Sequential(folded.stem, folded.body, folded.head)
    )
    functional.reset_net(reference)
    with torch.no_grad():
        expected = torch.stack([reference(x) for _ in range(T)])
        torch.testing.assert_close(snn(x), expected, rtol=1e-4, atol=1e-4)
    assert report.calibration_images == 38
    assert len(report.thresholds) == sum(isinstance(m, nn.ReLU) for m in net.modules())


def test_ann2snn_thresholds_are_a_running_average_of_maxima():
    net, data = fold_batchnorm(small(), images(1)), batches(32, 32, 6)
    maxima = [list(largest(net, [batch]).values()) for batch in data]
    expected = [0.9 * (0.9 * a + 0.1 * b) + 0.1 * c for a, b, c in zip(*maxima, strict=True)]
    _, report = convert(net, "ann2snn", time_steps=2, calibration=data)
    assert list(report.thresholds.values()) == pytest.approx(expected, rel=1e-5)


def test_ann2snn_refusals():
    with pytest.raises(ValueError, match="^activation = 'ClippedReLU' is not allowed: nn.ReLU"):
        convert(small("clip"), "ann2snn", time_steps=2, calibration=batches(1))
    with pytest.raises(ValueError, match="^mode = 'median' is not allowed"):
        convert(small(), "ann2snn", time_steps=2, calibration=batches(1), mode="median")


# --- activations that never run


class Spare(Own):
    """With an activation that no forward pass uses."""

    def __init__(self, spare):
        super().__init__()
        self.act0 = spare


@pytest.mark.parametrize("method", [
    "max_norm", "rate_norm", "ann2snn", "snn_calibration", "snn_calibration_bias", "snn_calibration_potential",
    "srp", "cos", "step_bias", "lmpc",
])  # fmt: skip
def test_an_activation_that_never_runs_is_no_layer(method):
    shift = {"lmpc": 0.0}.get(method, 0.5)
    learnt = METHODS[method].source != "relu"
    nets = [Spare(nn.ReLU()), Own()]
    if learnt:
        nets = [quantised(net, batches(8), 4, shift) for net in nets]
    made = [convert(net, method, time_steps=3, calibration=batches(8))[0] for net in nets]
    with torch.no_grad():
        torch.testing.assert_close(*(snn(images(3)) for snn in made))
    assert set(mean_outputs(made[0], batches(2))) == {"body.act1", "body.act2"} or method == "ann2snn"


# --- all of them


OWN_METHODS = ["opt", "rate_norm", "ann2snn", "srp", "cos", "qc_opi", "qc_opt", "step_bias"]
OWN_METHODS += [
    "snn_calibration",
    *(f"snn_calibration_{stage}" for stage in ("threshold", "bias", "potential", "weights")),
]


@pytest.fixture(scope="module")
def trained():
    """A data set and networks trained on it, by source."""
    data = blobs(shape=(1, 8, 8), classes=4, noise=60.0, train=256, test=64)
    calibration = list(data.batches("calibration", 16))
    relu = build("vgg5", n_classes=4, shape=(1, 8, 8), width=1 / 8)
    fit(relu, data, Recipe(epochs=4, lr=0.05, batch_size=32))
    nets = {"relu": relu, "clip": clipped(relu, calibration)}
    nets |= {"qc": quantised(relu, calibration, 8, 0.0), "qcfs": quantised(relu, calibration, 8, 0.5)}
    for source in ("clip", "qc", "qcfs"):
        fit(nets[source], data, Recipe(epochs=2, lr=0.005, batch_size=32))
    return data, nets


@pytest.mark.parametrize("method", ["max_norm", "robust_norm", "opi", "tcl", "qc", "qcfs", *OWN_METHODS])
def test_accuracy_tends_to_that_of_the_clipped_network(trained, method):
    data, nets = trained
    net = nets[METHODS[method].source]
    snn, _ = convert(net, method, time_steps=256, calibration=data.batches("calibration", 16))
    limit = infinite_time(snn)
    assert abs(accuracy(limit, data) - accuracy(net, data)) <= 1.1 / 64 and accuracy(net, data) > 0.9
    assert abs(accuracy(snn, data) - accuracy(limit, data)) <= 1.1 / 64


@pytest.mark.parametrize("method", OWN_METHODS)
def test_somebody_elses_module_converts_by_every_method(method):
    source = METHODS[method].source
    net = Own()
    if source != "relu":
        net = quantised(net, batches(8), 4, 0.5 if source == "qcfs" else 0.0)
    snn, report = convert(net, method, time_steps=3, calibration=batches(8))
    assert isinstance(snn, Network) and len(report.thresholds) == len(spiking_layers(snn)) == 2
    with torch.no_grad():
        assert snn(images(2)).shape == (3, 2, 5)
    assert report.total_steps == 3 + report.prerun_steps and min(report.thresholds.values()) > 0
