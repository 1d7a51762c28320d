"""Every page of the built book in a browser without a network, light and dark, wide and on a phone."""

from __future__ import annotations

import contextlib
import http.server
import re
import threading
from functools import partial
from pathlib import Path
from urllib.parse import unquote, urlsplit

import numpy as np
import pytest
import torch
import yaml

from snnbook.neurons import Dynamics, if_run, multi_step
from snnbook.residual import ideal_count

pytestmark = pytest.mark.browser

ROOT = Path(__file__).resolve().parent.parent
TOC = yaml.safe_load((ROOT / "_toc.yml").read_text())
CHAPTERS = [chapter for part in TOC["parts"] for chapter in part["chapters"]]
PAGES = [TOC["root"]] + [page["file"] for chapter in CHAPTERS for page in (chapter, *chapter.get("sections", []))]
LOCAL = ("file:", "data:", "blob:", "about:", "http://127.0.0.1:")
MAX_BYTES = 3 * 1000 * 1000

CONTRAST = """() => {
  const light = (c) => {
    const [r, g, b] = c.map((x) => (x /= 255) <= 0.04045 ? x / 12.92 : ((x + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const canvas = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
  const rgba = (css) => {
    canvas.clearRect(0, 0, 1, 1);
    canvas.fillStyle = css;
    canvas.fillRect(0, 0, 1, 1);
    return [...canvas.getImageData(0, 0, 1, 1).data];
  };
  const ground = (node) => {
    for (; node; node = node.parentElement) {
      const c = rgba(getComputedStyle(node).backgroundColor);
      if (c[3] > 250) return c.slice(0, 3);
    }
    return [255, 255, 255];
  };
  const low = [];
  for (const node of document.querySelectorAll(".bd-article *")) {
    const own = [...node.childNodes].some((n) => n.nodeType === 3 && n.textContent.trim());
    if (!own || node.closest("svg, mjx-container, script, style, noscript, option")) continue;
    if (!node.checkVisibility()) continue;
    const style = getComputedStyle(node), size = parseFloat(style.fontSize);
    const large = size >= 24 || (size >= 18.66 && Number(style.fontWeight) >= 700);
    const [a, b] = [light(rgba(style.color)), light(ground(node))];
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    const name = `${node.tagName} ${node.className} ${node.textContent.slice(0, 40)}`;
    if (ratio < (large ? 3 : 4.5)) low.push(`${ratio.toFixed(2)} ${name}`);
  }
  return low;
}"""


class Visit:
    """One page in one context, with everything that went wrong while it loaded."""

    def __init__(self, context):
        self.problems: list[str] = []
        self.page = context.new_page()
        self.page.on("console", lambda m: self._note(m.type in ("error", "warning"), f"{m.type}: {m.text}"))
        self.page.on("pageerror", lambda e: self._note(True, f"exception: {e}"))
        # a request that the next navigation cuts off is no failure
        cut = "net::ERR_ABORTED"
        self.page.on("requestfailed", lambda r: self._note(r.failure != cut, f"{r.failure}: {r.url}"))
        self.page.on("request", lambda r: self._note(not r.url.startswith(LOCAL), f"outside: {r.url}"))
        self.page.on("response", lambda r: self._note(r.status >= 400, f"{r.status}: {r.url}"))

    def _note(self, wrong: bool, text: str) -> None:
        if wrong:
            self.problems.append(text)

    def open(self, url: str) -> Visit:
        self.page.goto(url, wait_until="load")
        self.page.evaluate("async () => { if (window.MathJax) await MathJax.startup.promise; }")
        return self


@contextlib.contextmanager
def visit(browser, dark: bool = False, width: int = 1280, offline: bool = True):
    """A fresh context with the network cut off."""
    context = browser.new_context(
        viewport={"width": width, "height": 900}, color_scheme="dark" if dark else "light", offline=offline
    )
    context.set_default_timeout(20_000)
    try:
        yield Visit(context)
    finally:
        context.close()


def url_of(html: Path, page: str) -> str:
    return (html / f"{page}.html").as_uri()


@pytest.mark.parametrize("page", PAGES)
@pytest.mark.parametrize(("dark", "width"), [(False, 1280), (True, 390)], ids=["light-wide", "dark-phone"])
def test_page_loads_whole(browser, html, page, dark, width):
    with visit(browser, dark, width) as v:
        v.open(url_of(html, page))
        assert v.problems == []
        assert v.page.evaluate("document.documentElement.dataset.theme") == ("dark" if dark else "light")
        broken = "[...document.images].filter((i) => !i.complete || !i.naturalWidth).map((i) => i.src)"
        assert v.page.evaluate(broken) == []
        no_math = "[...document.querySelectorAll('.math')].filter((m) => !m.querySelector('mjx-container')).length"
        assert v.page.evaluate(no_math) == 0
        assert v.page.locator("mjx-merror, [data-mjx-error]").count() == 0
        assert v.page.evaluate("document.documentElement.scrollWidth <= window.innerWidth"), "scrolls sideways"
        assert v.page.locator(".bd-article h1").count() == 1


@pytest.mark.parametrize("page", PAGES)
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_text_can_be_read(browser, html, page, dark):
    """Contrast of at least 4.5 to 1 (3 to 1 for large text), as WCAG AA asks."""
    with visit(browser, dark) as v:
        v.open(url_of(html, page))
        assert v.page.evaluate(CONTRAST) == []


@pytest.mark.parametrize("page", [p for p in PAGES if p.startswith("notebooks/")])
def test_figures_have_caption_number_and_alt_text(browser, html, page):
    with visit(browser) as v:
        v.open(url_of(html, page))
        pictures = "[...document.querySelectorAll('.bd-article img')]"
        assert v.page.evaluate(f"{pictures}.filter((i) => i.alt.trim().length < 20).map((i) => i.src)") == []
        captions = f"{pictures}.map((i) => i.closest('figure')?.querySelector('figcaption')?.innerText ?? '')"
        found = v.page.evaluate(captions)
        assert found and all(re.match(r"Fig\. \d+\.\d+ \S", caption) for caption in found)


def test_all_other_pages_load_too(browser, html):
    """Sources, indexes and search."""
    names = {path: path.relative_to(html).with_suffix("").as_posix() for path in sorted(html.rglob("*.html"))}
    others = [path for path, name in names.items() if name not in [*PAGES, "index"] and name[0] != "_"]
    others += sorted((html / "_modules").rglob("*.html"))
    assert len(others) > 5
    with visit(browser) as v:
        for path in others:
            v.page.goto(path.as_uri(), wait_until="load")
        assert v.problems == []


def test_first_page_is_the_landing_page(browser, html):
    with visit(browser) as v:
        v.page.goto((html / "index.html").as_uri())
        v.page.wait_for_url("**/book/index.html")
        assert v.problems == []


@pytest.mark.parametrize("page", PAGES)
def test_page_weighs_little(html, page):
    """At most 3 MB with its pictures."""
    path = html / f"{page}.html"
    text = path.read_text()
    pictures = {unquote(src) for src in re.findall(r'<img[^>]* src="([^"]+)"', text) if not urlsplit(src).scheme}
    weight = path.stat().st_size + sum((path.parent / src).stat().st_size for src in pictures)
    assert weight <= MAX_BYTES


def test_no_page_asks_for_anything_outside(html):
    """No script, style, font, frame or picture has an address on another host."""
    asks = re.compile(r"<(?:script|link|img|iframe|source)\b[^>]*?(?:src|href)=\"(?:https?:)?//[^\"]+\"[^>]*>")
    allowed = re.compile(r'rel="(canonical|license)"')
    found = {tag for path in html.rglob("*.html") for tag in asks.findall(path.read_text()) if not allowed.search(tag)}
    assert not found
    styles = "".join(path.read_text(errors="replace") for path in html.rglob("*.css"))
    assert not re.findall(r"(?:@import|url\()\s*[\"']?https?:", styles)


def test_no_button_leads_to_an_invented_address(html):
    config = yaml.safe_load((ROOT / "_config.yml").read_text())
    if config["repository"]["url"] == "":
        text = "".join((html / f"{page}.html").read_text() for page in PAGES)
        assert not re.findall(
            r"launch-button|source-repository-button|source-issues-button|colab\.research|mybinder", text
        )


def test_search_finds_a_word_from_a_file(browser, html):
    with visit(browser) as v:
        v.open((html / "search.html").as_uri() + "?q=residual")
        hits = v.page.locator("#search-results ul.search li a")
        hits.first.wait_for()
        targets = [a.get_attribute("href") for a in hits.all()]
        assert any("11_rmpe_derivation" in t for t in targets)
        assert v.problems == []


def test_search_finds_nothing_for_a_word_that_is_not_there(browser, html):
    with visit(browser) as v:
        v.open((html / "search.html").as_uri() + "?q=zebrafinchwing")
        v.page.get_by_text("did not match any documents").wait_for()


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *args):
        pass


def test_book_works_from_a_server_too(browser, html):
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(html))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        with visit(browser, offline=False) as v:
            v.open(f"http://127.0.0.1:{server.server_port}/book/index.html")
            v.page.locator(".snn-picture svg").wait_for()
            assert v.problems == []
        server.shutdown()


def test_colour_mode_can_be_switched(browser, html):
    with visit(browser) as v:
        v.open(url_of(html, TOC["root"]))
        seen = set()
        for _ in range(3):
            v.page.locator(".theme-switch-button:visible").first.click()
            seen.add(v.page.evaluate("document.documentElement.dataset.theme"))
        assert seen == {"light", "dark"}


# the explorer


@pytest.fixture
def explorer(browser, html):
    """The landing page's explorer, ready."""
    with visit(browser) as v:
        v.open(url_of(html, TOC["root"]))
        yield v.page.locator(".snn-explorer")
        assert v.problems == []


def result(explorer) -> str:
    return explorer.locator(".snn-result").inner_text()


def test_explorer_starts_with_a_picture_and_a_sentence(explorer):
    assert result(explorer).startswith("n = 2 output spikes in T = 8 steps. Ideal count n* = 2: they agree.")
    assert explorer.locator("svg").get_attribute("aria-label").endswith(result(explorer))
    assert explorer.locator(".snn-spike").count() == 2


def test_explorer_answers_the_keyboard(explorer):
    page = explorer.page
    page.get_by_label("Time steps T").focus()
    page.keyboard.press("ArrowLeft")
    assert "in T = 7 steps" in result(explorer)
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.id").endswith("-v0")
    page.keyboard.press("End")
    assert "n = 4 output spikes" in result(explorer)
    page.get_by_label("Input", exact=True).focus()
    page.keyboard.press("ArrowDown")
    button = page.get_by_role("button", name="Input +1, step 1", exact=True)
    button.focus()
    before = result(explorer)
    page.keyboard.press("Space")
    assert button.get_attribute("aria-pressed") == "false" and result(explorer) != before
    assert page.evaluate("document.activeElement.dataset.step") == "1", "focus stays on the button"


def test_explorer_shows_the_order_of_spikes(explorer):
    page = explorer.page
    page.get_by_label("Input", exact=True).select_option("trains")
    assert "n* = 0: 2 spikes too many. Residual potential v(T) = \u22123.00, outside" in result(explorer)
    pressed = explorer.locator("button[aria-pressed=true]")
    before = [b.get_attribute("aria-label") for b in pressed.all()]
    after = []
    for _ in range(5):
        page.get_by_role("button", name="Shuffle the spikes").click()
        assert pressed.count() == 5
        after.append([b.get_attribute("aria-label") for b in pressed.all()])
    assert any(labels != before for labels in after)
    page.get_by_role("button", name="Start again").click()
    assert result(explorer).startswith("n = 2 output spikes in T = 8 steps.")


def test_every_control_of_the_explorer_has_a_name(explorer):
    unnamed = """(root) => [...root.querySelectorAll("input, select")]
      .filter((c) => !c.labels.length || !c.labels[0].textContent.trim()).length"""
    assert explorer.evaluate(unnamed) == 0
    assert explorer.locator(".snn-result").get_attribute("aria-live") == "polite"


def test_explorer_table_has_the_same_numbers(explorer):
    explorer.locator("summary").click()
    rows = [row.inner_text().split() for row in explorer.locator("tbody tr").all()]
    assert [row[3] for row in rows] == ["0", "0", "1", "0", "0", "1", "0", "0"]
    assert rows[2] == ["3", "0.35", "1.05", "1", "0.05"]


def simulate(page, cases: list[dict]) -> list[dict]:
    return page.evaluate("(cases) => cases.map((c) => window.snnbook.simulate(c))", cases)


def test_explorer_computes_as_the_package_does(explorer):
    """Random drives, thresholds and initial potentials, all four neurons, against :mod:`snnbook.neurons`."""
    rng = np.random.default_rng(7)
    cases = [
        {
            "drive": rng.normal(0.3, 0.8, int(rng.integers(1, 33))).tolist(),
            "threshold": float(rng.uniform(0.2, 2.5)),
            "v0": float(rng.uniform(-1.5, 1.5)),
            "tau": float(rng.uniform(1.1, 6)),
            "neuron": str(rng.choice(["if-soft", "if-hard", "lif-soft", "lif-hard"])),
        }
        for _ in range(400)
    ]
    for case, got in zip(cases, simulate(explorer.page, cases), strict=True):
        x = torch.tensor(case["drive"], dtype=torch.float64)
        v0 = torch.tensor(case["v0"], dtype=torch.float64)
        leaky, soft = case["neuron"].startswith("lif"), case["neuron"].endswith("soft")
        tau = case["tau"] if leaky else None
        spikes, v = multi_step(x, v0, Dynamics(case["threshold"], None if soft else 0.0, tau, decay_input=False))
        assert got["spikes"] == spikes.int().tolist()
        assert got["residual"] == pytest.approx(v.item(), abs=1e-9)
        if case["neuron"] == "if-soft":
            assert got["count"] == int(if_run(x, v0, case["threshold"])[0].sum())
            assert got["ideal"] == int(ideal_count(x, v0, case["threshold"]))
        else:
            assert got["ideal"] is None


def test_explorer_allows_for_rounding(explorer):
    """Ten times 0.1 reaches a threshold of 1, though its sum in binary falls short."""
    (run,) = simulate(explorer.page, [{"drive": [0.1] * 10}])
    assert (run["count"], run["ideal"]) == (1, 1) and sum([0.1] * 10) < 1
