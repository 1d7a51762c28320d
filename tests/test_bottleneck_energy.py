"""Energies: both rows of Table 3, operations against convolutions with kernels of ones, shortcuts by hand."""

from math import prod

import pandas as pd
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from snnbook import papers
from snnbook.bottleneck import baseline, energy, table3
from snnbook.bottleneck.backbone import backbone, split_points, twin
from snnbook.bottleneck.codec import compress, head
from snnbook.bottleneck.memory import bytes_moved
from snnbook.cache import state_hash
from snnbook.counts import connections, count, parameters
from snnbook.energy import count_operations
from snnbook.experiments.conversion_energy import traffic
from snnbook.memory import memory_joules
from snnbook.neurons import spiking_layers

SHAPE = (1, 8, 8)
TABLE_3 = papers.table("spikebottlenet_table3")


@pytest.fixture(scope="module")
def points():
    return split_points(twin(), (3, 32, 32))


@pytest.fixture(scope="module")
def device():
    """Device half of a small network whose neurons fire, with four blocks before the cut."""
    net = backbone(3, width=1 / 16, shape=SHAPE, n_classes=3, blocks=(1, 1, 1, 1))
    net = compress(net, SHAPE, 4, 8)[0]
    fit_statistics(net)
    return head(net)


def fit_statistics(net):
    """Running statistics of a batch, which make an untrained network fire; left in eval mode."""
    for m in net.train().modules():
        if isinstance(m, nn.BatchNorm2d):
            m.momentum = 1.0
    with torch.no_grad():
        net(images(8, seed=5))
    net.eval()


def images(n, seed=0):
    return torch.rand(n, *SHAPE, generator=torch.Generator().manual_seed(seed))


def test_both_rows_of_ratios_imply_the_same_firing_rate():
    rates = table3.published_rates()
    assert (rates["rate"] / rates["rolls_rate"] - 1).abs().max() < 4e-3  # ratios are printed to 0.005
    assert rates["rate"].between(0.24, 0.70).all()
    assert rates["rate"].round(2).tolist()[:2] == [0.69, 0.42] and round(rates["rate"].iloc[-1], 3) == 0.247


def test_table_3_comes_back_from_the_implied_rates(points):
    rates = table3.published_rates()
    ours = table3.as_in_the_paper(points, rates)
    assert ours["ann_millijoules"].round(2).tolist() == TABLE_3["ann_millijoules"].tolist()
    assert (ours["ratio"] - TABLE_3["ratio"]).abs().max() < 1e-9
    assert (ours["snn_millijoules"] - TABLE_3["snn_millijoules"]).abs().max() <= 0.0055
    assert (ours["rolls_millijoules"] - TABLE_3["rolls_millijoules"]).abs().max() <= 0.00055
    assert (ours["rolls_ratio"] / TABLE_3["rolls_ratio"] - 1).abs().max() < 4e-3
    other = table3.as_in_the_paper(points, rates.assign(rate=rates["rolls_rate"]))
    assert (other["rolls_ratio"] - TABLE_3["rolls_ratio"]).abs().max() < 1e-9
    assert (other["ratio"] / TABLE_3["ratio"] - 1).abs().max() < 4e-3


def test_rate_and_energy_are_each_others_inverse():
    for model in ("45nm_fp32", "45nm_int8", "rolls"):
        joules = energy.snn_joules(1e9, 0.3, 4, model)
        assert energy.implied_rate(energy.ann_joules(1e9, model) / joules, 4, model) == pytest.approx(0.3)


@pytest.fixture(scope="module")
def accounts():
    cuts = papers.table("spikebottlenet_table1").merge(table3.published_rates())
    return table3.accounts(backbone(1), twin(), (3, 32, 32), cuts)


def test_shortcuts_take_the_advantage_of_the_last_split_point_from_5_to_under_2(accounts):
    """117.44 M MACs on potentials at each of 4 steps, those of the first block once as in the ANN."""
    last = accounts[accounts["split_point"] == 16].set_index(["network", "item"])["millijoules"]
    assert last["SNN", "shortcuts"] == pytest.approx((16.777216 + 4 * 100.663296) * 4.6e-3)
    ratio = table3.scoped_ratios(accounts).set_index("split_point")
    assert ratio.loc[16, "paper"] == pytest.approx(5.18) and ratio.loc[16, "+ shortcuts"] == pytest.approx(
        2.00, abs=0.005
    )
    assert (ratio["paper"] - TABLE_3["ratio"].to_numpy()).abs().max() < 1e-9


def test_each_scope_counts_more(accounts):
    sums = accounts.groupby("network")["millijoules"].sum()
    assert list(table3.SCOPES.values())[-1] == (*energy.ITEMS, "radio", "memory")
    for smaller, larger in zip(list(table3.SCOPES.values()), list(table3.SCOPES.values())[1:], strict=False):
        assert set(smaller) < set(larger)
    assert sums["ANN"] > sums["SNN"] > 0


@pytest.mark.parametrize("stride", [1, 2])
def test_bytes_moved_are_the_traffic_of_the_networks_themselves(stride):
    """Against what running layers show; norms and what a block hands to the next shortcut are added by hand."""
    options = {"width": 1 / 16, "shape": SHAPE, "n_classes": 3, "blocks": (1, 2, 1)}
    ann, T = twin(**options), 3
    points, stem = split_points(ann, SHAPE), prod(count(ann, SHAPE)["output"].iloc[0])
    maps = (points["channels"] * points["height"] * points["width"]).tolist()
    for net, pack in ((backbone(T, **options), compress), (ann, baseline.compress)):
        made, sent = pack(net, SHAPE, 3, 4, stride)
        half, payload = head(made), prod(sent.payload)
        shown = traffic(half, SHAPE, T, 0, 0).set_index("schedule").sum(axis=1)
        norms = parameters(half) - count(half, SHAPE)["parameters"].sum()
        handed = sum(maps[:2])
        if net is ann:  # codes of 8 bits, which are no layer's activations
            wanted = shown["ANN"] + 4 * (norms + stem + handed) + 2 * payload
        else:
            wanted = shown["SNN, layer by layer"] + 4 * (norms + 2 * T * handed)
        assert bytes_moved(points, sent, prod(SHAPE), stem, net is not ann) == wanted
    less = bytes_moved(points, sent, prod(SHAPE), stem, False, bits=8)
    assert wanted - less == pytest.approx(0.75 * (wanted - 2 * payload))


def test_memory_is_counted_in_the_last_scope_alone(accounts):
    """The weights of 23.5 M parameters are most of what the ANN moves before the last cut."""
    last = accounts[accounts["split_point"] == 16].set_index(["network", "item"])["millijoules"]
    weights = 1e3 * memory_joules(4 * 23.5e6)
    assert weights < last["ANN", "memory"] < 1.4 * weights and last["SNN", "memory"] > last["ANN", "memory"]
    ratio, sums = table3.scoped_ratios(accounts).set_index("split_point"), last.groupby("network").sum()
    assert ratio.loc[16, "+ memory"] == pytest.approx(sums["ANN"] / sums["SNN"])
    assert [s for s, items in table3.SCOPES.items() if "memory" in items] == ["+ memory"]


def test_radio_of_the_first_split_point_is_its_payload(accounts):
    first = accounts[(accounts["split_point"] == 1) & (accounts["item"] == "radio")]
    assert first["millijoules"].tolist() == pytest.approx([8192 * 8 * 283.17e-6] * 2)


def test_encoder_is_not_constant():
    sizes = {1: (256, 16, 1, 37.7), 4: (512, 64, 1, 75.5), 7: (512, 64, 1, 75.5), 16: (2048, 32, 2, 1.05)}
    net = backbone(1)
    for point, (_, channels, stride, expected) in sizes.items():
        report = compress(net, (3, 32, 32), point, channels, stride)[1]
        assert report.encoder_macs / 1e6 == pytest.approx(expected, abs=0.05)


def brute_force(device, x):
    """Operations of each connection per sample: its input, through a convolution with a kernel of ones."""
    found, handles = {}, []

    def note(name):
        def hook(m, inputs, y):
            v = inputs[0]
            spikes = bool(((v == 0) | (v == 1)).all()) and not name.startswith("stem")
            ones = torch.ones_like(m.weight)
            still = not spikes and all(torch.equal(step, v[: len(x)]) for step in v.split(len(x)))
            arrives = v if spikes else torch.ones_like(v[: len(x)] if still else v)
            reach = F.conv2d(arrives, ones, None, m.stride, m.padding)
            found[name] = ("ac" if spikes else "mac", reach.sum().item() / len(x))

        return hook

    for name, m in connections(device).items():
        handles.append(m.register_forward_hook(note(name)))
    with torch.no_grad():
        device(x)
    for handle in handles:
        handle.remove()
    return found


def test_counted_operations_are_those_of_kernels_of_ones(device):
    x = images(4)
    table = energy.counted(device, [(x, torch.zeros(4))]).set_index("item")
    found = brute_force(device, x)
    kinds = {
        "stem": [n for n in found if n.startswith("stem")],
        "encoder": [n for n in found if "encoder" in n],
        "shortcuts": [n for n in found if "shortcut" in n],
        "blocks": [n for n in found if "branch" in n],
    }
    for item, names in kinds.items():
        for kind in ("mac", "ac"):
            expected = sum(found[n][1] for n in names if found[n][0] == kind)
            assert table.loc[item, kind] == pytest.approx(expected), (item, kind)
    assert sum(map(len, kinds.values())) == len(found) and len(kinds["shortcuts"]) == 4
    assert table.loc["blocks", "ac"] > 0 == table.loc["blocks", "mac"]
    assert table.loc["shortcuts", "mac"] > 0 == table.loc["shortcuts", "ac"]


def test_the_first_shortcut_sees_a_still_image_and_is_computed_once(device):
    x = images(4)
    table = count_operations(device, [(x, torch.zeros(4))])
    macs = table[table["layer"].str.contains("shortcut") & (table["kind"] == "mac")]
    steps = macs.groupby("layer", sort=False)["step"].max()
    assert steps.tolist() == [1, 3, 3, 3] and (macs["operations"] > 0).all()


def test_blocks_add_up_to_their_item(device):
    x = images(4)
    found, table = brute_force(device, x), energy.counted_blocks(device, [(x, torch.zeros(4))])
    assert table["block"].tolist() == [1, 2, 3, 4]
    for block, counted in table.itertuples(index=False):
        names = [n for n in found if n.startswith(f"body.{block - 1}.branch.")]
        assert counted == pytest.approx(sum(found[n][1] for n in names)) and len(names) == 3


def test_items_add_up_to_everything(device):
    batches = [(images(4), torch.zeros(4))]
    table = energy.counted(device, batches)
    operations = energy.count_operations(device, batches)
    for kind in ("mac", "ac"):
        total = operations.loc[operations["kind"] == kind, "operations"].sum()
        assert table[kind].sum() == pytest.approx(total)
    assert table["item"].tolist() == list(energy.ITEMS)


def test_what_needs_no_firing_rate_is_estimated_exactly(device):
    """Shortcuts, neurons and additions of the estimate are those of the count."""
    batches = [(images(4), torch.zeros(4))]
    net = backbone(3, width=1 / 16, shape=SHAPE, n_classes=3, blocks=(1, 1, 1, 1))
    sent = compress(net, SHAPE, 4, 8)[1]
    estimate = energy.estimated(split_points(net, SHAPE), sent, 0.3, 64 * 9 * net.stem[0].out_channels)
    both = estimate.set_index("item"), energy.counted(device, batches).set_index("item")
    for item in ("shortcuts", "neurons and additions"):
        for kind in ("mac", "ac"):
            assert both[0].loc[item, kind] == pytest.approx(both[1].loc[item, kind]), (item, kind)
    assert both[0].loc["stem", "mac"] >= both[1].loc["stem", "mac"] > 0  # the count leaves out the padding


def test_dense_operations_are_those_of_the_device_half():
    net = twin(width=1 / 16, shape=SHAPE, blocks=(1, 1, 1, 1))
    new, codes = baseline.compress(net, SHAPE, 3, 4, 2)
    macs = count(head(new), SHAPE).set_index("layer")["macs"]
    table = energy.dense(split_points(net, SHAPE), codes, int(macs["stem.0"])).set_index("item")["mac"]
    for item, piece in (
        ("shortcuts", ".shortcut."),
        ("blocks", ".branch."),
        ("encoder", ".encoder."),
        ("stem", "stem"),
    ):
        assert table[item] == macs[macs.index.str.contains(piece, regex=False)].sum() > 0


def test_rates_of_blocks_are_means_over_their_neurons(device):
    x = images(4)
    table = energy.block_rates(device, [(x[:2], None), (x[2:], None)])
    seen = {}
    for name, layer in spiking_layers(device).items():
        layer.register_forward_hook(lambda m, i, y, name=name: seen.setdefault(name, y))
    with torch.no_grad():
        device(x)
    for k, block in enumerate(["0", "1", "2", "3", "encoder"]):
        own = torch.cat([y.flatten() for name, y in seen.items() if name.split(".")[1] == block])
        upto = torch.cat(
            [y.flatten() for name, y in seen.items() if name.split(".")[1] in table["block"][: k + 1].tolist()]
        )
        assert table["block"][k] == block
        assert table["rate"][k] == pytest.approx(own.mean().item(), rel=1e-5)
        assert table["cumulative_rate"][k] == pytest.approx(upto.mean().item(), rel=1e-5)


def test_a_neuron_behind_the_stem_belongs_to_the_first_block():
    net = backbone(2, width=1 / 16, shape=SHAPE, n_classes=3, blocks=(1, 1), order="post")
    fit_statistics(net)
    table = energy.block_rates(net, [(images(4), None)])
    assert table["block"].tolist() == ["1", "2"]
    seen = {}
    for name, layer in spiking_layers(net).items():
        layer.register_forward_hook(lambda m, i, y, name=name: seen.setdefault(name, y))
    with torch.no_grad():
        net(images(4))
    first = torch.cat([y.flatten() for name, y in seen.items() if name.startswith(("body.0", "body.1."))])
    assert table["rate"][0] == pytest.approx(first.mean().item(), rel=1e-5)


def test_rates_are_those_of_evaluation_and_change_nothing(device):
    """Batch statistics of training would give other rates, and the running ones would move."""
    wanted, before = energy.block_rates(device, [(images(4), None)]), state_hash(device)
    found = energy.block_rates(device.train(), [(images(4), None)])
    assert device.training and state_hash(device.eval()) == before
    pd.testing.assert_frame_equal(found, wanted)


def test_ratios_by_hand():
    snn = pd.DataFrame({"item": ["blocks", "stem"], "mac": [0.0, 10.0], "ac": [100.0, 0.0]})
    ann = pd.DataFrame({"item": ["blocks", "stem"], "mac": [200.0, 10.0], "ac": [0.0, 0.0]})
    table = energy.ratios(snn, ann, {"fp32": ("45nm_fp32", "45nm_fp32"), "mixed": ("rolls", "45nm_int8")})
    assert table["hardware"].tolist() == ["fp32", "mixed"]
    assert table["paper"].tolist() == pytest.approx([920 / 90, 46 / 7.7])
    assert table["everything"].tolist() == pytest.approx([966 / 136, 48.3 / (7.7 + 46)])


def test_lines_of_all_cuts_take_table_1_and_computing_everything_both_time_steps(points):
    lines = table3.cut_lines(backbone(1), twin(), (3, 32, 32)).set_index("cut")
    printed = papers.table("spikebottlenet_table1")
    assert lines["bits"].tolist() == [24576, *(8 * printed["snn_bytes"]), 8, 8]
    assert lines["time_steps"].tolist() == [0, *printed["time_steps"], 4, 2]
    assert lines.loc["send the image", "millijoules"] == 0
    four, two = (lines.loc[f"compute everything, T = {T}", "millijoules"] for T in (4, 2))
    assert four == lines.loc["cut behind 16", "millijoules"]
    macs, shortcuts = points["cumulative_macs"].iloc[-1], points["shortcut_macs"].sum()
    first = points["shortcut_macs"].iloc[0]
    rate = table3.published_rates().set_index("split_point").loc[14, "rate"]
    blocks = 1e3 * energy.snn_joules(macs, rate, 2) + 1e3 * energy.ann_joules(2 * shortcuts - first)
    assert blocks < two < 1.04 * blocks < four


def test_radio_is_nanojoules_per_bit():
    assert energy.radio_joules(512) == pytest.approx(512 * 283.17e-9)
    assert energy.radio_joules(1, "LTE") == pytest.approx(438.39e-9)


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: energy.snn_joules(1, -0.1, 2), r"rate = -0.1 is not allowed: 0 or more spikes per neuron and step"),
        (lambda: energy.snn_joules(1, 0.1, 0), r"time_steps = 0 is not allowed: at least 1"),
        (lambda: energy.implied_rate(0, 2), r"ratio = 0 is not allowed: a positive number"),
        (lambda: energy.ann_joules(1, "7nm"), r"model = '7nm' is not allowed: one of .*"),
        (lambda: energy.radio_joules(1, "5G"), r"radio = '5G' is not allowed: one of Wi-Fi, LTE, 3G"),
    ],
)
def test_bad_arguments_are_refused(call, message):
    with pytest.raises(ValueError, match=f"^{message}$"):
        call()
