import io
import lzma
import sys

import numpy as np
import pytest
import torch
from data_files import assert_disjoint, md5, random_events
from PIL import Image

from snnbook.data import DamagedFile, MissingData, compact, load
from snnbook.data.core import SPLITS
from snnbook.data.events import frames_by_count


def save(path, **arrays):
    np.savez_compressed(path, **arrays)
    return path


@pytest.fixture
def x() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (40, 3, 6, 6), dtype=np.uint8)


Y = np.arange(40) % 4


def test_a_file_of_ones_own(tmp_path, x):
    file = save(
        tmp_path / "mine.npz", x=x, y=Y, classes=["a", "b", "c", "d"], source="mine, CC0", synthetic=True
    )
    data = load("npz", file, calibration=4, validation=4)
    assert data.kind == "image" and data.shape == (3, 6, 6) and data.classes == tuple("abcd")
    assert data.source == "mine, CC0" and data.synthetic and len(data.test) == 8
    assert_disjoint(data)
    label = {picture.tobytes(): y for picture, y in zip(x, Y, strict=True)}
    assert all(label[p.numpy().tobytes()] == y for p, y in zip(data.train.x, data.train.y, strict=True))


def test_split_and_groups_of_the_file_are_kept(tmp_path, x):
    split = np.where(np.arange(40) < 30, "train", "test")
    groups = [f"person {i // 2}" for i in range(40)]
    file = save(tmp_path / "mine.npz", x=x[:, 0], y=Y, split=split, groups=groups, kind="audio")
    data = load("npz", file, calibration=4, validation=4)
    assert data.kind == "audio" and data.shape == (1, 6, 6) and data.classes == tuple("0123")
    assert np.array_equal(data.test.x[:, 0].numpy(), x[30:, 0]) and len(data.test.groups.unique()) == 5
    assert_disjoint(data)


def test_event_frames_and_events(tmp_path, x):
    frames = x.reshape(40, 3, 1, 6, 6).repeat(2, axis=2)
    data = load("npz", save(tmp_path / "f.npz", x=frames, y=Y), time_steps=3)
    assert data.kind == "events" and data.shape == (3, 2, 6, 6)
    with pytest.raises(ValueError, match="time_steps = 5 .*T = 3"):
        load("npz", tmp_path / "f.npz")
    rng = np.random.default_rng(0)
    parts = [random_events(rng, 20 + i, 6, 7) for i in range(40)]
    table = np.concatenate([np.stack([p[k] for k in "xypt"], axis=1) for p in parts])
    offsets = np.cumsum([0] + [20 + i for i in range(40)])
    file = save(tmp_path / "e.npz", events=table, offsets=offsets, size=[6, 7], y=Y)
    data = load("npz", file, time_steps=4)
    made = {frames_by_count(p, 4, 6, 7).astype(np.uint8).tobytes(): y for p, y in zip(parts, Y, strict=True)}
    assert all(made[f.numpy().tobytes()] == y for f, y in zip(data.train.x, data.train.y, strict=True))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"y": None}, "lacks y"),
        ({"x": None}, "lacks x"),
        ({"y": Y[:-1]}, "y = "),
        ({"y": Y - 1}, "y = -1 is not allowed: integers from 0"),
        ({"y": Y.astype(float)}, "y = 'float64 of shape"),
        ({"y": Y[:, None]}, r"y = 'int64 of shape \(40, 1\)' is not allowed: integers from 0 of shape \(N,\)"),
        ({"y": Y + 1}, r"no sample of class \[0\].*each class 0 to 4; labels begin at 0"),
        ({"y": Y // 3 * 3}, r"no sample of class \[1, 2\]"),
        ({"classes": ["a", "b", "c", "d", "e"]}, r"no sample of class \[4\].*classes names no others"),
        ({"x": np.zeros((40, 3, 6, 6))}, "x = 'float64' .*float32"),
        ({"x": np.zeros((40, 6), np.uint8)}, r"x = \(40, 6\)"),
        ({"x": np.zeros((40, 6, 6, 3), np.uint8)}, r"x = \(40, 6, 6, 3\).*x.transpose\(0, 3, 1, 2\)"),
        ({"x": np.zeros((40, 6, 6, 1), np.uint8), "kind": "audio"}, r"x.transpose\(0, 3, 1, 2\)"),
        ({"kind": "video"}, "kind = 'video'"),
        ({"kind": "events"}, r"\[N, T, C, H, W\]"),
        ({"classes": ["a"]}, "classes = "),
        ({"groups": [1, 2]}, "groups = "),
        ({"split": ["train"] * 40}, "split = "),
        ({"x": None, "events": np.zeros((4, 4), int)}, "offsets too"),
        (
            {"x": None, "events": np.zeros((4, 3), int), "offsets": [0, 4], "size": [2, 2]},
            r"events = \(4, 3\)",
        ),
        ({"x": None, "events": np.zeros((4, 4), int), "offsets": [0, 5], "size": [2, 2]}, "offsets = "),
        ({"x": None, "events": np.zeros((4, 4), int), "offsets": [0, 4], "size": [8]}, r"size = \[8\] .*\(H, W\)"),
        ({"x": None, "events": np.zeros((4, 4), int), "offsets": [0, 4], "size": [8, 0]}, r"size = \[8, 0\]"),
    ],
)
def test_what_is_wrong_with_a_file_is_named(tmp_path, x, change, message):
    arrays = {k: v for k, v in {"x": x, "y": Y, **change}.items() if v is not None}
    with pytest.raises(ValueError, match=message):
        load("npz", save(tmp_path / "mine.npz", **arrays))


def test_missing_and_damaged_files_are_named(tmp_path, x):
    for name in ("npz", "gtzan"):
        with pytest.raises(MissingData, match="none.npz"):
            load(name, tmp_path / "none.npz")
    file = save(tmp_path / "gtzan.npz", x=x, y=Y)
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) // 2])
    for name, place in (("npz", file), ("gtzan", tmp_path)):
        with pytest.raises(DamagedFile) as error:
            load(name, place)
        assert str(file) in str(error.value) and md5(file) in str(error.value)
        assert "remove" not in str(error.value)


@pytest.mark.parametrize("key", ["x", "classes", "groups"])
def test_an_array_of_objects_is_named_and_not_called_damaged(tmp_path, x, key):
    arrays = {"x": x, "y": Y, "classes": list("abcd"), "groups": list("ab" * 20)}
    arrays[key] = np.array(arrays[key], dtype=object)
    with pytest.raises(ValueError, match=rf"^{key} = 'dtype object' .*mine.npz; save {key}\.astype\(str\)") as error:
        load("npz", save(tmp_path / "mine.npz", **arrays))
    assert not isinstance(error.value, DamagedFile)


@pytest.mark.parametrize("shape", [(3, 3, 3), (4, 6, 4), (20, 1, 1), (8, 6, 2), (3, 6, 3)])
def test_small_maps_are_not_taken_for_channels_that_are_last(tmp_path, shape):
    data = load("npz", save(tmp_path / "mine.npz", x=np.zeros((40, *shape), np.uint8), y=Y))
    assert data.shape == shape


# --------------------------------------------------------------- packed files


@pytest.fixture
def png(monkeypatch):
    """PNG in the place of JPEG XL, so that these tests need no decoder; returns the encoder."""
    monkeypatch.setattr(compact, "decode_jpegxl", lambda data: np.asarray(Image.open(io.BytesIO(data))))

    def encode(pixels: np.ndarray) -> np.ndarray:
        buffer = io.BytesIO()
        Image.fromarray(pixels).save(buffer, "PNG")
        return np.frombuffer(buffer.getvalue(), np.uint8)

    return encode


def mosaics(pictures: np.ndarray, encode, per: int, cols: int) -> dict[str, np.ndarray]:
    """Pictures as mosaics of ``per`` with ``cols`` to a row, the last row filled up."""
    out = {"shape": np.array(pictures.shape), "cols": np.array(cols), "per": np.array(per)}
    for j in range(0, len(pictures), per):
        tiles = list(pictures[j : j + per])
        tiles += [np.zeros_like(tiles[0])] * (-len(tiles) % cols)
        rows = [np.concatenate(tiles[i : i + cols], axis=1) for i in range(0, len(tiles), cols)]
        out[f"jxl_{j // per:03d}"] = encode(np.concatenate(rows))
    return out


def test_packed_photographs(tmp_path, png):
    names = ["Faces", "Faces_easy", "ant", "watch"]
    label = np.repeat(np.arange(4), 10)
    pictures = np.random.default_rng(0).integers(0, 256, (40, 8, 8, 3), dtype=np.uint8)
    file = save(
        tmp_path / "caltech101_some.npz",
        kind="mosaic_rgb",
        label=label,
        class_names=names,
        name=[f"{names[k]}/image_{i % 10:04d}.jpg" for i, k in enumerate(label)],
        **mosaics(pictures, png, per=16, cols=3),
    )
    data = load("caltech101", tmp_path, calibration=4, validation=4)
    assert data.classes == ("Faces", "watch") and data.shape == (3, 8, 8)
    assert "without Leopards, Motorbikes" in data.source and "not in the file" in data.source
    made = {p.transpose(2, 0, 1).tobytes(): k for p, k in zip(pictures, label, strict=True)}
    for s in SPLITS:
        split = getattr(data, s)
        assert [names.index(data.classes[y]) for y in split.y] == [made[p.numpy().tobytes()] for p in split.x]
    both = load("caltech101", file, classes="ecsnn", size=16, calibration=6, validation=6)
    assert both.classes == ("Faces", "Faces_easy", "watch") and both.shape == (3, 16, 16)
    assert "without Leopards, Motorbikes" in both.source and "hawksbill" not in both.source
    assert "without" not in load("caltech101", file, classes="all", calibration=4, validation=4).source
    assert_disjoint(both)
    assert load("npz", file, calibration=4, validation=4).fingerprint == data.fingerprint


def test_packed_spectrograms_keep_groups_and_folds(tmp_path, png):
    rng = np.random.default_rng(0)
    maps = rng.integers(0, 256, (40, 4, 7), dtype=np.uint8)
    common = {"label": Y, "class_names": list("abcd"), **mosaics(maps, png, per=30, cols=1)}
    first = np.arange(40)
    first[20:24] = np.arange(4)
    save(tmp_path / "gtzan_small.npz", kind="gtzan64", first_identical=first, **common)
    data = load("gtzan", tmp_path, calibration=8, validation=8)
    assert_disjoint(data)
    assert data.shape == (1, 4, 7) and sum(data.summary()["groups"]) == 36

    fold = np.repeat([1, 2, 10], [15, 15, 10])
    clips = [f"{i // 2 + 100 * f}-3-0-{i % 2}.wav" for i, f in enumerate(fold)]
    lo, step = rng.normal(size=4).astype(np.float32), rng.random(4).astype(np.float32)
    save(
        tmp_path / "urbansound8k_small.npz",
        kind="us8k_mfcc",
        fold=fold,
        name=clips,
        lo=lo,
        step=step,
        **common,
    )
    data = load("urbansound8k", tmp_path, calibration=8, validation=8)
    assert data.train.x.dtype == torch.float32 and len(data.test) == 10
    expected = maps[fold == 10].astype(np.float32) * step[:, None] + lo[:, None]
    assert np.allclose(data.test.x[:, 0].numpy(), expected, atol=1e-5)
    assert_disjoint(data)

    fold = np.arange(40) // 8 + 1
    clips = [f"{f}-{i // 2}-{'AB'[i % 2]}" for i, f in enumerate(fold)]
    save(tmp_path / "esc10_small.npz", kind="esc10", fold=fold, name=clips, lo=-80.0, step=0.5, **common)
    data = load("esc10", tmp_path, test_fold=1, calibration=8, validation=8)
    assert np.array_equal(data.test.x[:, 0].numpy(), maps[:8])
    assert_disjoint(data)


def test_packed_events(tmp_path):
    rng, steps, parts = np.random.default_rng(0), [], []
    for i in range(30):
        n = 50 + i
        events = {**random_events(rng, n, 34, 34), "t": np.sort(rng.integers(0, 300, n))}
        k = np.sort(events["t"] * 2312 + events["p"] * 1156 + events["y"] * 34 + events["x"])
        place = k % 2312
        parts.append({"x": place % 34, "y": place % 1156 // 34, "p": place // 1156, "t": k // 2312})
        steps.append(np.diff(k, prepend=0))
    step = np.concatenate(steps)
    small = np.minimum(step, 255).astype(np.uint8)
    escaped = step[small == 255].astype(np.uint16)
    file = save(
        tmp_path / "nmnist_small.npz",
        kind="nmnist1ms",
        lo=np.frombuffer(lzma.compress(small.tobytes()), np.uint8),
        esc=np.frombuffer(lzma.compress(escaped.tobytes()), np.uint8),
        offsets=np.cumsum([0] + [len(s) for s in steps]),
        label=np.arange(30) % 10,
        n_train=20,
    )
    data = load("nmnist", tmp_path, time_steps=3, calibration=1, validation=1)
    assert data.shape == (3, 2, 34, 34) and "30 of them" in data.source
    assert np.array_equal(data.test.x.numpy(), [frames_by_count(p, 3, 34, 34) for p in parts[20:]])
    assert_disjoint(data)
    with pytest.raises(ValueError, match="kind = 'nmnist1ms' .*gtzan is packed as gtzan64"):
        load("gtzan", file)
    save(file, kind="nmnist1ms", lo=small, esc=small, offsets=[0])
    with pytest.raises(DamagedFile, match="packed events"):
        load("nmnist", tmp_path)


def test_incomplete_pictures_are_damage(tmp_path, png):
    packed = mosaics(np.zeros((8, 4, 4), np.uint8), png, per=4, cols=2)
    file = save(tmp_path / "gtzan.npz", kind="gtzan64", **{k: v for k, v in packed.items() if k != "jxl_001"})
    with pytest.raises(DamagedFile, match="8 packed pictures"):
        load("gtzan", file)
    save(file, kind="gtzan64", **{**packed, "jxl_000": packed["jxl_000"][:20]})
    with pytest.raises(DamagedFile, match="packed JPEG XL"):
        load("gtzan", file)
    save(file, kind="gtzan64", label=Y)
    with pytest.raises(DamagedFile, match="packed JPEG XL"):
        load("gtzan", file)


def test_jpeg_xl_is_decoded_by_pillows_plugin(monkeypatch):
    pytest.importorskip("pillow_jxl")
    monkeypatch.setitem(sys.modules, "imagecodecs", None)
    for shape in ((12, 10), (12, 10, 3)):
        pixels = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
        buffer = io.BytesIO()
        Image.fromarray(pixels).save(buffer, "JXL", lossless=True)
        assert np.array_equal(compact.decode_jpegxl(buffer.getvalue()), pixels)


def test_without_a_decoder_the_package_to_install_is_named(monkeypatch):
    for name in ("imagecodecs", "pillow_jxl"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ImportError, match="pip install pillow-jxl-plugin"):
        compact.decode_jpegxl(b"")


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_numbers_that_are_not_finite_are_refused_with_their_sample(tmp_path, x, value):
    real = x.astype(np.float32)
    load("npz", save(tmp_path / "good.npz", x=real, y=Y))
    real[7, 1, 2, 3] = value
    with pytest.raises(ValueError, match=r"x = 'not finite in sample \[7\]'"):
        load("npz", save(tmp_path / "bad.npz", x=real, y=Y))


@pytest.mark.parametrize("dtype", [np.int16, np.float32])
def test_less_than_no_event_is_refused(tmp_path, x, dtype):
    frames = x.reshape(40, 3, 1, 6, 6).repeat(2, axis=2).astype(dtype)
    load("npz", save(tmp_path / "good.npz", x=frames, y=Y), time_steps=3)
    load("npz", save(tmp_path / "image.npz", x=-frames[:, 0], y=Y))  # only a number of events is never negative
    frames[7, 1, 0, 2, 3] = -2
    with pytest.raises(ValueError, match=r"x = -2(\.0)? is not allowed: numbers of events"):
        load("npz", save(tmp_path / "bad.npz", x=frames, y=Y), time_steps=3)


@pytest.mark.parametrize("column, value, message", [(2, -1, "p = "), (3, 10**6, "t = "), (3, np.nan, "finite")])
def test_unframed_events_are_checked(tmp_path, column, value, message):
    rng = np.random.default_rng(0)
    columns = [rng.integers(0, high, 800) for high in (7, 6, 2)] + [np.arange(800) % 20]
    table = np.stack(columns, axis=1).astype(type(value))
    good = {"offsets": np.arange(0, 801, 20), "size": [6, 7], "y": Y}
    load("npz", save(tmp_path / "good.npz", events=table, **good), time_steps=2)
    table[5, column] = value
    with pytest.raises(ValueError, match=message):
        load("npz", save(tmp_path / "bad.npz", events=table, **good), time_steps=2)
