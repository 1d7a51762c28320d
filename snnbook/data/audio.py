"""The audio front end: waveforms to log-mel and MFCC images.

Waveforms are float32 in -1 ... 1, [N, samples]; images have frequency from low to high along H and time
along W. Log-mel images are kept in bytes of half a decibel, 0 = -80 dB, so that a set fits in memory and
does not depend on the last bits of a processor's arithmetic.
"""

from __future__ import annotations

from pathlib import Path

import soundfile
import torch
import torchaudio.functional
from torch import Tensor
from torch.nn.functional import interpolate, pad
from torchaudio.transforms import MFCC, MelSpectrogram

from ..checks import check
from .errors import damaged, missing

DB_FLOOR, DB_STEP = -80.0, 0.5


def read_wav(name: str, path: Path, rate: int) -> Tensor:
    """A sound file as a mono waveform float32 [samples] at ``rate`` Hz; channels are averaged.

    Raises:
        MissingData, DamagedFile: if the file of data set ``name`` is not there, or is not a sound file.
    """
    if not path.is_file():
        raise missing(name, path, "Unpack the archive again.")
    try:
        wave, own_rate = soundfile.read(path, dtype="float32", always_2d=True)
    except soundfile.LibsndfileError as error:
        raise damaged(path, "a readable WAV file") from error
    wave = torch.from_numpy(wave).mean(dim=1)
    return wave if own_rate == rate else torchaudio.functional.resample(wave, own_rate, rate)


def fit(wave: Tensor, samples: int) -> Tensor:
    """A waveform [samples'] cut, or filled up with silence, to [samples]."""
    return pad(wave[:samples], (0, max(0, samples - len(wave))))


def chunks(wave: Tensor, samples: int, n: int) -> Tensor:
    """The first ``samples`` of a waveform, filled up with silence, as ``n`` pieces [n, samples // n]."""
    check("n", n, n >= 1 and samples % n == 0, f"a divisor of {samples}")
    return fit(wave, samples).reshape(n, samples // n)


def log_mel(waves: Tensor, rate: int, bands: int = 64, n_fft: int = 1024, hop: int = 512) -> Tensor:
    """Power in mel bands (Slaney's scale, 0 ... rate / 2) over time, in bytes of half a decibel.

    Args:
        waves: float [N, samples], samples > n_fft / 2.
        rate: sampling rate, Hz.
        bands: number of mel bands, H.
        n_fft: samples of one (Hann) window.
        hop: samples from one window to the next.

    Returns:
        uint8 [N, 1, bands, 1 + samples // hop]; value b stands for -80 + b / 2 dB re full scale squared, and
        levels outside -80 ... 47.5 dB are clipped.
    """
    mel = MelSpectrogram(rate, n_fft=n_fft, hop_length=hop, n_mels=bands, mel_scale="slaney")(waves)
    db = 10 * mel.clamp_min(1e-10).log10()
    return ((db - DB_FLOOR) / DB_STEP).round().clamp(0, 255).to(torch.uint8)[:, None]


def mfcc(
    wave: Tensor, rate: int, coefficients: int = 40, width: int = 173, n_fft: int = 2048, hop: int = 512
) -> Tensor:
    """Mel-frequency cepstral coefficients of one clip, stretched or squeezed in time to a fixed width.

    The cosine transform (orthonormal) of the log power (dB) in 128 mel bands.

    Args:
        wave: float [samples]; filled up with silence to one window.
        rate: sampling rate, Hz.
        coefficients: how many, H.
        width: W; the 1 + samples // hop windows are resized to it linearly, whatever the clip's length.
        n_fft, hop: samples of a window, and from one to the next.

    Returns:
        float32 [1, coefficients, width].
    """
    mel = {"n_fft": n_fft, "hop_length": hop, "n_mels": 128, "mel_scale": "slaney"}
    c = MFCC(rate, n_mfcc=coefficients, melkwargs=mel)(fit(wave, max(len(wave), n_fft)))
    return interpolate(c[None], size=width, mode="linear", align_corners=False)
