"""Work in processes side by side gives what it gives in one, and networks of all of them belong to the run."""

import os
from functools import partial
from pathlib import Path

import pytest
import torch
from pandas.testing import assert_frame_equal
from tiny import blobs, same_state

from snnbook import params, runs, sources
from snnbook.bottleneck.selection import Candidate
from snnbook.experiments import ec_snn, spike_bottlenet, two_stage
from snnbook.side_by_side import together


@pytest.fixture(autouse=True)
def alone(monkeypatch):
    """One thread and no jobs that are asked for outside."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    monkeypatch.delenv("SNNBOOK_JOBS", raising=False)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def two(monkeypatch):
    monkeypatch.setenv("SNNBOOK_JOBS", "2")


def test_one_job_or_one_call_stays_in_this_process(monkeypatch):
    assert together([os.getpid, os.getpid]) == [os.getpid()] * 2 and together([]) == []
    monkeypatch.setenv("SNNBOOK_JOBS", "2")
    assert together([os.getpid]) == [os.getpid()]


def test_jobs_are_processes_with_a_share_of_the_threads_that_start_no_others(two):
    torch.set_num_threads(4)
    calls = [os.getpid, torch.get_num_threads, runs.jobs, partial(pow, 2, 10)]
    elsewhere, threads, inner, power = together(calls)
    assert elsewhere != os.getpid() and (threads, inner, power) == (2, 1, 1024)


def test_tensors_go_and_come_without_shared_memory(two):
    sent = torch.arange(6.0)
    (there, back), _ = together([partial(shared, sent), os.getpid])
    assert not there and not back.is_shared() and not sent.is_shared() and torch.equal(back, 2 * sent)


def shared(x):
    """Whether ``x`` lies in shared memory here, and its double."""
    return x.is_shared(), 2 * x


def test_an_error_of_a_call_is_raised_here(two, tmp_path):
    with pytest.raises(ValueError, match="invalid literal"):
        together([partial(int, "x"), partial(Path.touch, tmp_path / "begun")])


def test_a_process_that_dies_is_told(two):
    with pytest.raises(ChildProcessError, match="one of 2 processes died.*SNNBOOK_JOBS"):
        together([partial(os._exit, 3), os.getpid])


@pytest.mark.parametrize("value", ["0", "-1", "two", "1.5"])
def test_other_numbers_of_jobs_are_refused(monkeypatch, value):
    monkeypatch.setenv("SNNBOOK_JOBS", value)
    with pytest.raises(ValueError, match=f"^SNNBOOK_JOBS = '{value}' is not allowed: a whole number from 1"):
        together([os.getpid, os.getpid])


def test_processes_do_not_run_other_code_than_this_one(two, monkeypatch):
    monkeypatch.setitem(sources.NOTED, "train", "another file")
    with pytest.raises(ValueError, match=r"modules changed .* \['train'\]"):
        together([os.getpid, os.getpid])


def bottleneck():
    p = params.BottleneckNetworks(
        width=1 / 16, blocks=[1, 1], warm_epochs=1, epochs=1, fine_tune_epochs=1, augment="", batch_size=20
    )
    return spike_bottlenet.experiment(p, blobs(shape=(1, 8, 8)), 3)


def test_a_search_side_by_side_is_the_same_search(monkeypatch, tmp_path):
    candidates, found = [Candidate(1, 4, 1, 1), Candidate(2, 4, 2, 2)], []
    for n in ("1", "2"):
        monkeypatch.setenv("SNNBOOK_JOBS", n)
        monkeypatch.setenv("SNNBOOK_CACHE", str(tmp_path / n))
        runs.NETWORKS.clear()
        found.append((spike_bottlenet.search(bottleneck(), candidates, 8), runs.networks_used(runs.NETWORKS)))
    (alone, used), (beside, used_beside) = found
    assert_frame_equal(alone, beside)
    assert used["trained"] == 5 and used == used_beside  # warm start, T = 1, T = 2, and both with a codec


def test_what_an_experiment_found_stays_at_home(tmp_path, monkeypatch):
    monkeypatch.setenv("SNNBOOK_CACHE", str(tmp_path))
    e = bottleneck()
    e.backbone(1)
    rebuild, given = e.__reduce__()
    assert e._nets and not rebuild(*given)._nets and rebuild(*given) == e


def test_sub_models_and_converted_networks_side_by_side_are_the_same(monkeypatch, tmp_path):
    split = params.RepeatedSplitNetworks(
        model="vgg5", width=0.1, warm_epochs=1, epochs=1, retrain_epochs=1, batch_size=20, min_filters=2, augment=""
    )
    convert = params.ConvertedNetworks(model="vgg5", width=0.1, epochs=1, fine_tune_epochs=1, batch_size=20, augment="")
    data, states = blobs(shape=(1, 8, 8)), []
    for n in ("1", "2"):
        monkeypatch.setenv("SNNBOOK_JOBS", n)
        monkeypatch.setenv("SNNBOOK_CACHE", str(tmp_path / n))
        e, networks = ec_snn.experiment(split, data, 0), two_stage.experiment(convert, data, 0)
        nets = e.submodels(e.plan(2, min_filters=2))
        networks.prepare(["qc", "qcfs", "lmpc"], [1, 2])
        states.append((nets, {f.name for f in (tmp_path / n).iterdir()}))
    (alone, kept), (beside, kept_beside) = states
    assert len(alone) == 2 and kept == kept_beside
    assert all(map(same_state, alone, beside))
