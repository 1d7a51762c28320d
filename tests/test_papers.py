"""Published tables are complete, sourced and read as printed."""

import pytest

from snnbook import papers


@pytest.mark.parametrize("name", papers.tables())
def test_every_row_has_a_source(name):
    table = papers.table(name)
    assert len(table) and (table["source"].str.len() > 10).all()
    assert table["note"].notna().all()


def test_unknown_table_lists_the_known():
    with pytest.raises(ValueError, match="rmpe_table3"):
        papers.table("nowhere")


def test_over_time_puts_printed_numbers_in_their_columns():
    wide = papers.over_time("rmpe_table3", "CIFAR-100", "ResNet-20").set_index("method")
    assert list(wide.columns) == ["ANN", *(f"T = {t}" for t in (2, 4, 8, 16, 32, 64, 128))]
    assert wide.loc["Phase I + LMPC + LWC"].tolist() == [76.07, 36.65, 50.41, 68.88, 72.95, 75.84, 76.38, 76.36]
    assert wide.loc["SNN Calibration", ["T = 2", "T = 16"]].isna().all()
    assert wide.index[0] == "SNN Calibration"  # the order of print


@pytest.mark.parametrize("dataset, model", [("MNIST", "VGG-16"), ("CIFAR-10", "AlexNet")])
def test_over_time_refuses_what_is_not_printed(dataset, model):
    with pytest.raises(ValueError, match="not allowed"):
        papers.over_time("rmpe_table3", dataset, model)


def test_the_paper_is_below_the_headline_of_qcfs():
    """The finding that chapter 12 states, from the two data files."""
    ours = papers.over_time("rmpe_table3", "CIFAR-10", "VGG-16").set_index("method").loc["Phase I + LMPC + LWC"]
    rows = papers.table("conversion_best").query("dataset == 'CIFAR-10' and method == 'QCFS, L = 4'")
    assert len(rows) and all(row.accuracy > ours[f"T = {row.time_steps}"] for row in rows.itertuples())
