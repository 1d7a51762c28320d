"""Rate against accuracy on tiny networks: payloads of the paper at any width, equal bytes, recorded rows."""

from __future__ import annotations

import math

import pandas as pd
import pytest
import torch
import torch.nn.functional as F
from tiny import blobs
from torch import nn

from snnbook import papers, params
from snnbook.bottleneck import backbone
from snnbook.bottleneck.codec import head
from snnbook.bottleneck.energy import radio_joules
from snnbook.bottleneck.selection import Candidate
from snnbook.experiments import (
    halves,
    noisy_networks,
    paper_payloads,
    rate_accuracy,
    recorded_payloads,
    spike_bottlenet,
)
from snnbook.experiments.samples import spread
from snnbook.link.coding import CONTEXTS, fit, sizes
from snnbook.network import Residual

PRINTED = papers.table("spikebottlenet_table1")


@pytest.fixture(scope="module")
def p():
    return params.CompressionAccuracy(
        width=1 / 16, blocks=[1, 1], warm_epochs=1, epochs=1, codec_epochs=1, fine_tune_epochs=1, augment="",
        batch_size=8, samples=6, device="cpu", split_points=[1, 2], rate_split_point=2, rate_steps=[1, 2],
        budgets=[4, 8], bits=[8, 1], qualities=[50], contexts=["tensor", "channel"],
    )  # fmt: skip


@pytest.fixture(scope="module")
def e(p, tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SNNBOOK_CACHE", str(tmp_path_factory.mktemp("networks")))
        yield spike_bottlenet.experiment(p, blobs(shape=(1, 8, 8)), 0)


@pytest.fixture(scope="module")
def cuts(e, p):
    return paper_payloads.paper_cuts(e.points(), p.blocks, p.split_points)


@pytest.fixture(scope="module")
def search(e, p, cuts):
    return spike_bottlenet.search(e, [*paper_payloads.paper_candidates(cuts, [0]), Candidate(2, 4, 2, 1)], p.samples)


@pytest.fixture(scope="module")
def cells(e, cuts, search):
    return paper_payloads.cells(e, cuts, paper_payloads.rows_of(search, paper_payloads.paper_candidates(cuts, [0])))


@pytest.fixture(scope="module")
def curves(e, p, search, cells):
    return rate_accuracy.curves(e, p, search, cells)


def test_blocks_of_the_paper_are_their_own_and_shallow_networks_end_with_its_stages():
    assert [paper_payloads.paper_block(s, (3, 4, 6, 3))[0] for s in range(1, 17)] == list(range(1, 17))
    assert [paper_payloads.paper_block(s, (1, 1, 1, 1)) for s in (1, 2, 3, 4)] == [(3, 0), (7, 1), (13, 2), (16, 3)]
    assert [paper_payloads.paper_block(s, (2, 2))[0] for s in (1, 2, 3, 4)] == [2, 3, 5, 7]  # halves, rounded up
    with pytest.raises(ValueError, match=r"split_point = 5 is not allowed: 1 to 4"):
        paper_payloads.paper_block(5, (1, 1, 1, 1))
    with pytest.raises(ValueError, match="stages"):
        paper_payloads.paper_block(1, (1, 1, 1, 1, 1))


def test_payloads_at_full_width_are_those_of_table_1():
    points = backbone.split_points(backbone.twin(), (3, 32, 32))
    cuts = paper_payloads.paper_cuts(points, (3, 4, 6, 3), range(1, 17))
    for column, printed in (("channels", "snn_channels"), ("code_channels", "ann_channels"), ("stride", "stride"),
                            ("paper_steps", "time_steps"), ("full_bytes", "snn_bytes"), ("relaxed", "relaxed"),
                            ("full_code_bytes", "ann_bytes")):  # fmt: skip
        assert cuts[column].tolist() == PRINTED[printed].tolist()
    plane = points["height"] * points["width"] / cuts["stride"] ** 2
    assert (cuts["paper_steps"] * cuts["channels"] * plane / 8).tolist() == PRINTED["snn_bytes"].tolist()
    assert paper_payloads.paper_candidates(cuts, [0, 2])[:3] == [
        Candidate(1, 16, 1, 4),
        Candidate(1, 16, 1, 2),
        Candidate(2, 16, 1, 2),
    ]


def test_a_quarter_of_the_width_is_a_quarter_of_the_payload_at_equal_compression():
    points = backbone.split_points(backbone.twin(width=0.25), (3, 32, 32))
    cuts = paper_payloads.paper_cuts(points, (3, 4, 6, 3), [2, 4, 9, 14, 16]).set_index("split_point")
    wanted = PRINTED.set_index("split_point").loc[cuts.index]
    assert (4 * cuts["channels"]).tolist() == wanted["snn_channels"].tolist()
    assert cuts["stride"].tolist() == [1, 1, 1, 1, 2]


def test_a_map_that_does_not_divide_keeps_its_size_and_one_channel_is_the_least():
    points = pd.DataFrame({"split_point": [1, 2, 3, 4], "channels": [2, 4, 8, 16], "height": 3, "width": 3})
    cuts = paper_payloads.paper_cuts(points, (1, 1, 1, 1), [1, 4])
    assert cuts["stride"].tolist() == [1, 1] and cuts["channels"].tolist() == [1, 1]


def test_cells_beside_both_controls(e, cuts, cells):
    assert cells["equal_bytes"].tolist() == cells["bytes"].tolist()
    for row in cells.itertuples():
        eight = e.bottlenet(row.split_point, row.code_channels, row.stride, 8)[0]
        equal = e.bottlenet(row.split_point, row.channels, row.stride, row.time_steps)[0]
        ann = e.accuracy(e.ann())
        assert (row.code_accuracy, row.equal_accuracy) == (e.accuracy(eight), e.accuracy(equal))
        assert row.code_drop == pytest.approx(ann - row.code_accuracy) and row.ann_accuracy == ann
        macs = e.points().set_index("split_point").loc[row.split_point, "cumulative_macs"]
        assert row.paper_ratio == pytest.approx(4.6e-12 * macs / row.paper_joules)
        bits = row.channels * math.prod(e.data.shape[1:]) / (4 ** (row.split_point - 1)) * row.time_steps
        assert row.bytes == math.ceil(bits / 8)
        printed = PRINTED.set_index("split_point").loc[row.block]
        assert row.full_bytes * printed["time_steps"] == printed["snn_bytes"] * row.time_steps
        assert row.float32 == pytest.approx(32 * row.compression / row.time_steps)
    assert (cells["counted_ratio"] < cells["paper_ratio"]).all()


def test_drops_from_networks_that_were_trained_as_much_longer(e, cells):
    longer = paper_payloads.longer(e, sorted(set(cells["time_steps"])))
    assert longer["time_steps"].tolist() == [2, 0] and longer["network"].tolist() == ["spikes", "ANN"]
    nets = [e.backbone(2), e.ann()], [e.trained_on(2), e.trained_on(None)]
    for net, column in zip(nets, ("accuracy", "longer_accuracy"), strict=True):
        assert longer[column].tolist() == [e.accuracy(n) for n in net]
        assert longer[f"validation_{column}"].tolist() == [e.accuracy(n, split="validation") for n in net]
    table = paper_payloads.drops_from_longer(cells, longer)
    (_, spikes), (_, ann) = longer[["accuracy", "longer_accuracy"]].to_numpy().tolist()
    for name, whole in (("", spikes), ("code_", ann), ("equal_", ann)):
        assert table[f"{name}drop"].tolist() == cells[f"{name}drop"].tolist()
        assert table[f"longer_{name}drop"].tolist() == pytest.approx([whole - a for a in cells[f"{name}accuracy"]])
    assert set(table["longer_accuracy"]) == {spikes} and set(table["longer_ann_accuracy"]) == {ann}


def joules_by_kernels_of_ones(net, x):
    """A MAC for each pixel that reaches an output of a convolution, an addition for each element of a junction."""
    found = []

    def hook(m, inputs, y):
        if isinstance(m, nn.Conv2d):
            reach = F.conv2d(torch.ones_like(inputs[0]), torch.ones_like(m.weight), None, m.stride, m.padding)
            found.append(4.6e-12 * reach.sum().item())
        elif isinstance(m, Residual):
            found.append(0.9e-12 * y.numel())

    device = head(net).eval()
    handles = [m.register_forward_hook(hook) for m in device.modules()]
    with torch.no_grad():
        device(x)
    for handle in handles:
        handle.remove()
    return sum(found)


def test_ratios_of_energy_with_and_without_the_radio_and_against_the_control(e, cells):
    x, _ = e.batches(1)[0]
    for row in cells.itertuples():
        both = (row.code_channels, 8), (row.channels, row.time_steps)
        nets = [e.bottlenet(row.split_point, c, row.stride, b)[0] for c, b in both]
        eight, equal = (joules_by_kernels_of_ones(net, x) for net in nets)
        bit = radio_joules(1, "Wi-Fi")
        spikes = row.counted_joules + 8 * row.bytes * bit
        assert row.work_ratio == pytest.approx(eight / row.counted_joules)
        assert row.counted_ratio == pytest.approx((eight + 8 * row.code_bytes * bit) / spikes)
        assert row.equal_ratio == pytest.approx((equal + 8 * row.bytes * bit) / spikes)


@pytest.mark.parametrize(
    ("size", "bits_each", "plane", "channels"), [(64, 4, 16, 8), (64, 8, 16, 4), (16, 1, 16, 8), (5, 2, 16, None)]
)
def test_channels_that_fill_a_budget(size, bits_each, plane, channels):
    assert rate_accuracy.channels_for(size, bits_each, plane) == channels
    if channels:
        assert channels * bits_each * plane == 8 * size


def test_all_families_of_a_budget_send_its_bytes(e, p, curves):
    rates, _ = curves
    own = rates[(rates["split_point"] == 2) & (rates["stride"] == 1)]
    assert {"spikes, T = 1", "spikes, T = 2", "codes, 1 bit", "random mask, T = 2"} <= set(own["family"])
    bits = own["channels"] * 16 * own["bits_each"]
    plain = ~own["family"].str.startswith(("coded", "random"))
    assert (own["bytes"] == bits / 8)[plain].all()
    mask = own[own["family"].str.startswith("random")].iloc[0]
    assert mask["bytes"] == 8 and mask["channels"] == 4 * 2
    spikes = own[(own["family"] == "spikes, T = 2") & (own["bytes"] == 8)].iloc[0]
    assert spikes["accuracy"] == e.accuracy(e.compressed(Candidate(2, 2, 1, 2))[0])
    files = rates[rates["split_point"] == 0].set_index("family")
    assert files.loc["PNG", "accuracy"] == e.accuracy(e.ann()) and set(files.index) == {
        "PNG", "WebP, lossless", "JPEG", "WebP"}  # fmt: skip


def test_coded_spikes_take_the_bytes_of_their_best_context(e, p, curves):
    rates, coded = curves
    assert tuple(coded.columns) == rate_accuracy.CODED
    assert set(coded["context"]) == {"tensor", "channel"} <= set(CONTEXTS)
    plain = coded[coded["network"] == "spikes, T = 2"]
    row = rates[rates["family"] == "coded spikes, T = 2"].iloc[0]
    assert row["bytes"] == plain.loc[plain["validation_actual"].idxmin(), "actual"]
    sparse = noisy_networks.spiking(e, Candidate(2, 2, 1, 2), penalty=p.penalty)
    assert coded[coded["network"].str.startswith("sparse")]["accuracy"].iloc[0] == e.accuracy(sparse)


def test_validation_images_choose_the_context_and_test_images_tell_its_bytes():
    coded = pd.DataFrame({"network": "spikes, T = 2", "context": ["tensor", "channel"], "actual": [7.0, 6.0],
                          "validation_actual": [5.0, 8.0], "accuracy": 0.9, "validation_accuracy": 0.8})  # fmt: skip
    (row,) = rate_accuracy.coded_as_rates(coded, Candidate(2, 2, 1, 2)).itertuples()
    assert row.bytes == 7.0 and row.family == "coded spikes, T = 2"


def test_models_of_coded_spikes_come_from_calibration_images(e, curves):
    coded = curves[1].set_index(["network", "context"]).loc[("spikes, T = 2", "tensor")]
    net = e.compressed(Candidate(2, 2, 1, 2))[0]
    model = fit(halves.sent(net, e, "calibration"), "tensor")
    for split, column in (("test", "actual"), ("validation", "validation_actual")):
        images = spread(getattr(e.data, split), 6)
        assert coded[column] == sizes(halves.sent(net, e, images), model)["actual"].mean()


def test_without_a_split_point_only_what_is_measured_already_and_files(e, p, search, cells):
    from dataclasses import replace

    rates, coded = rate_accuracy.curves(e, replace(p, rate_split_point=0), search, cells)
    assert len(coded) == 0 and not rates["family"].str.startswith("random").any()
    assert {"spikes, T = 2", "codes, 8 bits", "JPEG"} <= set(rates["family"])


def test_budgets_that_nothing_fills_are_refused(e):
    with pytest.raises(ValueError, match=r"^budgets = \[1\] is not allowed"):
        rate_accuracy.rates(e, 2, [1], [4], [8])


def test_within_takes_the_best_of_at_most_so_many_bytes():
    table = pd.DataFrame({"family": ["a", "a", "b", "a"], "bytes": [2, 4, 5, 9], "accuracy": [0.8, 0.7, 0.9, 1.0]})
    table["validation_accuracy"] = table["accuracy"]
    found = rate_accuracy.within(table, [4, 1, 8]).set_index("family")
    assert list(found.columns) == ["1 B", "4 B", "8 B"] and found.loc["a"].tolist()[1:] == [0.8, 0.8]
    assert found["1 B"].isna().all() and math.isnan(found.loc["b", "4 B"]) and found.loc["b", "8 B"] == 0.9
    table["validation_accuracy"] = [0.7, 0.8, 0.9, 1.0]  # validation images choose, test images are shown
    assert rate_accuracy.within(table, [4]).set_index("family").loc["a", "4 B"] == 0.7


def run_of(blocks, cells):
    return {"parameters": {"blocks": blocks, "dataset": "cifar100", "width": 0.25}}, {"cells": cells}


def test_all_published_backbones_stand_beside_the_recorded_ones():
    cells = pd.DataFrame({"split_point": [2, 9, 16], "time_steps": [2, 2, 4], "backbone_accuracy": [0.5, 0.5, 0.625]})
    run = run_of([3, 4, 6, 3], cells)
    run[0]["parameters"]["model"] = "resnet50"
    table = recorded_payloads.literature({"short": run}).set_index(["method", "network"])
    printed = papers.table("spikebottlenet_literature")
    assert table.drop(columns="source").notna().sum().sum() == len(printed) + 4
    assert list(table.columns) == ["T = 2", "T = 4", "T = 6", "source"]
    for row in printed.itertuples():
        assert table.loc[(row.method, row.model), f"T = {row.time_steps}"] == row.accuracy
        assert table.loc[(row.method, row.model), "source"] == row.source + (f"; {row.note}" if row.note else "")
    assert table.loc[("MS-ResNet", "ResNet-18"), "source"].endswith("; 75.06 to 76.41 by version")
    assert table.loc[("SpikeBottleNet's backbone", "Spike-ResNet50")].tolist()[:2] == [74.69, 76.81]
    assert table.loc[("short", "resnet50, width 0.25")].tolist()[:2] == [50, 62.5]
    assert not table["source"].isin(["recorded"]).iloc[:-1].any()
    assert len(recorded_payloads.literature({})) == len(table) - 1


def test_recorded_rows_stand_beside_the_printed_ones():
    cells = pd.DataFrame({"split_point": [16, 2, 16], "time_steps": [2, 2, 4], "drop": [0.5, 0.01, 0.02]})
    found = {"wide": run_of([3, 4, 6, 3], cells), "small": run_of([1, 1, 1, 1], cells)}
    found["other"] = run_of([3, 4, 6, 3], cells)
    found["other"][0]["parameters"]["dataset"] = "digits"
    beside = recorded_payloads.beside_published(found)
    assert list(beside.columns) == ["split_point", "time_steps", "published", "wide"]  # others have no such cells
    assert beside["split_point"].tolist() == [*range(1, 17), 16]
    by = beside.set_index(["split_point", "time_steps"])
    assert by["published"].dropna().tolist() == PRINTED["accuracy_drop"].tolist()
    assert by.loc[(2, 2), "wide"] == 1.0 and by.loc[(16, 4), "wide"] == 2.0 and by["wide"].isna().sum() == 14
    assert by.loc[(16, 2), "wide"] == 50.0 and math.isnan(by.loc[(16, 2), "published"])  # Table 1 has T = 4 there
    assert recorded_payloads.beside_published({}).shape == (16, 3)


def test_recorded_tables_have_their_run_in_front_and_the_best_reference_where_there_are_two():
    one = pd.DataFrame({"time_steps": [2, 2], "drop": 0.1, "drop_from_best": 0.1})
    two = pd.DataFrame({"time_steps": [2, 4], "drop": 0.1, "drop_from_best": [0.2, 0.1]})
    found = {"one": run_of([3, 4, 6, 3], one), "two": run_of([1, 1, 1, 1], two)}
    both = recorded_payloads.recorded_cells(found)
    assert both["run"].tolist() == ["one"] * 2 + ["two"] * 2
    assert list(both.columns) == ["run", "dataset", "width", *one.columns]
    assert both["drop_from_best"].isna().tolist() == [True, True, False, False]
    assert one["drop_from_best"].notna().all() and recorded_payloads.recorded_cells({}).empty


def test_recorded_drops_are_those_of_runs_with_networks_trained_on():
    cells = pd.DataFrame({"split_point": [2], "time_steps": [2]})
    cells = cells.assign(**{f"{n}{c}": 0.5 for n in ("", "code_", "equal_") for c in ("drop", "accuracy")})
    longer = pd.DataFrame({"network": ["spikes", "ANN"], "time_steps": [2, 0], "longer_accuracy": [0.75, 1.0]})
    (manifest, tables), old = run_of([3, 4, 6, 3], cells), run_of([3, 4, 6, 3], cells)
    (row,) = recorded_payloads.recorded_drops({"old": old, "new": (manifest, tables | {"longer": longer})}).itertuples()
    assert row.run == "new" and row.longer_drop == 0.25 and row.longer_code_drop == row.longer_equal_drop == 0.5
    assert recorded_payloads.recorded_drops({"old": old}).empty


def test_what_the_text_says_of_recorded_runs():
    assert recorded_payloads.in_words({}) == "No run of it is recorded yet."
    cells = pd.DataFrame({"time_steps": [2, 2, 8], "backbone_accuracy": [0.5, 0.5, 0.625]})
    found = {"short": run_of([3, 4, 6, 3], cells), "small": run_of([1, 1, 1, 1], cells)}
    for manifest, _ in found.values():
        manifest["parameters"] |= {"warm_epochs": 8, "epochs": 4, "codec_epochs": 2, "fine_tune_epochs": 1}
        manifest["parameters"] |= {"window": 1.5, "lr": 0.3, "ann_lr": 0.1, "fine_tune_lr": 0.05, "label_smoothing": 0}
    wide, small = recorded_payloads.in_words(found).split("Run ")[1:]
    assert wide.startswith("short: cifar100, 0.25 of the width, 8 epochs at T = 1 and 4 more")
    assert "1 epoch with the codec, before it 2 of codes on their own; δ = 1.5, learning rates 0.3 for spikes" in wide
    assert "0.1 for the ANN, 0.05 with a codec, labels smoothed by 0; its backbone has" in wide
    assert "50.00 % at T = 2 (paper: 74.69 %), 62.50 % at T = 8." in wide and "paper" not in small
