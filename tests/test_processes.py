"""Real processes: equal results, dead and hanging devices, garbage, the command line, nothing left running."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import psutil
import pytest
import torch
from fleets import CLASSES, make_fleet, make_split, single_process
from safetensors.torch import save_file

from snnbook.__main__ import main
from snnbook.link.fleet import Fleet
from snnbook.link.folder import part_file, read_plan
from snnbook.link.shaper import Rate

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """``(folder, devices, fuse, samples)``; a lost device costs two seconds."""
    folder = tmp_path_factory.mktemp("fleet")
    devices, fuse, samples, _ = make_fleet(folder, deadline=2.0)
    return folder, devices, fuse, samples


@pytest.fixture(scope="module")
def fleet(built):
    with Fleet(built[0]) as found:
        yield found


def check_answers(measured, built, lost: tuple[int, ...] = ()) -> None:
    """Every answer is that of a single process, bit for bit, and says which parts it rests on."""
    _, devices, fuse, x = built
    for a in measured.answered:
        assert torch.equal(a.answer.logits, single_process(devices, fuse, x[a.index : a.index + 1], lost))
        assert a.answer.mask == 0b111 & ~sum(1 << i for i in lost) and a.answer.partial == bool(lost)


def gone(pids) -> bool:
    """Whether none of the processes is left within ten seconds."""
    until = time.monotonic() + 10
    while any(psutil.pid_exists(p) and psutil.Process(p).status() != psutil.STATUS_ZOMBIE for p in pids):
        if time.monotonic() > until:
            return False
        time.sleep(0.02)
    return True


def test_a_fleet_equals_a_single_process_bit_for_bit(fleet, built):
    for window in (1, 4):
        measured = fleet.run([3, 0, 5, 1, 2, 4], window=window)
        check_answers(measured, built)
        assert list(measured.table["sample"]) == [3, 0, 5, 1, 2, 4]
    assert len(set(fleet.pids.values()) - {os.getpid()}) == 4 and list(fleet.pids) == ["server", 0, 1, 2]


def test_a_killed_device_is_missing_and_comes_back(fleet, built):
    fleet.kill(1)
    until = time.monotonic() + 10
    while fleet.run([0]).table["latency_ms"][0] > 1900:  # the system has noticed by then
        assert time.monotonic() < until
    check_answers(fleet.run([2, 3]), built, lost=(1,))
    fleet.start(1)
    fleet.wait_for([1])
    check_answers(fleet.run([2, 3]), built)


def test_a_hanging_device_costs_the_deadline_and_is_cut_off(fleet, built):
    fleet.hang(2)
    first = fleet.run([0])
    check_answers(first, built, lost=(2,))
    assert first.table["latency_ms"][0] > 1990
    until = time.monotonic() + 20
    while fleet.run([1]).table["latency_ms"][0] > 1900:  # until its heartbeat is missed
        assert time.monotonic() < until
    check_answers(fleet.run([4]), built, lost=(2,))
    fleet.resume(2)
    fleet.wait_for([2])
    check_answers(fleet.run([4]), built)


def test_a_device_that_hangs_for_a_moment_is_waited_for_too(fleet, built):
    """Too short to be cut off: the same connection, no new arrival."""
    before = fleet.status()["arrivals"]
    fleet.hang(0)
    time.sleep(0.2)
    fleet.resume(0)
    started = time.monotonic()
    fleet.wait_for([0])
    assert time.monotonic() - started < 10 and fleet.status()["arrivals"] == before
    check_answers(fleet.run([2]), built)


def test_garbage_does_not_disturb(fleet, built):
    """Memory of the server stays what it is, answers stay right."""
    fleet.garbage(2000, seed=1)
    check_answers(fleet.run([0]), built)
    resident = psutil.Process(fleet.pids["server"]).memory_info().rss
    before = fleet.status()["counts"]
    fleet.garbage(8000, seed=2)
    check_answers(fleet.run(range(6), window=3), built)
    now = fleet.status()["counts"]
    assert sum(now[name] - before.get(name, 0) for name in now if name.startswith(("bad", "refused", "unreg"))) == 8000
    assert psutil.Process(fleet.pids["server"]).memory_info().rss - resident < 8 * 2**20


def test_samples_are_checked(fleet):
    for samples in ([], [1, 1]):
        with pytest.raises(ValueError, match="samples = .* is not allowed: at least one, each once"):
            fleet.run(samples)
    for ask in (fleet.run, fleet.walk):
        with pytest.raises(ValueError, match="samples = 1000000 is not allowed: rows 0 to 5"):
            ask([0, 10**6])
    assert set(fleet.pids) == {"server", 0, 1, 2}


def test_rates_are_checked(built):
    with pytest.raises(ValueError, match="up = .* is not allowed: one rate, or one for each device"):
        Fleet(built[0], up=[None])


def test_one_device_drives_itself_over_a_shaped_link(tmp_path):
    """Many samples on their way hide the computing, not the link: bits over rate is what each costs."""
    net, _, _, x, plan = make_split(tmp_path, torch.randn(12, 1, 8, 8), deadline=30.0)
    rate = 2e4
    with Fleet(tmp_path, up=Rate(rate)) as fleet:
        measured = fleet.walk(range(12), window=4, timeout=20.0)
        check = fleet.run([0])
    with torch.no_grad():
        assert all(torch.equal(v, net(x[i : i + 1])) for i, v in enumerate(measured.logits))
    bits = 8 * (plan.payload_bytes()[0] + 40)
    assert measured.seconds == pytest.approx(12 * bits / rate, rel=0.1)
    assert (measured.table["tries"] == 1).all() and torch.equal(check.logits[0], measured.logits[0])


def test_files_that_are_damaged_are_reported(tmp_path):
    make_fleet(tmp_path, parts=1)
    part_file(tmp_path, 0).write_bytes(b"damaged")
    with pytest.raises(ChildProcessError, match=r"device 0 did not come up: .*part_0.safetensors is damaged"):
        Fleet(tmp_path)
    (tmp_path / "server.safetensors").unlink()
    with pytest.raises(ChildProcessError, match="the server did not come up: no file .*server.safetensors"):
        Fleet(tmp_path)


PARENT = """
import sys, time
from snnbook.link.fleet import Fleet
if __name__ == "__main__":
    fleet = Fleet(sys.argv[1])
    fleet.hang(1)
    print(*fleet.pids.values(), flush=True)
    time.sleep(600)
"""


def test_processes_do_not_outlive_their_parent(built, tmp_path):
    """Killed without a chance to clean up, with one device stopped."""
    script = tmp_path / "parent.py"
    script.write_text(PARENT)
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    parent = subprocess.Popen([sys.executable, script, built[0]], stdout=subprocess.PIPE, text=True, env=environment)
    pids = list(map(int, parent.stdout.readline().split()))
    assert len(pids) == 4 and all(map(psutil.pid_exists, pids))
    parent.kill()
    parent.wait()
    parent.stdout.close()
    assert gone(pids)


def test_closing_ends_everything_stopped_devices_too(built):
    fleet = Fleet(built[0])
    pids = list(fleet.pids.values())
    fleet.hang(0)
    fleet.start(1)
    pids.append(fleet.pids[1])
    started = time.monotonic()
    fleet.close()
    assert time.monotonic() - started < 5 and gone(pids)
    assert not fleet._reports  # no pipe is left open, of those that were started anew neither
    fleet.close()


FOLDER = """
import os, signal, sys
from snnbook.link.folder import fleet_folder
made = fleet_folder()
(made / "file").write_text("x")
print(made, flush=True)
if sys.argv[1] == "killed":
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize("end", ["killed", "ordinary"])
def test_a_folder_for_one_process_goes_with_it(end):
    """Jupyter kills kernels that have used a fleet."""
    done = subprocess.run([sys.executable, "-c", FOLDER, end], capture_output=True, text=True, cwd=ROOT)
    made, until = Path(done.stdout.strip()), time.monotonic() + 10
    assert made.name.startswith("snnbook-fleet-") and done.stderr == ""
    assert end == "killed" or (done.returncode == 0 and not made.exists())
    while made.exists():
        assert time.monotonic() < until
        time.sleep(0.02)


# The command line


def test_fleet_command_measures_and_writes(built, tmp_path, capsys):
    """Labels say that the answers to samples 1 and 3 are right."""
    _, devices, fuse, x = built
    folder, out = shutil.copytree(built[0], tmp_path / "fleet"), tmp_path / "t.csv"
    classes = torch.stack([single_process(devices, fuse, row[None]).mean((0, 1)).argmax() for row in x])
    labels = (classes + torch.tensor([1, 0, 1, 0, 0, 0])) % CLASSES
    save_file({"x": x, "y": labels}, folder / "samples.safetensors")
    assert main(["fleet", str(folder), "--samples", "4", "--window", "2", "--out", str(out)]) == 0
    printed = capsys.readouterr().out
    table = pd.read_csv(out)
    assert printed.endswith("\naccuracy 50.00% (2 of 4 samples)\n")
    assert table["label"].tolist() == labels[:4].tolist() and table["prediction"].tolist() == classes[:4].tolist()
    assert len(table) == 4 and not table["partial"].any() and (table["mask"] == 0b111).all()
    assert re.search(r"^samples +4", printed) and "latency_p99_ms" in printed
    assert (table["payload_bytes"] == sum(read_plan(built[0]).payload_bytes())).all()


@pytest.mark.parametrize("words", [["fleet", "NONE"], ["serve", "NONE"], ["device", "NONE", "NONE", "--connect",
                                   "tcp://127.0.0.1:9"], ["fleet", "HERE", "--connect", "tcp://10.0.0.1:5"],
                                   ["serve", "HERE", "--bind", "tcp://0.0.0.0:5555"]])  # fmt: skip
def test_commands_refuse_in_one_sentence(words, built, tmp_path, capsys):
    words = [w.replace("NONE", str(tmp_path / "none")).replace("HERE", str(built[0])) for w in words]
    assert main(words) == 2
    err = capsys.readouterr().err
    assert err.startswith("snnbook: ") and err.count("\n") == 1


@pytest.mark.parametrize("option, words", [
    *((["--connect", "tcp://127.0.0.1:9"], words) for words in (
        ["--drive"], ["--deadline", "2"], ["--kernel"], ["--up", "1e6"], ["--down", "1e6"], ["--ber", "0.01"],
        ["--loss", "0.1"], ["--noise-seed", "3"], ["--threads", "2"])),
    ([], ["--keys", "k"]),
])  # fmt: skip
def test_options_that_would_do_nothing_are_refused(option, words, built, capsys):
    assert main(["fleet", str(built[0]), *option, *words]) == 2
    wanted = "only without --connect" if option else "only with --connect"
    assert re.fullmatch(rf"snnbook: {words[0]} = .* is not allowed: {wanted}\n", capsys.readouterr().err)


@pytest.mark.parametrize("words", [["serve", ".", "--threads", "0"], ["fleet", ".", "--samples", "0"],
                                   ["fleet", ".", "--window", "-1"], ["fleet", ".", "--samples", "x"]])  # fmt: skip
def test_numbers_below_one_are_refused_before_anything_starts(words, capsys):
    with pytest.raises(SystemExit) as stopped:
        main(words)
    err = capsys.readouterr().err
    assert stopped.value.code == 2 and f"{words[2]}: {words[3]} is not allowed: a whole number, at least 1" in err


def test_options_of_asking_are_refused_where_a_device_does_not_ask(built, capsys):
    words = ["device", str(part_file(built[0], 0)), str(built[0] / "samples.safetensors"), "--connect"]
    assert main([*words, "tcp://127.0.0.1:9", "--window", "2"]) == 2
    assert capsys.readouterr().err == "snnbook: --window = '2' is not allowed: only with --samples\n"


def test_a_rate_of_nothing_is_refused(built, capsys):
    assert main(["fleet", str(built[0]), "--up", "0"]) == 2
    assert "bits_per_second = 0.0 is not allowed" in capsys.readouterr().err


def test_status_of_nobody(capsys):
    assert main(["status", "tcp://127.0.0.1:9", "--timeout", "0.2"]) == 1
    said, asked = capsys.readouterr(), "is it running, is tcp://127.0.0.1:9 its address, do the keys fit?"
    assert said.err == f"snnbook: the server did not answer within 0.2 s: {asked}\n" and not said.out


def command(*words) -> subprocess.Popen:
    words = [sys.executable, "-m", "snnbook", *map(str, words)]
    return subprocess.Popen(words, stdout=subprocess.PIPE, text=True, env=os.environ | {"PYTHONPATH": str(ROOT)})


def test_server_device_and_client_by_address_with_keys(tmp_path, capsys):
    """As on several machines: each command has its own files and its own keys only."""
    net, _, _, x, _ = make_split(tmp_path / "fleet", deadline=30.0)
    keys, folder = tmp_path / "keys", tmp_path / "fleet"
    assert main(["keys", str(keys), "part_0", "client"]) == 0
    there = tmp_path / "device"
    there.mkdir()
    for name in ("part_0.safetensors", "samples.safetensors"):
        (there / name).write_bytes((folder / name).read_bytes())
    server = command("serve", folder, "--bind", "tcp://0.0.0.0:*", "--keys", keys / "server")
    device = None
    try:
        port = re.fullmatch(r"listening at tcp://0.0.0.0:(\d+)\n", server.stdout.readline()).group(1)
        address = f"tcp://127.0.0.1:{port}"
        device = command("device", there / "part_0.safetensors", there / "samples.safetensors", "--connect", address,
                         "--keys", keys / "part_0", "--samples", 6, "--window", 2)  # fmt: skip
        out, _ = device.communicate(timeout=60)
        assert device.returncode == 0
        assert re.match(rf"registered as part 0 at {address}\nsamples +6", out) and "accuracy" not in out
        capsys.readouterr()
        assert main(["status", address, "--keys", str(keys / "client")]) == 0
        status = dict(line.split(": ", 1) for line in capsys.readouterr().out.splitlines())
        assert list(status) == ["parts", "arrivals", "hellos", "open", "counts"] and status["open"] == "0"
        assert json.loads(status["arrivals"]) == [1] and json.loads(status["counts"])["answered"] == 6
        assert main(["fleet", str(folder), "--connect", address, "--keys", str(keys / "client"), "--samples", "1",
                     "--out", str(tmp_path / "t.csv")]) == 0  # fmt: skip
        table = pd.read_csv(tmp_path / "t.csv")
        assert table["mask"].tolist() == [0] and "label" not in table  # the device has left
        server.send_signal(signal.SIGTERM)
        out, _ = server.communicate(timeout=30)
        assert server.returncode == 0 and "'answered': 7" in out
        assert out.startswith("part 0 came: 1 of 1 devices are here\npart 0 is gone (no connection): 0 of 1 devices")
    finally:
        for process in filter(None, (server, device)):
            process.kill()
            process.communicate()
