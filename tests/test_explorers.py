"""Explorers of tables: what they say and draw, in Python, as widgets, and in a browser, against the table itself."""

from __future__ import annotations

import json
import re
from html import unescape
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from snnbook import explorers, papers, plots
from snnbook.bottleneck import backbone, table3
from snnbook.bottleneck.energy import ITEMS, radio_joules
from snnbook.bottleneck.grid import grid, shapes_only
from snnbook.counts import count
from snnbook.experiments.conversion_tables import recorded_runs
from snnbook.explorers import Explorer, Key, Panel, Reference
from snnbook.explorers.table import number
from snnbook.widgets import table_explorer

COLUMNS = [f"{a}_{m}" for a in ("largest", "total") for m in ("dense_macs", "payload_bits")]
STATIC = Path(__file__).resolve().parent.parent / "book" / "_static"
SHAPE = (3, 32, 32)


def small(**changes) -> Explorer:
    """Two lines over three x; the control a = two has one line and two x only."""
    rows = pd.DataFrame(
        [("one", s, x, 10.0 * i + x) for i, s in enumerate(("</p>", "b")) for x in (1, 2, 4)]
        + [("two", "b", x, 0.125 * x) for x in (1, 3)],
        columns=["a", "s", "x", "y"],
    )
    given = {
        "name": "split", "title": "A test", "rows": rows,
        "keys": (Key("a", "A"), Key("s", "lines", ""), Key("x", "X", "slider", {2: "two"}, 4)),
        "x": "x", "series": "s", "panels": (Panel("y", "y, m", 2),), "lead": "{a}, x = {x}:", "each": "{s} is {y} m",
        "references": (Reference("y", "high", 20.0, {"a": "one"}),),
    }  # fmt: skip
    return Explorer(**given | changes)


def test_sentence_and_rows_of_a_choice():
    e = small()
    start = e.settle({})
    assert start == {"a": "one", "x": 4}
    assert e.sentence(start) == "one, x = 4: </p> is 4.00 m; b is 14.00 m."
    assert e.drawn(start)["y"].tolist() == [1, 2, 4, 11, 12, 14] and e.picked(start)["y"].tolist() == [4, 14]
    assert [r.text for r in e.lines(start, "y")] == ["high"] and e.lines({"a": "two", "x": 1}, "y") == []


def test_a_control_offers_what_exists_and_takes_the_nearest():
    e = small()
    assert e.offered({"a": "two"}, "x") == [1, 3] and e.offered({"a": "one"}, "x") == [1, 2, 4]
    assert e.settle({"a": "two", "x": 4}) == {"a": "two", "x": 3}
    # halves go up, in the page and here: 0.125 and 0.375
    assert e.sentence({"a": "two", "x": 3}) == "two, x = 3: b is 0.38 m."
    assert (number(0.125, 2), number(1234.5, 0), number(float("nan"), 1)) == ("0.13", "1,235", "not given")


def test_html_holds_the_table_and_ends_no_tag_early():
    html = small()._repr_html_()
    (data,) = re.findall(r'<script type="application/json">(.*?)</script>', html)
    spec = json.loads(data)
    values = {k["column"]: k["values"] for k in spec["keys"]}
    rows = [[values[c][i] for i in spec["rows"][c]] for c in ("a", "s", "x")] + [spec["rows"]["y"]]
    assert list(map(list, zip(*rows, strict=True))) == small().rows.to_numpy().tolist()
    assert html.count("</p>") == 1 and "table_explorer" in html
    assert spec["start"] == {"a": 0, "x": 3} and values["x"] == [1, 2, 3, 4]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"panels": (Panel("z", "z"),)}, "rows = .*'z'"),
        ({"x": "z"}, "key = 'z'"),
        ({"keys": (Key("a", "A", "knob"), Key("s", "s", ""), Key("x", "X"))}, "control of a = 'knob'"),
        ({"keys": (Key("a", "A"), Key("s", "s", ""), Key("x", "X", start=9))}, "start of x = 9"),
        ({"keys": (Key("s", "s", ""), Key("x", "X"))}, "keys that name two rows"),
        ({"panels": (Panel("y", "y", log=True),), "rows": small().rows.replace(1.0, 0.0)}, "positive"),
        ({"rows": small().rows.assign(s=None)}, "a missing key"),
        ({"rows": small().rows.iloc[:0]}, "a table with"),
    ],
)
def test_a_table_that_cannot_be_explored_is_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        small(**changes)


# compression


@pytest.fixture(scope="module")
def network():
    """The full ResNet-50 and its split points."""
    ann = backbone.twin()
    return ann, backbone.split_points(ann, SHAPE), int(count(ann, SHAPE)["macs"].iloc[0])


@pytest.fixture(scope="module")
def bytes_and_energy(network):
    _, points, stem = network
    return grid(points.iloc[[0, 3, 13]], table3.published_rates(), (8, 16, 32), (2, 4), stem)


def test_a_codec_of_shapes_costs_what_a_codec_costs(network):
    """Against codecs with weights in the networks, at three cuts of the paper."""
    ann, points, stem = network
    cuts = papers.table("spikebottlenet_table1").merge(table3.published_rates()).iloc[[1, 3, 13]]
    built = table3.accounts(backbone.backbone(1), ann, SHAPE, cuts)
    sums = built[built["item"] != "memory"].groupby(["split_point", "network"])["millijoules"].sum()
    for cut in cuts.itertuples():
        share = int(points.set_index("split_point")["channels"][cut.split_point]) // cut.snn_channels
        rates = pd.DataFrame({"split_point": points["split_point"], "rate": cut.rate})
        at = grid(points, rates, (share,), (cut.time_steps,), stem)
        at = at[(at["split_point"] == cut.split_point) & (at["scope"] == "+ radio")].set_index("method")
        assert at.loc["spikes", "bytes"] == cut.snn_bytes
        assert at.loc["spikes", "millijoules"] == pytest.approx(sums[cut.split_point, "SNN"], rel=1e-9)
        if cut.ann_channels == cut.snn_channels:
            assert at.loc["codes", "bytes"] == cut.ann_bytes
            assert at.loc["codes", "millijoules"] == pytest.approx(sums[cut.split_point, "ANN"], rel=1e-9)
        assert at.loc["T-bit codes", "bytes"] == cut.snn_bytes


def test_grid_refuses_what_cannot_be(network):
    _, points, stem = network
    rates = table3.published_rates()
    for given, name in (((16,), (9,), "45nm_fp32"), "time_steps"), (((512,), (2,), "45nm_fp32"), "channels"), (
        ((16,), (2,), "abacus"), "model"
    ):  # fmt: skip
        with pytest.raises(ValueError, match=name):
            grid(points, rates, given[0], given[1], stem, given[2])
    assert shapes_only(1, (256, 32, 32), 16, 1, 2).bits == 2 * 16 * 32 * 32


def test_compression_counts_more_with_everything_counted(bytes_and_energy):
    e = explorers.compression(bytes_and_energy, 3072, "Wi-Fi", 1e3 * radio_joules(8 * 3072))
    start = e.settle({})
    assert start == {"scope": "paper", "share": 16, "time_steps": 2, "split_point": 1}
    said = e.sentence({**start, "split_point": 4})
    assert said.startswith("Cut behind block 4, one of 16 channels sent, T = 2") and "spikes 2,048 bytes" in said
    scopes = bytes_and_energy.pivot_table(
        index=["split_point", "share", "time_steps", "method"], columns="scope", values="millijoules"
    )
    assert (scopes["paper"] < scopes["+ neurons"]).all() and (scopes["+ neurons"] < scopes["+ radio"]).all()
    assert len(ITEMS) + 1 == len(table3.SCOPES["+ radio"])
    assert not e.lines(start, "millijoules") and e.lines({**start, "scope": "+ radio"}, "millijoules")


# splitting


@pytest.fixture
def splitting():
    rows = [
        {"n_devices": n, "zeta": z, "accuracy": 0.9 + n / 100, "largest_dense_macs": 7e6 * z / n,
         "total_dense_macs": 7e6 * z, "largest_payload_bits": 941.0, "total_payload_bits": 941.0 * n}
        for n in (1, 5) for z in (80.0, 90.0)
    ]  # fmt: skip
    unsplit = {"accuracy": 0.97, "dense_macs": 700e6, "payload_bits": 9.41e6}
    return explorers.split({"digits": (pd.DataFrame(rows), unsplit)}, 90.0)


def test_split_prices_a_board(splitting):
    """Raspberry Pi: 350 MMAC/s, 941 Mbit/s, 10.1 nJ a MAC, 0.32 nJ a bit."""
    start = splitting.settle({})
    assert start["board"] == "Raspberry Pi 4 Model B" and start["n_devices"] == 5 and start["zeta"] == 90
    (row,) = splitting.picked(start).to_dict("records")
    assert row["milliseconds"] == pytest.approx(1e3 * 126e6 / 350e6 + 1e-3, rel=1e-5)
    assert row["millijoules"] == pytest.approx(1e3 * (126e6 * 1.01e-8 + 941 * 3.2e-10), rel=1e-5)
    (all_of_them,) = splitting.picked({**start, "account": "all devices together"}).to_dict("records")
    assert all_of_them["millijoules"] == pytest.approx(5 * row["millijoules"], rel=1e-4)
    assert all_of_them["milliseconds"] == row["milliseconds"], "devices work at the same time"
    (unsplit,) = splitting.lines(start, "milliseconds")
    assert unsplit.value == pytest.approx(2000 + 10)  # it sends its features too
    (unsplit,) = splitting.lines(start, "millijoules")
    assert unsplit.value == pytest.approx(1e3 * (700e6 * 1.01e-8 + 9.41e6 * 3.2e-10), rel=1e-5)
    assert splitting.sentence(start).startswith("5 devices, ζ = 90 %, Raspberry Pi 4 Model B: accuracy 95.0 %")


def test_recorded_runs_are_explored_as_they_were_recorded():
    """The committed grid: every N and ζ of its recipe, with the values of its table."""
    found = recorded_runs("21_split_prune_tradeoffs", "results/explorers")
    manifest, tables = found["digits_vgg5"]
    e = explorers.split(explorers.recorded(found))
    asked = manifest["parameters"]
    assert e.values("n_devices") == asked["numbers"] and e.values("zeta") == asked["zetas"]
    for row in tables["sweep"].to_dict("records"):
        chosen = {**e.settle({}), "n_devices": row["n_devices"], "zeta": row["zeta"]}
        assert e.picked(chosen)["accuracy"].item() == pytest.approx(100 * row["accuracy"], rel=1e-5)


@pytest.mark.parametrize(
    ("chapter", "name"),
    [("21_split_prune_tradeoffs", "split"), ("33_energy_tables", "compression"), ("34_noisy_channels", "noise")],
)
def test_chapters_hold_their_explorer(root, chapter, name):
    cells = json.loads((root / "notebooks" / f"{chapter}.ipynb").read_text(encoding="utf-8"))["cells"]
    shown = ["".join(o.get("data", {}).get("text/html", "")) for c in cells for o in c.get("outputs", [])]
    (html,) = [h for h in shown if "data-explorer" in h]
    assert html.startswith(f'<div data-explorer="{name}">') and len(html) < 100_000


def test_split_starts_at_the_nearest_threshold_that_a_run_has(splitting):
    sweep = pd.DataFrame(
        [{"n_devices": 1, "zeta": z, "accuracy": 0.9} | dict.fromkeys(COLUMNS, 1e6) for z in (80.0, 86.0, 95.0)]
    )
    e = explorers.split({"run": (sweep, {"accuracy": 1, "dense_macs": 1e6, "payload_bits": 1})}, 91.0)
    assert e.settle({})["zeta"] == 95.0


def test_split_refuses_hardware_that_skips_zeros(tmp_path):
    source = (Path(explorers.__file__).parent.parent / "profiles" / "phone.toml").read_text()
    (tmp_path / "chip.toml").write_text("skips_zeros = true\n" + source)
    with pytest.raises(ValueError, match="board = 'chip'"):
        explorers.split({"digits": (pd.DataFrame(), {"accuracy": 1, "dense_macs": 1})}, boards=[tmp_path / "chip.toml"])
    with pytest.raises(ValueError, match="sweeps = "):
        explorers.split({})


# noise


@pytest.fixture
def noisy():
    sweep = pd.DataFrame(
        [(n, 512, level, d, a - level + d / 50) for n, a in (("spikes", 0.9), ("1 bit", 0.95)) for level in (0.0, 0.1)
         for d in (0, 1)],
        columns=["network", "bits", "level", "draw", "accuracy"],
    )  # fmt: skip
    coded = pd.DataFrame(
        [(n, r, b / r, level, a) for r in (0.5, 0.25) for n, b in (("spikes", 512), ("jpeg", 2048))
         for level, a in ((0.0, 0.9), (0.1, 0.1))],
        columns=["network", "rate", "bits", "level", "accuracy"],
    )  # fmt: skip
    published = {"published": papers.table("noisy_published")}
    return explorers.noise("digits", sweep, coded, published, plots.NETWORK_NAMES, 10)


def test_noise_means_over_draws_and_keeps_published_apart(noisy):
    start = noisy.settle({})
    assert start == {"run": "digits", "protection": "bits as they are", "level": 0.1}
    assert noisy.sentence(start) == (
        "Bit error rate 0.1, bits as they are: spikes 81.0 % (bits: 512); 1-bit ANN 86.0 % (bits: 512)."
    )
    coded = noisy.settle({**start, "protection": "checksum and code of rate 0.25", "level": 0.0})
    assert noisy.sentence(coded).endswith("spikes 90.0 % (bits: 2,048); JPEG 90.0 % (bits: 8,192).")
    assert noisy.offered({"run": "published"}, "protection") == ["bits as they are"]
    moved = noisy.settle({"run": "published", "protection": "checksum and code of rate 0.5", "level": 0.3})
    printed = papers.table("noisy_published").query("level == 0.3").set_index("method")["accuracy"]
    assert all(f"{name} {value:.1f} %" in noisy.sentence(moved) for name, value in printed.items())
    assert "random mask 74.3 % (bits: not given)" in noisy.sentence(moved)


# widgets


def test_widgets_say_what_the_table_says(noisy):
    before = plt.get_fignums()
    widget = table_explorer(noisy)
    assert unescape(widget.text.value) == noisy.sentence(noisy.settle({}))
    assert f'alt="{widget.text.value}"' in widget.image.value and plt.get_fignums() == before
    widget.controls["level"].value = 0.0
    assert unescape(widget.text.value) == noisy.sentence({**noisy.settle({}), "level": 0.0})
    widget.controls["run"].value = "published"
    assert widget.controls["protection"].options == (("bits as they are", "bits as they are"),)
    assert [v for _, v in widget.controls["level"].options] == [0.0, 0.1, 0.2, 0.3]
    widget.set(level=0.3)
    assert "random mask 74.3 %" in widget.text.value


def test_widgets_draw_one_line_a_series_boldly(splitting, monkeypatch):
    drawn = []
    monkeypatch.setattr(plots, "explored", lambda *args, real=plots.explored: drawn.append(real(*args)) or drawn[-1])
    widget = table_explorer(splitting)
    widget.set(n_devices=1, board="NVIDIA Jetson Nano")
    axes = drawn[-1].axes
    assert len(axes) == 3
    by_label = {line.get_label(): line for line in axes[1].lines}
    assert by_label["1 device"].get_linewidth() > by_label["5 devices"].get_linewidth()
    rows = splitting.drawn(widget.chosen())
    for n, name in ((1, "1 device"), (5, "5 devices")):
        np.testing.assert_allclose(by_label[name].get_ydata(), rows[rows["n_devices"] == n]["millijoules"])


# in a browser

NO_NETWORK = ("file:", "data:")


class Page:
    """A page with explorers and nothing else; everything that goes wrong is a problem."""

    def __init__(self, context, path: Path):
        self.problems: list[str] = []
        self.page = context.new_page()
        self.page.set_default_timeout(10_000)
        self.page.on("console", lambda m: self.problems.append(m.text))
        self.page.on("pageerror", lambda e: self.problems.append(str(e)))
        self.page.on("request", lambda r: r.url.startswith(NO_NETWORK) or self.problems.append(r.url))
        self.page.goto(path.as_uri())

    def said(self) -> str:
        return self.page.locator(".snn-result").inner_text()

    def marks(self, panel: str) -> list[tuple[int, int, float]]:
        """(line, x, value) of every point that is drawn in a panel, as numbers of entries."""
        read = "(ms) => ms.map((m) => [+m.dataset.series, +m.dataset.x, +m.dataset.value])"
        return [tuple(m) for m in self.page.locator(f"svg[data-panel={panel}] .snn-mark").evaluate_all(read)]


@pytest.fixture
def open_page(browser, tmp_path):
    """A function that opens an explorer as the page of the book has it."""
    opened = []

    def start(explorer: Explorer, width: int = 1000, theme: str = "light") -> Page:
        scripts = [
            f'<script src="{(STATIC / "explorers" / f"{n}.js").as_uri()}"></script>'
            for n in ("common", "neuron", "table")
        ]
        head = f'<meta charset="utf-8"><link rel="stylesheet" href="{(STATIC / "snnbook.css").as_uri()}">'
        icon = '<link rel="icon" href="data:,"><meta name="viewport" content="width=device-width">'
        file = tmp_path / "page.html"
        file.write_text(
            f'<!doctype html><html lang="en" data-theme="{theme}"><title>Explorer</title>{head}{icon}<body>'
            f"{explorer._repr_html_()}{''.join(scripts)}</body></html>",
            encoding="utf-8",
        )
        context = browser.new_context(viewport={"width": width, "height": 900}, offline=True)
        opened.append((context, Page(context, file)))
        return opened[-1][1]

    yield start
    for context, page in opened:
        assert page.problems == []
        context.close()


def entries(explorer: Explorer, rows: pd.DataFrame, panel: str) -> list[tuple[int, int, float]]:
    """Points that should be drawn for these rows."""
    series, xs = explorer.values(explorer.series), explorer.values(explorer.x)
    points = zip(rows[explorer.series], rows[explorer.x], rows[panel], strict=True)
    return sorted((series.index(s), xs.index(x), y) for s, x, y in points if not np.isnan(y))


def choose(page: Page, explorer: Explorer, chosen: dict, column: str, value: object) -> None:
    """Set a control by keyboard or list, as a reader would."""
    control = page.page.locator(f"[data-control={column}] :is(select, input)")
    if explorer.key(column).control == "choice":
        control.select_option(label=explorer.label(column, value))
        return
    control.focus()
    page.page.keyboard.press("Home")
    for _ in range(explorer.offered(chosen, column).index(value)):
        page.page.keyboard.press("ArrowRight")


def agree(page: Page, explorer: Explorer, chosen: dict) -> None:
    """Sentence, points and table of the page are those of the table for this choice."""
    assert page.said() == explorer.sentence(chosen)
    for panel in explorer.panels:
        assert sorted(page.marks(panel.column)) == entries(explorer, explorer.drawn(chosen), panel.column)
        image = page.page.locator(f"svg[data-panel={panel.column}]")
        assert image.get_attribute("aria-label").endswith(explorer.sentence(chosen))
    rows = [[cell.strip() for cell in row] for row in page.page.evaluate(
        "[...document.querySelectorAll('tbody tr')].map((r) => [...r.children].map((c) => c.textContent))"
    )]  # fmt: skip
    columns = [explorer.x, explorer.series, *(p.column for p in explorer.panels)]
    assert rows == [[explorer.texts(row)[c] for c in columns] for row in explorer.drawn(chosen).to_dict("records")]


@pytest.mark.browser
@pytest.mark.parametrize("name", ["splitting", "noisy", "compressing"])
def test_every_control_changes_what_is_drawn(request, open_page, name, bytes_and_energy):
    if name == "compressing":
        explorer = explorers.compression(bytes_and_energy, 3072, "Wi-Fi", 18.6)
    else:
        explorer = request.getfixturevalue(name)
    page = open_page(explorer)
    chosen = explorer.settle({})
    agree(page, explorer, chosen)
    for key in explorer.controls():
        for value in explorer.offered(chosen, key.column):
            wanted = explorer.settle({**chosen, key.column: value})
            choose(page, explorer, chosen, key.column, value)
            if value != chosen[key.column]:
                assert page.said() == explorer.sentence(wanted)
            chosen = wanted
        agree(page, explorer, chosen)
    page.page.get_by_role("button", name="Start again").click()
    agree(page, explorer, explorer.settle({}))


@pytest.mark.browser
def test_points_stand_where_their_values_are(open_page):
    """Height is linear in the value: checked on three points by similar triangles, and on a logarithmic axis."""
    for log in (False, True):
        page = open_page(small(panels=(Panel("y", "y, m", 2, log=log),)))
        boxes = page.page.locator("svg[data-panel=y] .snn-mark").evaluate_all(
            """(ms) => ms.map((m) => { const b = m.getBBox();
              return [Number(m.dataset.series), Number(m.dataset.value), b.x + b.width / 2, b.y + b.height / 2]; })"""
        )
        (_, v0, x0, y0), (_, v1, x1, y1), (_, v2, x2, y2) = (b for b in boxes if b[0] == 0)
        f = np.log if log else float
        # markers are of two sizes and circles, so that their centres are exact
        assert (y1 - y0) / (y2 - y0) == pytest.approx((f(v1) - f(v0)) / (f(v2) - f(v0)), abs=0.01)
        assert (x1 - x0) / (x2 - x0) == pytest.approx(1 / 3, abs=0.01)


@pytest.mark.browser
def test_a_click_on_a_point_chooses_it(open_page, splitting):
    page = open_page(splitting)
    page.page.locator("svg[data-panel=accuracy] .snn-mark[data-series='0'][data-x='0']").click()
    agree(page, splitting, {**splitting.settle({}), "n_devices": 1, "zeta": 80.0})
    assert page.page.get_by_role("slider", name="Number of devices N").get_attribute("aria-valuetext") == "1 device"


@pytest.mark.browser
def test_keyboard_alone_reaches_every_control(open_page, splitting):
    page, reached = open_page(splitting), []
    for _ in range(7):
        page.page.keyboard.press("Tab")
        reached.append(
            page.page.evaluate(
                "document.activeElement.closest('[data-control]')?.dataset.control ?? document.activeElement.tagName"
            )
        )
    assert reached == ["run", "board", "account", "n_devices", "zeta", "BUTTON", "SUMMARY"]
    page.page.keyboard.press("Enter")
    assert page.page.locator("tbody tr").first.is_visible()
    unnamed = "[...document.querySelectorAll('input, select')].filter((c) => !c.labels[0]?.textContent.trim()).length"
    assert page.page.evaluate(unnamed) == 0
    assert page.page.locator(".snn-result").get_attribute("aria-live") == "polite"


@pytest.mark.browser
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_a_phone_shows_all_of_it(open_page, noisy, theme):
    page = open_page(noisy, 360, theme)
    assert page.page.evaluate("document.documentElement.scrollWidth") <= 360
    inside = """() => [...document.querySelectorAll('.snn-panels svg')].every((svg) => [...svg.querySelectorAll('text')]
      .every((t) => { const b = t.getBBox(); return b.x >= -1 && b.x + b.width <= svg.viewBox.baseVal.width + 1; }))"""
    assert page.page.evaluate(inside), "text is cut off"
    page.page.set_viewport_size({"width": 1000, "height": 900})
    page.page.wait_for_function("document.querySelector('.snn-panels svg').clientWidth > 400")
    agree(page, noisy, noisy.settle({}))


@pytest.mark.browser
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_lines_can_be_told_from_the_ground(open_page, noisy, theme):
    """Contrast of lines of at least 3 to 1 with the panel, as WCAG asks of graphics."""
    page = open_page(noisy, theme=theme)
    colours = page.page.evaluate("""() => {
      const style = getComputedStyle(document.documentElement);
      return ["panel", "line", "axis", ...Array.from({length: 7}, (_, i) => `series-${i}`)].map(
        (n) => style.getPropertyValue(`--snn-${n}`).trim());
    }""")

    def light(colour: str) -> float:
        parts = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) / 255
        return float(
            np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4) @ [0.2126, 0.7152, 0.0722]
        )

    panel, *others = map(light, colours)
    assert min((max(panel, o) + 0.05) / (min(panel, o) + 0.05) for o in others) >= 3
    assert len(set(colours[3:])) == 7
