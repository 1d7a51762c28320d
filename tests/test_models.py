import pytest
import torch
from torch import nn

from snnbook.counts import connections, parameters
from snnbook.models import RESNET, VGG, build
from snnbook.network import Network, Residual
from snnbook.neurons import IF, LIF, spiking_layers
from snnbook.quantise import ClippedReLU, QuantClip

NAMES = [*VGG, *RESNET]
SMALL = {"width": 1 / 16, "shape": (1, 8, 8)}


def image(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("name", NAMES)
def test_static_input_gives_logits_per_class_or_per_step_and_class(name):
    x = image(2, 1, 8, 8)
    assert build(name, n_classes=7, **SMALL).eval()(x).shape == (2, 7)
    assert build(name, "if", n_classes=7, time_steps=3, **SMALL).eval()(x).shape == (3, 2, 7)


@pytest.mark.parametrize("name", ["vgg5", "resnet20", "resnet50"])
def test_events_give_logits_per_step(name):
    x = image(4, 2, 2, 8, 8)
    small = SMALL | {"shape": (2, 8, 8)}
    assert build(name, "lif", time_steps=4, **small).eval()(x).shape == (4, 2, 10)
    ann = build(name, **small).eval()
    each = torch.stack([ann(step) for step in x])
    torch.testing.assert_close(ann(x), each, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name, order", [("vgg5", "post"), ("resnet20", "post"), ("resnet20", "ms")])
def test_static_input_is_the_same_as_events_that_repeat_it(name, order):
    net = build(name, "if", time_steps=5, order=order, v_threshold=0.5, **SMALL).eval()
    x = image(2, 1, 8, 8)
    torch.testing.assert_close(net(x), net(x.expand(5, *x.shape)), rtol=1e-5, atol=1e-5)


def test_events_of_another_length_are_refused():
    net = build("vgg5", "if", time_steps=3, **SMALL)
    with pytest.raises(ValueError, match=r"^time steps of x = 4 is not allowed: 3, the network's time_steps$"):
        net(torch.zeros(4, 1, 1, 8, 8))


def test_time_steps_reach_every_neuron_and_may_change():
    net = build("resnet20", "lif", time_steps=3, **SMALL).eval()
    for T in (3, 5, 1):
        net.time_steps = T
        assert {layer.time_steps for layer in spiking_layers(net).values()} == {T}
        assert net(image(2, 1, 8, 8)).shape == (T, 2, 10)
    with pytest.raises(ValueError, match=r"^time_steps = 0 is not allowed: None or at least 1$"):
        net.time_steps = 0


def test_a_forward_pass_leaves_nothing_behind_for_the_next():
    net = build("vgg5", "if", time_steps=4, v_threshold=0.3, **SMALL).eval()
    a, b = image(3, 1, 8, 8), image(2, 1, 8, 8, seed=1)
    first = net(a)
    net(b)
    assert torch.equal(net(a), first)
    assert first.abs().sum() > 0


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("activation", ["if", "lif", "clip", "qc", "qcfs"])
def test_every_activation_has_the_weights_of_the_relu_network(name, activation):
    options = {"time_steps": 2} if activation in ("if", "lif") else {}
    ann, other = build(name, **SMALL).state_dict(), build(name, activation, **options, **SMALL).state_dict()
    extra = {key for key in other if key.split(".")[-1] in ("v_init", "log_lam")}
    assert other.keys() - extra == ann.keys()
    assert all(torch.equal(ann[key], other[key]) for key in ann)


@pytest.mark.parametrize("name", NAMES)
def test_ann_and_snn_have_the_same_number_of_trainable_parameters(name):
    assert parameters(build(name, **SMALL)) == parameters(build(name, "lif", time_steps=2, **SMALL))


@pytest.mark.parametrize(
    "activation, kind, options",
    [
        ("relu", nn.ReLU, {}), ("clip", ClippedReLU, {"lam": 2.0}), ("qc", QuantClip, {"levels": 4}),
        ("qcfs", QuantClip, {"levels": 4}), ("if", IF, {"v_threshold": 0.5}), ("lif", LIF, {"tau": 2.0}),
    ],
)  # fmt: skip
@pytest.mark.parametrize(
    "name, count",
    [("vgg5", 3), ("vgg9", 7), ("vgg16", 13), ("cifarnet", 6), ("resnet20", 19), ("resnet50", 49)],
)
def test_there_is_one_activation_for_each_convolution(name, count, activation, kind, options):
    T = {"time_steps": 1} if activation in ("if", "lif") else {}
    found = [m for m in build(name, activation, **T, **SMALL, **options).modules() if isinstance(m, kind)]
    assert len(found) == count
    for key, value in options.items():
        assert {getattr(m, key) if key != "lam" else round(m.lam.item(), 5) for m in found} == {value}
    if kind is QuantClip:
        assert {m.shift for m in found} == {0.5 if activation == "qcfs" else 0.0}


def test_seed_decides_the_weights_and_nothing_global_does():
    torch.manual_seed(1)
    before = torch.get_rng_state()
    one, same, other = (build("vgg5", seed=s, **SMALL).state_dict() for s in (3, 3, 4))
    key = next(iter(one))
    assert all(torch.equal(one[k], same[k]) for k in one)
    assert not torch.equal(one[key], other[key])
    net = build("vgg5", seed=3, **SMALL)
    torch.manual_seed(99)
    assert torch.equal(build("vgg5", seed=3, **SMALL).state_dict()[key], net.state_dict()[key])
    del before


def test_weights_are_he_normal():
    net = build("vgg16", width=0.5)
    for module in connections(net).values():
        if isinstance(module, nn.Conv2d):
            std = (2 / (module.out_channels * 9)) ** 0.5
            assert module.weight.std().item() == pytest.approx(std, rel=0.1)
    bound = [m for m in connections(net).values() if isinstance(m, nn.Linear)][-1]
    assert bound.weight.std().item() == pytest.approx(bound.in_features**-0.5, rel=0.1)
    assert bound.bias.abs().sum() == 0


@pytest.mark.parametrize(
    "width, channels",
    [
        (1.0, [64, 128, 128]),
        (0.5, [32, 64, 64]),
        (0.25, [16, 32, 32]),
        (0.01, [4, 4, 4]),
        (2.0, [128, 256, 256]),
    ],
)
def test_width_multiplies_every_hidden_width(width, channels):
    net = build("vgg5", width=width, head="mlp", n_classes=10)
    convs = [m.out_channels for m in net.modules() if isinstance(m, nn.Conv2d)]
    linear = [m.out_features for m in net.modules() if isinstance(m, nn.Linear)]
    assert convs == channels
    assert linear == [max(4, round(1024 * width)), 10]


def test_pooling_stops_at_one_pixel():
    net = build("vgg16", shape=(1, 8, 8), width=1 / 16)
    assert sum(isinstance(m, nn.AvgPool2d) for m in net.modules()) == 3
    assert net.eval()(torch.zeros(1, 1, 8, 8)).shape == (1, 10)


@pytest.mark.parametrize(
    "pool, kind, other", [("avg", nn.AvgPool2d, nn.MaxPool2d), ("max", nn.MaxPool2d, nn.AvgPool2d)]
)
def test_pooling_of_the_snn_and_of_its_ann_twin(pool, kind, other):
    modules = list(build("vgg9", pool=pool, width=1 / 16).modules())
    assert sum(isinstance(m, kind) for m in modules) == 3
    assert not any(isinstance(m, other) for m in modules)


def test_heads():
    def head(**options):
        return [type(m).__name__ for m in build("vgg16", "if", time_steps=1, width=1 / 64, **options).head]

    assert head() == ["Flatten", "Linear"]
    assert head(head="mlp") == ["Flatten", "Dropout", "Linear", "Dropout", "Linear", "Dropout", "Linear"]
    assert head(head="fc") == [
        "Flatten",
        "Dropout",
        "Linear",
        "IF",
        "Dropout",
        "Linear",
        "IF",
        "Dropout",
        "Linear",
    ]
    cifarnet = [m.out_features for m in build("cifarnet", head="mlp").head if isinstance(m, nn.Linear)]
    assert cifarnet == [384, 192, 10]


@pytest.mark.parametrize("name, features", [("vgg5", 8192), ("vgg9", 4096), ("vgg16", 512)])
def test_features_of_the_fusion(name, features):
    """F of the unpruned networks of EC-SNN on CIFAR."""
    first = next(m for m in build(name, head="mlp").head if isinstance(m, nn.Linear))
    assert first.in_features == features


def test_residual_orders():
    post, ms = (build("resnet20", order=order, **SMALL) for order in ("post", "ms"))
    for net, after, first in ((post, nn.ReLU, nn.Conv2d), (ms, nn.Identity, nn.ReLU)):
        blocks = [m for m in net.body if isinstance(m, Residual)]
        assert len(blocks) == 9
        assert {type(b.after) for b in blocks} == {after}
        assert {type(b.branch[0]) for b in blocks} == {first}
    assert isinstance(post.body[0], nn.ReLU) and isinstance(ms.body[-1], nn.ReLU)
    block = ms.body[0]
    x = image(1, 4, 8, 8)
    torch.testing.assert_close(block.eval()(x), block.branch(x) + x)


def test_resnet50_strides_are_on_the_3x3_of_the_first_block_of_a_stage():
    blocks = [m for m in build("resnet50", **SMALL).body if isinstance(m, Residual)]
    strides = [[m.stride[0] for m in b.branch if isinstance(m, nn.Conv2d)] for b in blocks]
    expected = [[1, 2, 1] if i in (3, 7, 13) else [1, 1, 1] for i in range(16)]
    assert strides == expected
    shortcuts = [i for i, b in enumerate(blocks) if not isinstance(b.shortcut, nn.Identity)]
    assert shortcuts == [0, 3, 7, 13]


def test_spiking_layers_send_binary_spikes_through_the_network():
    net = build("resnet20", "if", time_steps=3, v_threshold=0.5, **SMALL).eval()
    seen = []
    for layer in spiking_layers(net).values():
        layer.register_forward_hook(lambda m, x, y: seen.append(set(y.unique().tolist())))
    net(image(2, 1, 8, 8))
    assert len(seen) == 19 and set().union(*seen) == {0.0, 1.0}


def test_every_parameter_gets_a_gradient():
    for name, options in (("vgg5", {"head": "fc"}), ("resnet20", {"order": "ms"}), ("resnet50", {})):
        net = build(name, "lif", time_steps=2, v_threshold=0.3, **SMALL, **options)
        net(image(4, 1, 8, 8)).mean(0).logsumexp(1).sum().backward()
        missing = [n for n, p in net.named_parameters() if p.grad is None or not p.grad.isfinite().all()]
        assert not missing


@pytest.mark.parametrize(
    "args, options, message",
    [
        (["vgg7"], {}, r"name = 'vgg7' is not allowed: one of vgg5, vgg9, vgg16, cifarnet, .*, resnet50"),
        (["vgg5", "tanh"], {}, r"activation = 'tanh' is not allowed: one of relu, clip, qc, qcfs, if, lif"),
        (["vgg5"], {"pool": "min"}, r"pool = 'min' is not allowed: one of avg, max"),
        (["vgg5"], {"head": "tail"}, r"head = 'tail' is not allowed: one of linear, mlp, fc"),
        (["resnet20"], {"order": "pre"}, r"order = 'pre' is not allowed: one of post, ms"),
        (["resnet20"], {"pool": "max"}, r"pool = 'max' is not allowed: avg for a ResNet"),
        (["resnet20"], {"head": "fc"}, r"head = 'fc' is not allowed: linear for a ResNet"),
        (["vgg5"], {"order": "ms"}, r"order = 'ms' is not allowed: post for a VGG"),
        (["vgg5"], {"width": 0}, r"width = 0 is not allowed: a positive number"),
        (["vgg5"], {"n_classes": 0}, r"n_classes = 0 is not allowed: at least 1"),
        (["vgg5"], {"shape": (3, 32)}, r"shape = \(3, 32\) is not allowed: \(C, H, W\), each at least 1"),
        (["vgg5"], {"shape": (3, 0, 8)}, r"shape = \(3, 0, 8\) is not allowed: \(C, H, W\), each at least 1"),
        (["vgg5", "if"], {}, r"time_steps = None is not allowed: given exactly for if and lif"),
        (["vgg5"], {"time_steps": 4}, r"time_steps = 4 is not allowed: given exactly for if and lif"),
        (["vgg5", "if"], {"time_steps": 0}, r"time_steps = 0 is not allowed: None or at least 1"),
        (["vgg5", "qc"], {"levels": 0}, r"levels = 0 is not allowed: a whole number, at least 1"),
        (["vgg5", "relu"], {"levels": 4}, r".*levels.*"),
        (["vgg5", "qcfs"], {"tau": 4}, r".*tau.*"),
    ],
)  # fmt: skip
def test_bad_arguments_are_refused(args, options, message):
    with pytest.raises(ValueError, match=f"^{message}$"):
        build(*args, **options)


def test_a_network_without_time_steps_is_an_ann():
    net = Network(nn.Identity(), nn.Flatten(), nn.Linear(4, 2))
    assert net.time_steps is None and net(torch.zeros(3, 1, 2, 2)).shape == (3, 2)
