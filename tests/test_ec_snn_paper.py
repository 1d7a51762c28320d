"""What the paper prints, recomputed: against its abstract and against counts by hand."""

from __future__ import annotations

import pytest

from snnbook.experiments import ec_snn_paper as paper
from snnbook.papers import table


def test_the_headline_latency_is_that_of_one_device():
    found = paper.latency_savings().set_index("n_devices")
    claim = table("ecsnn_claims").set_index("quantity").loc["latency reduction", "value"]
    assert found.loc[1, "saving"] == pytest.approx(claim, abs=0.1) and found.loc[1, "slower"] == 0
    expected = {3: 62.6, 5: 57.0, 7: 49.4, 9: 50.5}
    assert found["saving"].drop(1).to_dict() == pytest.approx(expected, abs=0.1)
    assert (found["cells"] == 18).all() and found.loc[9, "slower"] > 9


def test_savings_with_the_ann_once_by_hand():
    found = paper.savings_once().set_index(["dataset", "model"])
    row = found.loc[("CIFAR-10", "VGG5")]
    assert (row["snn"], row["ec"]) == (78.9, 80.9)
    assert row["snn_once"] == pytest.approx(100 * (1 - 5 * 0.211)) and row["ec_once"] == pytest.approx(4.5)
    assert len(found) == 12 and "CIFAR10-DVS" not in found.index.get_level_values(0)


def test_the_printed_ann_counts_several_passes():
    """Fig 2: more non-zero outputs than CifarNet has outputs."""
    assert paper.outputs("cifarnet") == 3 * 256 * 32 * 32 + 3 * 256 * 16 * 16
    row = table("ecsnn_fig2").query("network == 'ANN' and state == 'original'").iloc[0]
    assert 1 < 1e6 * row["atsan_millions"] / paper.outputs("cifarnet") < 5


def test_new_heads_by_hand():
    found = paper.new_head_only().set_index("model")
    features = 9 * (3 * 64 + 64 * 128 + 128 * 128) + 2 * (64 + 128 + 128)
    head = 8192 * 1024 + 1024 + 1024 * 10 + 10
    new = 8192 * 384 + 384 + 384 * 192 + 192 + 192 * 11 + 11
    assert found.loc["vgg5", ["features", "head", "new_head"]].tolist() == [features, head, new]
    assert found.loc["vgg5", "reduction"] == pytest.approx(100 * (head - new) / (features + head))
    assert found.loc["vgg5", "mib"] == pytest.approx(4 * (features + new) / 2**20)


def test_the_right_end_of_fig_9_is_a_new_head_and_nothing_pruned():
    end = table("ecsnn_zeta").query("zeta == 100").set_index("model")["megabytes"]
    for row in paper.new_head_only().itertuples():
        assert row.mib == pytest.approx(end[row.model.upper()], rel=0.005)
