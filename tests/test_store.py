"""Modules as files: what comes back computes the same bits, and nothing but such a file is accepted."""

import json
import struct
from inspect import signature

import pytest
import torch
from safetensors.torch import save_file
from spikingjelly.activation_based import layer, surrogate
from tiny import same_state
from torch import nn

from snnbook import store
from snnbook.models import build
from snnbook.network import Network, Residual
from snnbook.neurons import IF, LIF

IMAGE = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(1))


def randomised(module: nn.Module, seed: int = 0) -> nn.Module:
    """Every parameter and buffer with a value of its own, in eval mode."""
    generator = torch.Generator().manual_seed(seed)
    for value in module.state_dict().values():
        if value.is_floating_point():
            value.copy_(torch.rand(value.shape, generator=generator) + 0.1)
    return module.eval()


def again(module: nn.Module, tmp_path) -> nn.Module:
    """``module`` written and read."""
    return store.load(store.save(tmp_path / "m.safetensors", module))[0]


LAYERS = [
    nn.Conv2d(3, 4, 3, stride=2, padding=1, bias=False),
    nn.Conv2d(3, 6, (3, 1), padding="same", dilation=2, groups=3, padding_mode="reflect"),
    nn.ConvTranspose2d(3, 5, 2, stride=2, output_padding=1),
    nn.BatchNorm2d(3, eps=1e-3, momentum=None),
    nn.BatchNorm2d(3, affine=False),
    nn.BatchNorm2d(3, track_running_stats=False),
    nn.AvgPool2d(2, stride=1, ceil_mode=True, count_include_pad=False, padding=1, divisor_override=3),
    nn.MaxPool2d(3, stride=2, padding=1),
    nn.AdaptiveAvgPool2d((1, None)),
    nn.Flatten(2),
    nn.Unflatten(1, (3, 1)),
    nn.Dropout(0.3),
    nn.Identity(),
    nn.ReLU(),
    nn.Sigmoid(),
    nn.Sequential(nn.Flatten(), nn.Linear(192, 4, bias=False), nn.Linear(4, 2)),
    nn.Sequential(),
    Residual(nn.Conv2d(3, 3, 1), nn.Identity(), nn.ReLU()),
    IF(0.7, v_init=0.35, emit=0.7, step_mode="s"),
    LIF(2.0, decay_input=False, v_threshold=0.5, v_reset=0.0, step_mode="s"),
]


@pytest.mark.parametrize("module", LAYERS, ids=lambda m: type(m).__name__)
def test_every_layer_comes_back_with_its_options_and_weights(module, tmp_path):
    module = randomised(module)
    found = again(module, tmp_path)
    assert repr(found) == repr(module) and same_state(found, module) and not found.training
    assert torch.equal(found(IMAGE), module(IMAGE))


def test_tdbn_comes_back(tmp_path):
    """Its forward pass wants [T, N, C, H, W]."""
    module = randomised(layer.ThresholdDependentBatchNorm2d(0.5**0.5, 0.5, 3, eps=1e-4))
    found = again(module, tmp_path)
    assert (found.alpha, found.v_th, found.eps) == (0.5**0.5, 0.5, 1e-4) and same_state(found, module)
    assert torch.equal(found(IMAGE[None]), module(IMAGE[None]))


BASE = surrogate.SurrogateFunctionBase
SURROGATES = {n for n, c in vars(surrogate).items() if isinstance(c, type) and BASE in c.__mro__[1:]}


@pytest.mark.parametrize("name", sorted(SURROGATES - {"MultiLevelSpikeCount"}))
def test_every_surrogate_of_spikingjelly_comes_back(name, tmp_path):
    """With constants that are not its defaults."""
    cls = getattr(surrogate, name)
    given = {n: p.default + 1 for n, p in signature(cls).parameters.items() if n != "spiking"}
    module = LIF(surrogate_function=cls(**given))
    found = again(module, tmp_path)
    assert repr(found) == repr(module)
    assert all(getattr(found.surrogate_function, n) == value for n, value in given.items())


@pytest.mark.parametrize("dtype", [None, torch.uint8, torch.bfloat16, torch.float16, torch.float32])
def test_every_type_of_spikes_comes_back(tmp_path, dtype):
    module = IF(0.5)
    module.spike_dtype = dtype
    assert again(module, tmp_path).spike_dtype == dtype


def test_a_type_of_spikes_that_no_file_can_hold_is_not_saved(tmp_path):
    module = IF(0.5)
    module.spike_dtype = torch.int64
    with pytest.raises(ValueError, match=r"spike_dtype = torch\.int64 is not allowed: one of None, uint8"):
        store.save(tmp_path / "n.safetensors", module)
    assert not list(tmp_path.iterdir())


def test_neuron_keeps_tensors_types_and_steps(tmp_path):
    module = IF(0.5, v_init=torch.rand(1, 3, 1, 1), step_bias=torch.rand(4, 1, 3, 8, 8))
    module.time_steps, module.spike_dtype = 4, torch.uint8
    found = again(module, tmp_path)
    assert (found.time_steps, found.spike_dtype) == (4, torch.uint8) and same_state(found, module)
    x = torch.rand(4, 2, 3, 8, 8).flatten(0, 1)
    assert torch.equal(found(x), module(x)) and found(x).dtype == torch.uint8


@pytest.mark.parametrize("name, options", [
    ("vgg5", {"head": "mlp"}), ("vgg9", {"v_reset": 0.0}), ("resnet20", {}), ("resnet50", {"order": "ms"}),
])  # fmt: skip
def test_networks_compute_the_same_bits(name, options, tmp_path):
    net = build(name, "lif", shape=(3, 8, 8), width=0.07, time_steps=3, seed=4, **options).eval()
    path = store.save(tmp_path / "net.safetensors", net, {"classes": [2, 3], "note": "α"})
    found, about = store.load(path)
    assert about == {"classes": [2, 3], "note": "α"} and found.time_steps == 3
    with torch.no_grad():
        assert torch.equal(found(IMAGE), net(IMAGE))
        found.time_steps = net.time_steps = 5
        assert torch.equal(found(IMAGE), net(IMAGE))


def test_ann_network_and_half_precision(tmp_path):
    net = build("vgg5", shape=(3, 8, 8), width=0.07, pool="max").to(torch.bfloat16).eval()
    found = again(net, tmp_path)
    assert found.time_steps is None and found.stem[0].weight.dtype == torch.bfloat16 and same_state(found, net)


def test_a_device_part_is_a_network_without_a_head(tmp_path):
    net = build("vgg5", "lif", shape=(3, 8, 8), width=0.07, time_steps=5).eval()
    part = Network(net.stem, net.body[:-1], nn.Identity())
    part.time_steps = 5
    with torch.no_grad():
        spikes = again(part, tmp_path)(IMAGE[:1])
        assert spikes.shape == (5, 1, 9, 4, 4) and set(spikes.unique().tolist()) <= {0.0, 1.0}
        logits = net.head(net.body[-1](spikes.flatten(0, 1))).unflatten(0, (5, 1))
        assert torch.equal(logits, net(IMAGE[:1]))


def test_same_module_same_bytes_and_size_is_that_of_the_weights(tmp_path):
    net = randomised(nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Flatten(), nn.Linear(288, 10)))
    one, two = (store.save(tmp_path / n, net).read_bytes() for n in "ab")
    assert one == two
    weights = sum(v.numel() * v.element_size() for v in net.state_dict().values())
    assert weights < len(one) < weights + 3000


def test_writing_leaves_the_module_and_random_numbers_alone(tmp_path):
    net, before = nn.Linear(3, 2).train(), torch.get_rng_state()
    loaded = again(net, tmp_path)
    assert net.training and torch.equal(torch.get_rng_state(), before)
    assert loaded.weight.requires_grad and loaded.weight.device.type == "cpu"


def test_what_is_read_is_aligned_as_pytorch_does(tmp_path):
    """Matrix products round by the alignment of their operands; a file has 8 bytes of it at most."""
    net = nn.Sequential(nn.Linear(3, 5), nn.Linear(5, 7), nn.Linear(7, 1))
    assert all(p.data_ptr() % 64 == 0 for p in again(net, tmp_path).parameters())


class Doubling(nn.Module):
    """A class from elsewhere with one option and one child."""

    def __init__(self, times: tuple[int, int], inner: nn.Module):
        super().__init__()
        self.times, self.inner = times, inner

    def forward(self, x):
        return self.inner(x) * self.times[0]


@pytest.fixture
def registered(monkeypatch):
    """Without what a test registers, afterwards."""
    monkeypatch.setattr(store, "_known", dict(store._known))


def test_registered_classes_are_stored_too(registered, tmp_path):
    module = Doubling((2, 3), nn.Linear(3, 3))
    with pytest.raises(ValueError, match="module = 'test_store:Doubling' is not allowed: .*store.register"):
        store.save(tmp_path / "m", module)
    store.register(Doubling, lambda m: {"times": m.times})
    found, x = again(module, tmp_path), IMAGE[..., :3]
    assert type(found) is Doubling and found.times == (2, 3) and torch.equal(found(x), module(x))
    assert store.register(Doubling, lambda m: {"times": m.times}) is Doubling  # a notebook runs a cell again


def test_another_class_of_the_name_is_refused(registered):
    other = type("Conv2d", (nn.Module,), {"__module__": "torch.elsewhere"})
    with pytest.raises(ValueError, match="'Conv2d'.*torch.nn.modules.conv"):
        store.register(other)


def test_a_derived_class_is_not_taken_for_its_base(tmp_path):
    class Linear(nn.Linear):
        pass

    Linear.__qualname__, Linear.__module__ = "Linear", "torch.nn"
    with pytest.raises(ValueError, match="'Linear'"):
        store.save(tmp_path / "m", Linear(2, 2))


def test_shared_parts_are_refused(tmp_path):
    relu, conv = nn.ReLU(), nn.Linear(2, 2)
    tied = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    tied[1].weight = tied[0].weight
    for module, match in [(nn.Sequential(relu, relu), "used twice"), (nn.Sequential(conv, conv), "shared"),
                          (tied, "shared weights")]:  # fmt: skip
        with pytest.raises(ValueError, match=match):
            store.save(tmp_path / "m", module)
    assert not list(tmp_path.iterdir())


def test_tensors_outside_the_state_and_foreign_abouts_are_refused(tmp_path):
    module = nn.Identity()
    module.register_buffer("mask", torch.zeros(2), persistent=False)
    with pytest.raises(ValueError, match=r"\['mask'\].*state_dict"):
        store.save(tmp_path / "m", module)
    for about in ({"x": object()}, {"x": float("nan")}):
        with pytest.raises(ValueError, match="about = .*JSON"):
            store.save(tmp_path / "m", nn.Identity(), about)
    assert not list(tmp_path.iterdir())


# Files that are not as they should be


def head(**change) -> dict[str, str]:
    """Metadata of an empty file that is right but for ``change``."""
    right = {"format": 1, "structure": store.describe(nn.Identity()), "about": {}, "sha256": store.digest({})}
    return {"snnbook": json.dumps(right | change)}


def node(name: str, **options) -> dict:
    return {"class": name, "options": options, "children": {}}


@pytest.mark.parametrize("metadata, match", [
    (None, "metadata"),
    ({"other": "x"}, "metadata"),
    ({"snnbook": "no json"}, "Expecting value"),
    ({"snnbook": "[]"}, ""),
    ({"snnbook": "[" * 100000}, ""),
    (head(format=2), "format = 2"),
    (head(sha256="0" * 64), "sha256"),
    (head(structure=[]), ""),
    (head(structure={}), "class"),
    (head(structure=node("os.system")), "one of .*Conv2d"),
    (head(structure=node("snnbook.runs:Run")), "class = 'snnbook.runs:Run' is not allowed"),
    (head(structure=node("snnbook.no_such_room:X")), "no_such_room"),
    (head(structure=node("snnbook:../../x")), "class"),
    (head(structure=node("Linear", in_features=2)), ""),
    (head(structure=node("Linear", in_features=2, out_features=3, bias=True)), "Missing key"),
    (head(structure=node("Linear", in_features=10**9, out_features=10**9, bias=True)), ""),
    (head(structure=node("Linear", in_features=-2, out_features=3, bias=True)), ""),
    (head(structure=node("Conv2d", in_channels="a", out_channels=3, kernel_size=3)), ""),
])  # fmt: skip
def test_foreign_files_are_refused_by_name(metadata, match, tmp_path):
    path = tmp_path / "foreign.safetensors"
    save_file({}, path, metadata)
    with pytest.raises(ValueError, match=rf"(?s)foreign\.safetensors is damaged or no module.*{match}"):
        store.load(path)


def test_the_parametrised_head_is_right_without_a_change(tmp_path):
    save_file({}, tmp_path / "m", head())
    assert isinstance(store.load(tmp_path / "m")[0], nn.Identity)


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(FileNotFoundError, match="none"):
        store.load(tmp_path / "none")


def test_every_damage_is_found(tmp_path):
    """Any flipped bit and any cut: in the length, the header, the weights."""
    path = store.save(tmp_path / "m.safetensors", randomised(nn.Sequential(nn.Linear(2, 3), nn.ReLU())))
    data = path.read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    places = [*range(0, 8), *range(8, 8 + length, 7), *range(8 + length, len(data))]
    accepted = []
    for place in places:
        path.write_bytes(data[:place] + bytes([data[place] ^ 0x10]) + data[place + 1 :])
        try:
            accepted.append((place, store.load(path)[0]))
        except ValueError as error:
            assert str(path) in str(error)
        path.write_bytes(data[:place])
        with pytest.raises(ValueError, match="m.safetensors"):
            store.load(path)
    same = store.load(path.write_bytes(data) and path)[0]
    for place, module in accepted:  # a changed space or option of the JSON may still be a file
        assert 8 <= place < 8 + length and same_state(module, same)
