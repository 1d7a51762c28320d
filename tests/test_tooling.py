"""Bootstrap, build stamps, pins and the arrows between the rooms of the package."""

from __future__ import annotations

import ast
import importlib.metadata
import importlib.util
import json
import os
import re
import subprocess
import sys
import tomllib
from collections import namedtuple
from pathlib import Path

import nbformat
import pytest
import yaml
from nbclient import NotebookClient

ROOT = Path(__file__).resolve().parent.parent
Usage = namedtuple("Usage", "total used free")
GIB = 1024**3


def load(name: str):
    """A module of tools/, which is no package."""
    spec = importlib.util.spec_from_file_location(name, ROOT / "tools" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


bootstrap, build, execute, pages = (load(name) for name in ("bootstrap", "build", "execute", "snnbook_pages"))


def sentence(raised) -> str:
    """The message of a SystemExit, held to be one sentence (a colon may split it) on one line."""
    text = str(raised.value)
    assert "\n" not in text and "Traceback" not in text
    return text


# bootstrap


def test_old_python_is_named_in_one_sentence():
    with pytest.raises(SystemExit) as raised:
        bootstrap.find_python((3, 8), which=lambda name: None)
    assert sentence(raised).startswith("snnbook needs Python 3.11 to 3.14, but python3 is 3.8 and no other was found")


def test_old_python_makes_way_for_a_newer_one_that_runs():
    paths = {"python3.13": "/opt/python3.13", "python3.12": "/usr/bin/python3.12"}
    answers = {"/opt/python3.13": None, "/usr/bin/python3.12": (3, 12)}
    assert bootstrap.find_python((3, 9), paths.get, answers.get) == "/usr/bin/python3.12"


def test_this_python_is_taken_if_it_fits():
    assert bootstrap.find_python((3, 11), which=lambda name: pytest.fail(name)) == sys.executable


def test_version_of_something_that_does_not_run(tmp_path):
    assert bootstrap.version_of(sys.executable) == sys.version_info[:2]
    assert bootstrap.version_of(str(tmp_path / "python")) is None


def test_bootstrap_parses_under_python_3_0_syntax():
    """No f-strings, annotations or other syntax that an old Python 3 would answer with a traceback."""
    tree = ast.parse((ROOT / "tools" / "bootstrap.py").read_text(), feature_version=(3, 4))
    newer = (ast.JoinedStr, ast.AnnAssign, ast.NamedExpr, ast.AsyncFunctionDef, ast.Match)
    assert not [node for node in ast.walk(tree) if isinstance(node, newer)]
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
    assert not [f.name for f in functions if f.returns or any(a.annotation for a in f.args.args)]


@pytest.fixture
def project(tmp_path):
    """A repository that asks for one package that no index has."""
    (tmp_path / "requirements.txt").write_text("snnbook-no-such-package==1.0\n")
    (tmp_path / "pyproject.toml").write_text('[project]\nname = "nothing"\nversion = "0"\n')
    return tmp_path


def disk(gigabytes):
    return lambda path: Usage(500 * GIB, 0, int(gigabytes * GIB))


def test_full_disk_is_named_before_anything_is_made(project):
    with pytest.raises(SystemExit) as raised:
        bootstrap.bootstrap(str(project), disk_usage=disk(1.5))
    assert re.fullmatch(r"The disk is too full: .* needs \d+ GB and 1.5 GB are free here\.", sentence(raised))
    assert not (project / ".venv").exists()


def test_no_index_gives_one_sentence_and_no_stamp(project, monkeypatch, capsys):
    for name, value in {"INDEX_URL": "http://127.0.0.1:9", "RETRIES": "1", "DEFAULT_TIMEOUT": "2"}.items():
        monkeypatch.setenv(f"PIP_{name}", value)
    monkeypatch.delenv("PIP_FIND_LINKS", raising=False)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.delenv("PIP_EXTRA_INDEX_URL", raising=False)
    with pytest.raises(SystemExit) as raised:
        bootstrap.bootstrap(str(project), disk_usage=disk(100))
    assert sentence(raised).startswith("No package index could be reached")
    assert len(capsys.readouterr().out.splitlines()) == 1
    assert not (project / ".venv" / ".stamp").exists() and (project / ".venv" / ".unfinished").exists()


@pytest.mark.parametrize(
    ("log", "start"),
    [
        ("ERROR: Could not install: [Errno 28] No space left on device", "The disk is full"),
        ("WARNING: Retrying (NameResolutionError: Temporary failure in name resolution)", "No package index"),
        ("ERROR: No matching distribution found for torch==2.11.0", "The package index has no torch==2.11.0"),
        ("something else", "pip could not install"),
    ],
)
def test_words_of_pip_become_one_sentence(log, start):
    assert bootstrap.explain(log, (3, 12)).startswith(start)


def test_kernels_start_in_silence(tmp_path, capfd):
    """The settings are read by a kernel, and it says nothing on the terminal."""
    bootstrap.configure(str(tmp_path))
    assert (tmp_path / "etc" / "ipython" / "ipython_kernel_config.py").read_text() == bootstrap.KERNEL_CONFIG
    found = Path(sys.prefix, "etc", "ipython", "ipython_kernel_config.py")
    if not found.exists() or found.read_text() != bootstrap.KERNEL_CONFIG:
        pytest.skip("an environment that tools/bootstrap.py did not make")
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("6 * 7")])
    NotebookClient(notebook, kernel_name="python3").execute()
    assert notebook.cells[0].outputs[0]["data"]["text/plain"] == "42"
    assert capfd.readouterr() == ("", "")


@pytest.fixture
def installs(project, monkeypatch):
    """Count environments made and installs, without doing them."""
    done = {"venv": 0, "install": 0}

    def make_venv(python, venv):
        done["venv"] += 1
        os.makedirs(os.path.join(venv, "bin"), exist_ok=True)
        python = Path(venv, "bin", "python")
        python.write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
        python.chmod(0o755)

    monkeypatch.setattr(bootstrap, "make_venv", make_venv)
    monkeypatch.setattr(bootstrap, "install", lambda *args: done.update(install=done["install"] + 1))
    return done


def test_environment_is_made_once_and_updated_when_the_pins_change(project, installs):
    for _ in range(2):
        bootstrap.bootstrap(str(project), disk_usage=disk(100))
    assert installs == {"venv": 1, "install": 1}
    (project / "requirements.txt").write_text("snnbook-other==2.0\n")
    bootstrap.bootstrap(str(project), disk_usage=disk(2))
    assert installs == {"venv": 1, "install": 2}


def test_an_environment_without_pip_is_made_anew(project, installs, monkeypatch):
    """As a kill in the middle of making one leaves it."""
    python = project / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(f"#!/bin/sh\n[ \"$1\" = -m ] && exit 1\nexec {sys.executable} \"$@\"\n")
    python.chmod(0o755)
    assert bootstrap.version_of(str(python)) == sys.version_info[:2] and not bootstrap.usable(str(project / ".venv"))
    python.write_text(f"#!/bin/sh\n[ \"$1\" = -m ] && exit 0\nexec {sys.executable} \"$@\"\n")
    assert bootstrap.usable(str(project / ".venv"))
    python.write_text(f"#!/bin/sh\n[ \"$1\" = -m ] && exit 1\nexec {sys.executable} \"$@\"\n")
    make = bootstrap.make_venv
    monkeypatch.setattr(bootstrap, "make_venv", lambda *args: (python.unlink(), make(*args)))
    bootstrap.bootstrap(str(project), disk_usage=disk(100))
    assert installs == {"venv": 1, "install": 1}


def test_another_python_than_that_of_the_environment_is_not_ignored(project, installs):
    have = sys.version_info[:2]
    other = (3, 12) if have != (3, 12) else (3, 13)
    bootstrap.bootstrap(str(project), other, disk(100), asked=True)  # there is none yet
    for version, asked in ((have, True), (other, False), ((3, 9), True)):
        bootstrap.bootstrap(str(project), version, disk(100), asked)
    with pytest.raises(SystemExit) as raised:
        bootstrap.bootstrap(str(project), other, disk(100), asked=True)
    expected = f"PYTHON is 3.{other[1]}, but the environment in .venv has Python 3.{have[1]}: remove .venv"
    assert sentence(raised).startswith(expected)


def test_make_says_when_a_python_was_named():
    for words, named in ((["env"], False), (["env", "PYTHON=python3"], True)):
        environment = {name: value for name, value in os.environ.items() if name not in ("PYTHON", "MAKEFLAGS")}
        done = subprocess.run(["make", "-n", *words], cwd=ROOT, env=environment, capture_output=True, text=True)
        assert done.returncode == 0 and ("bootstrap.py --asked" in done.stdout) == named


def test_an_install_that_was_cut_short_is_made_anew(project, installs, monkeypatch):
    def killed(*args):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(bootstrap, "install", killed)
        with pytest.raises(KeyboardInterrupt):
            bootstrap.bootstrap(str(project), disk_usage=disk(100))
    (project / ".venv" / "bin" / "python").unlink()
    bootstrap.bootstrap(str(project), disk_usage=disk(100))
    assert installs == {"venv": 2, "install": 1}


# build


@pytest.fixture
def book(tmp_path):
    """A tiny source tree with an execution cache."""
    for name in build.INPUTS:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if "." in Path(name).name:
            path.write_text(name)
        else:
            path.mkdir()
            (path / "file.txt").write_text(name)
    (tmp_path / "_build" / ".jupyter_cache").mkdir(parents=True)
    (tmp_path / "_build" / ".jupyter_cache" / "executed").write_text("old")
    return tmp_path


def succeed(root):
    (root / "_build" / "html").mkdir(exist_ok=True)
    (root / "_build" / "html" / "index.html").write_text("a book")
    cache = root / "_build" / ".jupyter_cache"
    cache.mkdir(exist_ok=True)
    (cache / "executed").write_text("new")
    return 0


def fail(root):
    succeed(root)
    return 1


def never(root):
    pytest.fail("built again")


def cached(root) -> bool:
    return (root / "_build" / ".jupyter_cache" / "executed").exists()


def test_second_build_does_nothing(book):
    assert build.build(book, succeed) == 0
    assert build.build(book, never) == 0


def test_change_in_the_package_forgets_executions(book):
    build.build(book, succeed)
    (book / "snnbook" / "file.txt").write_text("changed")
    assert not build.up_to_date(book)
    seen = []
    build.build(book, lambda root: seen.append(cached(root)) or succeed(root))
    assert seen == [False]


@pytest.mark.parametrize("name", ["requirements.txt", "snnbook/new.py"])
def test_pins_and_new_modules_forget_executions(book, name):
    build.build(book, succeed)
    (book / name).write_text("changed")
    assert build.forget_old_executions(book) and not cached(book)
    assert not build.forget_old_executions(book)


@pytest.mark.parametrize("name", ["book/file.txt", "notebooks/file.txt", "_toc.yml", "_config.yml"])
def test_change_in_a_page_builds_but_keeps_executions(book, name):
    build.build(book, succeed)
    (book / name).write_text("changed")
    seen = []
    build.build(book, lambda root: seen.append(cached(root)) or succeed(root))
    assert seen == [True]


def test_bytecode_and_checkpoints_are_no_inputs(book):
    build.build(book, succeed)
    for folder in ("snnbook/__pycache__", "notebooks/.ipynb_checkpoints"):
        (book / folder).mkdir()
        (book / folder / "x").write_text("x")
    assert build.up_to_date(book)


def test_renamed_file_is_a_change(book):
    build.build(book, succeed)
    (book / "snnbook" / "file.txt").rename(book / "snnbook" / "other.txt")
    assert not build.up_to_date(book)


def test_failed_build_leaves_nothing_that_looks_finished(book, capsys):
    build.build(book, succeed)
    (book / "book" / "file.txt").write_text("changed")
    assert build.build(book, fail) == 1
    assert not (book / "_build" / "html" / "index.html").exists()
    assert "was not built" in capsys.readouterr().err
    assert not build.up_to_date(book)
    assert build.build(book, succeed) == 0


def test_killed_build_leaves_nothing_that_looks_finished(book):
    def killed(root):
        raise KeyboardInterrupt

    build.build(book, succeed)
    (book / "book" / "file.txt").write_text("changed")
    with pytest.raises(KeyboardInterrupt):
        build.build(book, killed)
    assert not (book / "_build" / "html" / "index.html").exists() and not build.up_to_date(book)


# pages


def paragraphs(text: str) -> list[str]:
    """What docutils shows of reStructuredText, refusing every warning."""
    import docutils.core

    strict = {"halt_level": 2, "report_level": 2, "warning_stream": False}
    tree = docutils.core.publish_doctree(text, settings_overrides=strict)
    return [child.astext() for child in tree.children]


@pytest.mark.parametrize(
    ("written", "shown"),
    [
        ("a * b, |x|, foo_ and n* = `n`s", "a * b, |x|, foo_ and n* = ns"),
        ("see :func:`snnbook.firing.trace` and ``x``", "see snnbook.firing.trace and x"),
        (r"\\theta", r"\\theta"),
    ],
)
def test_docstrings_show_as_written(written, shown):
    assert paragraphs(pages.escape(written)) == [shown]


def test_displays_in_docstrings_keep_their_layout():
    lines = ["One step:", "", "    v = a*b", "      + c", "then", "", ">>> f(x)", "1", "", "*end"]
    assert paragraphs("\n".join(pages.as_written(lines))) == [
        "One step:",
        "v = a*b\n  + c",
        "then",
        ">>> f(x)\n1",
        "*end",
    ]


def test_every_module_is_in_the_api_reference():
    files = {path.relative_to(ROOT).with_suffix("") for path in (ROOT / "snnbook").rglob("*.py")}
    public = {".".join(f.parts) for f in files if not f.name.startswith("_")}
    packages = {".".join(f.parent.parts) for f in files if f.name == "__init__"}
    assert set(pages.api_modules()) == public | packages


def test_every_page_of_the_api_reference_is_in_the_contents():
    toc = yaml.safe_load((ROOT / "_toc.yml").read_text())
    chapters = {c["file"]: c for part in toc["parts"] for c in part["chapters"]}
    listed = [page["file"] for page in chapters["book/api"]["sections"]]
    assert listed[0] == pages.ROOT_PAGE
    assert sorted(listed) == sorted({pages.page_of(module) for module in pages.api_modules()})
    assert all((ROOT / f"{page}.md").exists() for page in listed)
    assert [pages.page_of(m) for m in ("snnbook", "snnbook.neurons", "snnbook.link", "snnbook.link.server")] == [
        *["book/api/snnbook"] * 2,
        *["book/api/link"] * 2,
    ]


def test_overview_of_the_api_names_every_module_with_its_summary():
    text = pages.api_overview()
    found = re.findall(r"^- \{ref\}`\S+ <(\S+)>`: \S.*$", text, re.MULTILINE)
    assert sorted(found) == sorted(pages.api_modules())


def test_repository_buttons_need_an_address():
    config = namedtuple("Config", "html_theme_options")({"repository_url": ""})
    pages.repository_buttons(None, config)
    assert config.html_theme_options == {"repository_url": ""}
    config.html_theme_options["repository_url"] = "https://example.org/someone/book"
    pages.repository_buttons(None, config)
    assert config.html_theme_options["use_repository_button"] is True
    assert "colab_url" in config.html_theme_options["launch_buttons"]


# make, pins, packaging


def make(*words: str) -> subprocess.CompletedProcess:
    """Run make as if from a terminal, also where ``make test`` runs this."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
    return subprocess.run(["make", *words], cwd=ROOT, capture_output=True, text=True, env=environment)


def test_make_help_lists_every_target():
    out = make("help").stdout
    phony = re.search(r"^\.PHONY: (.*)$", (ROOT / "Makefile").read_text(), re.M)[1].split()
    assert [line.split()[1] for line in out.splitlines()] == phony
    assert all(len(line.split()) > 3 for line in out.splitlines())


def test_make_names_a_missing_python():
    done = make("env", "PYTHON=no-such-python")
    assert done.returncode != 0
    assert "snnbook needs Python 3.11 or newer: no-such-python was not found." in done.stderr


def pins(file: str = "requirements.txt") -> dict[str, str]:
    """Name to version of a file of requirements; every line is an exact pin."""
    lines = (ROOT / file).read_text().splitlines()
    lines = [line for line in lines if line.strip() and not line.startswith("#")]
    assert all(re.fullmatch(r"[\w-]+==[\w.]+", line) for line in lines)
    return {normal(name): version for name, version in (line.split("==") for line in lines)}


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def test_environment_holds_the_pinned_versions():
    installed = {name: importlib.metadata.version(name).split("+")[0] for name in pins()}
    assert installed == pins()


def test_dependencies_of_the_package_are_pinned():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert {normal(name) for name in project["dependencies"]} <= set(pins())


def imports(node: ast.AST) -> set[str]:
    """First parts of the absolute imports below ``node``, but for those that may fail (in a try)."""
    found = {a.name for a in node.names} if isinstance(node, ast.Import) else set()
    if isinstance(node, ast.ImportFrom) and not node.level:
        found = {node.module}
    inner = [] if isinstance(node, ast.Try) else ast.iter_child_nodes(node)
    return {name.partition(".")[0] for name in found}.union(*map(imports, inner))


@pytest.mark.parametrize(
    ("folders", "requirements"),
    [(("snnbook", "tools"), ("requirements.txt",)), (("benchmarks",), ("requirements.txt", "requirements-bench.txt"))],
)
def test_everything_that_is_imported_is_pinned(folders, requirements):
    files = [path for folder in folders for path in (ROOT / folder).rglob("*.py")]
    pinned = set().union(*(pins(file) for file in requirements))
    used = set().union(*(imports(ast.parse(path.read_text())) for path in files))
    own = {path.stem for path in (ROOT / "tools").glob("*.py")}
    outside = used - sys.stdlib_module_names - {"snnbook"} - own
    providers = importlib.metadata.packages_distributions()  # those of make bench may not be installed
    unpinned = {name for name in outside if not {normal(p) for p in providers.get(name, [name])} & pinned}
    assert not unpinned


def test_arrows_between_the_rooms_go_one_way():
    command = [str(Path(sys.executable).parent / "lint-imports"), "--no-cache"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_code_is_ruff_clean():
    command = [sys.executable, "-m", "ruff", "check", "--no-cache", "."]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_citation_and_package_agree():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    citation = (ROOT / "CITATION.cff").read_text()
    assert f"version: {project['version']}\n" in citation
    assert project["version"] == importlib.metadata.version("snnbook")


def test_stored_notebooks_and_results_are_small():
    """A repository that is quick to clone: no stored file above 1.5 MB."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True).stdout.split("\0")
    big = {name: (ROOT / name).stat().st_size for name in listed if name and (ROOT / name).is_file()}
    assert not {name: size for name, size in big.items() if size > 1_500_000}


# several notebooks at once


@pytest.fixture
def small_book(tmp_path):
    """Two parts of notebooks that write down when they begin and end, one that fails and one that runs alone."""
    import nbformat.v4 as v4

    (tmp_path / "notebooks").mkdir()
    for name in ("a1", "a2", "b1", "bad", execute.ALONE[0]):
        code = f"open('log', 'a').write('{name} ')\n" + ("1 / 0" if name == "bad" else f"print('{name}')")
        notebook = v4.new_notebook(cells=[v4.new_code_cell(code)])
        notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3"}
        (tmp_path / "notebooks" / f"{name}.ipynb").write_text(v4.writes(notebook))
    listed = [["a1", "a2"], ["b1", "bad", execute.ALONE[0]], []]
    parts = [{"chapters": [{"file": f"notebooks/{name}"} for name in part] + [{"file": "book/x"}]} for part in listed]
    (tmp_path / "_toc.yml").write_text(json.dumps({"parts": parts}))
    return tmp_path


def test_parts_leave_out_pages_and_notebooks_that_measure(small_book):
    assert [[path.stem for path in part] for part in execute.parts(small_book)] == [["a1", "a2"], ["b1", "bad"]]


CASES = [(4, 2, 64, 2), (4, 16, 64, 4), (4, 8, 9, 2), (4, 2, 1, 1)]


@pytest.mark.parametrize(("parts", "cores", "gib", "wanted"), CASES)
def test_parts_at_a_time_fit_cores_and_memory(parts, cores, gib, wanted):
    assert execute.workers(parts, cores, gib) == wanted


def test_notebooks_are_executed_once_and_failures_are_left_to_the_build(small_book, capsys):
    lines = execute.execute(small_book, 2)
    assert sorted(line.split(":")[0] for line in lines) == ["a1", "a2", "b1", "bad"]
    assert [line for line in lines if "failed" in line] == ["bad: failed, will be run again alone"]
    ran = (small_book / "notebooks" / "log").read_text().split()
    assert ran.index("a1") < ran.index("a2") and ran.index("b1") < ran.index("bad") and len(ran) == 4
    assert [line.split(":")[0] for line in execute.execute(small_book, 2)] == ["bad"]
    from jupyter_cache import get_cache

    cached = get_cache(small_book / "_build" / ".jupyter_cache").list_cache_records()
    assert sorted(Path(record.uri).stem for record in cached) == ["a1", "a2", "b1"]
    assert all(record.data["execution_seconds"] > 0 for record in cached)


def test_notebooks_that_run_alone_exist():
    assert all((ROOT / "notebooks" / f"{name}.ipynb").is_file() for name in execute.ALONE)
