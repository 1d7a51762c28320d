import dataclasses
import os
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from tiny import blobs, same_state, small_net
from torch import nn

from snnbook import cache, runs, sources, train
from snnbook.bottleneck.baseline import Quantise
from snnbook.cache import (
    SPIKING_CODE,
    TRAINING_CODE,
    code_hash,
    foreign_code,
    kept_table,
    key,
    layer_code,
    state_hash,
    trained,
)
from snnbook.conversion import quantised
from snnbook.data import cache as features
from snnbook.models import build
from snnbook.train import Recipe

RECIPE = Recipe(epochs=2, batch_size=16, lr=0.05, precision="fp32")


@pytest.fixture(scope="module")
def data():
    return blobs()


class Killed(Exception):
    pass


def no_training(*_, **__):
    raise AssertionError("trained again")


def test_the_second_call_does_not_train_and_gives_every_bit_of_the_first(data, monkeypatch, tmp_path):
    first, second = small_net(), small_net()
    history = trained(first, data, RECIPE, folder=tmp_path)
    monkeypatch.setattr(cache, "fit", no_training)
    again = trained(second, data, RECIPE, folder=tmp_path)
    assert same_state(first, second) and not same_state(first, small_net())
    assert again.equals(history) and list(again.dtypes) == list(history.dtypes)
    assert not first.training and not second.training
    assert len(list(tmp_path.iterdir())) == 1


def test_a_network_from_the_cache_leads_to_the_same_keys_later_on(data, tmp_path):
    """Activations to the last bit: λ is taken from them, and the fine-tuned network's key from λ."""
    found = []
    for _ in range(2):
        net = build("vgg9", width=1 / 8, shape=(1, 6, 6), n_classes=3)
        trained(net, data, RECIPE, folder=tmp_path)
        batches = list(data.batches("calibration", 256))
        found.append((net(batches[0][0]), key(quantised(net, batches, 4, 0.5), data, RECIPE)))
    assert torch.equal(found[0][0], found[1][0]) and found[0][1] == found[1][1]


def test_several_that_want_the_same_network_train_it_once(data, monkeypatch, tmp_path):
    trainings, start = [], threading.Barrier(3)

    def slow_fit(*args, **options):
        trainings.append(args)
        time.sleep(0.2)
        return train.fit(*args, **options)

    def want(net):
        start.wait()
        trained(net, data, RECIPE, folder=tmp_path)

    monkeypatch.setattr(cache, "fit", slow_fit)
    nets = [small_net() for _ in range(3)]
    threads = [threading.Thread(target=want, args=(net,)) for net in nets]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(trainings) == 1 and all(same_state(nets[0], net) for net in nets[1:])
    assert [path.suffix for path in tmp_path.iterdir()] == [".safetensors"]


def test_the_lock_of_a_killed_training_stops_nobody(data, tmp_path):
    net = small_net()
    (tmp_path / f"{key(net, data, RECIPE)}.lock").touch()
    trained(net, data, RECIPE, folder=tmp_path)
    assert [path.suffix for path in tmp_path.iterdir()] == [".safetensors"]


def test_the_cache_trains_as_fit_does(data, tmp_path):
    one, two = small_net(), small_net()
    history = trained(one, data, RECIPE, folder=tmp_path)
    assert history.equals(train.fit(two, data, RECIPE)) and same_state(one, two)


def test_spiking_networks_with_their_potentials_are_cached(data, monkeypatch, tmp_path):
    def make():
        return build("vgg5", "if", time_steps=2, width=1 / 16, shape=(1, 6, 6), n_classes=3, v_init=0.5)

    first, second = make(), make()
    trained(first, data, RECIPE, folder=tmp_path)
    monkeypatch.setattr(cache, "fit", no_training)
    trained(second, data, RECIPE, folder=tmp_path)
    assert same_state(first, second)


def variants(data):
    """What must not share a trained network with ``small_net()``, ``data`` and ``RECIPE``."""
    frozen = small_net()
    frozen[0].weight.requires_grad_(False)
    deeper = small_net()
    deeper.append(nn.Identity())
    labels = dataclasses.replace(data.train, y=data.train.y.roll(1))
    return {
        "weights": (small_net(seed=1), data, RECIPE),
        "frozen": (frozen, data, RECIPE),
        "structure": (deeper, data, RECIPE),
        "dropout": (small_net(dropout=0.1), data, RECIPE),
        "pixels": (small_net(), blobs(seed=1), RECIPE),
        "labels": (small_net(), dataclasses.replace(data, train=labels), RECIPE),
        "normalisation": (small_net(), dataclasses.replace(data, std=data.std * 2), RECIPE),
        **{f.name: (small_net(), data, dataclasses.replace(RECIPE, **{f.name: value})) for f, value in zip(
            dataclasses.fields(Recipe),
            [3, 8, "adam", 0.1, 0.8, 0.0, 0.1, 0.2, "flip", "mean_loss", "auto", 1], strict=True)},
    }  # fmt: skip


def test_the_key_changes_with_everything_that_goes_in(data):
    keys = {name: key(*values) for name, values in variants(data).items()}
    same = key(small_net(), blobs(), dataclasses.replace(RECIPE))
    assert same == key(small_net(), data, RECIPE)
    assert len({*keys.values(), same}) == len(keys) + 1


ALL = TRAINING_CODE + SPIKING_CODE

NEURONS = [
    {},
    {"tau": 2.0},
    {"decay_input": False},
    {"v_threshold": 0.5},
    {"v_reset": 0.0},
    {"v_init": 0.5},
    {"emit": 2.0},
    {"detach_reset": False},
]


def test_the_key_changes_with_every_constant_of_a_neuron(data):
    options = {"width": 1 / 16, "shape": (1, 6, 6)}
    keys = [key(build("vgg5", "lif", time_steps=2, **options, **n), data, RECIPE) for n in NEURONS]
    keys += [
        key(build("vgg5", "lif", time_steps=3, **options), data, RECIPE),
        key(build("vgg5", "if", time_steps=2, **options), data, RECIPE),
    ]
    keys += [
        key(build("vgg5", "qc", **options, **q), data, RECIPE)
        for q in ({}, {"levels": 4}, {"shift": 0.5}, {"lam": 4.001})
    ]
    assert len(set(keys)) == len(keys)


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A copy of the package's source that a test may edit."""
    copy = tmp_path / "package"
    shutil.copytree(Path(cache.__file__).parent, copy, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(sources, "PACKAGE", copy)
    code_hash.cache_clear()
    yield copy
    code_hash.cache_clear()


@pytest.fixture
def rehash(monkeypatch, package):
    """Edit a file of the copy and start again: the hash of all that trains."""

    def edit(name, old, new):
        change(package / name, old, new)
        monkeypatch.setattr(sources, "NOTED", sources.digests())
        code_hash.cache_clear()
        return code_hash(ALL)

    return edit


def change(file, old, new):
    text = file.read_text(encoding="utf-8")
    assert old in text
    file.write_text(text.replace(old, new, 1), encoding="utf-8")


@pytest.mark.parametrize(
    "file, old, new",
    [
        ("train.py", "math.cos(", "math.sin("),
        ("network.py", "self.branch(x) + ", "self.branch(x) - "),
        ("quantise.py", ".floor_()", ".round_()"),
        ("augment.py", "rand(", "randn("),
        ("evaluate.py", "argmax", "argmin"),
        ("data/core.py", "torch.randperm(n, ", "torch.randint(n, (n,), "),
        ("fold.py", "in_channels < 16", "in_channels < 8"),
        ("fold.py", '"amx_bf16"', '"amx"'),
    ],
)
def test_the_key_changes_with_the_code_that_trains(rehash, data, file, old, new):
    before = key(small_net(), data, RECIPE)
    rehash(file, old, new)
    assert key(small_net(), data, RECIPE) != before


def test_neurons_count_for_spiking_networks_only(rehash, data):
    def keys():
        nets = [build("vgg5", n, time_steps=t, width=1 / 16, shape=(1, 6, 6)) for n, t in (("relu", None), ("lif", 2))]
        return [key(net, data, RECIPE) for net in nets]

    ann, snn = keys()
    rehash("neurons.py", "self.carry = False", "self.carry = True")
    assert keys()[0] == ann and keys()[1] != snn


def test_comments_docstrings_and_layout_do_not_count(rehash):
    before = code_hash(ALL)
    assert rehash("train.py", "def fit(", "# a comment\n\n\ndef fit(") == before
    assert rehash("train.py", "    epochs: int = 10", "    epochs: int = (\n        10\n    )") == before
    assert rehash("network.py", '"""`Network` and', '"""Other words. `Network` and') == before
    assert rehash("energy.py", "4.6", "4.7") == before


def test_code_that_changed_after_it_was_imported_is_refused(package, data):
    """Not even a comment may change: what is kept is the code that runs, and only its digest is known."""
    before = key(small_net(), data, RECIPE)
    change(package / "train.py", "math.cos(", "math.sin(")
    change(package / "planner.py", "NoPlan", "NoPlans")  # trains nothing
    assert key(small_net(), data, RECIPE) == before  # it was asked for when the files were those that run
    code_hash.cache_clear()
    with pytest.raises(ValueError, match=r"^train\.py has changed since this process started: start it again"):
        key(small_net(), data, RECIPE)
    assert code_hash(("evaluate", "network"))


def test_features_go_by_the_loaders_that_run(package, monkeypatch):
    before = features._code()
    change(package / "data" / "audio.py", "hop", "step")
    assert features._code() == before
    noted = sources.digests()
    monkeypatch.setattr(features, "NOTED", noted)
    assert features._code() != before
    monkeypatch.setattr(features, "NOTED", noted | {"train": "another", "data/audio": sources.NOTED["data/audio"]})
    assert features._code() == before


def test_the_hash_of_the_package_is_that_of_its_files_now(package):
    before = sources.package_hash()
    change(package / "train.py", "def fit(", "# a comment\n\n\ndef fit(")
    assert sources.package_hash() == before
    change(package / "train.py", "math.cos(", "math.sin(")
    assert sources.package_hash() != before


def test_state_hash_sees_every_bit_name_shape_and_type():
    net = nn.Linear(2, 2)
    with torch.no_grad():
        net.weight.copy_(torch.tensor([[1.0, 2.0], [3.0, 4.0]]))
    before = state_hash(net)
    assert state_hash(net.to(memory_format=torch.channels_last)) == before
    with torch.no_grad():
        net.weight[0, 0] = torch.nextafter(torch.tensor(1.0), torch.tensor(2.0))
    assert state_hash(net) != before
    other = nn.Module()
    other.register_buffer("a", torch.zeros(2, 3))
    renamed, reshaped, retyped = nn.Module(), nn.Module(), nn.Module()
    renamed.register_buffer("b", torch.zeros(2, 3))
    reshaped.register_buffer("a", torch.zeros(3, 2))
    retyped.register_buffer("a", torch.zeros(2, 3, dtype=torch.int32))
    assert len({state_hash(m) for m in (other, renamed, reshaped, retyped)}) == 4


@pytest.mark.parametrize("damage", ["cut", "empty", "text", "header", "bit", "other network"])
def test_a_damaged_file_is_named_and_left_alone(data, tmp_path, damage):
    trained(small_net(), data, RECIPE, folder=tmp_path)
    (path,) = tmp_path.iterdir()
    content = path.read_bytes()
    if damage == "other network":
        save_file({"weight": torch.zeros(2)}, path)
    else:
        path.write_bytes(
            {
                "cut": content[:-40],
                "empty": b"",
                "text": b"not a network" * 9,
                "header": content[:4],
                "bit": content[:-1] + bytes([content[-1] ^ 1]),
            }[damage]
        )
    damaged = path.read_bytes()
    with pytest.raises(ValueError, match=f"^{path} is damaged"):
        trained(small_net(), data, RECIPE, folder=tmp_path)
    assert path.read_bytes() == damaged


def test_a_killed_run_goes_on_from_its_checkpoint(data, monkeypatch, tmp_path):
    whole, net = small_net(), small_net()
    history = trained(whole, data, RECIPE, folder=tmp_path / "whole")
    loss, calls = train.classification_loss, []

    def kill_at_fifth(*args):
        calls.append(1)
        if len(calls) == 5:
            raise Killed
        return loss(*args)

    monkeypatch.setattr(train, "CHECKPOINT_SECONDS", 0)
    monkeypatch.setattr(train, "classification_loss", kill_at_fifth)
    with pytest.raises(Killed):
        trained(net, data, RECIPE, folder=tmp_path / "killed")
    assert [p.suffix for p in (tmp_path / "killed").iterdir()] == [".checkpoint"]
    net = small_net()
    runs.NETWORKS.clear()
    again = trained(net, data, RECIPE, folder=tmp_path / "killed")
    assert len(calls) == 5 + 2  # two epochs of three batches, of which four were done
    assert list(runs.NETWORKS.values()) == [runs.UsedNetwork(False, None)]  # nobody knows for how long it ran before
    assert same_state(net, whole) and again.equals(history)
    assert [p.suffix for p in (tmp_path / "killed").iterdir()] == [".safetensors"]


def test_a_run_counts_the_networks_it_trained_and_those_it_found(data, monkeypatch, tmp_path):
    clock = iter([0.0, 100.0, 200.0, 230.0])  # two trainings of 100 and 30 seconds
    monkeypatch.setattr(cache, "time", SimpleNamespace(monotonic=lambda: next(clock)))
    other = dataclasses.replace(RECIPE, seed=1)
    runs.NETWORKS.clear()
    trained(small_net(), data, RECIPE, folder=tmp_path)
    trained(small_net(), data, RECIPE, folder=tmp_path)  # this run has trained it: no second one
    assert runs.networks_used(runs.NETWORKS) == {"trained": 1, "from_cache": 0, "cached_seconds": 0}
    runs.NETWORKS.clear()
    for recipe in (RECIPE, RECIPE, other):
        trained(small_net(), data, recipe, folder=tmp_path)
    assert runs.networks_used(runs.NETWORKS) == {"trained": 1, "from_cache": 1, "cached_seconds": 100}
    runs.NETWORKS.clear()
    for recipe in (RECIPE, other):
        trained(small_net(), data, recipe, folder=tmp_path)
    assert runs.networks_used(runs.NETWORKS) == {"trained": 0, "from_cache": 2, "cached_seconds": 130}


def test_time_that_nobody_counted_is_not_known(data, tmp_path):
    """Of a network that went on after a kill, and of one from before the time was kept."""
    trained(small_net(), data, RECIPE, folder=tmp_path)
    (path,) = tmp_path.iterdir()
    with safe_open(path, "pt") as file:
        state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        about = {k: v for k, v in file.metadata().items() if k != "seconds"}
    save_file(state, path, metadata=about)
    runs.NETWORKS.clear()
    trained(small_net(), data, RECIPE, folder=tmp_path)
    assert runs.networks_used(runs.NETWORKS) == {"trained": 0, "from_cache": 1, "cached_seconds": None}


def test_folder_of_the_cache(data, monkeypatch, tmp_path):
    monkeypatch.setenv("SNNBOOK_CACHE", str(tmp_path / "here"))
    assert cache.cache_folder() == tmp_path / "here"
    trained(small_net(), data, RECIPE)
    assert len(list((tmp_path / "here").glob("*.safetensors"))) == 1
    monkeypatch.delenv("SNNBOOK_CACHE")
    monkeypatch.setattr(cache, "build_dir", lambda name: tmp_path / "build" / name)
    assert cache.cache_folder() == tmp_path / "build" / "networks"


TOGETHER = """
import sys
from pathlib import Path
import torch
from safetensors.torch import save_file
from tiny import blobs, small_net
from snnbook import cache
from snnbook.train import Recipe

recipe = Recipe(epochs=2, batch_size=16, lr=0.05, precision="fp32")
folder, fits = Path(sys.argv[1]), []
fit, cache.fit = cache.fit, lambda *a, **k: fits.append(1) or fit(*a, **k)
for _ in range(2):
    net = small_net(norm=False, dropout=0.0)
    cache.trained(net, blobs(), recipe, folder=folder / "networks")
assert len(fits) == 1
save_file(dict(net.state_dict()), folder / f"{torch.distributed.get_rank()}.safetensors")
"""


def test_processes_of_torchrun_train_together_and_keep_one_network(data, tmp_path):
    """Not one behind the other's lock: that would wait for ever."""
    script = tmp_path / "together.py"
    script.write_text(TOGETHER)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", script, tmp_path]
    tests = Path(__file__).parent
    environment = {**os.environ, "PYTHONPATH": f"{tests}{os.pathsep}{tests.parent}", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    kept = list((tmp_path / "networks").iterdir())
    assert len(kept) == 1 and kept[0].suffix == ".safetensors"
    one, two = (load_file(tmp_path / f"{rank}.safetensors") for rank in (0, 1))
    assert same_state(one, two) and same_state(one, load_file(kept[0]))
    alone = small_net(norm=False, dropout=0.0)
    trained(alone, data, RECIPE, folder=tmp_path / "networks")  # a single process finds it too
    assert same_state(alone, one)


def test_a_table_is_made_once_whole_or_not_at_all(monkeypatch, tmp_path):
    monkeypatch.setenv("SNNBOOK_CACHE", str(tmp_path / "new"))
    table = pd.DataFrame({"name": ["größer", "a, b"], "value": [0.1 + 0.2, None]}, index=[3, 5])

    def killed():
        raise Killed

    with pytest.raises(Killed):
        kept_table(["k", 1], killed)
    assert not list(tmp_path.rglob("*.csv"))
    first = kept_table(["k", 1], lambda: table)
    pd.testing.assert_frame_equal(first, table.reset_index(drop=True), check_exact=True)
    pd.testing.assert_frame_equal(kept_table(["k", 1], killed), first)
    with pytest.raises(Killed):
        kept_table(["k", 2], killed)
    (path,) = (tmp_path / "new").iterdir()
    whole = path.read_bytes()
    (_, table) = whole.split(b"\n", 1)
    cut = whole[: whole.rindex(b"\n", 0, -1) + 1]  # at the end of a row: still a table
    for damaged in (b"", b'name,value\n"open', b"\xff\xfe,\n", table, cut, whole.replace(b"0.3", b"0.4")):
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match=rf"{path.name} is damaged"):
            kept_table(["k", 1], killed)
        assert path.read_bytes() == damaged


def test_networks_behind_a_kept_table_count_as_used(data, monkeypatch, tmp_path):
    """A run that takes the table rests on their training, though it never loads them."""
    monkeypatch.setenv("SNNBOOK_CACHE", str(tmp_path))
    clock = iter([0.0, 100.0, 200.0, 230.0])
    monkeypatch.setattr(cache, "time", SimpleNamespace(monotonic=lambda: next(clock)))
    runs.NETWORKS.clear()
    trained(small_net(), data, RECIPE)

    def measure():
        trained(small_net(), data, dataclasses.replace(RECIPE, seed=1))
        return pd.DataFrame({"value": [1.5]})

    kept_table(["k"], measure)
    assert runs.networks_used(runs.NETWORKS) == {"trained": 2, "from_cache": 0, "cached_seconds": 0}
    runs.NETWORKS.clear()
    assert kept_table(["k"], lambda: pytest.fail("measured again"))["value"].tolist() == [1.5]
    assert runs.networks_used(runs.NETWORKS) == {"trained": 0, "from_cache": 1, "cached_seconds": 30}


def test_a_key_of_a_module_that_is_not_there_is_refused():
    assert code_hash(("fold", "train")) != code_hash(("train",))
    with pytest.raises(FileNotFoundError):
        code_hash(("conversion/none",))


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("from . import b", {"a/b"}),
        ("from .b import f, g", {"a/b"}),
        ("from .. import c, here", {"c"}),
        ("from ..c import f", {"c"}),
        ("from ..d import f", {"d/__init__"}),
        ("from ..d import e", {"d/e"}),
        ("from ..d.e import f", {"d/e"}),
        ("def later():\n    from snnbook.d.e import f", {"d/e"}),
        ("import snnbook.c, snnbook.d", {"c", "d/__init__"}),
        ("import c, torch\nfrom c import d\nfrom torch.d import e\nfrom __future__ import annotations", set()),
    ],
)
def test_imports_in_every_form(tmp_path, monkeypatch, text, found):
    for name in ("a/b", "c", "d/__init__", "d/e"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / f"{name}.py").write_text("")
    (tmp_path / "a" / "x.py").write_text(text)
    monkeypatch.setattr(sources, "PACKAGE", tmp_path)
    assert sources.imported("a/x") == found


def test_a_measurement_rests_on_what_python_loads_for_it():
    """Against a new process that imports the module: no more than it loads, and all that training rests on."""
    found = sources.behind("train")
    assert set(found) <= {*TRAINING_CODE, *SPIKING_CODE, "data/__init__"} and list(found) == sorted(found)
    code = "import sys, snnbook.train; print(*(m for m in sys.modules if m.startswith('snnbook')))"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    loaded = {m.removeprefix("snnbook.").replace(".", "/") for m in said.split()}
    assert {m.removesuffix("/__init__") for m in found} <= loaded
    assert not set(found) & sources.APART


@pytest.mark.parametrize(
    ("module", "named"),
    [
        ("experiments/conversion_benchmark", ("conversion/methods", "conversion/lwc", "conversion/__init__", "counts")),
        ("experiments/spike_bottlenet", ("bottleneck/baseline", "bottleneck/energy", "counts", "models", "record")),
        ("experiments/ec_snn_tables", ("splitting/fusion", "engine", "counts", "store")),
        ("experiments/plan_candidates", ("planner", "splitting/prune", "conversion/lmpc", "engine")),
    ],
)
def test_measurements_rest_on_what_decides_them_and_not_on_loaders(module, named):
    found = set(sources.behind(module))
    assert {module, *named, *SPIKING_CODE, "train", "evaluate", "network", "energy", "data/core"} <= found
    assert not {"data/registry", "data/images", "params", "runs", "__init__"} & found


def test_the_code_of_own_layers_belongs_to_the_key(data, monkeypatch):
    """A mend of a layer outside the modules that belong to every key gives another key; others keep theirs."""
    own, plain = nn.Sequential(Quantise(4), small_net()), small_net()
    assert layer_code(own) == ("bottleneck/baseline",) and layer_code(plain) == ()
    keys, running = [], sources.running
    for mended in ("", "mended"):
        monkeypatch.setattr(sources, "running", lambda name, m=mended: running(name) + m * name.endswith("baseline"))
        cache.code_hash.cache_clear()
        keys.append((cache.key(own, data, RECIPE), cache.key(plain, data, RECIPE)))
    cache.code_hash.cache_clear()
    assert keys[0][0] != keys[1][0] and keys[0][1] == keys[1][1]


def user_layer(body, gain="1.0"):
    """A layer of a user's as a notebook defines it."""
    names = {"nn": nn, "torch": torch, "__name__": "__main__"}
    exec(f"class Mine(nn.Module):\n    gain = {gain}\n    def forward(self, x):\n        {body}", names)
    return names["Mine"]()


def test_the_code_of_a_users_layers_belongs_to_the_key(data):
    """Layers of one name, without weights: they differ in a constant, a name, an inner function or an attribute."""
    held = user_layer("return x * self.gain")
    held.steps = 3
    different = [user_layer("return x * self.gain"), user_layer("return x * 2"), user_layer("return x.abs()"),
                 user_layer("return x.sin()"), user_layer("return (lambda: x * 3)()"),
                 user_layer("return (lambda: x * 4)()"), user_layer("return x * self.gain", "2.0"), held]  # fmt: skip
    keys = [key(nn.Sequential(layer, small_net()), data, RECIPE) for layer in different]
    assert len(set(keys)) == len(keys)
    assert key(nn.Sequential(user_layer("return x * 2"), small_net()), data, RECIPE) == keys[1]
    assert foreign_code(build("vgg5", "lif", time_steps=2, width=1 / 16, shape=(1, 6, 6))) == ""


def test_a_users_layer_has_the_same_key_in_every_process(tmp_path):
    """Although sets of names are ordered otherwise there and objects lie elsewhere."""
    text = f"""
import sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
from test_cache import foreign_code, nn, user_layer
layer = user_layer("return x if self.gain in {{'a', 'b', 'c', 'd', 'e'}} else (lambda: -x)()")
layer.inner, layer.of = nn.Identity(), {{"what": object()}}
print(foreign_code(layer))
"""
    found = set()
    for seed in ("1", "2"):
        environment = {**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": str(Path(__file__).parent.parent)}
        command = [sys.executable, "-c", text]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
        found.add(done.stdout)
        assert "object" in done.stdout, done.stderr
    assert len(found) == 1


def test_a_network_is_left_as_it_was_if_its_file_is_damaged(data, tmp_path):
    trained(small_net(), data, RECIPE, folder=tmp_path)
    (path,) = tmp_path.iterdir()
    content = path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    net = small_net()
    with pytest.raises(ValueError, match="is damaged"):
        trained(net, data, RECIPE, folder=tmp_path)
    assert same_state(net, small_net())
