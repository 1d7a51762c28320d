import pytest
import torch
from torch import nn

from snnbook.conversion import convert
from snnbook.counts import connections, count, macs, parameters
from snnbook.experiments.conversion_energy import neurons
from snnbook.models import build
from snnbook.network import Residual

M = 1e6


def loop_macs(module: nn.Module, shape: tuple[int, ...]) -> int:
    """Multiply–accumulates of one sample: a walk over every output (or input) position and every weight."""
    if isinstance(module, nn.Linear):
        return sum(1 for _ in range(module.out_features) for _ in range(module.in_features))
    if isinstance(module, nn.ConvTranspose2d):  # every input position meets every weight of its channel
        return sum(module.weight[c].numel() for c in range(shape[0]) for _ in range(shape[1] * shape[2]))
    out = module(torch.zeros(1, *shape)).shape
    each = module.in_channels // module.groups * module.kernel_size[0] * module.kernel_size[1]
    return sum(each for _ in range(out[1]) for _ in range(out[2]) for _ in range(out[3]))


@pytest.mark.parametrize(
    "module, shape",
    [
        (nn.Conv2d(3, 8, 3, padding=1), (3, 7, 5)),
        (nn.Conv2d(4, 6, 3, stride=2, groups=2), (4, 9, 8)),
        (nn.Conv2d(2, 4, (1, 3), dilation=(1, 2)), (2, 6, 9)),
        (nn.ConvTranspose2d(4, 6, 2, stride=2), (4, 3, 5)),
        (nn.ConvTranspose2d(4, 6, 3, stride=2, groups=2), (4, 3, 5)),
        (nn.Linear(12, 5), (12,)),
    ],
    ids=repr,
)
def test_macs_equal_a_walk_over_every_position(module, shape):
    x = torch.zeros(3, *shape)
    assert macs(module, x.shape, module(x).shape) == loop_macs(module, shape)


def test_macs_of_a_linear_layer_count_the_positions_between():
    layer = nn.Linear(4, 3)
    assert macs(layer, torch.Size([2, 5, 6, 4]), torch.Size([2, 5, 6, 3])) == 5 * 6 * 12


@pytest.mark.parametrize(
    "name, options, params, total",
    [
        ("vgg16", {}, (14.7e6, 0.05e6), (313e6, 0.5e6)),
        ("vgg16", {"head": "fc"}, (33.6e6, 0.05e6), (332e6, 0.5e6)),
        ("resnet20", {}, (0.27e6, 0.005e6), (41e6, 0.5e6)),
        ("resnet20_wide", {}, (4.3e6, 0.05e6), (648e6, 0.5e6)),
    ],
)
def test_closed_form_totals_of_the_conversion_networks(name, options, params, total):
    """Parameters and MACs of the networks that conversion papers use."""
    net = build(name, **options)
    assert parameters(net) == pytest.approx(params[0], abs=params[1])
    assert count(net, (3, 32, 32))["macs"].sum() == pytest.approx(total[0], abs=total[1])


def test_parameters_of_vgg16_by_hand():
    widths = [3, 64, 64, 128, 128, 256, 256, 256, 512, 512, 512, 512, 512, 512]
    convs = sum(9 * a * b + 2 * b for a, b in zip(widths, widths[1:], strict=False))
    assert parameters(build("vgg16")) == convs + 512 * 10 + 10


def test_resnet50_of_the_bottleneck_paper():
    """SpikeBottleNet: parameters, total, stem, shortcuts, cumulative MACs and energies of all 16 blocks."""
    net = build("resnet50", n_classes=100)
    table = count(net, (3, 32, 32))
    assert parameters(net) == 23_705_252
    by_layer = table.set_index("layer")["macs"]
    assert by_layer.sum() / M == pytest.approx(1298.0, abs=0.05)
    assert by_layer["stem.0"] / M == pytest.approx(1.769, abs=0.0005)
    shortcut = by_layer[by_layer.index.str.contains("shortcut")]
    assert len(shortcut) == 4 and shortcut.sum() / M == pytest.approx(117.44, abs=0.005)
    blocks = [by_layer[by_layer.index.str.startswith(f"body.{i}.branch")].sum() / M
              for i, m in enumerate(net.body) if isinstance(m, Residual)]  # fmt: skip
    assert blocks == pytest.approx([58.72] + [88.08 if i in (4, 8, 14) else 71.30 for i in range(2, 17)], abs=0.005)
    cumulative = [58.720, 130.023, 201.327, 289.407, 360.710, 432.013, 503.316, 591.397, 662.700, 734.003,
                  805.306, 876.610, 947.913, 1035.993, 1107.296, 1178.599]  # fmt: skip
    found = torch.tensor(blocks).cumsum(0).tolist()
    assert found == pytest.approx(cumulative, abs=0.001)
    millijoules = [0.2701, 0.5981, 0.9261, 1.3313, 1.6593, 1.9873, 2.3153, 2.7204, 3.0484, 3.3764, 3.7044,
                   4.0324, 4.3604, 4.7656, 5.0936, 5.4216]  # fmt: skip
    assert [4.6e-3 * f for f in found] == pytest.approx(millijoules, abs=6e-5)
    assert sum(by_layer[n] for n in by_layer.index if n.startswith("head")) == 2048 * 100


def test_shapes_of_the_resnet50_blocks():
    """SpikeBottleNet: what each of the 16 blocks hands on."""
    net = build("resnet50", n_classes=100, order="ms")
    table = count(net, (3, 32, 32)).set_index("layer")["output"]
    found = [table[f"body.{i}.branch.7"] for i, m in enumerate(net.body) if isinstance(m, Residual)]
    expected = [(256, 32, 32)] * 3 + [(512, 16, 16)] * 4 + [(1024, 8, 8)] * 6 + [(2048, 4, 4)] * 3
    assert found == expected


def sum_by_hand(name, shape):
    """Σ 9·C_in·C_out·H·W over the blocks, sides halved and rounded down at each P."""
    blocks = {
        "vgg5": "64 P 128 128 P",
        "vgg9": "64 64 P 128 128 P 256 256 256 P",
        "vgg16": "64 64 P 128 128 P 256 256 256 P 512 512 512 P 512 512 512 P",
    }
    (c, h, w), total = shape, 0
    for block in blocks[name].split():
        if block == "P":
            h, w = h // 2, w // 2
        else:
            total, c = total + 9 * c * int(block) * h * w, int(block)
    return total


@pytest.mark.parametrize(
    "shape, millions",
    [
        ((3, 32, 32), (58, 191, 313)),  # CIFAR-10
        ((2, 128, 128), (925, 3039, 5002)),  # CIFAR10-DVS
        ((3, 224, 224), (2861, 9335, 15347)),  # Caltech101
        ((1, 96, 323), (1727, 5701, 9382)),  # GTZAN
        ((1, 40, 173), (384, 1274, 2035)),  # UrbanSound8K
    ],
)
def test_convolution_macs_of_the_splitting_paper(shape, millions):
    """Convolution MACs per step of VGG-5, VGG-9 and VGG-16 in EC-SNN; exactly those of the sum by hand."""
    for name, expected in zip(("vgg5", "vgg9", "vgg16"), millions, strict=True):
        table = count(build(name, "lif", time_steps=5, shape=shape), shape)
        found = table[table["output"].map(len) == 3]["macs"].sum()
        assert found == sum_by_hand(name, shape)
        assert found / M == pytest.approx(expected, abs=0.6), name  # 2035 is printed for 2034.46


def test_convolution_macs_on_two_polarities_differ_by_the_first_layer():
    """N-Caltech101 (2×224×224) against Caltech101 (3×224×224): one input channel less in the stem."""
    one, other = (count(build("vgg5", shape=(c, 224, 224)), (c, 224, 224))["macs"].sum() for c in (3, 2))
    assert one - other == 224 * 224 * 64 * 9


@pytest.mark.parametrize(
    "activation, options", [("relu", {}), ("if", {"time_steps": 4}), ("lif", {"time_steps": 2}), ("qc", {})]
)
def test_counts_are_per_step_and_do_not_depend_on_the_activation(activation, options):
    small = {"width": 1 / 8, "shape": (1, 16, 16)}
    expected = count(build("resnet20", **small), (1, 16, 16))
    found = count(build("resnet20", activation, **small, **options), (1, 16, 16))
    assert found[["output", "macs"]].equals(expected[["output", "macs"]])


def test_rows_are_in_forward_order_with_shapes_and_parameters():
    net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Flatten(), nn.Linear(18, 4))
    assert count(net, (1, 5, 5)).values.tolist() == [["0", (2, 3, 3), 20, 162], ["3", (4,), 76, 72]]
    assert list(connections(net)) == ["0", "3"]


def test_counting_leaves_the_network_as_it_was():
    net = build("vgg5", "lif", time_steps=3, width=1 / 16, shape=(1, 8, 8))
    x = torch.rand(2, 1, 8, 8)
    net(x)  # with gradient: the neurons hold a potential with a graph
    count(net, (1, 8, 8))
    assert net.training and net.time_steps == 3
    assert not any(m._forward_hooks for m in net.modules())
    assert all(p.device.type == "cpu" for p in net.parameters())
    assert net(x).shape == (3, 2, 10)


def test_frozen_parameters_are_not_counted_as_trainable():
    net = nn.Linear(3, 2)
    assert parameters(net) == 8
    net.bias.requires_grad_(False)
    assert parameters(net) == 6


def test_what_runs_twice_in_a_pre_run_is_listed_once():
    net = build("vgg5", "qcfs", width=0.25, shape=(1, 8, 8), n_classes=3).eval()
    calibration = [(torch.rand(4, 1, 8, 8, generator=torch.Generator().manual_seed(0)), torch.zeros(4))]
    snn, _ = convert(net, "srp", time_steps=2, calibration=calibration)
    assert count(snn, (1, 8, 8))["macs"].tolist() == count(net, (1, 8, 8))["macs"].tolist()
    assert neurons(snn, (1, 8, 8)) == neurons(net, (1, 8, 8))
