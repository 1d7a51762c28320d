import numpy as np
import pytest
import torch
from data_files import assert_disjoint, assert_equal
from scipy import ndimage, signal
from sklearn.datasets import load_digits

from snnbook.data import load
from snnbook.data.camera import record_saccades, saccade_path, shifted
from snnbook.data.digits import digit_images
from snnbook.data.sounds import RATE, SAMPLES, SOUNDS, band_noise, clip, clips


@pytest.fixture(scope="module")
def digits():
    return load("digits")


def test_digits_are_scikit_learns(digits):
    x, y = digit_images(8)
    assert np.array_equal(x[:, 0].numpy(), np.round(load_digits().images / 16 * 255).astype(np.uint8))
    assert np.array_equal(y, load_digits().target)
    assert digits.kind == "image" and digits.shape == (1, 16, 16) and digits.n_classes == 10
    assert sum(digits.summary()["samples"]) == 1797 and not digits.synthetic
    assert load("digits", size=28, limit=20).shape == (1, 28, 28)


def test_digits_are_split_without_overlap_and_reproducibly(digits):
    assert_disjoint(digits)
    assert_equal(digits, load("digits"))


# -------------------------------------------------------------- event camera


def test_the_path_is_a_closed_triangle():
    path = saccade_path(3.0, 4)
    assert path.shape == (13, 2)
    assert path[0].tolist() == path[-1].tolist() == [0, 0]
    assert path[4].tolist() == [3, 1.5] and path[8].tolist() == [0, 3]
    assert np.linalg.norm(np.diff(path, axis=0)[:4], axis=1) == pytest.approx(np.hypot(3, 1.5) / 4)


@pytest.mark.parametrize(("dy", "dx"), [(0, 0), (1, 2), (0.25, 1.5), (2.0, 0.75), (9.5, 0.5)])
def test_the_shift_is_the_bilinear_one_of_scipy(dy, dx):
    images = np.random.default_rng(0).random((3, 6, 7))
    big = np.pad(images, ((0, 0), (0, 12), (0, 12)))  # scipy treats the border differently
    expected = ndimage.shift(big, (0, -dy, -dx), order=1, mode="constant")[:, :6, :7]
    assert np.allclose(shifted(images, dy, dx), expected, atol=1e-12)


def events_by_hand(image, threshold, amplitude, steps, dark, duration):
    """The definition, pixel by pixel and level by level, in plain Python."""
    path, found = saccade_path(amplitude, steps), []
    views = [np.log(shifted(image[None], dy, dx)[0] + dark) for dy, dx in path]
    for (y, x), start in np.ndenumerate(views[0]):
        level = 0
        for k in range(1, len(views)):
            before, now = views[k - 1][y, x], views[k][y, x]
            while now >= start + (level + 1) * threshold - 1e-12:
                level += 1
                found.append((k - 1 + (start + level * threshold - before) / (now - before), y, x, 1))
            while now <= start + (level - 1) * threshold + 1e-12:
                level -= 1
                found.append((k - 1 + (start + level * threshold - before) / (now - before), y, x, 0))
    unit = duration / (3 * steps)
    return sorted((y, x, p, round(t * unit)) for t, y, x, p in found)


def test_the_camera_does_what_its_definition_says():
    image = np.random.default_rng(3).random((5, 6)).round(1)
    options = {"threshold": 0.21, "amplitude": 1.7, "steps": 5, "dark": 0.1, "duration": 300_000}
    recorded = record_saccades(image[None], **options)[0]
    got = sorted(zip(*(recorded[k].tolist() for k in "yxpt"), strict=True))
    expected = events_by_hand(image, **options)
    assert len(got) == len(expected) > 50
    assert [g[:3] for g in got] == [e[:3] for e in expected]
    assert np.abs(np.array([g[3] for g in got]) - [e[3] for e in expected]).max() <= 1


def test_a_camera_that_returns_takes_back_every_event():
    recordings = record_saccades(digit_images(8)[0][:6, 0].numpy() / 255)
    for i in range(6):
        e = recordings[i]
        net = np.zeros((8, 8), int)
        np.add.at(net, (e["y"], e["x"]), 2 * e["p"] - 1)
        assert not net.any() and len(e["x"]) > 100
        assert (np.diff(e["t"]) >= 0).all() and 0 <= e["t"].min() and e["t"].max() <= 300_000


def test_more_contrast_or_a_lower_threshold_gives_more_events():
    images = digit_images(16)[0][:5, 0].numpy() / 255
    number = [len(record_saccades(images, threshold=th).t) for th in (0.2, 0.4, 0.8)]
    assert number[0] > 1.6 * number[1] > 2.5 * number[2] > 0
    assert len(record_saccades(np.zeros((2, 4, 4)))) == 2 and len(record_saccades(np.zeros((2, 4, 4))).t) == 0
    with pytest.raises(ValueError, match="threshold = 0"):
        record_saccades(images, threshold=0)


def test_digit_events_are_frames_of_equally_many_events():
    data = load("digits_events", time_steps=4, limit=60)
    assert data.kind == "events" and data.shape == (4, 2, 16, 16) and data.train.x.dtype == torch.uint8
    assert "simulated" in data.source and not data.synthetic
    number = data.train.x.sum((2, 3, 4))  # [N, T]
    assert (number[:, :1] == number[:, :3]).all() and ((number[:, 3] - number[:, 0]) < 4).all()
    assert_disjoint(data)
    x, _ = next(data.batches("train", 8))
    assert x.shape == (4, 8, 2, 16, 16) and x.sum() == data.train.x[:8].sum()


def test_the_recordings_are_those_behind_the_frames():
    images, y = digit_images(8)
    recordings = record_saccades(images[:, 0].numpy() / 255, threshold=0.3)
    data = load("digits_events", size=8, time_steps=3, limit=30)
    frames = {recordings.frames(np.array([i]), 3).tobytes(): label for i, label in enumerate(y)}
    assert all(
        frames[x.numpy().tobytes()] == label for x, label in zip(data.test.x, data.test.y, strict=True)
    )


# -------------------------------------------------------------------- sounds


def test_sounds_say_that_they_are_synthetic():
    data = load("sounds", clips_per_class=10)
    assert data.synthetic and "synthetic" in data.source and data.kind == "audio"
    assert data.shape == (1, 32, 32) and data.classes == tuple(SOUNDS) and len(data.classes) == 8
    assert_disjoint(data)
    assert_equal(data, load("sounds", clips_per_class=10))
    assert data.fingerprint != load("sounds", clips_per_class=10, sound_seed=1).fingerprint
    with pytest.raises(ValueError, match="clips_per_class = 1"):
        load("sounds", clips_per_class=1)


def test_a_clip_is_its_seeds():
    for name in SOUNDS:
        a, b, c = (clip(name, np.random.default_rng(s)) for s in (0, 0, 1))
        assert a.shape == (SAMPLES,) and a.dtype == np.float32
        assert np.array_equal(a, b) and not np.array_equal(a, c)
        assert np.abs(a).max() == pytest.approx(0.9) and np.isfinite(a).all()


def test_band_noise_lies_in_its_band():
    x = band_noise(np.random.default_rng(0), 500, 1500)
    power = np.abs(np.fft.rfft(x)) ** 2
    f = np.fft.rfftfreq(SAMPLES, 1 / RATE)
    inside = (f > 500) & (f < 1500)
    assert np.sqrt(np.mean(x**2)) == pytest.approx(1)
    filters = [signal.butter(2, 500, "highpass", analog=True), signal.butter(2, 1500, analog=True)]
    expected = np.prod([np.abs(signal.freqs(*ba, worN=f)[1]) ** 2 for ba in filters], axis=0)
    assert power[inside].sum() / power.sum() == pytest.approx(
        expected[inside].sum() / expected.sum(), rel=0.05
    )
    assert power[f > 3000].mean() / power[inside].mean() == pytest.approx(
        expected[f > 3000].mean() / expected[inside].mean(), rel=0.1
    )


def test_the_kinds_can_be_told_apart_but_not_trivially():
    waves, y = clips(20, seed=3)
    spectra = np.log(np.abs(np.fft.rfft(waves))[:, 1:].reshape(len(y), 50, -1).mean(axis=2))
    half = np.arange(len(y)) % 2 == 0
    centres = np.stack([spectra[half & (y == k)].mean(axis=0) for k in range(8)])
    nearest = ((spectra[~half, None] - centres) ** 2).sum(axis=2).argmin(axis=1)
    assert 0.3 < (nearest == y[~half]).mean() < 0.9
