"""What takes the book out into the world: links, PDF, buttons, copies for Colab, workflows, changelog, citation."""

from __future__ import annotations

import importlib.util
import io
import os
import re
import subprocess
import sys
import tomllib
from html.parser import HTMLParser
from pathlib import Path

import nbformat
import pytest
import yaml

import snnbook

ROOT = Path(__file__).resolve().parent.parent


def tool(name: str):
    """A module of tools/, which is no package."""
    spec = importlib.util.spec_from_file_location(name, ROOT / "tools" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


linkcheck, pdf, colab = (tool(name) for name in ("linkcheck", "pdf", "colab"))


# link check


@pytest.fixture
def site(tmp_path):
    (tmp_path / "sub").mkdir()
    (tmp_path / "index.html").write_text(
        '<h1 id="top">A</h1><a href="sub/b.html#here">b</a><a href="#top">up</a><img src="x.png">'
        '<a href="sub/">folder</a><a href="https://example.org/page#part">out</a><a href="mailto:a@b.c">mail</a>'
    )
    (tmp_path / "sub" / "index.html").write_text('<a href="../index.html">back</a>')
    (tmp_path / "sub" / "b.html").write_text('<a name="here"></a><a href="../index.html?q=1#top">a</a>')
    (tmp_path / "x.png").write_bytes(b"")
    return tmp_path


def test_a_whole_site_has_no_broken_link(site, capsys):
    assert linkcheck.main([str(site)]) == 0
    assert "3 pages, 8 links, 1 addresses outside, 0 broken" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("link", "why"),
    [
        ("sub/c.html", "no such file"),
        ("sub/b.html#there", "no such anchor"),
        ("#nowhere", "no such anchor"),
        ("../outside.html", "outside the book"),
        ("y%20z.png", "no such file"),
    ],
)
def test_a_broken_link_is_named_with_its_page(site, link, why, capsys):
    page = site / "index.html"
    page.write_text(page.read_text() + f'<a href="{link}">x</a>')
    assert linkcheck.main([str(site)]) == 1
    assert f"index.html: {link} ({why})" in capsys.readouterr().out


def test_addresses_outside_are_asked_only_on_request(site):
    asked = []
    known = linkcheck.pages(site)
    found = linkcheck.external(site, known, lambda address: asked.append(address) or "404 Not Found")
    assert asked == ["https://example.org/page"]
    assert found == [("index.html", "https://example.org/page", "404 Not Found")]
    assert linkcheck.external(site, known, lambda address: "") == []


class Answers(io.BytesIO):
    """An answer of a server, as urllib gives it."""


@pytest.mark.parametrize(("codes", "why", "asked"), [([200], "", 1), ([403], "", 1), ([404], "404 Gone away", 1),
                                                     ([500, 200], "", 2), ([500] * 3, "500 Gone away", 3)])  # fmt: skip
def test_servers_get_a_second_chance_and_refusals_are_no_absence(monkeypatch, codes, why, asked):
    left = list(codes)

    def open_(request, timeout):
        code = left.pop(0)
        if code != 200:
            raise linkcheck.urllib.error.HTTPError(request.full_url, code, "Gone away", {}, None)
        return Answers()

    monkeypatch.setattr(linkcheck.urllib.request, "urlopen", open_)
    assert linkcheck.reach("https://example.org", pause=0) == why
    assert len(codes) - len(left) == asked


def test_every_link_of_the_built_book_leads_somewhere(html):
    assert linkcheck.internal(html, linkcheck.pages(html)) == []


# buttons


class Links(HTMLParser):
    """Addresses of the links of a page, and its text."""

    def __init__(self, text):
        super().__init__()
        self.found, self.text = [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        if tag == "a":
            self.found.append(dict(attributes).get("href") or "")

    def handle_data(self, data):
        self.text.append(data)


def scratch(folder: Path, url: str) -> dict[str, Links]:
    """A book of a notebook and a page with code, with the real book's extension and ``url`` as its repository."""
    for name in ("notebooks", "book"):
        (folder / name).mkdir(parents=True)
    settings = {
        "title": "Scratch", "only_build_toc_files": True, "execute": {"execute_notebooks": "off"},
        "repository": {"url": url, "branch": "main"},
        "sphinx": {"recursive_update": True, "local_extensions": {"snnbook_pages": str(ROOT / "tools")},
                   "extra_extensions": ["sphinx.ext.autodoc"],
                   "config": {"suppress_warnings": ["myst-nb.lexer"]}},  # a page not executed has no language
    }  # fmt: skip
    (folder / "_config.yml").write_text(yaml.safe_dump(settings))
    toc = {"format": "jb-book", "root": "book/index", "chapters": [{"file": "notebooks/a"}, {"file": "book/b"}]}
    (folder / "_toc.yml").write_text(yaml.safe_dump(toc))
    (folder / "book" / "index.md").write_text("# Scratch\n\nText.\n")
    front = "---\njupytext:\n  text_representation: {extension: .md, format_name: myst}\n"
    front += "kernelspec: {name: python3, display_name: Python 3}\n---\n"
    (folder / "book" / "b.md").write_text(front + "# Code\n\n```{code-cell} ipython3\n1\n```\n")
    cells = [nbformat.v4.new_markdown_cell("# Notebook"), nbformat.v4.new_code_cell("1")]
    kernel = {"kernelspec": {"name": "python3", "display_name": "P"}, "language_info": {"name": "python"}}
    notebook = nbformat.v4.new_notebook(cells=cells, metadata=kernel)
    nbformat.write(notebook, folder / "notebooks" / "a.ipynb")
    command = [Path(sys.executable).parent / "jupyter-book", "build", folder, "-W", "-n", "--keep-going"]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "NO_COLOR": "1"})
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    html = folder / "_build" / "html"
    return {name: Links((html / f"{name}.html").read_text()) for name in ("notebooks/a", "book/b", "book/index")}


REPOSITORY = "https://github.com/someone/snnbook"
#: Where each button leads, on a notebook.
BUTTONS = {
    "repository": REPOSITORY,
    "source": f"{REPOSITORY}/blob/main/notebooks/a.ipynb?plain=1",
    "edit": f"{REPOSITORY}/edit/main/notebooks/a.ipynb",
    "issue": f"{REPOSITORY}/issues/new?title=",
    "Binder": "https://mybinder.org/v2/gh/someone/snnbook/main?urlpath=lab/tree/notebooks/a.ipynb",
    "Colab": "https://colab.research.google.com/github/someone/snnbook/blob/colab/notebooks/a.ipynb",
}


def test_with_a_repository_there_is_each_button_and_the_version(tmp_path):
    pages = scratch(tmp_path / "with", REPOSITORY)
    found = pages["notebooks/a"].found
    for name, address in BUTTONS.items():
        assert [link for link in found if link.startswith(address)], name
    elsewhere = [link for name in ("book/b", "book/index") for link in pages[name].found]
    assert f"{REPOSITORY}/edit/main/book/b.md" in elsewhere
    assert not [link for link in elsewhere if "colab" in link or "mybinder" in link]
    assert f"Version {snnbook.__version__}." in "".join(pages["book/b"].text)


def test_without_a_repository_there_is_none(tmp_path):
    for page in scratch(tmp_path / "without", "").values():
        outside = [link for link in page.found if link.startswith("http")]
        assert not [link for link in outside if re.search("github|mybinder|colab", link)]


def test_the_books_own_setting_is_one_and_empty():
    """An invented address would be worse than none."""
    settings = yaml.safe_load((ROOT / "_config.yml").read_text())
    assert settings["repository"] == {"url": "", "branch": "main"}


# Colab and Binder


def project(tmp_path, url):
    for name in ("pyproject.toml", "requirements.txt"):
        (tmp_path / name).write_text((ROOT / name).read_text())
    (tmp_path / "_config.yml").write_text(yaml.safe_dump({"repository": {"url": url, "branch": "main"}}))
    (tmp_path / "notebooks").mkdir()
    source = next(iter(sorted((ROOT / "notebooks").glob("*.ipynb"))))
    (tmp_path / "notebooks" / source.name).write_text(source.read_text())
    return tmp_path, nbformat.read(source, as_version=4)


def test_copies_for_colab_have_one_cell_more(tmp_path):
    root, original = project(tmp_path, REPOSITORY)
    (path,) = colab.write(root, root / "out")
    made = nbformat.read(path, as_version=4)
    nbformat.validate(made)
    assert made.cells[:1] + made.cells[2:] == original.cells
    source = made.cells[1].source
    assert f"git clone --quiet --depth 1 --branch main {REPOSITORY} " in source
    assert made.cells[1].metadata.tags == ["remove-cell"]
    pins = dict(p.split("==") for p in colab.pins(root))
    assert {"spikingjelly", "nir", "myst-nb", "lightning-fabric"} <= pins.keys() and not colab.PROVIDED & pins.keys()
    assert all(f"{n}=={v}" in (ROOT / "requirements.txt").read_text() for n, v in pins.items())


def test_the_cell_for_colab_does_nothing_elsewhere(tmp_path):
    from IPython.core.interactiveshell import InteractiveShell

    calls = []
    source = colab.CELL.format(url="URL", branch="main", pins="x==1")
    code = InteractiveShell().transform_cell(source)
    namespace = {"get_ipython": lambda: calls.append(1)}
    exec(compile(code, "cell", "exec"), namespace)
    assert calls == [] and "get_ipython" in code


def test_without_a_repository_nothing_is_copied(tmp_path):
    root, _ = project(tmp_path, "")
    assert colab.write(root, root / "out") == [] and not (root / "out").exists()


def test_binder_installs_what_is_pinned_and_the_package():
    lines = (ROOT / "binder" / "requirements.txt").read_text().splitlines()
    (reference,) = (line.split()[1] for line in lines if line.startswith("-r "))
    assert (ROOT / "binder" / reference).resolve() == ROOT / "requirements.txt"
    version = re.fullmatch(r"python-3\.(\d+)\n", (ROOT / "binder" / "runtime.txt").read_text())
    assert int(version[1]) >= 11
    script = ROOT / "binder" / "postBuild"
    assert os.access(script, os.X_OK) and "--editable ." in script.read_text()
    assert subprocess.run(["bash", "-n", script]).returncode == 0


# workflows


WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))


def steps(workflow):
    return [step for job in workflow["jobs"].values() for step in job["steps"]]


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda p: p.stem)
def test_workflows_run_what_there_is(path):
    workflow = yaml.safe_load(path.read_text())
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for step in steps(workflow):
        assert "uses" in step or "run" in step
        assert re.fullmatch(r"[\w-]+/[\w-]+@v\d+", step.get("uses", "actions/checkout@v4"))
        for target in re.findall(r"\bmake ([a-z]+)", step.get("run", "")):
            assert target in targets
        for script in re.findall(r"(?:^| )((?:tools|\.ci)/[\w./]+)", step.get("run", "")):
            assert (ROOT / script).is_file()
        if step.get("run"):
            assert subprocess.run(["bash", "-n"], input=step["run"], text=True).returncode == 0
    assert workflow["permissions"] == {"contents": "read"}


def test_there_are_workflows_for_tests_pages_and_links():
    found = {path.stem: yaml.safe_load(path.read_text()) for path in WORKFLOWS}
    assert found.keys() >= {"test", "pages", "links"}
    triggers = {name: workflow[True] for name, workflow in found.items()}  # YAML reads "on" as true
    assert {"push", "pull_request"} <= triggers["test"].keys() and "schedule" in triggers["links"]
    assert [s["run"] for s in steps(found["test"]) if "run" in s] == [".ci/run"]
    assert "actions/deploy-pages@v4" in [s.get("uses") for s in steps(found["pages"])]


# version, changelog, citation


def test_newest_version_of_the_changelog_is_the_packages():
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    heads = re.findall(r"^## \[(.+?)\](?: - (\d{4}-\d\d-\d\d))?$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert heads[0] == ("Unreleased", "")
    released = heads[1:]
    assert released[0][0] == version == snnbook.__version__ and all(day for _, day in released)
    numbers = [tuple(map(int, v.split("."))) for v, _ in released]
    days = [day for _, day in released]
    assert numbers == sorted(numbers, reverse=True) and days == sorted(days, reverse=True)


def test_citation_names_the_version_and_the_three_papers():
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert cited["cff-version"] == "1.2.0" and cited["version"] == snnbook.__version__
    assert all(cited[key] for key in ("message", "title", "authors", "license"))
    assert len(cited["references"]) == 3
    for reference in cited["references"]:
        assert reference["title"] and reference["authors"] and reference["year"] >= 2024


# PDF


@pytest.fixture
def small_book(tmp_path):
    """A built book of three pages, one of them with a folded solution and a link to another one."""
    folder = tmp_path / "_build" / "html" / "book"
    folder.mkdir(parents=True)
    start = '<html><head><meta charset="utf-8"><title>{0} — Book</title></head>'
    start += '<body><article class="bd-article"><h1>{0}</h1>'
    pages = {
        "index": '<h2 id="a">First</h2><a href="two.html#b">to two</a><a href="../LICENSE">licence</a>',
        "two": '<h2 id="b">Second</h2>'
        '<div class="solution"><details><summary>Solution</summary>unfolded</details></div>'
        '<button class="copybtn">copy</button><p style="break-before:page">Third page</p><h2>Last</h2>',
        "three": "<p>End</p>",
    }  # fmt: skip
    for name, body in pages.items():
        (folder / f"{name}.html").write_text(start.format(name.title()) + body + "</article></body></html>")
    (folder.parent / "index.html").write_text("<title>x</title>")
    (tmp_path / "_config.yml").write_text(yaml.safe_dump({"title": "Book", "author": "Somebody"}))
    part = {"caption": "Part", "chapters": [{"file": "book/two", "sections": [{"file": "book/three"}]}]}
    (tmp_path / "_toc.yml").write_text(yaml.safe_dump({"root": "book/index", "parts": [part]}))
    return tmp_path


def outline(reader, entries):
    """Bookmarks as (title, page, what is below)."""
    found = []
    for entry in entries:
        if isinstance(entry, list):
            found[-1] = (*found[-1][:2], outline(reader, entry))
        else:
            found.append((entry.title, reader.get_destination_page_number(entry), []))
    return found


@pytest.mark.browser
def test_a_book_is_printed_in_order_with_bookmarks_numbers_and_links(small_book, browser, tmp_path):
    writer = pdf.join(browser, small_book / "_build" / "html", pdf.contents(small_book))
    path = tmp_path / "book.pdf"
    writer.write(path)
    reader = pdf.PdfReader(path)
    texts = [page.extract_text() for page in reader.pages]
    assert len(texts) == 4 and [text.split()[-1] for text in texts] == ["1", "2", "3", "4"]
    assert "unfolded" in texts[1] and "copy" not in texts[1] and "Third page" in texts[2]
    two = ("Two", 1, [("Second", 1, []), ("Last", 2, [])])
    assert outline(reader, reader.outline) == [("Index", 0, [("First", 0, [])]), ("Part", 1, [two, ("Three", 3, [])])]
    links = [a.get_object() for a in reader.pages[0]["/Annots"]]
    assert len(links) == 1, "the one to another file is dropped"
    assert links[0]["/Dest"][0] == reader.pages[1].indirect_reference
    assert str(small_book).encode() not in path.read_bytes()


def test_a_book_that_is_not_built_to_its_end_is_not_printed(small_book, tmp_path):
    (small_book / "_build" / "html" / "book" / "three.html").unlink()
    with pytest.raises(SystemExit, match="book/three.html is missing"):
        pdf.book(small_book, tmp_path / "out.pdf")
    assert not (tmp_path / "out.pdf").exists()


# larger machines


def test_torchrun_trains_networks_that_the_notebook_then_finds(tmp_path):
    given = {"model": "vgg5", "width": 0.1, "epochs": 1, "fine_tune_epochs": 1, "repeats": 1, "batch_size": 256}
    options = [word for name, value in given.items() for word in ("-p", name, str(value))]
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    environment = {**os.environ, "SNNBOOK_CACHE": str(tmp_path), "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run([*command, ROOT / "tools" / "train_networks.py", *options], env=environment,
                          capture_output=True, text=True, timeout=300)  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.splitlines() == [f"{s}, seed 0: trained" for s in ("relu", "qc", "qcfs")]
    files = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert len(files) == 3 and all(name.endswith(".safetensors") for name in files)
    again = subprocess.run([sys.executable, ROOT / "tools" / "train_networks.py", *options], env=environment,
                           capture_output=True, text=True, timeout=300)  # fmt: skip
    assert again.returncode == 0, again.stderr[-3000:]
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == files
