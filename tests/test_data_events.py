import numpy as np
import pytest
import torch
from data_files import aedat, assert_disjoint, assert_equal, atis, md5, publish, random_events, write_zip
from hypothesis import given
from hypothesis import strategies as st
from spikingjelly.datasets import CIFAR10DVS, NMNIST, NCaltech101
from spikingjelly.datasets.utils import integrate_events_by_fixed_frames_number

from snnbook.data import DamagedFile, MissingData, load
from snnbook.data.core import SPLITS
from snnbook.data.event_sets import resize_frames
from snnbook.data.events import Events, frames_by_count, stack_frames
from snnbook.data.images import CALTECH_TOP10


def theirs(events: dict, time_steps: int, height: int, width: int) -> np.ndarray:
    """The same frames by SpikingJelly."""
    return integrate_events_by_fixed_frames_number(events, "number", time_steps, height, width)


@given(st.integers(1, 200), st.integers(1, 12), st.integers(0, 99))
def test_frames_are_those_of_spikingjelly(n, time_steps, seed):
    events = random_events(np.random.default_rng(seed), n, 7, 9)
    frames = frames_by_count(events, time_steps, 7, 9)
    assert frames.shape == (time_steps, 2, 7, 9)
    assert np.array_equal(frames, theirs(events, time_steps, 7, 9))


def test_frames_by_hand():
    events = {"x": [0, 1, 1, 0, 0], "y": [0, 0, 0, 1, 1], "p": [1, 0, 0, 1, 1], "t": [0, 1, 2, 3, 4]}
    frames = frames_by_count({k: np.array(v) for k, v in events.items()}, 2, 2, 2)
    assert frames.tolist() == [[[[0, 1], [0, 0]], [[1, 0], [0, 0]]], [[[0, 1], [0, 0]], [[0, 0], [2, 0]]]]
    none = {k: np.zeros(0, int) for k in "xypt"}
    assert frames_by_count(none, 3, 2, 2).sum() == 0


@pytest.mark.parametrize(("axis", "value"), [("x", 9), ("y", 7), ("x", -1)])
def test_events_off_the_sensor_are_refused(axis, value):
    events = random_events(np.random.default_rng(0), 20, 7, 9)
    events[axis][3] = value
    with pytest.raises(ValueError, match="events = "):
        frames_by_count(events, 2, 7, 9)


def test_stacked_frames_widen_where_a_count_needs_it():
    few, many = np.full((1, 2, 2, 2), 3), np.full((1, 2, 2, 2), 300)
    assert stack_frames([few, few], 2, few.shape).dtype == np.uint8
    wide = stack_frames([few, many], 2, few.shape)
    assert wide.dtype == np.int16 and wide[0].max() == 3 and wide[1].min() == 300
    with pytest.raises(ValueError, match="frames = 40000"):
        stack_frames([many + 39700], 1, few.shape)


def test_recordings_are_found_by_their_offsets():
    rng = np.random.default_rng(0)
    parts = [random_events(rng, n, 5, 6) for n in (10, 0, 25)]
    columns = (np.concatenate([p[k] for p in parts]) for k in "xypt")
    recordings = Events(*columns, np.array([0, 10, 10, 35]), (5, 6))
    assert len(recordings) == 3
    assert all(np.array_equal(recordings[2][k], parts[2][k]) for k in "xypt")
    frames = recordings.frames(np.array([0, 2]), 4)
    assert frames.dtype == np.uint8
    assert np.array_equal(frames[1], frames_by_count(parts[2], 4, 5, 6))


def frames_of(data) -> list[np.ndarray]:
    return [x.numpy() for s in SPLITS for x in getattr(data, s).x]


def contains(data, frames: np.ndarray) -> bool:
    return any(np.array_equal(frames, f) for f in frames_of(data))


# -------------------------------------------------------------------- N-MNIST


@pytest.fixture
def nmnist(tmp_path, monkeypatch):
    """Train.zip and Test.zip with recordings in the 40-bit format; returns the folder and the recordings."""
    rng, root, recordings = np.random.default_rng(0), tmp_path / "NMNIST", {}
    for part, n in (("Train", 4), ("Test", 2)):
        files = {}
        for digit in range(10):
            for i in range(n):
                events = random_events(rng, 40 + i, 34, 34)
                recordings[part, digit, i] = events
                files[f"{part}/{digit}/{i + 1:05d}.bin"] = atis(events)
        write_zip(root / "download" / f"{part}.zip", files)
    publish(monkeypatch, NMNIST, root / "download")
    return tmp_path, recordings


def test_nmnist_is_read_from_its_archives(nmnist):
    folder, recordings = nmnist
    data = load("nmnist", folder, time_steps=3, calibration=5, validation=5)
    assert data.kind == "events" and data.shape == (3, 2, 34, 34) and data.train.x.dtype == torch.uint8
    assert [len(getattr(data, s)) for s in SPLITS] == [30, 5, 5, 20]
    test = {f.tobytes(): y for f, y in zip(data.test.x.numpy(), data.test.y.tolist(), strict=True)}
    for (part, digit, _), events in recordings.items():
        frames = theirs(events, 3, 34, 34).astype(np.uint8).tobytes()
        assert (test.get(frames) == digit) == (part == "Test")
    assert_disjoint(data)
    assert_equal(data, load("nmnist", folder, time_steps=3, calibration=5, validation=5))
    assert load("nmnist", folder, time_steps=4).shape[0] == 4


def test_a_damaged_archive_is_named_and_left_alone(nmnist):
    folder, _ = nmnist
    file = folder / "NMNIST" / "download" / "Test.zip"
    file.write_bytes(file.read_bytes()[:-10])
    with pytest.raises(DamagedFile) as error:
        load("nmnist", folder)
    expected = NMNIST.resource_url_md5()[1][2]
    assert all(part in str(error.value) for part in (str(file), expected, md5(file)))
    assert file.exists() and not (folder / "NMNIST" / "events_np").exists()


def test_unpacking_that_was_broken_off_is_not_taken_for_the_set(nmnist, monkeypatch):
    folder, _ = nmnist

    def fail(*args):
        raise OSError("disk full")

    monkeypatch.setattr(NMNIST, "create_raw_from_extracted", fail)
    with pytest.raises(MissingData, match="disk full"):
        load("nmnist", folder)
    monkeypatch.undo()
    with pytest.raises(MissingData, match="broken off; remove"):
        load("nmnist", folder)


def test_missing_and_damaged_recordings_are_named(nmnist):
    folder, _ = nmnist
    load("nmnist", folder, limit=10)
    events = folder / "NMNIST" / "events_np"
    file = events / "train" / "3" / "00001.npz"
    file.write_bytes(b"no archive")
    with pytest.raises(DamagedFile, match="00001.npz"):
        load("nmnist", folder)
    for file in (events / "test" / "7").iterdir():
        file.unlink()
    with pytest.raises(MissingData, match="test/7"):
        load("nmnist", folder)


# ----------------------------------------------------------------- CIFAR10-DVS


def write_dvs(folder, classes, n: int = 5) -> dict:
    rng, recordings = np.random.default_rng(0), {}
    for name in classes:
        files = {}
        for i in range(n):
            recordings[name, i] = random_events(rng, 100, 128, 128)
            files[f"{name}/cifar10_{name}_{i}.aedat"] = aedat(recordings[name, i])
        write_zip(folder / f"{name}.zip", files)
    return recordings


def test_cifar10_dvs_is_read_from_its_archives(tmp_path, monkeypatch):
    names = [r[0].removesuffix(".zip") for r in CIFAR10DVS.resource_url_md5()]
    recordings = write_dvs(tmp_path / "CIFAR10DVS" / "download", names)
    publish(monkeypatch, CIFAR10DVS, tmp_path / "CIFAR10DVS" / "download")
    data = load("cifar10dvs", tmp_path, time_steps=2, calibration=5, validation=5)
    assert data.shape == (2, 2, 128, 128) and data.classes == tuple(names) and len(data.test) == 10
    assert all(contains(data, theirs(recordings[key], 2, 128, 128)) for key in list(recordings)[::7])
    assert_disjoint(data)


def test_cifar10_dvs_is_downloaded_by_spikingjelly(tmp_path, monkeypatch):
    source, asked = tmp_path / "server", []
    names = [r[0].removesuffix(".zip") for r in CIFAR10DVS.resource_url_md5()]
    write_dvs(source, names, n=2)
    publish(monkeypatch, CIFAR10DVS, source)

    def fetch(url, root, filename, md5):
        asked.append(url)
        (root / filename).write_bytes((source / filename).read_bytes())

    monkeypatch.setattr("spikingjelly.datasets.base.download_url", fetch)
    data = load("cifar10dvs", tmp_path / "here", download=True, calibration=1, validation=1)
    assert sum(data.summary()["samples"]) == 20 and len(asked) == 10 and "figshare" in asked[0]


def test_a_download_that_fails_can_be_tried_again(tmp_path, monkeypatch):
    def fail(*args, **kwargs):
        raise OSError("no network")

    monkeypatch.setattr("spikingjelly.datasets.base.download_url", fail)
    for _ in range(2):
        with pytest.raises(MissingData, match="no network.*airplane.zip"):
            load("cifar10dvs", tmp_path, download=True)


# --------------------------------------------------------------- N-Caltech101


def test_ncaltech101_is_read_and_resized(tmp_path, monkeypatch):
    rng, folder, files = np.random.default_rng(0), tmp_path / "NCaltech101" / "download", {}
    names = ["Faces_easy" if k == "Faces" else k for k in CALTECH_TOP10]
    for name in (*names, "BACKGROUND_Google", "ant"):
        for i in range(5):
            events = random_events(rng, 500, 180, 240)
            files[f"Caltech101/{name}/image_{i + 1:04d}.bin"] = atis(events)
    write_zip(folder / "Caltech101.zip", files)
    publish(monkeypatch, NCaltech101, folder)
    data = load("ncaltech101", tmp_path, time_steps=2, size=32, calibration=5, validation=5)
    assert data.shape == (2, 2, 32, 32) and data.classes == tuple(names) and len(data.test) == 10
    assert data.mean.tolist() == [0, 0] and data.std.tolist() == [256, 256]
    x, _ = next(data.batches("train", 8))
    scale = 180 * 240 / 32**2
    assert x.sum((0, 2, 3, 4)).numpy() * scale == pytest.approx([500] * 8, rel=0.1), (
        "events, averaged over pixels"
    )
    assert_disjoint(data)
    assert "ant" in load("ncaltech101", tmp_path, size=16, classes="all").classes
    with pytest.raises(ValueError, match="classes = 'ecsnn'"):
        load("ncaltech101", tmp_path, classes="ecsnn")


def test_resizing_keeps_constant_frames():
    frames = np.full((2, 2, 18, 24), 3)
    assert (resize_frames(frames, 32) == 3 * 256).all() and resize_frames(frames, 8).shape == (2, 2, 8, 8)
