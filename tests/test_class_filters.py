"""Class-specific filters: tables against the counts, controls of equal size, overlaps by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from test_ec_snn import K, e, folder, made, plan  # noqa: F401

from snnbook.evaluate import accuracy
from snnbook.experiments import class_filters as cf
from snnbook.record import firing_rates
from snnbook.splitting.apoz import ClassZeros, class_zeros
from snnbook.splitting.prune import prune


def counted(shares):
    """Counts with APoZ ``shares`` [K, C] over 1000 slots a class."""
    each = torch.tensor(shares, dtype=torch.float64)
    return ClassZeros((each * 1000).round().long(), torch.full((len(each),), 1000), torch.ones(len(each)).long())


def test_tables_hold_every_filter_and_class(e):  # noqa: F811
    table, bundles = cf.apoz_table(e.zeros()), cf.bundle_apoz(e.zeros(), [(0, 1), (3,)])
    name = list(e.zeros())[1]
    row = table.query("layer == 1 and filter == 2 and `class` == 3")
    assert row["apoz"].item() == e.zeros()[name].each_class()[3, 2]
    assert len(table) == K * sum(z.zeros.shape[1] for z in e.zeros().values())
    row = bundles.query("layer == 1 and filter == 2 and device == 0")
    assert row["apoz"].item() == e.zeros()[name].apoz([0, 1])[2]


def test_most_selective_filters_by_hand():
    zeros = counted([[0.9, 0.2, 0.5, 0.6], [0.1, 0.9, 0.5, 0.0], [0.8, 0.8, 0.5, 0.7]])
    table = cf.most_selective(zeros, 4)
    assert list(table["filter"]) == [0, 1, 3, 2]  # gaps .8, .7, .7, 0
    assert list(table["most"][:2]) == [1, 0] and list(table["least"][:2]) == [0, 1]
    assert table["rate_most"][0] == pytest.approx(0.9) and table["rate_least"][0] == pytest.approx(0.1)
    repeated = counted([[0.9, 0.8, 0.2], [0.1, 0.1, 0.5]])
    assert list(cf.most_selective(repeated, 2)["filter"]) == [0, 2]  # another class comes before a larger gap


def test_firing_maps_are_rates(e):  # noqa: F811
    ((x, y),) = e.data.batches("test", 24)
    rates = firing_rates(e.parent(), [(x, y)]).set_index("layer")["rate"]
    for name in e.zeros():
        maps = cf.firing_maps(e.parent(), name, x)
        assert maps.shape[0] == 24 and maps.mean().item() == pytest.approx(rates[name])


def test_silenced_filters_never_fire_and_others_do(e, plan):  # noqa: F811
    chosen = e.masks(plan)[0]
    net = cf.silenced(e.parent(), chosen)
    zeros = class_zeros(net, e.data.batches("train", 20), K)
    for name, mask in chosen.items():
        assert (zeros[name].apoz()[~mask] == 1).all()
    assert not all(mask.all() for mask in chosen.values())
    first = list(chosen)[0]
    assert torch.equal(zeros[first].apoz()[chosen[first]], e.zeros()[first].apoz()[chosen[first]])
    x, _ = next(e.data.batches("test", 24))
    torch.testing.assert_close(net.double()(x.double()), prune(net, chosen)(x.double()))


def test_crossed_adds_up_to_the_accuracy_of_each_pruned_network(e, plan):  # noqa: F811
    table = cf.crossed(e, plan)
    assert len(table) == 4
    for i, net in enumerate(e.pruned(plan)):
        mine = table[table["pruned_for"] == i]["accuracy"]
        assert mine.mean() == pytest.approx(accuracy(net, e.data))  # both parts have as many test samples


def test_choices_keep_as_many_filters(e, plan, monkeypatch):  # noqa: F811
    sizes = []

    def pruned(net, masks):
        sizes.append([int(m.sum()) for m in masks.values()])
        return prune(net, masks)

    monkeypatch.setattr(cf, "prune", pruned)
    table = cf.choices(e, plan, draws=2)
    expected = [[int(m.sum()) for m in chosen.values()] for chosen in e.masks(plan)]
    assert sizes == [expected[0]] * 7 + [expected[1]] * 7
    assert len(table) == 12 and table["rule"].nunique() == 6
    own = table[table["rule"] == "own classes"].set_index("device")
    crossed = cf.crossed(e, plan).set_index(["pruned_for", "tested_on"])["accuracy"]
    assert own.loc[0, "own"] == pytest.approx(crossed[0, 0]) and own.loc[0, "other"] == pytest.approx(crossed[0, 1])
    alone = cf.choices(e, e.plan(1, 92.0, 3), draws=1)
    assert "other classes" not in set(alone["rule"]) and alone["other"].isna().all()


def test_overlap_by_hand():
    a = {"x": torch.tensor([1, 1, 0, 0]).bool()}
    b = {"x": torch.tensor([0, 1, 1, 1]).bool()}
    row = cf.overlap([a, b]).iloc[0]
    assert (row["kept"], row["shared"], row["by_chance"]) == (2.5, 0.5, 0.75)
    assert np.isnan(cf.overlap([a])["shared"].item())


def test_chance_is_the_mean_over_random_masks():
    rng = np.random.default_rng(0)
    rows = []
    for _ in range(300):
        pair = [{"x": torch.from_numpy(rng.permutation(10) < n)} for n in (3, 6)]
        rows.append(cf.overlap(pair).iloc[0])
    assert np.mean([r["shared"] for r in rows]) == pytest.approx(rows[0]["by_chance"], abs=0.05)


def test_kept_over_zeta_grows_to_everything(e):  # noqa: F811
    table = cf.kept_over_zeta(e.zeros(), [(0, 1), (2, 3)], [0.0, 85.0, 110.0], 2)
    by = table.groupby("zeta")["kept"].mean()
    assert by.is_monotonic_increasing and by[110.0] == 1
    low = table[table["zeta"] == 0]
    filters = [z.zeros.shape[1] for z in e.zeros().values()]
    assert low[low["device"] == 0]["kept"].tolist() == pytest.approx([2 / n for n in filters])


def test_similarity_by_hand():
    zeros = counted([[0.1, 0.5, 0.9], [0.2, 0.5, 0.8], [0.9, 0.5, 0.1]])
    found = cf.similarity(zeros, [(0, 1), (2,)])
    assert found["within"] == pytest.approx(1) and found["between"] == pytest.approx(-1)
    assert np.isnan(cf.similarity(zeros, [(0,), (1,), (2,)])["within"])
