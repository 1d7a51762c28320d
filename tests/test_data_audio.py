import warnings

import numpy as np
import pandas as pd
import pytest
import soundfile
import torch
from data_files import assert_disjoint, assert_equal, md5
from scipy import fft, signal

from snnbook.data import DamagedFile, MissingData, audio_sets, load
from snnbook.data.audio import chunks, fit, log_mel, mfcc, read_wav
from snnbook.data.audio_sets import GTZAN_GENRES
from snnbook.data.core import SPLITS


def noise(n: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 0.1, n).astype(np.float32)


# ------------------------------------------------------------------ front end


def slaney_filters(rate: int, n_fft: int, bands: int) -> np.ndarray:
    """Mel filters written down anew: 200 / 3 Hz per mel up to 1 kHz, then 27 mels per factor of 6.4."""

    def hertz(mel):
        return np.where(mel < 15, mel * 200 / 3, 1000 * 6.4 ** ((mel - 15) / 27))

    top = 15 + 27 * np.log(rate / 2 / 1000) / np.log(6.4)
    f, edges = np.linspace(0, rate / 2, n_fft // 2 + 1), hertz(np.linspace(0, top, bands + 2))
    up = (f - edges[:-2, None]) / np.diff(edges)[:-1, None]
    down = (edges[2:, None] - f) / np.diff(edges)[1:, None]
    return np.maximum(0, np.minimum(up, down))


def mel_power(wave: np.ndarray, rate: int, bands: int, n_fft: int, hop: int) -> np.ndarray:
    """Mel power by numpy: Hann windows centred on multiples of the hop, signal mirrored at its ends."""
    padded = np.pad(wave.astype(np.float64), n_fft // 2, mode="reflect")
    windows = np.lib.stride_tricks.sliding_window_view(padded, n_fft)[::hop]
    power = np.abs(np.fft.rfft(windows * signal.get_window("hann", n_fft))) ** 2
    return slaney_filters(rate, n_fft, bands) @ power.T


@pytest.mark.parametrize(("rate", "bands", "n_fft", "hop"), [(16000, 64, 1024, 512), (22050, 96, 512, 256)])
def test_log_mel_is_the_one_of_its_definition(rate, bands, n_fft, hop):
    wave = noise(rate // 2)
    x = log_mel(torch.from_numpy(wave)[None], rate, bands, n_fft, hop)
    assert x.dtype == torch.uint8 and x.shape == (1, 1, bands, 1 + len(wave) // hop)
    expected = 2 * (10 * np.log10(mel_power(wave, rate, bands, n_fft, hop)) + 80)
    assert np.abs(x[0, 0].numpy() - expected).max() <= 0.51
    assert x.min() > 0, "no band is empty"


def test_a_tone_lights_up_its_band_and_silence_is_the_floor():
    t = np.arange(16000) / 16000
    wave = torch.tensor(np.stack([np.sin(2 * np.pi * 440 * t), 0 * t]), dtype=torch.float32)
    tone, silence = log_mel(wave, 16000)
    centres = slaney_filters(16000, 1024, 64).argmax(axis=1) * 16000 / 1024
    assert abs(centres[tone[0, :, 15].argmax()] - 440) < 40
    assert (silence == 0).all()


@pytest.mark.parametrize("seconds", [0.02, 0.5, 1.3, 4.0])
def test_mfcc_is_the_cosine_transform_of_the_log_mel_powers_stretched_to_its_width(seconds):
    wave = noise(int(seconds * 22050))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        c = mfcc(torch.from_numpy(wave), 22050)
    assert c.shape == (1, 40, 173) and c.dtype == torch.float32
    long_enough = np.pad(wave, (0, max(0, 2048 - len(wave))))
    db = 10 * np.log10(np.maximum(mel_power(long_enough, 22050, 128, 2048, 512), 1e-10))
    coefficients = fft.dct(np.maximum(db, db.max() - 80), axis=0, norm="ortho")[:40]
    n = coefficients.shape[1]
    at = np.clip((np.arange(173) + 0.5) * n / 173 - 0.5, 0, n - 1)
    expected = np.stack([np.interp(at, np.arange(n), row) for row in coefficients])
    assert np.abs(c[0].numpy() - expected).max() < 0.05


def test_waveforms_are_cut_filled_and_chunked():
    wave = torch.arange(10.0)
    assert fit(wave, 4).tolist() == [0, 1, 2, 3] and fit(wave, 12)[8:].tolist() == [8, 9, 0, 0]
    assert chunks(wave, 8, 4).tolist() == [[0, 1], [2, 3], [4, 5], [6, 7]]
    with pytest.raises(ValueError, match="n = 3 .*a divisor of 8"):
        chunks(wave, 8, 3)


def test_wav_files_become_mono_at_the_rate_asked_for(tmp_path):
    t = np.arange(44100) / 44100
    tone = 0.5 * np.sin(2 * np.pi * 440 * t)
    soundfile.write(tmp_path / "a.wav", np.stack([tone, 0 * tone], axis=1), 44100)
    wave = read_wav("set", tmp_path / "a.wav", 16000)
    assert wave.shape == (16000,) and wave.dtype == torch.float32
    expected = 0.25 * np.sin(2 * np.pi * 440 * np.arange(16000) / 16000)
    assert np.abs(wave.numpy() - expected)[100:-100].max() < 1e-3
    assert np.abs(read_wav("set", tmp_path / "a.wav", 44100).numpy() - tone / 2).max() < 1e-4
    with pytest.raises(MissingData, match="b.wav"):
        read_wav("set", tmp_path / "b.wav", 16000)
    (tmp_path / "c.wav").write_bytes(b"RIFF nothing")
    with pytest.raises(DamagedFile) as error:
        read_wav("set", tmp_path / "c.wav", 16000)
    assert "c.wav" in str(error.value) and md5(tmp_path / "c.wav") in str(error.value)


# ---------------------------------------------------------------------- GTZAN


@pytest.fixture(params=["gtzan", "gtzan/genres", "gtzan/genres_original"])
def gtzan(tmp_path, monkeypatch, request):
    """Six short tracks per genre, jazz.00054, which is no WAV file, and blues.00003 = blues.00004."""
    monkeypatch.setattr(audio_sets, "GTZAN_SAMPLES", 8 * 2048)
    root = tmp_path / request.param
    for k, genre in enumerate(GTZAN_GENRES):
        (root / genre).mkdir(parents=True)
        for i in range(6):
            soundfile.write(root / genre / f"{genre}.{i:05d}.wav", noise(20000, 10 * k + i), 22050)
    (root / "blues" / "blues.00004.wav").write_bytes((root / "blues" / "blues.00003.wav").read_bytes())
    (root / "jazz" / "jazz.00054.wav").write_bytes(b"not a WAV file")
    return tmp_path, root


def test_gtzan_is_split_by_track_without_the_broken_one(gtzan):
    folder, root = gtzan
    data = load("gtzan", folder, calibration=60, validation=60)
    assert data.kind == "audio" and data.shape == (1, 96, 9) and data.classes == GTZAN_GENRES
    assert sum(data.summary()["samples"]) == 60 * 8, "jazz.00054 is left out"
    assert_equal(data, load("gtzan", folder, calibration=60, validation=60))
    groups = torch.cat([getattr(data, s).groups for s in SPLITS])
    assert len(groups.unique()) == 59 and (groups.bincount() == 16).sum() == 1, "equal tracks are one group"
    for a in SPLITS:
        for b in SPLITS[: SPLITS.index(a)]:
            assert not set(getattr(data, a).groups.tolist()) & set(getattr(data, b).groups.tolist())
    wave = read_wav("gtzan", root / "disco" / "disco.00002.wav", 22050)
    pieces = log_mel(chunks(wave, 8 * 2048, 8), 22050, bands=96, n_fft=512, hop=256)
    everything = torch.cat([getattr(data, s).x for s in SPLITS])
    assert all((everything == piece).flatten(1).all(1).any() for piece in pieces)


def test_a_genre_without_tracks_is_missing(gtzan):
    folder, root = gtzan
    for track in (root / "jazz").glob("jazz.0000*.wav"):
        track.unlink()  # jazz.00054 is left, which is left out
    with pytest.raises(MissingData, match=r"jazz.00000\.wav, which is not there"):
        load("gtzan", folder)


def test_gtzan_pieces_have_the_shape_of_the_paper(tmp_path):
    soundfile.write(tmp_path / "a.wav", noise(661500), 22050)
    assert audio_sets.gtzan_images(tmp_path / "a.wav").shape == (8, 1, 96, 323)


def test_limit_reads_only_the_tracks_it_needs(gtzan, monkeypatch):
    folder, _ = gtzan
    read = []
    monkeypatch.setattr(
        audio_sets, "gtzan_images", lambda p: read.append(p) or np.zeros((8, 1, 2, 2), np.uint8)
    )
    data = load("gtzan", folder, limit=10, calibration=0, validation=0)
    assert len(data.train) == len(data.test) == 10 and len(read) <= 20


# --------------------------------------------------------------- UrbanSound8K

URBAN = ("air_conditioner", "car_horn", "children_playing")


@pytest.fixture
def urban(tmp_path):
    """Ten folds; every recording gives two slices, of different length, rate and number of channels."""
    rows, root = [], tmp_path / "UrbanSound8K"
    for fold in range(1, 11):
        (root / "audio" / f"fold{fold}").mkdir(parents=True)
        for k in range(3):
            recording = 1000 * fold + k
            for part in range(2):
                name = f"{recording}-{k}-0-{part}.wav"
                wave = noise(3000 + 500 * part, recording + part)
                wave = np.stack([wave, wave], axis=1) if part else wave
                soundfile.write(root / "audio" / f"fold{fold}" / name, wave, 22050 if part else 44100)
                rows.append([name, recording, 0.0, 4.0, 1, fold, k, URBAN[k]])
    (root / "metadata").mkdir()
    columns = ["slice_file_name", "fsID", "start", "end", "salience", "fold", "classID", "class"]
    pd.DataFrame(rows, columns=columns).to_csv(root / "metadata" / "UrbanSound8K.csv", index=False)
    return tmp_path


def test_urbansound_keeps_folds_and_recordings(urban):
    data = load("urbansound8k", urban, test_fold=4, calibration=6, validation=6)
    assert data.shape == (1, 40, 173) and data.classes == URBAN and data.train.x.dtype == torch.float32
    assert [len(getattr(data, s)) for s in SPLITS] == [42, 6, 6, 6]
    assert_disjoint(data)
    wave = read_wav("urbansound8k", urban / "UrbanSound8K/audio/fold4/4001-1-0-0.wav", 22050)
    assert any(torch.equal(x, mfcc(wave, 22050)) for x in data.test.x)
    assert all(len(set(data.train.y[data.train.groups == g].tolist())) == 1 for g in data.train.groups)
    with pytest.raises(ValueError, match="test_fold = 11 .*folds"):
        load("urbansound8k", urban, test_fold=11)


def test_missing_sounds_and_tables_without_columns_are_named(urban):
    root = urban / "UrbanSound8K"
    (root / "audio" / "fold3" / "3001-1-0-1.wav").unlink()
    with pytest.raises(MissingData, match="fold3/3001-1-0-1.wav.*1 of 60"):
        load("urbansound8k", urban, calibration=6, validation=6)
    table = root / "metadata" / "UrbanSound8K.csv"
    table.write_text("slice_file_name,fold\na,1\n")
    with pytest.raises(DamagedFile, match="UrbanSound8K.csv.*columns.*fsID"):
        load("urbansound8k", urban)


def test_class_numbers_must_be_complete(urban):
    table = urban / "UrbanSound8K" / "metadata" / "UrbanSound8K.csv"
    rows = pd.read_csv(table)
    rows[rows["classID"] != 1].to_csv(table, index=False)
    with pytest.raises(ValueError, match=r"classID = \[0, 2\]"):
        load("urbansound8k", urban)


# ------------------------------------------------------------------------ ESC


@pytest.fixture(params=["ESC-50", "ESC-50-master"])
def esc(tmp_path, request):
    """Five folds of three classes, two of them in ESC-10; takes A and B of a source are in one fold."""
    rows, root = [], tmp_path / request.param
    (root / "audio").mkdir(parents=True)
    (root / "meta").mkdir()
    for fold in range(1, 6):
        for target, (category, ten) in enumerate((("dog", True), ("hen", False), ("rain", True))):
            for i, take in enumerate("ABA"):
                source = 100 * fold + 10 * target + i // 2
                name = f"{fold}-{source}-{take}-{target}.wav"
                soundfile.write(root / "audio" / name, noise(4000, source + i), 16000)
                rows.append([name, fold, target, category, ten, source, take])
    columns = ["filename", "fold", "target", "category", "esc10", "src_file", "take"]
    pd.DataFrame(rows, columns=columns).to_csv(root / "meta" / "esc50.csv", index=False)
    return tmp_path, root


def test_esc_keeps_folds_and_sources(esc):
    folder, root = esc
    data = load("esc50", folder, test_fold=2, calibration=3, validation=6)
    assert data.shape == (1, 64, 157) and data.classes == ("dog", "hen", "rain") and len(data.test) == 9
    assert_disjoint(data)
    wave = fit(read_wav("esc50", root / "audio" / "2-200-A-0.wav", 16000), 80000)
    assert any(torch.equal(x, log_mel(wave[None], 16000)[0]) for x in data.test.x)
    ten = load("esc10", folder, calibration=0, validation=0)
    assert (
        ten.classes == ("dog", "rain") and sum(ten.summary()["samples"]) == 30 and "CC BY 3.0" in ten.source
    )
    with pytest.raises(ValueError, match="test_fold = 0"):
        load("esc10", folder, test_fold=0)
