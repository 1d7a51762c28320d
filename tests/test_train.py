import dataclasses
import io
import json
import math
import os
import signal
import subprocess
import sys
import warnings
from pathlib import Path
from zipfile import ZipFile

import numpy as np
import pytest
import torch
from safetensors import safe_open
from test_conversion import Viewed
from tiny import blobs, same_state, small_net
from torch import nn

from snnbook import evaluate, train
from snnbook.evaluate import accuracy
from snnbook.fold import takes_channels_last
from snnbook.models import build
from snnbook.train import Recipe, classification_loss, fit, learning_rate, make_optimizer

ROOT = Path(__file__).resolve().parent.parent
RECIPE = Recipe(epochs=3, batch_size=16, lr=0.05, precision="fp32")  # 40 samples: batches of 16, 16 and 8
STEPS = 9


@pytest.fixture(scope="module")
def data():
    return blobs()


@pytest.fixture(scope="module")
def uninterrupted(data):
    """(trained network, its history) of ``RECIPE`` without a checkpoint."""
    net = small_net()
    return net, fit(net, data, RECIPE)


class Killed(Exception):
    pass


class FailAt:
    """``function``, but its ``call``-th call (from 1; 0 for none) raises."""

    def __init__(self, call: int, function):
        self.call, self.function, self.calls = call, function, 0

    def __call__(self, *args, **kwargs):
        self.calls += 1
        if self.calls == self.call:
            raise Killed
        return self.function(*args, **kwargs)


# --- it trains


def test_training_learns_and_returns_one_row_an_epoch(data, uninterrupted):
    net, history = uninterrupted
    assert list(history.columns) == ["epoch", "loss", "validation_accuracy"]
    assert history["epoch"].tolist() == [1, 2, 3]
    assert (
        accuracy(net, data, "validation")
        == history["validation_accuracy"].max()
        > accuracy(small_net(), data, "validation")
    )
    assert history["loss"].iloc[-1] < history["loss"].iloc[0]
    assert not net.training


def test_one_step_equals_sgd_by_hand(data):
    """One batch of everything, no warm-up: w − lr·(1 + μ)·(g + λw), λ = 0 for biases (Nesterov)."""
    recipe = Recipe(epochs=1, batch_size=len(data.train), lr=0.02, weight_decay=0.1, warmup=0.0, precision="fp32")
    start, net = small_net(norm=False, dropout=0.0), small_net(norm=False, dropout=0.0)
    history = fit(net, data, recipe)
    x, y = next(data.batches("train", len(data.train)))
    loss = nn.functional.cross_entropy(start(x), y)
    loss.backward()
    assert history["loss"].item() == pytest.approx(loss.item(), rel=1e-6)
    for (name, old), new in zip(start.named_parameters(), net.parameters(), strict=True):
        decay = 0.1 if old.ndim > 1 else 0.0
        expected = old - 0.02 * 1.9 * (old.grad + decay * old)
        torch.testing.assert_close(new, expected, rtol=1e-5, atol=1e-6, msg=name)


def test_adam_is_torch_adam(data):
    recipe = Recipe(epochs=1, batch_size=64, optimizer="adam", lr=0.01, weight_decay=0.0, warmup=0.0, precision="fp32")
    start, net = small_net(norm=False, dropout=0.0), small_net(norm=False, dropout=0.0)
    fit(net, data, recipe)
    x, y = next(data.batches("train", 64))
    nn.functional.cross_entropy(start(x), y).backward()
    for old, new in zip(start.parameters(), net.parameters(), strict=True):  # the first step of Adam is lr·g/(|g| + ε)
        torch.testing.assert_close(new, old - 0.01 * old.grad / (old.grad.abs() + 1e-8), rtol=1e-4, atol=1e-6)


def test_decay_is_on_matrices_and_kernels_only():
    net = build("vgg5", "qc", width=1 / 16)
    decayed, plain = (g for g in make_optimizer(net, Recipe(weight_decay=0.3)).param_groups)
    assert (decayed["weight_decay"], plain["weight_decay"]) == (0.3, 0.0)
    names = {id(p): n for n, p in net.named_parameters()}
    assert {names[id(p)].split(".")[-1] for p in decayed["params"]} == {"weight"}
    assert {p.ndim for p in decayed["params"]} == {2, 4}
    assert {"log_lam", "bias"} <= {names[id(p)].split(".")[-1] for p in plain["params"]}
    assert len(names) == len(decayed["params"]) + len(plain["params"])


def test_frozen_parameters_stay(data):
    net, start = small_net(), small_net()
    net[0].weight.requires_grad_(False)
    fit(net, data, RECIPE)
    assert torch.equal(net[0].weight, start[0].weight)
    assert not torch.equal(net[6].weight, start[6].weight)


def test_augmentation_is_seeded_and_changes_the_training(data, uninterrupted):
    recipe = dataclasses.replace(RECIPE, augment="crop1,flip,cutout2")
    one, two = small_net(), small_net()
    fit(one, data, recipe), fit(two, data, recipe)
    assert same_state(one, two) and not same_state(one, uninterrupted[0])


# --- loss and learning rate


def test_losses_by_hand():
    logits = np.random.default_rng(0).normal(size=(4, 5, 3))
    y = np.array([0, 2, 1, 1, 0])

    def cross_entropy(z, smoothing):
        log_p = z - np.log(np.exp(z).sum(-1, keepdims=True))
        target = np.full((5, 3), smoothing / 3)
        target[np.arange(5), y] += 1 - smoothing
        return -(target * log_p).sum(-1).mean()

    for smoothing in (0.0, 0.2):
        tensors = torch.tensor(logits), torch.tensor(y)
        for kind, expected in (
            ("mean_logits", cross_entropy(logits.mean(0), smoothing)),
            ("mean_loss", np.mean([cross_entropy(z, smoothing) for z in logits])),
        ):
            recipe = Recipe(loss=kind, label_smoothing=smoothing)
            assert classification_loss(*tensors, recipe).item() == pytest.approx(expected, rel=1e-6)
        found = classification_loss(tensors[0][0], tensors[1], Recipe(label_smoothing=smoothing))
        assert found.item() == pytest.approx(cross_entropy(logits[0], smoothing), rel=1e-6)


@pytest.mark.parametrize("steps, warmup", [(100, 0.1), (37, 0.25), (20, 0.0), (3, 0.1), (1, 0.5)])
def test_learning_rate_is_a_linear_warmup_and_torchs_cosine(steps, warmup):
    recipe, warm = Recipe(warmup=warmup), int(warmup * steps)
    found = [learning_rate(i, steps, recipe) for i in range(steps)]
    assert found[:warm] == pytest.approx([(i + 1) / warm for i in range(warm)])
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    schedule, expected = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps - warm), []
    for _ in range(steps - warm):
        expected.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    assert found[warm:] == pytest.approx(expected, abs=1e-9)
    assert max(found) == pytest.approx(1.0) and min(found) > 0


def test_each_step_uses_its_own_rate(data, monkeypatch):
    rates = []
    step = torch.optim.SGD.step

    def spy(self, *args, **kwargs):
        rates.append({g["lr"] for g in self.param_groups})
        return step(self, *args, **kwargs)

    monkeypatch.setattr(torch.optim.SGD, "step", spy)
    fit(small_net(), data, RECIPE)
    assert rates == [{0.05 * learning_rate(i, STEPS, RECIPE)} for i in range(STEPS)]


# --- the same from the same seed


def test_the_seed_decides_everything_and_nothing_global_does(data, uninterrupted):
    again, other = small_net(), small_net()
    torch.manual_seed(123)
    before = torch.get_rng_state()
    history = fit(again, data, RECIPE)
    assert torch.equal(torch.get_rng_state(), before)
    assert same_state(again, uninterrupted[0]) and history.equals(uninterrupted[1])
    fit(other, data, dataclasses.replace(RECIPE, seed=1))
    assert not same_state(other, again)


def test_dropout_masks_differ_from_step_to_step(data, monkeypatch):
    net, masks = small_net(dropout=0.5), []
    net[5].register_forward_hook(lambda m, x, y: masks.append((y == 0)[:8]) if m.training else None)
    net[4].register_forward_pre_hook(lambda m, x: (x[0] + 1,))  # no zeros but dropout's
    fit(net, data, RECIPE)
    assert len(masks) == STEPS
    assert not any(torch.equal(a, b) for a, b in zip(masks, masks[1:], strict=False))


# --- the best by validation only


def test_the_test_and_calibration_splits_are_never_touched(data, uninterrupted):
    class Forbidden:
        def __getattr__(self, name):
            raise AssertionError(f"{name} of a split that training must not see")

        def __len__(self):
            raise AssertionError("length of a split that training must not see")

    net = small_net()
    fit(net, dataclasses.replace(data, test=Forbidden(), calibration=Forbidden()), RECIPE)
    assert same_state(net, uninterrupted[0])


@pytest.mark.parametrize("scores, best", [([0.2, 0.9, 0.5], 1), ([0.9, 0.9, 0.1], 0), ([0.1, 0.2, 0.3], 2)])
def test_the_weights_with_the_best_validation_accuracy_are_kept(data, monkeypatch, scores, best):
    states = []

    def score(net, _, split, **options):
        assert split == "validation"
        states.append({k: v.clone() for k, v in net.state_dict().items()})
        return scores[len(states) - 1]

    monkeypatch.setattr(train, "accuracy", score)
    net = small_net()
    history = fit(net, data, RECIPE)
    assert same_state(net, states[best]) and not same_state(states[0], states[1])
    assert history["validation_accuracy"].tolist() == scores


# --- killed and resumed


@pytest.mark.parametrize("seconds", [0, 1000])
def test_a_run_killed_at_any_batch_goes_on_to_the_same_weights(data, uninterrupted, monkeypatch, tmp_path, seconds):
    monkeypatch.setattr(train, "CHECKPOINT_SECONDS", seconds)
    for call in range(1, STEPS + 1):
        net, path = small_net(), tmp_path / f"{call}.checkpoint"
        with monkeypatch.context() as patch, pytest.raises(Killed):
            patch.setattr(train, "classification_loss", FailAt(call, classification_loss))
            fit(net, data, RECIPE, checkpoint=path)
        done = call - 1 if seconds == 0 else (call - 1) // 3 * 3
        assert path.exists() == (done > 0)
        net = small_net(seed=5) if done else small_net()  # weights come from the checkpoint
        with monkeypatch.context() as patch:
            spy = FailAt(0, classification_loss)
            patch.setattr(train, "classification_loss", spy)
            history = fit(net, data, RECIPE, checkpoint=path)
        assert spy.calls == STEPS - done
        assert same_state(net, uninterrupted[0]), call
        assert history.equals(uninterrupted[1])


@pytest.mark.parametrize("epoch", [1, 2, 3])
def test_a_run_killed_while_validating_goes_on_to_the_same_weights(data, uninterrupted, monkeypatch, tmp_path, epoch):
    monkeypatch.setattr(train, "CHECKPOINT_SECONDS", 0)
    path = tmp_path / "c"
    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(train, "accuracy", FailAt(epoch, accuracy))
        fit(small_net(), data, RECIPE, checkpoint=path)
    net = small_net(seed=5)
    history = fit(net, data, RECIPE, checkpoint=path)
    assert same_state(net, uninterrupted[0]) and history.equals(uninterrupted[1])


KILLED = """
import os, signal, sys, torch
from pathlib import Path
from tiny import blobs, small_net
from snnbook import train
train.CHECKPOINT_SECONDS = 0
path, calls, loss, save = Path(sys.argv[1]), 0, train.classification_loss, torch.save

def kill_now():
    global calls
    calls += 1
    return calls == call

def killing_loss(*args):
    if kill_now():
        os.kill(os.getpid(), signal.SIGKILL)
    return loss(*args)

def killing_save(content, file):
    save(content, file)
    if kill_now():
        file = Path(file)
        file.write_bytes(file.read_bytes()[:1000])
        os.kill(os.getpid(), signal.SIGKILL)

recipe = train.Recipe(epochs=3, batch_size=16, lr=0.05, precision="fp32")
for moment, call in (("batch", 5), ("save", 3)):
    child = os.fork()  # a process of its own without importing everything once more
    if child == 0:
        if moment == "batch":
            train.classification_loss = killing_loss
        else:
            torch.save = killing_save
        train.fit(small_net(), blobs(), recipe, checkpoint=path)
        os._exit(0)
    status = os.waitpid(child, 0)[1]
    content = torch.load(path, weights_only=True)
    print(moment, os.WTERMSIG(status), content["epoch"], content["batch"])
"""


def python(*words, **options):
    env = os.environ | {"PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests'}", "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, *map(str, words)], env=env, capture_output=True, text=True, timeout=300, **options
    )


def test_a_process_killed_with_sigkill_goes_on_to_the_same_weights(data, uninterrupted, tmp_path):
    """Killed in the middle of batch 5, then while the checkpoint at the end of epoch 2 is half written."""
    path = tmp_path / "run.checkpoint"
    done = python("-c", KILLED, path)
    assert done.stdout.splitlines() == [f"batch {signal.SIGKILL:d} 1 1", f"save {signal.SIGKILL:d} 1 3"], done.stderr
    net = small_net(seed=5)
    history = fit(net, data, RECIPE, checkpoint=path)
    for a, b in zip(net.parameters(), uninterrupted[0].parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-7)  # another process may run other threads
    assert history["epoch"].tolist() == [1, 2, 3]


def test_a_finished_run_is_not_trained_again(data, uninterrupted, monkeypatch, tmp_path):
    path = tmp_path / "c"
    fit(small_net(), data, RECIPE, checkpoint=path)
    monkeypatch.setattr(train, "classification_loss", FailAt(1, classification_loss))
    net = small_net(seed=5)
    history = fit(net, data, RECIPE, checkpoint=path)
    assert same_state(net, uninterrupted[0]) and history.equals(uninterrupted[1])


def test_a_checkpoint_in_a_folder_that_is_not_there_is_refused_before_training(data, monkeypatch, tmp_path):
    monkeypatch.setattr(train, "make_fabric", lambda *_: pytest.fail("has begun"))
    path = tmp_path / "none" / "c"
    with pytest.raises(ValueError, match=rf"^checkpoint = '{path}' is not allowed: a file in a folder that is there$"):
        fit(small_net(), data, RECIPE, checkpoint=path)


def test_a_checkpoint_of_another_recipe_is_refused_and_kept(data, tmp_path):
    path = tmp_path / "c"
    fit(small_net(), data, dataclasses.replace(RECIPE, epochs=1), checkpoint=path)
    content = path.read_bytes()
    with pytest.raises(ValueError, match=rf"^checkpoint = '{path}' is not allowed: a checkpoint of the same recipe"):
        fit(small_net(), data, RECIPE, checkpoint=path)
    assert path.read_bytes() == content


def test_no_half_written_file_is_left_after_a_run(data, tmp_path, monkeypatch):
    monkeypatch.setattr(train, "CHECKPOINT_SECONDS", 0)
    fit(small_net(), data, RECIPE, checkpoint=tmp_path / "c.checkpoint")
    assert [p.name for p in tmp_path.iterdir()] == ["c.checkpoint"]


# --- several processes

TWO = """
import json, sys, torch
from safetensors.torch import save_file
from tiny import blobs, small_net
from snnbook.train import Recipe, fit
for n in map(int, sys.argv[2:]):
    net = small_net(norm=False, dropout=0.0)
    history = fit(net, blobs(train=n), Recipe(epochs=2, batch_size=16, lr=0.05, precision="fp32"))
    file = f"{sys.argv[1]}/{n}_{torch.distributed.get_rank()}.safetensors"
    losses = json.dumps(history["loss"].tolist())
    save_file({k: v.contiguous() for k, v in net.state_dict().items()}, file, {"loss": losses})
"""


@pytest.fixture(scope="module")
def two_processes(tmp_path_factory):
    """Size of the training split → (state of rank 0, state of rank 1, losses), trained under torchrun."""
    folder, sizes = tmp_path_factory.mktemp("two"), (40, 45, 33)
    script = folder / "two.py"
    script.write_text(TWO)
    done = python("-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", script, folder, *sizes)
    assert done.returncode == 0, done.stderr
    found = {}
    for n in sizes:
        files = [safe_open(folder / f"{n}_{rank}.safetensors", "pt") for rank in (0, 1)]
        found[n] = (
            *({k: f.get_tensor(k) for k in f.keys()} for f in files),
            json.loads(files[0].metadata()["loss"]),
        )  # noqa: SIM118
    return found


@pytest.mark.parametrize("n", [40, 45])
def test_two_processes_equal_one(two_processes, n):
    """Last batches of 8 and 13: in the second, the two processes have uneven shares."""
    one, two, losses = two_processes[n]
    net = small_net(norm=False, dropout=0.0)
    history = fit(net, blobs(train=n), Recipe(epochs=2, batch_size=16, lr=0.05, precision="fp32"))
    assert same_state(one, two)
    assert losses == pytest.approx(history["loss"].tolist(), rel=1e-5)
    for key, value in net.state_dict().items():
        torch.testing.assert_close(one[key], value, rtol=1e-5, atol=1e-5)


def test_a_last_batch_smaller_than_the_processes_is_left_out(two_processes):
    """33 samples: a last batch of one leaves one process without any, and a mean over nothing is NaN."""
    one, two, losses = two_processes[33]
    assert same_state(one, two) and all(v.isfinite().all() for v in one.values())
    assert np.isfinite(losses).all()
    assert not same_state(one, small_net(norm=False, dropout=0.0))


# --- spiking networks, precision, device, silence


@pytest.mark.parametrize("kind, shape", [("image", (1, 6, 6)), ("events", (3, 1, 6, 6))])
@pytest.mark.parametrize("loss", ["mean_logits", "mean_loss"])
def test_a_spiking_network_learns(kind, shape, loss):
    data = blobs(shape=shape, kind=kind)
    net = build("vgg5", "lif", time_steps=3, width=1 / 8, shape=(1, 6, 6), n_classes=3, v_threshold=0.5)
    assert accuracy(net, data, "train") < 0.6
    recipe = Recipe(epochs=12, batch_size=16, optimizer="adam", lr=0.02, loss=loss, precision="fp32")
    history = fit(net, data, recipe)
    assert accuracy(net, data, "train") > 0.8
    assert history["loss"].iloc[-1] < 0.7 * history["loss"].iloc[0]


def test_auto_is_bf16_exactly_where_the_processor_multiplies_it():
    flags = Path("/proc/cpuinfo")
    if not flags.exists() or "flags" not in flags.read_text():
        pytest.skip("no /proc/cpuinfo with flags")
    words = set(flags.read_text().split())
    assert train.bf16_is_native("cpu") == bool(words & {"avx512_bf16", "amx_bf16"})


@pytest.mark.parametrize("native", [True, False])
@pytest.mark.parametrize("precision, bf16", [("fp32", False), ("bf16", True), ("auto", None)])
def test_precision_of_the_fabric(monkeypatch, native, precision, bf16):
    monkeypatch.setattr(train, "bf16_is_native", lambda device: native)
    fabric = train.make_fabric("cpu", precision)
    with fabric.autocast():
        dtype = (torch.ones(2, 2) @ torch.ones(2, 2)).dtype
    assert dtype == (torch.bfloat16 if (native if bf16 is None else bf16) else torch.float32)


def test_bf16_trains_close_to_fp32_and_keeps_fp32_weights(data):
    one, two = (small_net(norm=False, dropout=0.0) for _ in range(2))
    recipe = dataclasses.replace(RECIPE, lr=0.01)
    exact, rounded = fit(one, data, recipe), fit(two, data, dataclasses.replace(recipe, precision="bf16"))
    assert {p.dtype for p in two.parameters()} == {torch.float32}
    assert rounded["loss"].tolist() == pytest.approx(exact["loss"].tolist(), rel=0.05)
    assert not same_state(one, two)


@pytest.mark.parametrize("many", [True, False])
def test_auto_keeps_small_data_sets_in_fp32_on_every_processor(data, monkeypatch, many):
    monkeypatch.setattr(train, "bf16_is_native", lambda device: True)
    monkeypatch.setattr(train, "MANY_SAMPLES", len(data.train) + (not many))
    nets = {p: small_net(norm=False, dropout=0.0) for p in ("auto", "fp32", "bf16")}
    for precision, net in nets.items():
        fit(net, data, dataclasses.replace(RECIPE, precision=precision))
    assert same_state(nets["auto"], nets["bf16" if many else "fp32"])
    assert not same_state(nets["fp32"], nets["bf16"])


def test_devices(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert train.pick_device("auto") == train.pick_device("cpu") == "cpu"
    with pytest.raises(ValueError, match=r"^device = 'cuda' is not allowed: auto or cpu \(no CUDA device is there\)$"):
        train.pick_device("cuda")
    with pytest.raises(ValueError, match=r"^device = 'tpu' is not allowed: one of auto, cpu, cuda$"):
        train.pick_device("tpu")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert train.pick_device("auto") == train.pick_device("cuda") == "cuda" and train.pick_device("cpu") == "cpu"
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: not including_emulation)
    assert train.bf16_is_native("cuda")


def test_training_is_silent_where_there_is_no_terminal(data, capfd):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fit(small_net(), data, RECIPE)
    assert capfd.readouterr() == ("", "")


def test_a_terminal_sees_a_progress_bar(data, monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    screen = Terminal()
    monkeypatch.setattr(sys, "stderr", screen)
    fit(small_net(), data, RECIPE)
    assert "epoch 1/3" in screen.getvalue() and "epoch 3/3" in screen.getvalue()


@pytest.mark.parametrize(
    "values, message",
    [
        ({"epochs": 0}, "epochs = 0 is not allowed: at least 1"),
        ({"batch_size": 0}, "batch_size = 0 is not allowed: at least 1"),
        ({"lr": 0.0}, "lr = 0.0 is not allowed: a positive number"),
        ({"lr": math.nan}, "lr = nan is not allowed: a positive number"),
        ({"warmup": 1.0}, "warmup = 1.0 is not allowed: 0 to below 1"),
        ({"label_smoothing": -0.1}, "label_smoothing = -0.1 is not allowed: 0 to below 1"),
        ({"optimizer": "lion"}, "optimizer = 'lion' is not allowed: one of sgd, adam"),
        ({"momentum": 1.0}, "momentum = 1.0 is not allowed: 0 to below 1"),
        ({"momentum": -0.1}, "momentum = -0.1 is not allowed: 0 to below 1"),
        ({"augment": "crop4,flap"}, "augmentation = 'flap' is not allowed: one of crop, flip, cutout, shift"),
        ({"augment": "flip2"}, "augmentation = 'flip2' is not allowed: flip without a number"),
        ({"loss": "mse"}, "loss = 'mse' is not allowed: one of mean_logits, mean_loss"),
        ({"precision": "fp16"}, "precision = 'fp16' is not allowed: one of auto, fp32, bf16"),
    ],
)
def test_a_bad_recipe_is_refused(values, message):
    with pytest.raises(ValueError, match=f"^{message}$"):
        Recipe(**values)


@pytest.mark.parametrize("width, wide", [(0.5, False), (1.0, True)])
def test_narrow_strided_convolutions_are_not_trained_channels_last_on_a_cpu(width, wide):
    x = torch.zeros(2, 3, 8, 8)
    layout = train.memory_layout(build("resnet20", width=width, blocks=(1, 1, 1)), torch.device("cpu"), x)
    assert (layout == torch.channels_last) == wide
    assert train.memory_layout(build("resnet20", width=0.25), torch.device("cuda"), x) == torch.channels_last


class Flat(Viewed):
    """The same without ``view``."""

    def forward(self, x):
        return self.last(self.act2(self.second(self.act1(self.first(x)))).flatten(1))


def test_a_network_with_view_is_trained_in_plain_memory(monkeypatch):
    """As its twin without ``view`` is, kept out of channels-last memory by hand."""
    data, (net, twin) = blobs(shape=(2, 8, 8), classes=5), (Viewed(), Flat())
    twin.load_state_dict(net.state_dict())
    histories = [fit(net, data, RECIPE)]
    for module in (train, evaluate):
        monkeypatch.setattr(module, "takes_channels_last", lambda net, x: False)
    histories.append(fit(twin, data, RECIPE))
    assert histories[0].equals(histories[1]) and same_state(net, twin)
    assert accuracy(net, data) == accuracy(twin, data)


def test_nothing_notices_the_look_at_the_memory_that_a_network_takes():
    class Noisy(Flat):
        def forward(self, x):
            self.seen = getattr(self, "seen", 0) + 1
            return super().forward(x + torch.randn_like(x))

    net, viewed, calls, x = Noisy(), Viewed(), [], torch.zeros(3, 2, 8, 8)
    net.first.register_forward_hook(lambda *_: calls.append(1))
    state = torch.get_rng_state()
    assert takes_channels_last(net, x) and not takes_channels_last(viewed, x)
    assert torch.equal(torch.get_rng_state(), state) and not calls and not hasattr(net, "seen") and net.training


def test_a_narrow_resnet_survives_its_training():
    """Channels last, oneDNN writes past its memory there, and the process is killed."""
    code = (
        "from snnbook.models import build; from snnbook.train import Recipe, fit; from tiny import blobs;"
        "net = build('resnet20', width=0.5, blocks=(1, 1, 1), shape=(3, 64, 64), n_classes=3);"
        "fit(net, blobs(shape=(3, 64, 64)), Recipe(epochs=1, batch_size=32, precision='fp32'), device='cpu')"
    )
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests")]), "OMP_NUM_THREADS": "1"}
    subprocess.run([sys.executable, "-c", code], check=True, env=environment, timeout=300)


@pytest.mark.parametrize("kept", [0, 100, 0.5])
def test_a_damaged_checkpoint_is_named_and_left_alone(data, tmp_path, kept):
    path = tmp_path / "c"
    fit(small_net(), data, dataclasses.replace(RECIPE, epochs=1), checkpoint=path)
    content = path.read_bytes()
    content = content[: kept if isinstance(kept, int) else int(kept * len(content))]
    path.write_bytes(content)
    with pytest.raises(ValueError, match=f"^{path} is damaged or of another network .*remove it to start again"):
        fit(small_net(), data, dataclasses.replace(RECIPE, epochs=1), checkpoint=path)
    assert path.read_bytes() == content


@pytest.mark.parametrize("which", [0, 1, 2, 3])
def test_a_checkpoint_with_one_wrong_bit_in_a_tensor_is_named(data, tmp_path, which):
    path = tmp_path / "c"
    fit(small_net(), data, dataclasses.replace(RECIPE, epochs=1), checkpoint=path)
    with ZipFile(path) as file:  # the largest four, which are found in the file by their bytes
        parts = sorted((file.read(name) for name in file.namelist()), key=len)[-4:]
    content = bytearray(path.read_bytes())
    content[content.index(parts[which]) + len(parts[which]) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(ValueError, match=f"^{path} is damaged or of another network"):
        fit(small_net(), data, dataclasses.replace(RECIPE, epochs=1), checkpoint=path)


@pytest.mark.parametrize("n, size, sizes", [(9, 4, [4, 4]), (10, 4, [4, 4, 2]), (1, 4, [1]), (3, 1, [1, 1, 1])])
def test_a_last_batch_of_one_sample_is_left_out(monkeypatch, n, size, sizes):
    """Batch norm has no variance for it; where all batches are of one sample, or there is one only, it stays."""
    seen, loss = [], train.classification_loss
    monkeypatch.setattr(train, "classification_loss", lambda out, y, r: (seen.append(len(y)), loss(out, y, r))[1])
    fit(small_net(), blobs(train=n), dataclasses.replace(RECIPE, epochs=1, batch_size=size))
    assert seen == sizes


@pytest.mark.parametrize("split", ["train", "validation"])
def test_nothing_to_train_on_or_to_choose_by_is_refused_at_once(data, split):
    part = getattr(data, split)
    none = dataclasses.replace(data, **{split: dataclasses.replace(part, x=part.x[:0], y=part.y[:0])})
    with pytest.raises(ValueError, match=rf"^data.{split} = 0 is not allowed: at least one sample$"):
        fit(small_net(), none, RECIPE)
