"""Sweeps over real notebooks on real Dask workers, two of them where one is killed."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from pathlib import Path

import nbformat
import pandas as pd
import pytest

from snnbook import sweep
from snnbook.__main__ import main

BODY = """import time
from pathlib import Path
import pandas as pd
time.sleep(wait)
if a == bad:
    raise RuntimeError(f"a is {a}")
Path(out_dir).mkdir(parents=True)
pd.DataFrame({"product": [a * b, -a * b]}).to_csv(Path(out_dir) / "products.csv", index=False)
with open(ran, "a") as file:
    print(a, b, file=file)"""


@pytest.fixture
def notebook(tmp_path):
    """Multiplies a and b, fails where a is ``bad``, and notes in the file ``ran`` that it ran."""
    defaults = f"a = 1\nb = 2\nbad = 0\nwait = 0.0\nran = {str(tmp_path / 'ran.txt')!r}\nout_dir = ''"
    first = nbformat.v4.new_code_cell(defaults, metadata={"tags": ["parameters"]})
    nb = nbformat.v4.new_notebook(cells=[first, nbformat.v4.new_code_cell(BODY)])
    nb.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
    nbformat.write(nb, tmp_path / "98_product.ipynb")
    return tmp_path / "98_product.ipynb"


def ran(notebook: Path) -> list[str]:
    file = notebook.parent / "ran.txt"
    return sorted(file.read_text().splitlines()) if file.exists() else []


@pytest.mark.parametrize(
    "text, expected",
    [("86:100:2", [86, 88, 90, 92, 94, 96, 98, 100]), ("2:4", [2, 3, 4]), ("1,3,5", [1, 3, 5]), ("-2:0", [-2, -1, 0]),
     ("0.1, qc, true", [0.1, "qc", True]), ("1e-3,1e-2", [1e-3, 1e-2]), ("[1, 2], [4]", [[1, 2], [4]])],
)  # fmt: skip
def test_values_of_a_parameter(text, expected):
    assert sweep.values(text) == expected


@pytest.mark.parametrize("text", ["zeta", "zeta=", "=1", "zeta=5:4", "zeta=1:4:0", "zeta=[1"])
def test_a_wrong_grid_is_named(text):
    with pytest.raises(ValueError, match="grid = .* is not allowed"):
        sweep.grid([text])
    with pytest.raises(ValueError, match="each parameter once"):
        sweep.grid(["a=1", "a=2"])


def test_cells_are_all_combinations():
    assert sweep.cells({"a": [1, 2], "b": ["x", "y"]}) == [
        {"a": 1, "b": "x"}, {"a": 1, "b": "y"}, {"a": 2, "b": "x"}, {"a": 2, "b": "y"}]  # fmt: skip


def test_a_cell_is_known_by_its_code_and_parameters(notebook):
    known = sweep.key(notebook, {"a": 1})
    assert known == sweep.key(notebook, {"a": 1}) != sweep.key(notebook, {"a": 2})
    nb = nbformat.read(notebook, 4)
    nb.cells[0].outputs = [nbformat.v4.new_output("stream", text="seen")]
    nb.cells.append(nbformat.v4.new_markdown_cell("more prose"))
    nbformat.write(nb, notebook)
    assert sweep.key(notebook, {"a": 1}) == known
    nb.cells[1].source += "\na += 1"
    nbformat.write(nb, notebook)
    assert sweep.key(notebook, {"a": 1}) != known


def test_a_cell_is_known_by_what_is_in_the_files_that_it_names(notebook, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    file, board = tmp_path / "mine.npz", tmp_path / "board.toml"
    file.write_bytes(b"one"), board.write_bytes(b"board")
    asked = {"data_dir": "mine.npz", "profiles": ["board.toml", "raspberry_pi_4b"]}
    known = sweep.key(notebook, asked)
    os.utime(file, (1, 1))
    assert sweep.key(notebook, asked) == known
    file.write_bytes(b"two")
    other = sweep.key(notebook, asked)
    board.write_bytes(b"other")
    assert len({known, other, sweep.key(notebook, asked)}) == 3
    board.write_bytes(b"board"), file.write_bytes(b"one")
    assert sweep.key(notebook, asked) == known
    unnamed = sweep.key(notebook, {})
    monkeypatch.setenv("SNNBOOK_DATA", str(file))
    assert sweep.key(notebook, {}) != unnamed and sweep.key(notebook, asked) == known


def test_cells_run_again_when_their_data_change_and_find_them_from_where_the_sweep_was_asked(tmp_path, monkeypatch):
    first = nbformat.v4.new_code_cell("data_dir = ''\na = 1\nout_dir = ''", metadata={"tags": ["parameters"]})
    body = """from pathlib import Path
Path(out_dir).mkdir(parents=True)
Path(out_dir, "read.csv").write_text("text\\n" + Path(data_dir).read_text())"""
    nb = nbformat.v4.new_notebook(cells=[first, nbformat.v4.new_code_cell(body)])
    nb.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
    (tmp_path / "book").mkdir()
    nbformat.write(nb, tmp_path / "book" / "97_read.ipynb")
    monkeypatch.chdir(tmp_path)
    command = ["sweep", "book/97_read.ipynb", "--grid", "a=1", "-p", "data_dir", "mine.txt", "--out", "out"]
    for text in ("one", "two"):
        Path("mine.txt").write_text(text)
        assert main(command) == 0
        assert pd.read_csv("out/read.csv")["text"].tolist() == [text]


def test_a_failed_cell_is_kept_and_told_and_run_again(notebook, capsys):
    out = notebook.parent / "out"
    command = ["sweep", str(notebook), "--grid", "a=1:3", "--grid", "b=5,7", "-p", "bad", "2", "--out", str(out)]
    assert main(command) == 1
    said = capsys.readouterr().err
    assert "'a': 2, 'b': 5} failed: RuntimeError: a is 2" in said and "'a': 2, 'b': 7} failed" in said
    expected = pd.DataFrame([(a, b, s * a * b) for a in (1, 3) for b in (5, 7) for s in (1, -1)],
                            columns=["a", "b", "product"])  # fmt: skip
    pd.testing.assert_frame_equal(pd.read_csv(out / "products.csv"), expected)
    assert ran(notebook) == ["1 5", "1 7", "3 5", "3 7"]
    about = json.loads((out / "sweep.json").read_text())
    assert about["cells"] == 6 and sorted(about["failed"].values()) == ["RuntimeError: a is 2"] * 2
    kept = sorted(out.glob("cells/*/failed.ipynb"))
    assert len(kept) == 2 and "a is 2" in kept[0].read_text()
    before = {p: p.stat().st_mtime_ns for p in out.glob("cells/*/done.ipynb")}
    assert main(command) == 1  # only the failed ones are run again
    assert ran(notebook) == ["1 5", "1 7", "3 5", "3 7"]
    assert before == {p: p.stat().st_mtime_ns for p in out.glob("cells/*/done.ipynb")}


def test_what_another_version_of_the_package_gave_is_run_again(notebook, tmp_path, monkeypatch):
    def keep(todo, name, product=None, error=None):
        files = {} if error else {"products.csv": f"product\n{product}\n".encode()}
        todo.keep(name, {"error": error, "notebook": "{}", "files": files, "code": sweep.package_hash()})

    todo = sweep.Sweep(notebook, {}, {"a": [1, 2, 3]}, tmp_path / "out")
    one, two, three = todo.missing()
    monkeypatch.setattr(sweep, "package_hash", lambda: "old")
    keep(todo, one, 10), keep(todo, two, 20), keep(todo, three, 30)
    old = json.loads((todo.folder(three) / "done.json").read_text())
    (todo.folder(three) / "done.json").write_text(json.dumps({k: v for k, v in old.items() if k != "code"}))
    (todo.folder(one) / "run" / "left.csv").write_text("product\n99\n")
    assert todo.missing() == [three]
    monkeypatch.setattr(sweep, "package_hash", lambda: "new")
    assert todo.missing() == [one, two, three]
    keep(todo, one, 11), keep(todo, two, error="RuntimeError: new")
    assert todo.missing() == [two, three]
    todo.save({two: "RuntimeError: new"})
    assert json.loads((todo.out / "sweep.json").read_text())["code"] == ["None", "new"]
    assert pd.read_csv(todo.out / "products.csv")["product"].tolist() == [11, 30]
    assert not (todo.out / "left.csv").exists()


def test_a_dead_kernel_and_bytes_that_are_no_text_lose_nothing(notebook):
    nb = nbformat.read(notebook, 4)
    nb.cells[1].source += "\n(Path(out_dir) / 'noise.bin').write_bytes(bytes(range(256)))\nprint('so far')"
    nb.cells.append(nbformat.v4.new_code_cell("import os\nif a == 3:\n    os._exit(1)"))
    text = nbformat.writes(nb)
    dead, alive = (sweep.execute(text, "98_product", {"a": a}) for a in (3, 1))
    assert dead["error"].startswith("DeadKernelError: ") and alive["error"] is None
    assert "so far" in "".join(str(c.get("outputs")) for c in json.loads(dead["notebook"])["cells"])
    todo = sweep.Sweep(notebook, {}, {"a": [1]}, notebook.parent / "out")
    todo.keep(todo.missing()[0], alive)
    assert todo.missing() == []
    assert (todo.folder(*todo.cells) / "run" / "noise.bin").read_bytes() == bytes(range(256))


def test_workers_and_a_scheduler_are_not_taken_together(notebook, capsys):
    words = ["sweep", str(notebook), "--grid", "a=1", "--workers", "2", "--scheduler", "tcp://127.0.0.1:9"]
    assert main([*words, "--out", str(notebook.parent / "out")]) == 2
    assert "workers = 2 is not allowed: none with a scheduler" in capsys.readouterr().err


def test_unknown_names_are_refused_before_anything_runs(notebook, capsys):
    out = notebook.parent / "out"
    assert main(["sweep", str(notebook), "--grid", "c=1,2", "--out", str(out)]) == 2
    assert "98_product.ipynb knows a, b, bad" in capsys.readouterr().err
    assert main(["sweep", str(notebook), "--grid", "a=1", "-p", "out_dir", "x", "--out", str(out)]) == 2
    assert main(["sweep", str(notebook), "--grid", "a=1", "-p", "a", "2", "--out", str(out)]) == 2
    assert main(["sweep", str(notebook.parent / "no.ipynb"), "--grid", "a=1"]) == 2
    assert not out.exists() and ran(notebook) == []


def test_no_cluster_where_it_was_said_to_be():
    with pytest.raises(ValueError, match="nothing answers"), sweep.client("tcp://127.0.0.1:9", timeout=1):
        pass


def test_two_workers_and_one_that_is_killed(notebook, tmp_path):
    """A worker that dies in the middle loses nothing; a second sweep finds everything done."""
    out = tmp_path / "out"
    todo = sweep.Sweep(notebook, {"wait": 1.5}, {"a": [1, 2, 3, 4], "b": [2]}, out)
    with sweep.client(workers=2) as client:
        pids = client.run(os.getpid)
        assert len(pids) == 2

        def kill():
            while not any(client.processing().values()):
                time.sleep(0.05)
            time.sleep(1.0)
            os.kill(next(iter(pids.values())), signal.SIGKILL)

        killer = threading.Thread(target=kill)
        killer.start()
        failed = todo.run(client, quiet=True)
        killer.join()
        again = sweep.Sweep(notebook, {"wait": 1.5}, {"a": [1, 2, 3, 4], "b": [2]}, out)
        assert again.missing() == [] and again.run(client, quiet=True) == {}
    assert failed == {}
    assert todo.tables()["products"].query("product > 0")["product"].tolist() == [2, 4, 6, 8]
    assert set(ran(notebook)) == {"1 2", "2 2", "3 2", "4 2"}


def test_a_sweep_that_was_killed_goes_on(notebook, tmp_path):
    first = sweep.Sweep(notebook, {}, {"a": [1, 2, 3]}, tmp_path / "out")
    text = notebook.read_text()
    name = first.missing()[0]
    first.keep(name, sweep.execute(text, notebook.stem, first.cells[name][1]))
    half = first.folder(first.missing()[0]) / "run"
    half.mkdir(parents=True)
    (half / "products.csv").write_text("product\n99\n")  # written, but not finished
    second = sweep.Sweep(notebook, {}, {"a": [1, 2, 3]}, tmp_path / "out")
    assert len(second.missing()) == 2
    assert second.tables()["products"]["product"].tolist() == [2, -2]
    with sweep.client(workers=1) as client:
        assert second.run(client, quiet=True) == {}
    assert second.tables()["products"]["product"].tolist() == [2, -2, 4, -4, 6, -6]
    assert ran(notebook) == ["1 2", "2 2", "3 2"]
