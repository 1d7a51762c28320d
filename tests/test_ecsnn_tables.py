"""The published numbers of EC-SNN: complete, and what the paper says of them, computed again."""

import pytest

from snnbook import papers
from snnbook.counts import count
from snnbook.models import build
from snnbook.splitting.devices import device

SHAPES = {
    "CIFAR-10": (3, 32, 32),
    "Caltech101": (3, 224, 224),
    "CIFAR10-DVS": (2, 128, 128),
    "N-Caltech101": (2, 224, 224),
    "GTZAN": (1, 96, 323),
    "UrbanSound8K": (1, 40, 173),
}
MODELS = ["VGG5", "VGG9", "VGG16"]


@pytest.fixture(scope="module")
def single():
    return papers.table("ecsnn_single")


@pytest.fixture(scope="module")
def devices():
    return papers.table("ecsnn_devices")


def test_every_cell_is_there_once(single, devices):
    assert {tuple(r) for r in single[["dataset", "model"]].to_numpy()} == {(d, m) for d in SHAPES for m in MODELS}
    keys = devices[["dataset", "model", "n_devices"]].drop_duplicates()
    assert len(single) == 18 and len(keys) == len(devices) == 18 * 4
    zeta = papers.table("ecsnn_zeta")
    assert zeta.groupby("model")["zeta"].apply(list).to_dict() == {m: list(range(86, 101, 2)) for m in MODELS}
    assert not zeta.isna().any(axis=None) and not devices.isna().any(axis=None)
    measured = [single, devices, zeta, papers.table("ecsnn_fig2")]
    assert all((t["note"] == "measured off the figure, about 3 digits").all() for t in measured)


def test_means_of_table_1_are_those_of_its_rows():
    table = papers.table("ecsnn_table1")
    assert len(table) == 24 and set(table["n_devices"]) == {3, 5, 7, 9}
    groups = table.groupby("dataset")
    assert (groups["accuracy"].mean() - groups["mean"].first()).abs().max() < 0.006
    spread = {ddof: groups["accuracy"].std(ddof=ddof) - groups["sd"].first() for ddof in (0, 1)}
    assert spread[1].abs().max() < 0.02


def test_the_headline_latency_is_that_of_one_device(single, devices):
    saved = 1 - single["ec_seconds"] / single["snn_seconds"]
    claims = papers.table("ecsnn_claims").set_index("quantity")["value"]
    assert round(100 * saved.mean(), 1) == pytest.approx(claims["latency reduction"], abs=0.1)
    together = devices.merge(single, on=["dataset", "model"])
    by_n = 100 * (1 - together["seconds"] / together["snn_seconds"]).groupby(together["n_devices"]).mean()
    assert by_n.to_dict() == pytest.approx({3: 62.6, 5: 57.0, 7: 49.4, 9: 50.5}, abs=0.1)


def test_with_more_devices_most_cells_are_slower_than_with_one(single, devices):
    together = devices.merge(single, on=["dataset", "model"])
    slower = (together["seconds"] > together["ec_seconds"]).groupby(together["n_devices"]).mean()
    assert (slower.loc[[5, 7, 9]] > 0.5).all()


def test_the_headline_energy_does_not_follow_from_fig_3(single):
    """Both savings are against the ANN; what is left of the SNN's energy is (100 − EC-SNN) / (100 − SNN)."""
    saved = 100 * (1 - (100 - single["ec_saving"]) / (100 - single["snn_saving"])).mean()
    assert saved == pytest.approx(26.7, abs=0.15) and saved < 27.0


def test_all_devices_together_spike_almost_n_times_as_much(devices):
    total = devices.assign(total=devices["atsan_millions"] * devices["n_devices"])
    wide = total.pivot(index=["dataset", "model"], columns="n_devices", values="total")
    assert ((wide[9] / wide[3]) > 2).all() and (wide[9] / wide[3]).median() > 2.6


def test_the_rate_of_a_raspberry_pi_follows_from_the_latencies(single):
    """Convolution MACs over the latency of one step: a median of 0.35 GMAC/s, 17 of 18 within 0.28 to 0.45."""
    rates = []
    for row in single.itertuples():
        shape = SHAPES[row.dataset]
        table = count(build(row.model.lower(), shape=shape), shape)
        rates.append(table[table["output"].map(len) == 3]["macs"].sum() / row.snn_seconds / 1e9)
    assert sum(0.28 <= r <= 0.45 for r in rates) >= 17
    assert sorted(rates)[8:10] == pytest.approx([0.35, 0.35], abs=0.02)
    assert device("raspberry_pi_4b").mac_rate == 0.35e9


def test_pruning_cifarnet_in_figure_2():
    rows = papers.table("ecsnn_fig2").set_index(["network", "state"])
    assert rows.loc[("SNN", "original"), "accuracy"] - rows.loc[("SNN", "pruned"), "accuracy"] == pytest.approx(2.65)
    for measure in ("accuracy", "atsan_millions", "seconds"):
        assert (rows[measure].xs("pruned", level=1) < rows[measure].xs("original", level=1)).all()
