import io
import os
import pickle
from urllib.error import URLError

import numpy as np
import pytest
import torch
from data_files import assert_disjoint, assert_equal, md5, write_cifar
from PIL import Image
from torchvision.datasets import CIFAR10, CIFAR100, Caltech101, cifar

from snnbook.data import DamagedFile, MissingData, load
from snnbook.data.cache import cached
from snnbook.data.images import CALTECH_TOP10


@pytest.mark.parametrize(("name", "kind", "train"), [("cifar10", CIFAR10, 100), ("cifar100", CIFAR100, 20)])
def test_cifar_is_read_from_torchvisions_layout(tmp_path, monkeypatch, name, kind, train):
    write_cifar(tmp_path, kind, monkeypatch)
    data = load(name, tmp_path, calibration=2, validation=5)
    assert data.kind == "image" and data.shape == (3, 32, 32) and data.train.x.dtype == torch.uint8
    assert [len(s) for s in (data.train, data.calibration, data.validation, data.test)] == [
        train - 7,
        2,
        5,
        20,
    ]
    assert data.classes[3] == "class 3" and data.n_classes == (10 if name == "cifar10" else 100)
    theirs = kind(tmp_path, train=False)
    assert data.test.x.permute(0, 2, 3, 1).numpy().tolist() == theirs.data.tolist()
    assert data.test.y.tolist() == theirs.targets
    assert_disjoint(data)
    assert_equal(data, load(name, tmp_path, calibration=2, validation=5))


def test_equal_pictures_are_kept_on_one_side(tmp_path, monkeypatch):
    write_cifar(tmp_path, CIFAR100, monkeypatch)
    folder = tmp_path / CIFAR100.base_folder
    train, test = (pickle.loads((folder / part).read_bytes()) for part in ("train", "test"))
    train["data"][0] = test["data"][5]
    train["data"][1:4] = train["data"][4]
    (folder / "train").write_bytes(pickle.dumps(train))
    monkeypatch.setattr(CIFAR100, "train_list", [["train", md5(folder / "train")]])
    for seed in range(5):
        data = load("cifar100", tmp_path, seed=seed, calibration=4, validation=6)
        assert_disjoint(data)
        assert len(data.train) + len(data.calibration) + len(data.validation) == 19 and len(data.test) == 20
    assert "without 1 training pictures" in data.source


class Trap:
    """Unpickling it makes a folder."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("download", [False, True])
def test_a_damaged_cifar_file_is_named_left_alone_and_never_unpickled(tmp_path, monkeypatch, download):
    write_cifar(tmp_path, CIFAR10, monkeypatch)
    file, expected = tmp_path / CIFAR10.base_folder / "data_batch_3", CIFAR10.train_list[2][1]
    file.write_bytes(pickle.dumps(Trap(tmp_path / "sprung")))
    before = file.read_bytes()
    with pytest.raises(DamagedFile) as error:
        load("cifar10", tmp_path, download=download)
    assert all(part in str(error.value) for part in (str(file), expected, md5(file)))
    assert file.read_bytes() == before and not (tmp_path / "sprung").exists()
    assert isinstance(error.value, ValueError)


def test_one_missing_cifar_file_is_named(tmp_path, monkeypatch):
    write_cifar(tmp_path, CIFAR10, monkeypatch)
    (tmp_path / CIFAR10.base_folder / "test_batch").unlink()
    with pytest.raises(MissingData, match="test_batch.*cifar-10-python.tar.gz"):
        load("cifar10", tmp_path)


def test_download_is_torchvisions(tmp_path, monkeypatch):
    asked = []

    def fetch(url, root, filename, md5):
        asked.append((url, filename, md5))
        write_cifar(tmp_path, CIFAR10, monkeypatch)

    monkeypatch.setattr(cifar, "download_and_extract_archive", fetch)
    data = load("cifar10", tmp_path, download=True)
    assert asked == [(CIFAR10.url, CIFAR10.filename, CIFAR10.tgz_md5)] and len(data.test) == 20
    load("cifar10", tmp_path, download=True)
    assert len(asked) == 1


def test_a_failed_download_says_how_to_get_the_set(tmp_path, monkeypatch):
    def fail(*args, **kwargs):
        raise URLError("no network")

    monkeypatch.setattr(cifar, "download_and_extract_archive", fail)
    with pytest.raises(MissingData, match="no network.*unpack cifar-10-python.tar.gz"):
        load("cifar10", tmp_path, download=True)
    monkeypatch.setattr(Caltech101, "download", fail)
    with pytest.raises(MissingData, match="no network.*caltech-101.zip"):
        load("caltech101", tmp_path, download=True)


@pytest.mark.parametrize(
    ("name", "archive"), [("cifar10", "cifar-10-python.tar.gz"), ("caltech101", "caltech101/caltech-101.zip")]
)
def test_a_damaged_archive_is_not_overwritten_by_a_download(tmp_path, name, archive):
    (tmp_path / archive).parent.mkdir(exist_ok=True)
    (tmp_path / archive).write_bytes(b"half a file")
    with pytest.raises(DamagedFile, match=md5(tmp_path / archive)):
        load(name, tmp_path, download=True)
    assert (tmp_path / archive).read_bytes() == b"half a file"


# ---------------------------------------------------------------- Caltech101


def jpeg(size: tuple[int, int], value: int, mode: str) -> bytes:
    rng, buffer = np.random.default_rng(value), io.BytesIO()
    shape = size[::-1] + ((3,) if mode == "RGB" else ())
    Image.fromarray(rng.integers(0, 255, shape, dtype=np.uint8), mode=None).save(buffer, "JPEG")
    return buffer.getvalue()


@pytest.fixture
def caltech(tmp_path):
    root = tmp_path / "caltech101" / "101_ObjectCategories"
    for k, name in enumerate((*CALTECH_TOP10, "Faces_easy", "BACKGROUND_Google", "ant")):
        (root / name).mkdir(parents=True)
        for i in range(5):
            picture = jpeg((30 + k, 20 + i), 100 * k + i, "L" if i == 0 else "RGB")
            (root / name / f"image_{i + 1:04d}.jpg").write_bytes(picture)
    return tmp_path


def test_caltech_has_the_ten_largest_object_classes(caltech):
    data = load("caltech101", caltech, size=16, calibration=5, validation=5)
    assert data.classes == CALTECH_TOP10 and data.shape == (3, 16, 16)
    assert sum(data.summary()["samples"]) == 50 and len(data.test) == 10
    assert not {"Faces_easy", "BACKGROUND_Google"} & set(data.classes)
    assert_disjoint(data)
    assert_equal(data, load("caltech101", caltech, size=16, calibration=5, validation=5))
    grey = sum(
        int((x[0] == x[1]).all() and (x[0] == x[2]).all())
        for s in ("train", "calibration", "validation", "test")
        for x in getattr(data, s).x
    )
    assert grey == 10


def test_caltech_pictures_are_resized_whole(caltech):
    data = load("caltech101", caltech, size=24, limit=40, calibration=0, validation=0)
    file = caltech / "caltech101/101_ObjectCategories/airplanes/image_0002.jpg"
    expected = np.asarray(Image.open(file).convert("RGB").resize((24, 24), Image.Resampling.BILINEAR))
    pictures = torch.cat([data.train.x, data.test.x]).permute(0, 2, 3, 1).numpy()
    assert any(np.array_equal(p, expected) for p in pictures)
    assert load("caltech101", caltech, limit=10).shape == (3, 224, 224)


def test_faces_and_their_cuttings_stay_together(caltech):
    data = load("caltech101", caltech, size=8, classes="ecsnn", calibration=6, validation=6)
    assert data.n_classes == 10 and {"Faces", "Faces_easy"} < set(data.classes)
    assert_disjoint(data)
    faces = data.train.groups[data.train.y == data.classes.index("Faces")]
    assert set(faces.tolist()) == set(
        data.train.groups[data.train.y == data.classes.index("Faces_easy")].tolist()
    )
    everything = load("caltech101", caltech, size=8, classes="all")
    assert set(everything.classes) == {*CALTECH_TOP10, "ant"}
    with pytest.raises(ValueError, match="classes = 'some'"):
        load("caltech101", caltech, classes="some")
    with pytest.raises(ValueError, match="size = 2"):
        load("caltech101", caltech, size=2)


def test_a_missing_class_and_a_damaged_picture_are_named(caltech):
    root = caltech / "caltech101" / "101_ObjectCategories"
    (root / "watch" / "image_0003.jpg").write_bytes(b"\xff\xd8 no picture")
    with pytest.raises(DamagedFile, match="watch/image_0003.jpg.*JPEG"):
        load("caltech101", caltech, size=8)
    for file in (root / "ketch").iterdir():
        file.unlink()
    with pytest.raises(MissingData, match="ketch/image_0001.jpg"):
        load("caltech101", caltech, size=8)


def test_features_are_kept_and_made_anew_when_a_file_changes(caltech):
    first = load("caltech101", caltech, size=8)
    (kept,) = (caltech / "snnbook-cache").glob("*.npy")
    stamp = kept.stat().st_mtime_ns
    assert_equal(first, load("caltech101", caltech, size=8))
    assert kept.stat().st_mtime_ns == stamp
    kept.write_bytes(b"damaged")
    assert_equal(first, load("caltech101", caltech, size=8))
    root = caltech / "caltech101" / "101_ObjectCategories"
    (root / "watch" / "image_0003.jpg").write_bytes(jpeg((40, 40), 7, "RGB"))
    assert load("caltech101", caltech, size=8).fingerprint != first.fingerprint


def test_a_disk_that_is_full_keeps_nothing(tmp_path, monkeypatch):
    def full(file, x):
        file.write(b"half")
        raise OSError("no space left on device")

    monkeypatch.setattr(np, "save", full)
    assert cached(tmp_path, "frames", [], {}, lambda: np.ones(3)).tolist() == [1, 1, 1]
    assert not list((tmp_path / "snnbook-cache").iterdir())
