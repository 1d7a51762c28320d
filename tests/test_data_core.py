import hashlib

import numpy as np
import pytest
import torch
from data_files import assert_disjoint, assert_equal
from hypothesis import given
from hypothesis import strategies as st

from snnbook.augment import random_flip
from snnbook.data import MissingData, datasets, load
from snnbook.data.carve import amount, carve, quota
from snnbook.data.core import SPLITS
from snnbook.data.registry import Source, assemble, channel_statistics, data_folder


def toy(n: int = 100, kind: str = "image", groups=None, test=None, shape=(2, 4, 4)) -> Source:
    """Sample i is filled with i; classes 0 ... 4 in turn."""
    x = np.arange(n, dtype=np.int16).reshape(n, *[1] * len(shape)) * np.ones(shape, np.int16)
    y = np.arange(n) % 5
    return Source(kind, y, lambda i: x[i], tuple("abcde"), "made up", groups, test)


def ids(split) -> list[int]:
    return split.x.flatten(1)[:, 0].tolist()


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


# ------------------------------------------------------------------ carving


@given(st.lists(st.integers(0, 50), min_size=1, max_size=8), st.integers(0, 300))
def test_quota_is_proportional_and_complete(sizes, n):
    sizes = np.array(sizes)
    share = quota(sizes, n)
    assert share.sum() == min(n, sizes.sum())
    assert (share <= sizes).all() and (share >= 0).all()
    if sizes.sum():
        exact = sizes * min(n, sizes.sum()) / sizes.sum()
        assert (np.abs(share - exact) < 1).all()


@given(st.integers(1, 80), st.integers(1, 20), st.integers(0, 80), st.integers(0, 99))
def test_carving_never_cuts_a_group(samples, n_groups, n, seed):
    rng = np.random.default_rng(seed)
    y, groups = rng.integers(0, 4, samples), rng.integers(0, n_groups, samples)
    chosen = carve(y, groups, n, seed)
    assert not set(groups[chosen]) & set(groups[~chosen])
    assert np.array_equal(chosen, carve(y, groups, n, seed))


@given(st.integers(1, 80), st.integers(0, 80), st.integers(0, 99))
def test_carving_samples_gives_the_exact_number_by_class(samples, n, seed):
    y = np.random.default_rng(seed).integers(0, 4, samples)
    chosen = carve(y, None, n, seed)
    assert chosen.sum() == min(n, samples)
    assert np.array_equal(np.bincount(y[chosen], minlength=4), quota(np.bincount(y, minlength=4), n))


def test_carving_groups_comes_close_to_the_number():
    groups = np.repeat(np.arange(50), 4)
    y = np.repeat(np.arange(5), 40)
    assert carve(y, groups, 40, 0).sum() == 40
    assert np.bincount(y[carve(y, groups, 40, 0)]).tolist() == [8] * 5


@pytest.mark.parametrize("bad", [-1, 100, 1.0, 0.999, True, "a"])
def test_amounts_out_of_range_are_refused(bad):
    with pytest.raises(ValueError, match="validation = "):
        amount("validation", bad, 100)


def test_amounts_are_counts_or_fractions():
    assert [amount("n", a, 100) for a in (0, 7, 0.25, 0.0)] == [0, 7, 25, 0]


# ---------------------------------------------------------------- assembling


def test_splits_cover_the_set_and_do_not_overlap():
    data = assemble("toy", toy())
    parts = [ids(getattr(data, s)) for s in SPLITS]
    assert sorted(sum(parts, [])) == list(range(100))
    assert [len(p) for p in parts] == [68, 4, 8, 20]
    for split in (getattr(data, s) for s in SPLITS):
        assert [i % 5 for i in ids(split)] == split.y.tolist()
    assert_disjoint(data)


def test_groups_stay_together():
    groups = np.arange(100) // 5  # all classes in each group
    data = assemble("toy", toy(groups=groups), calibration=10, validation=10)
    assert_disjoint(data)
    assert data.train.groups.tolist() == [i // 5 for i in ids(data.train)]
    assert len(data.calibration) == len(data.validation) == 10


def test_the_official_test_part_is_kept():
    test = np.arange(100) >= 90
    data = assemble("toy", toy(test=test), calibration=0, validation=0)
    assert ids(data.test) == list(range(90, 100)) and ids(data.train) == list(range(90))
    assert len(data.calibration) == len(data.validation) == 0
    assert list(data.batches("validation", 4)) == []


def test_a_group_on_both_sides_of_the_official_split_is_an_error():
    with pytest.raises(ValueError, match=r"groups = \[9\]"):
        assemble("toy", toy(groups=np.arange(100) // 10, test=np.arange(100) >= 95))


def test_the_seed_moves_all_but_the_test_part():
    a, b, c = (assemble("toy", toy(), seed=s) for s in (0, 0, 1))
    assert_equal(a, b)
    assert ids(a.test) == ids(c.test) and ids(a.validation) != ids(c.validation)
    assert a.fingerprint != c.fingerprint


def test_limit_takes_a_share_of_every_class():
    data = assemble("toy", toy(), limit=10, calibration=1, validation=2)
    assert [len(getattr(data, s)) for s in SPLITS] == [7, 1, 2, 10]
    assert torch.bincount(data.test.y).tolist() == [2] * 5
    full, few = assemble("toy", toy()), assemble("toy", toy(), limit=1000)
    assert_equal(full, few)


def test_parts_that_leave_nothing_to_train_on_are_refused():
    with pytest.raises(ValueError, match=r"calibration \+ validation = 80"):
        assemble("toy", toy(), calibration=40, validation=40)


@pytest.mark.parametrize("part", ["calibration", "validation"])
def test_a_part_that_was_asked_for_and_has_no_sample_is_refused(part):
    """Groups of twenty do not part: four samples are closer to none than to twenty."""
    few = {"calibration": 0, "validation": 0}
    source = toy(groups=np.arange(100) // 20)
    assert len(assemble("toy", source, **few).train) > 0
    with pytest.raises(ValueError, match=f"^{part} = 0 is not allowed: at least one sample"):
        assemble("toy", source, **few | {part: 4})


def test_statistics_of_integers_do_not_depend_on_the_pieces_and_events_have_none():
    x = np.random.default_rng(0).integers(-32768, 32768, (50, 2, 7, 5))
    for dtype in (np.uint8, np.int16):
        some = torch.from_numpy(x.astype(dtype))
        whole = channel_statistics(some, elements=some.numel())
        for elements in (1, 3 * 70, 7 * 70):
            assert all(torch.equal(a, b) for a, b in zip(channel_statistics(some, elements), whole, strict=True))
    source = Source("events", np.arange(20) % 2, lambda i: np.ones((len(i), 3, 2, 4, 4), np.uint8), ("a", "b"), "",
                    unit=0.25)  # fmt: skip
    data = assemble("toy", source)
    assert data.mean.equal(torch.zeros(2)) and data.std.equal(torch.full((2,), 0.25))


def test_only_what_is_used_is_read():
    asked = []

    def read(index):
        asked.extend(index.tolist())
        return np.zeros((len(index), 1, 2, 2), np.uint8)

    assemble("toy", Source("image", np.arange(100) % 5, read, tuple("abcde"), ""), limit=10)
    assert len(asked) == 20 and asked == sorted(asked)


def test_statistics_are_those_of_the_training_split():
    data = assemble("toy", toy())
    x = data.train.x.double()
    assert data.mean.tolist() == pytest.approx(x.mean((0, 2, 3)).tolist())
    assert data.std.tolist() == pytest.approx(x.std((0, 2, 3), correction=0).tolist())
    rng = np.random.default_rng(0)
    x = torch.from_numpy(rng.normal(3, 2, (10, 3, 4, 5)).astype(np.float32))
    mean, std = channel_statistics(x, elements=3 * 60)
    assert mean.tolist() == pytest.approx(x.mean((0, 2, 3)).tolist(), rel=1e-5)
    assert std.tolist() == pytest.approx(x.std((0, 2, 3), correction=0).tolist(), rel=1e-5)
    assert channel_statistics(torch.full((2, 1, 3, 3), 7, dtype=torch.uint8))[1].tolist() == [1.0]


def test_fingerprint_is_the_digest_of_all_tensors():
    data = assemble("toy", toy(groups=np.arange(100)))
    digest = hashlib.sha256()
    for split in (getattr(data, s) for s in SPLITS):
        for t in (split.x, split.y, split.groups):
            digest.update(f"{t.dtype, tuple(t.shape)}".encode() + t.numpy().tobytes())
    assert data.fingerprint == digest.hexdigest()
    other = assemble("toy", toy(shape=(2, 4, 8)))
    assert other.fingerprint != data.fingerprint


def test_summary_counts():
    table = assemble("toy", toy(groups=np.arange(100) // 2), calibration=10).summary().set_index("split")
    assert table["samples"].sum() == 100 and table.loc["test", "samples"] == 20
    assert table.loc["test", "groups"] == 10 and (table["classes"] <= 5).all()


# ------------------------------------------------------------------- batches


def test_batches_are_normalised_and_in_order():
    data = assemble("toy", toy())
    batches = list(data.batches("train", 32))
    assert [tuple(x.shape) for x, _ in batches] == [(32, 2, 4, 4), (32, 2, 4, 4), (4, 2, 4, 4)]
    x, y = (torch.cat(parts) for parts in zip(*batches, strict=True))
    assert x.dtype == torch.float32 and y.equal(data.train.y)
    assert x.mean((0, 2, 3)).tolist() == pytest.approx([0, 0], abs=1e-6)
    assert x.std((0, 2, 3), correction=0).tolist() == pytest.approx([1, 1])
    assert len(list(data.batches(data.train, 32, drop_last=True))) == 2
    assert len(list(data.batches("train", 68, drop_last=True))) == 1


def test_float_samples_are_not_changed_in_place():
    x = np.random.default_rng(0).normal(size=(20, 1, 2, 2)).astype(np.float32)
    data = assemble("toy", Source("audio", np.arange(20) % 2, lambda i: x[i], ("a", "b"), ""))
    before = data.train.x.clone()
    list(data.batches("train", 4))
    data.normalise(data.train.x)
    assert data.train.x.equal(before)


def test_a_generator_shuffles_reproducibly():
    data = assemble("toy", toy())
    a, b, c = (torch.cat([y for _, y in data.batches("train", 7, generator(s))]) for s in (0, 0, 1))
    assert a.equal(b) and not a.equal(c)
    assert a.bincount().equal(data.train.y.bincount())


def test_events_come_time_first_and_not_centred():
    data = assemble("toy", toy(kind="events", shape=(5, 2, 4, 4)))
    x, _ = next(data.batches("train", 6))
    assert x.shape == (5, 6, 2, 4, 4) and data.shape == (5, 2, 4, 4)
    assert x.transpose(0, 1).equal(data.train.x[:6].float())


@pytest.mark.parametrize("world_size", [2, 3])
@pytest.mark.parametrize("augment", [None, random_flip])
def test_ranks_together_see_the_batches_of_one_process(world_size, augment):
    source = toy()
    ramp = np.arange(4, dtype=np.int16)
    data = assemble("toy", Source("image", source.y, lambda i: source.read(i) + ramp, source.classes, ""))
    alone = list(data.batches("train", 10, generator(), augment))
    shares = [
        list(data.batches("train", 10, generator(), augment, rank=r, world_size=world_size))
        for r in range(world_size)
    ]
    for k, (x, y) in enumerate(alone):
        for r in range(world_size):
            assert shares[r][k][0].equal(x[r::world_size]) and shares[r][k][1].equal(y[r::world_size])


def test_augmentation_sees_the_stored_images():
    data, seen = assemble("toy", toy()), []

    def watch(x, g):
        seen.append(x.dtype)
        return torch.zeros_like(x)

    x, _ = next(data.batches("train", 4, generator(), watch))
    assert seen == [torch.int16]
    assert x[0, :, 0, 0].tolist() == pytest.approx((-data.mean / data.std).tolist())


@pytest.mark.parametrize(
    ("kind", "options", "name"),
    [
        ("image", {"split": "dev"}, "split"),
        ("image", {"batch_size": 0}, "batch_size"),
        ("image", {"rank": 2, "world_size": 2}, "rank"),
        ("image", {"world_size": 0}, "world_size"),
        ("image", {"augment": random_flip}, "generator"),
        ("events", {"augment": random_flip, "generator": generator()}, "augment"),
    ],
)
def test_bad_arguments_of_batches_are_named_at_once(kind, options, name):
    data = assemble("toy", toy(kind=kind))
    with pytest.raises(ValueError, match=f"{name} = "):
        data.batches(**{"split": "train", "batch_size": 4, **options})


# ------------------------------------------------------------------ registry


def test_every_set_has_a_line_of_help():
    embedded = {"digits", "digits_events", "sounds"}
    images, events = {"cifar10", "cifar100", "caltech101"}, {"nmnist", "cifar10dvs", "ncaltech101"}
    audio = {"gtzan", "urbansound8k", "esc10", "esc50"}
    assert set(datasets()) == embedded | images | events | audio | {"npz"}
    assert all(len(line) > 20 for line in datasets().values())


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("mnist", {}, "name = 'mnist' .*one of .*digits"),
        ("digits", {"colour": 1}, "option = 'colour' .*digits knows size"),
        ("cifar10", {"size": 8}, "option = 'size' .*no options"),
        ("digits", {"size": 4}, "size = 4"),
        ("digits", {"time_steps": 0}, "time_steps = 0"),
        ("digits", {"limit": 0}, "limit = 0"),
        ("digits", {"validation": 1.5}, "validation = 1.5"),
    ],
)
def test_bad_arguments_of_load_are_named(name, options, message):
    with pytest.raises(ValueError, match=message):
        load(name, **options)


def test_the_data_folder_is_argument_then_environment_then_the_users(monkeypatch, tmp_path):
    monkeypatch.setenv("SNNBOOK_DATA", str(tmp_path / "env"))
    assert data_folder(tmp_path) == tmp_path
    assert data_folder("") == data_folder(None) == tmp_path / "env"
    monkeypatch.delenv("SNNBOOK_DATA")
    assert data_folder(None).name == "snnbook" and data_folder(None).is_absolute()


@pytest.mark.parametrize("download", [False, True])
@pytest.mark.parametrize(
    ("name", "place", "how"),
    [
        ("nmnist", "NMNIST/download/Train.zip", "Fetch Train.zip, Test.zip from https"),
        ("ncaltech101", "NCaltech101/download/Caltech101.zip", "Fetch Caltech101.zip from https"),
        ("gtzan", "gtzan/blues/blues.00000.wav", "mirrors"),
        ("urbansound8k", "UrbanSound8K/metadata/UrbanSound8K.csv", "UrbanSound8K.tar.gz"),
        ("esc10", "ESC-50/meta/esc50.csv", "https://github.com/karolpiczak/ESC-50"),
        ("esc50", "ESC-50/meta/esc50.csv", "https://github.com/karolpiczak/ESC-50"),
    ],
)
def test_a_missing_set_says_what_belongs_where_and_how_to_get_it(tmp_path, name, place, how, download):
    with pytest.raises(MissingData) as error:
        load(name, tmp_path, download=download)
    text = str(error.value)
    assert str(tmp_path / place) in text and how in text and "cannot be fetched automatically" in text
    assert isinstance(error.value, FileNotFoundError)


@pytest.mark.parametrize(
    ("name", "place"),
    [
        ("cifar10", "cifar-10-batches-py/data_batch_1"),
        ("cifar100", "cifar-100-python/train"),
        ("caltech101", "caltech101/101_ObjectCategories"),
        ("cifar10dvs", "CIFAR10DVS/download/airplane.zip"),
    ],
)
def test_a_missing_set_that_can_be_downloaded_says_so(tmp_path, monkeypatch, name, place):
    monkeypatch.setenv("SNNBOOK_DATA", str(tmp_path))
    with pytest.raises(MissingData) as error:
        load(name)
    text = str(error.value)
    assert str(tmp_path / place) in text and "download=True" in text and "http" in text
    assert list(tmp_path.iterdir()) == [], "asking for it leaves no folders behind"


def test_groups_that_are_too_large_to_part_are_told():
    groups = np.repeat(np.arange(2), 20)
    with pytest.raises(ValueError, match="^(train|test) = 0 is not allowed: at least one sample"):
        assemble("toy", toy(40, groups=groups), calibration=0, validation=12)
