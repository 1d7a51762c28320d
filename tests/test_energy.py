import itertools

import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from spikingjelly.activation_based import op_counter as oc
from torch import nn

from snnbook.counts import connections, count
from snnbook.energy import (
    ENERGY_MODELS,
    ann_operations,
    count_operations,
    energy_ratio,
    fan_out,
    joules,
    summary,
)  # fmt: skip
from snnbook.models import build
from snnbook.network import Network, Residual
from snnbook.neurons import IF, LIF

aten = torch.ops.aten


def pair(value):
    return (value, value) if isinstance(value, int) else tuple(value)


def image(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def brute_force_fan(conv: nn.Conv2d, height: int, width: int) -> torch.Tensor:
    """Walk over every output position, channel and kernel tap and note which input it reads [C, H, W]."""
    kernel, stride, dilation = pair(conv.kernel_size), pair(conv.stride), pair(conv.dilation)
    if conv.padding == "same":
        total = [d * (k - 1) for d, k in zip(dilation, kernel, strict=True)]
        before = [t // 2 for t in total]
        after = [t - b for t, b in zip(total, before, strict=True)]
    else:
        before = after = (0, 0) if conv.padding == "valid" else pair(conv.padding)
    per_group = conv.in_channels // conv.groups, conv.out_channels // conv.groups
    fan = torch.zeros(conv.in_channels, height, width)
    rows = range(-before[0], height + after[0] - dilation[0] * (kernel[0] - 1), stride[0])
    columns = range(-before[1], width + after[1] - dilation[1] * (kernel[1] - 1), stride[1])
    for out in range(conv.out_channels):
        group = out // per_group[1]
        for row, column, i, j in itertools.product(rows, columns, range(kernel[0]), range(kernel[1])):
            y, x = row + i * dilation[0], column + j * dilation[1]
            if 0 <= y < height and 0 <= x < width:
                fan[group * per_group[0] : (group + 1) * per_group[0], y, x] += 1
    return fan


@st.composite
def convolutions(draw):
    groups = draw(st.sampled_from([1, 1, 2]))
    kernel = (draw(st.integers(1, 3)), draw(st.integers(1, 3)))
    dilation = (draw(st.integers(1, 2)), draw(st.integers(1, 2)))
    same = draw(st.booleans())
    stride = (1, 1) if same else (draw(st.integers(1, 3)), draw(st.integers(1, 3)))
    padding = "same" if same else draw(st.sampled_from(["valid"]) | st.tuples(st.integers(0, 2), st.integers(0, 2)))
    conv = nn.Conv2d(2, 2 * draw(st.integers(1, 2)), kernel, stride, padding, dilation, groups)
    return conv, draw(st.integers(5, 7)), draw(st.integers(5, 7))


@pytest.mark.filterwarnings("ignore:Using padding='same'")
@settings(max_examples=60, deadline=None)
@given(convolutions())
def test_fan_out_equals_a_walk_over_every_tap(case):
    conv, height, width = case
    x = torch.zeros(1, 2, height, width)
    found = fan_out(conv, x.shape, conv(x).shape)
    assert torch.equal(found.float().expand(2, -1, -1), brute_force_fan(conv, height, width))


def test_fan_out_of_a_linear_layer_and_of_what_is_no_connection():
    assert fan_out(nn.Linear(3, 7), torch.Size([1, 3]), torch.Size([1, 7])).item() == 7
    with pytest.raises(ValueError, match=r"^module = ReLU\(\) is not allowed: a Conv2d or Linear layer$"):
        fan_out(nn.ReLU(), torch.Size([1]), torch.Size([1]))


def tiny_network(emit=1.0, T=3):
    """Stride, padding, groups, dilation, a kernel that is not square, an odd side pooled, linear layers."""
    body = nn.Sequential(
        IF(0.4, emit=emit, v_init=0.1), nn.Conv2d(4, 6, (3, 2), (2, 1), (1, 0), groups=2),
        LIF(v_threshold=0.2), nn.AvgPool2d(2), nn.Conv2d(6, 4, 2, dilation=2, padding=1), IF(0.3),
    )  # fmt: skip
    head = nn.Sequential(nn.Flatten(), nn.Linear(16, 5), IF(0.2, v_reset=0.0), nn.Dropout(), nn.Linear(5, 3))
    net = Network(nn.Conv2d(2, 4, 3, padding=1), body, head)
    with torch.no_grad():
        for i, p in enumerate(net.parameters()):
            p.copy_(image(*p.shape, seed=i) * 0.6)
    net.time_steps = T
    return net.eval()


def batches(n=(2, 3), shape=(2, 7, 6)):
    return [(image(k, *shape, seed=i), torch.zeros(k)) for i, k in enumerate(n)]


def arrivals(net, data):
    """(layer, module) → inputs [T, N, ...] of each batch, by hooks of our own."""
    seen = {name: [] for name in connections(net)}
    handles = [m.register_forward_pre_hook(lambda m, x, n=n: seen[n].append(x[0])) for n, m in connections(net).items()]
    with torch.no_grad():
        for x, _ in data:
            net(x)
    for handle in handles:
        handle.remove()
    return seen


def lookup(table, layer, part, kind):
    rows = table[(table["layer"] == layer) & (table["part"] == part) & (table["kind"] == kind)]
    return rows.sort_values("step")["operations"].tolist()


@pytest.mark.parametrize("emit", [1.0, 0.37])
def test_every_arriving_spike_is_one_accumulate_at_each_place_it_reaches(emit):
    T, net, data = 3, tiny_network(emit), batches()
    unit = {"body.1": emit, "body.4": 1 / 4, "head.1": 1.0, "head.4": 1.0}
    table, samples = count_operations(net, data), 5
    for name, seen in arrivals(net, data).items():
        module = connections(net)[name]
        expected = torch.zeros(T if name != "stem" else 1, dtype=torch.float64)
        for x in seen:
            for step, frame in enumerate(x.unflatten(0, (len(expected), -1))):
                linear = isinstance(module, nn.Linear)
                fan = None if linear else brute_force_fan(module, *frame.shape[2:])
                for index in itertools.product(*map(range, frame.shape)):
                    spikes = 1 if name == "stem" else round(frame[index].item() / unit[name])
                    expected[step] += spikes * (module.out_features if linear else fan[index[1:]].item())
        kind = "mac" if name == "stem" else "ac"
        assert expected.sum() > 0
        assert lookup(table, name, "connection", kind) == pytest.approx((expected / samples).tolist(), rel=1e-12), name
        assert not lookup(table, name, "connection", "ac" if kind == "mac" else "mac")


def test_counts_are_whole_numbers():
    net = tiny_network(emit=0.37)
    operations = count_operations(net, batches((5,)))["operations"] * 5
    assert (operations - operations.round()).abs().max() < 1e-9


def test_neurons_pools_and_residual_additions_by_hand():
    """One IF and one LIF layer on hand-made drives, T = 2, one sample, θ = 1."""
    net = Network(nn.Identity(), nn.Sequential(IF(), nn.AvgPool2d(2), LIF(tau=2.0)), nn.Flatten())
    net.time_steps = 2
    x = torch.tensor([[1.0, 0.5, 0.5, 0.0]]).reshape(1, 1, 2, 2)  # spikes: 1 at step 1, 3 at step 2
    table = count_operations(net, [(x, torch.zeros(1))])
    assert lookup(table, "body.0", "neuron", "ac") == [
        2 * 4 + 1,
        2 * 4 + 3,
    ]  # drive and bias each, one reset a spike
    assert lookup(table, "body.0", "neuron", "mac") == []
    assert lookup(table, "body.1", "pool", "ac") == [1, 3]
    assert lookup(table, "body.2", "neuron", "ac") == [2, 2]  # 0.25 and 0.75 at τ = 2 stay below θ
    assert lookup(table, "body.2", "neuron", "mac") == [1, 1]  # the leak


def test_a_hard_reset_costs_no_accumulate():
    net = Network(nn.Identity(), IF(v_reset=0.0), nn.Flatten())
    net.time_steps = 1
    table = count_operations(net, [(torch.ones(1, 1, 2, 2), torch.zeros(1))])
    assert lookup(table, "body", "neuron", "ac") == [8]


def test_residual_additions_are_one_accumulate_an_element():
    net = build("resnet20", "if", time_steps=2, width=1 / 16, shape=(1, 8, 8)).eval()
    table = count_operations(net, [(image(3, 1, 8, 8), torch.zeros(3))])
    blocks = [f"body.{i}" for i, m in enumerate(net.body) if isinstance(m, Residual)]
    expected = [4 * 64] * 3 + [4 * 16] * 3 + [4 * 4] * 3
    assert [lookup(table, b, "residual", "ac") for b in blocks] == [[n, n] for n in expected]


def test_spikes_of_an_average_pooled_head_reach_every_class_once():
    net = build("resnet20", "if", time_steps=3, v_threshold=0.4, width=1 / 16, shape=(1, 8, 8), n_classes=7).eval()
    last, spikes = [m for m in net.modules() if isinstance(m, IF)][-1], []
    last.register_forward_hook(lambda m, x, y: spikes.append(y))
    table = count_operations(net, [(image(4, 1, 8, 8), torch.zeros(4))])
    expected = (spikes[0].unflatten(0, (3, 4)) != 0).flatten(1).sum(1) * 7 / 4
    assert lookup(table, "head.2", "connection", "ac") == pytest.approx(expected.tolist()) and expected.sum() > 0


def spikingjelly_counts(net, x):
    ac, mac = oc.ACCounter(), oc.MACCounter()
    with torch.no_grad(), oc.DispatchCounterMode([ac, mac]):
        net(x)
    return ac.get_counts()["Global"], mac.get_counts()["Global"]


def check_against_spikingjelly(net, shape, analogue):
    x, modules = image(2, *shape), connections(net)
    ac, mac = spikingjelly_counts(net, x)
    table = count_operations(net, [(x, torch.zeros(2))])
    rows = table[(table["part"] == "connection") & (table["kind"] == "ac")]
    conv = rows["layer"].map(lambda n: isinstance(modules[n], nn.Conv2d))
    assert rows[conv]["operations"].sum() * 2 == ac[aten.convolution.default] > 0
    # SpikingJelly counts the padding of analogue layers too, as the closed form does.
    steps = table[(table["part"] == "connection") & (table["kind"] == "mac")].groupby("layer")["step"].max()
    dense = count(net, shape).set_index("layer")["macs"]
    assert sum(dense[layer] * n for layer, n in steps.items()) * 2 == mac[aten.convolution.default]
    assert sorted(steps.index) == sorted(analogue)
    return rows[~conv]["operations"].sum() * 2, ac.get(aten.addmm.default, 0)


def test_accumulates_equal_spikingjelly_where_there_is_no_pool():
    net = tiny_network()
    net.body, net.head[1] = (
        nn.Sequential(*(m for m in net.body if not isinstance(m, nn.AvgPool2d))),
        nn.Linear(80, 5),
    )
    net.eval().time_steps = 3
    linear, expected = check_against_spikingjelly(net, (2, 7, 6), ["stem"])
    assert linear == expected > 0


@pytest.mark.parametrize(
    "order, analogue", [("post", ["stem.0"]), ("ms", ["stem.0", "body.3.shortcut.0", "body.6.shortcut.0"])]
)
def test_convolutions_of_a_residual_network_equal_spikingjelly(order, analogue):
    """Its last layer follows a pool, analogue to SpikingJelly; shortcuts of MS order are analogue to both."""
    net = build("resnet20", "if", time_steps=3, v_threshold=0.5, width=1 / 8, shape=(2, 8, 8), order=order).eval()
    check_against_spikingjelly(net, (2, 8, 8), analogue)


def test_the_analogue_stem_is_counted_without_padding():
    """3×3, padding 1 on H×W: (3H − 2)(3W − 2) taps meet a pixel, not 9·H·W."""
    net = tiny_network()
    table = count_operations(net, batches((2,)))
    assert lookup(table, "stem", "connection", "mac") == [2 * 4 * (3 * 7 - 2) * (3 * 6 - 2)]


def test_static_input_passes_the_stem_once_and_events_at_each_step():
    small = {"time_steps": 4, "width": 1 / 16, "shape": (2, 8, 8)}
    net = build("vgg5", "if", **small).eval()
    x = image(3, 2, 8, 8)
    once = lookup(count_operations(net, [(x, torch.zeros(3))]), "stem.0", "connection", "mac")
    frames = torch.stack([image(3, 2, 8, 8, seed=i) for i in range(4)])
    each = lookup(count_operations(net, [(frames, torch.zeros(3))]), "stem.0", "connection", "mac")
    assert len(once) == 1 and each == once * 4
    still = lookup(count_operations(net, [(x.expand(4, *x.shape), torch.zeros(3))]), "stem.0", "connection", "mac")
    assert still == once


def test_steps_add_up_to_a_shorter_run():
    """The first T' steps of a run of T are the run of T'."""
    net, data = tiny_network(T=6), batches()
    long = count_operations(net, data)
    net.time_steps = 2
    short = count_operations(net, data)
    kept = long[long["step"] <= 2].reset_index(drop=True)
    pd.testing.assert_frame_equal(kept, short.reset_index(drop=True))


def test_batches_of_any_size_give_the_same_mean():
    net = tiny_network()
    x = image(6, 2, 7, 6)
    tables = [count_operations(net, [(part, torch.zeros(len(part))) for part in x.split(k)]) for k in (6, 4, 1)]
    for other in tables[1:]:
        pd.testing.assert_frame_equal(other, tables[0], rtol=1e-12)


def test_counting_needs_no_gradient_and_leaves_no_hook():
    net = tiny_network()
    count_operations(net, batches())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in net.modules())


def test_a_network_of_relus_costs_a_mac_everywhere():
    net = build("vgg5", width=1 / 16, shape=(1, 8, 8)).eval()
    table = count_operations(net, [(image(2, 1, 8, 8), torch.zeros(2))])
    assert set(table[table["part"] == "connection"]["kind"]) == {"mac"}


def test_dense_operations_of_the_ann_are_the_closed_form():
    net = build("vgg16", "if", time_steps=2)
    table = ann_operations(net, (3, 32, 32))
    assert table["operations"].sum() == count(net, (3, 32, 32))["macs"].sum()
    assert set(table["kind"]) == {"mac"} and set(table["step"]) == {1}


OPS = pd.DataFrame(
    [("a", "connection", "mac", 1, 1000.0), ("b", "connection", "ac", 1, 5000.0),
     ("b", "connection", "ac", 2, 3000.0),
     ("n", "neuron", "ac", 1, 100.0), ("n", "neuron", "mac", 1, 10.0), ("p", "pool", "ac", 1, 7.0)],
    columns=["layer", "part", "kind", "step", "operations"],
)  # fmt: skip


@pytest.mark.parametrize("model, mac, ac", [("45nm_fp32", 4.6, 0.9), ("45nm_int8", 0.23, 0.03), ("rolls", 4.6, 0.077)])
def test_joules_by_hand(model, mac, ac):
    assert joules(OPS, model) == pytest.approx((1010 * mac + 8107 * ac) * 1e-12)
    assert joules(OPS, model, ("connection",)) == pytest.approx((1000 * mac + 8000 * ac) * 1e-12)
    assert joules(OPS, model, ("neuron", "pool")) == pytest.approx((10 * mac + 107 * ac) * 1e-12)
    assert ENERGY_MODELS[model].source


def test_equation_18_by_hand():
    """[c·4.6 + (b − c)·0.9] / (a·4.6) with a = 10, c = 2, b − c = 20: (9.2 + 18) / 46."""
    assert energy_ratio(2, 20, 10) == pytest.approx(27.2 / 46)
    assert energy_ratio(10, 0, 10) == 1
    assert energy_ratio(0, 46, 9) == pytest.approx(1.0)


def test_equation_18_gives_the_printed_saving_only_with_the_stem_counted_once():
    """VGG-16, T = 64, rate 0.0616: 113 % of the ANN with c counted per step, far less with c once."""
    macs = count(build("vgg16"), (3, 32, 32))["macs"]
    stem, rest = macs.iloc[0], macs.iloc[1:].sum()
    once = energy_ratio(stem, 0.0616 * 64 * rest, macs.sum())
    per_step = energy_ratio(64 * stem, 0.0616 * 64 * rest, macs.sum())
    assert per_step - once == pytest.approx(63 * stem / macs.sum())
    assert per_step == pytest.approx(1.13, abs=0.01)


def test_summary_puts_both_accountings_side_by_side():
    ann = pd.DataFrame([("a", "connection", "mac", 1, 4000.0)], columns=OPS.columns)
    table = summary(OPS, ann).set_index("accounting")
    paper, everything = table.loc["as in the paper"], table.loc["everything counted"]
    assert (paper["mac"], paper["ac"]) == (1000, 8000)
    assert (everything["mac"], everything["ac"]) == (1010, 8107)
    assert paper["ratio"] == pytest.approx(energy_ratio(1000, 8000, 4000))
    assert everything["snn_joules"] == pytest.approx(joules(OPS))
    assert table["ann_joules"].tolist() == pytest.approx([4000 * 4.6e-12] * 2)


def test_a_summary_without_macs_counts_none():
    spikes = OPS[OPS["kind"] == "ac"]
    assert summary(spikes, OPS)["mac"].tolist() == [0, 0]


@pytest.mark.parametrize("call, message", [
    (lambda: joules(OPS, "3nm"), "model = '3nm' is not allowed: one of 45nm_fp32, 45nm_int8, rolls, rolls_int8"),
    (lambda: energy_ratio(1, 1, 0), "ann_mac = 0 is not allowed: a positive number"),
    (lambda: energy_ratio(1, 1, 1, "x"), "model = 'x' is not allowed: one of 45nm_fp32, 45nm_int8, rolls, rolls_int8"),
])  # fmt: skip
def test_bad_arguments_are_refused(call, message):
    with pytest.raises(ValueError, match=f"^{message}$"):
        call()
