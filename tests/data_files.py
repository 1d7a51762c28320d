"""Writers of tiny data sets in the genuine formats, for the tests of the loaders."""

import hashlib
import pickle
import zipfile
from pathlib import Path

import numpy as np
import torch

from snnbook.data.core import SPLITS, Data


def md5(path: Path) -> str:
    return hashlib.md5(path.read_bytes()).hexdigest()


def hashes(split) -> set[str]:
    """One hash per sample."""
    return {hashlib.sha256(x.numpy().tobytes()).hexdigest() for x in split.x}


def assert_disjoint(data: Data) -> None:
    """No sample and no group is in two splits."""
    for i, a in enumerate(SPLITS):
        for b in SPLITS[:i]:
            one, other = getattr(data, a), getattr(data, b)
            assert not hashes(one) & hashes(other), (a, b)
            if one.groups is not None:
                assert not set(one.groups.tolist()) & set(other.groups.tolist()), (a, b)


def assert_equal(a: Data, b: Data) -> None:
    """Two loads gave the same tensors."""
    for s in SPLITS:
        assert torch.equal(getattr(a, s).x, getattr(b, s).x) and torch.equal(getattr(a, s).y, getattr(b, s).y)
    assert a.fingerprint == b.fingerprint


def write_cifar(root: Path, kind: type, monkeypatch, per_file: int = 20, seed: int = 0) -> None:
    """CIFAR pickles with random pictures; their checksums replace the published ones in ``kind``."""
    rng, folder = np.random.default_rng(seed), root / kind.base_folder
    folder.mkdir(parents=True)
    labels, count = ("labels", 10) if kind.base_folder.startswith("cifar-10-") else ("fine_labels", 100)

    def put(name: str, content: dict) -> list[str]:
        (folder / name).write_bytes(pickle.dumps(content, protocol=2))
        return [name, md5(folder / name)]

    def batch(name: str) -> list[str]:
        x = rng.integers(0, 256, (per_file, 3072), dtype=np.uint8)
        return put(name, {"data": x, labels: [i % count for i in range(per_file)]})

    train, test = ([batch(name) for name, _ in files] for files in (kind.train_list, kind.test_list))
    meta = put(kind.meta["filename"], {kind.meta["key"]: [f"class {k}" for k in range(count)]})
    monkeypatch.setattr(kind, "train_list", train)
    monkeypatch.setattr(kind, "test_list", test)
    monkeypatch.setattr(kind, "meta", {**kind.meta, "md5": meta[1]})


def random_events(rng: np.random.Generator, n: int, height: int, width: int) -> dict[str, np.ndarray]:
    """``n`` events on a sensor, sorted by time (microseconds)."""
    return {
        "x": rng.integers(0, width, n),
        "y": rng.integers(0, height, n),
        "p": rng.integers(0, 2, n),
        "t": np.sort(rng.integers(0, 300_000, n)),
    }


def atis(events: dict[str, np.ndarray]) -> bytes:
    """Events in the 40-bit format of N-MNIST: x, y, polarity (1 bit), time (23 bits)."""
    x, y, p, t = (events[k].astype(np.uint64) for k in "xypt")
    word = x << 32 | y << 24 | p << 23 | t
    return b"".join(int(w).to_bytes(5, "big") for w in word)


def aedat(events: dict[str, np.ndarray]) -> bytes:
    """Events in the AEDAT 2.0 format of CIFAR10-DVS: 32-bit addresses and times, big-endian."""
    address = (127 - events["x"]) << 8 | (127 - events["y"]) << 1 | (1 - events["p"])
    words = np.stack([address, events["t"]], axis=1).astype(">u4")
    return b"#!AER-DAT2.0\r\n# This is a raw AE data file\r\n" + words.tobytes()


def write_zip(path: Path, files: dict[str, bytes]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)


def publish(monkeypatch, kind: type, folder: Path) -> None:
    """Let the archives in ``folder`` be those that SpikingJelly's class expects."""
    found = {f.name: md5(f) for f in folder.iterdir()}
    listed = [(name, url, found.get(name, old)) for name, url, old in kind.resource_url_md5()]
    monkeypatch.setattr(kind, "resource_url_md5", classmethod(lambda cls: listed))
