"""Synthetic environmental sounds: eight kinds of two-second clips made from noise and oscillators.

They stand in for recordings where no files are at hand, and wherever they appear they are called synthetic.
Every clip draws its own pitches, rates, levels and background from one numpy generator; loud backgrounds,
soft foregrounds and kinds that resemble each other (rain and wind, ticks and footsteps) keep the task from
being trivial.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from numpy.random import Generator
from scipy import fft
from scipy.signal import sawtooth

from ..checks import check
from .audio import log_mel
from .registry import Source, register

RATE, SECONDS = 8000, 2.0
SAMPLES = int(RATE * SECONDS)
TIME = np.arange(SAMPLES) / RATE


def band_noise(rng: Generator, low: float, high: float, samples: int = SAMPLES) -> np.ndarray:
    """Gaussian noise between two frequencies (Hz), float64 [samples], of root mean square 1.

    Drawn as a spectrum under the magnitudes of two second-order Butterworth filters.
    """
    f = np.maximum(fft.rfftfreq(samples, 1 / RATE), 1e-3)
    magnitude = 1 / np.sqrt((1 + (low / f) ** 4) * (1 + (f / high) ** 4))
    x = fft.irfft(magnitude * rng.standard_normal((2, len(f))).T.copy().view(complex)[:, 0], samples)
    return x / np.sqrt(np.mean(x**2))


def onsets(rng: Generator, rate: float, jitter: float) -> np.ndarray:
    """Times (s) of repeated sounds: ``rate`` per second, each moved by up to ``jitter`` of the interval."""
    times = np.arange(rng.uniform(0, 1), SECONDS * rate, 1.0) / rate
    return np.clip(times + rng.uniform(-jitter, jitter, len(times)) / rate, 0, SECONDS - 0.02)


def place(times: np.ndarray, sound: Callable[[], np.ndarray]) -> np.ndarray:
    """A clip with one ``sound()`` from each of ``times`` (s) on."""
    clip = np.zeros(SAMPLES)
    for start in (times * RATE).astype(int):
        piece = sound()[: SAMPLES - start]
        clip[start : start + len(piece)] += piece
    return clip


def decay(seconds: float, tau: float) -> np.ndarray:
    """exp(-t / tau) over a piece of ``seconds``."""
    return np.exp(-np.arange(int(seconds * RATE)) / (RATE * tau))


def rain(rng: Generator) -> np.ndarray:
    """Broad hiss with many short drops."""
    hiss = band_noise(rng, rng.uniform(400, 900), rng.uniform(3000, 3900))

    def drop() -> np.ndarray:
        return rng.uniform(1, 5) * decay(0.02, 0.003) * rng.standard_normal(160)

    return hiss + place(rng.uniform(0, SECONDS - 0.02, rng.integers(20, 150)), drop)


def wind(rng: Generator) -> np.ndarray:
    """Noise whose level swells slowly."""
    swell = 1 + 0.8 * np.sin(2 * np.pi * (rng.uniform(0.3, 1.2) * TIME + rng.uniform()))
    return swell * band_noise(rng, rng.uniform(60, 250), rng.uniform(700, 2500))


def siren(rng: Generator) -> np.ndarray:
    """A tone with harmonics that sweeps up and down."""
    centre, depth, speed = rng.uniform(600, 1300), rng.uniform(0.1, 0.4), rng.uniform(0.3, 3)
    pitch = centre * (1 + depth * np.sin(2 * np.pi * (speed * TIME + rng.uniform())))
    phase = 2 * np.pi * np.cumsum(pitch) / RATE
    return np.sin(phase) + 0.4 * np.sin(2 * phase) + 0.2 * np.sin(3 * phase)


def dog_bark(rng: Generator) -> np.ndarray:
    """A few short, harsh, falling tones."""
    base, length = rng.uniform(250, 700), rng.uniform(0.12, 0.25)
    envelope = decay(length, length / 4)

    def bark() -> np.ndarray:
        fall = base * (1 + 0.4 * envelope)
        tone = np.sign(np.sin(2 * np.pi * np.cumsum(fall) / RATE)) + rng.standard_normal(len(envelope))
        return tone * envelope

    return place(onsets(rng, rng.uniform(1, 3), 0.2), bark)


def clock_tick(rng: Generator) -> np.ndarray:
    """Regular clicks of a high resonance."""
    ring, tau = rng.uniform(1500, 3500), rng.uniform(0.002, 0.01)
    click = decay(0.06, tau) * np.sin(2 * np.pi * ring * np.arange(480) / RATE)
    return place(onsets(rng, rng.uniform(2, 5), 0.0), lambda: click * rng.uniform(0.7, 1.0))


def footsteps(rng: Generator) -> np.ndarray:
    """Dull thumps with a scrape, less regular than a clock."""
    low, scrape = rng.uniform(80, 300), rng.uniform(0.2, 1.0)

    def step() -> np.ndarray:
        thump = decay(0.1, 0.02) * np.sin(2 * np.pi * low * np.arange(800) / RATE)
        return thump + scrape * decay(0.1, 0.03) * 0.4 * band_noise(rng, 600, 3000, 800)

    return place(onsets(rng, rng.uniform(1.5, 3.5), 0.15), step)


def engine(rng: Generator) -> np.ndarray:
    """Many harmonics of a low, slightly wavering pitch, with a rumble."""
    pitch = rng.uniform(25, 110) * (
        1 + 0.05 * np.sin(2 * np.pi * (rng.uniform(0.2, 2) * TIME + rng.uniform()))
    )
    phase = 2 * np.pi * np.cumsum(pitch) / RATE
    return sawtooth(phase, rng.uniform(0, 1)) + rng.uniform(0.2, 1.0) * band_noise(rng, 50, 600)


def birds(rng: Generator) -> np.ndarray:
    """Chirps: short, high tones that glide."""
    centre, glide, length = rng.uniform(1800, 3200), rng.uniform(-0.3, 0.3), rng.uniform(0.05, 0.2)
    at = np.arange(int(length * RATE)) / (length * RATE)

    def chirp() -> np.ndarray:
        pitch = centre * rng.uniform(0.9, 1.1) * (1 + glide * (at - 0.5) + 0.05 * np.sin(2 * np.pi * 6 * at))
        return np.sin(np.pi * at) * np.sin(2 * np.pi * np.cumsum(pitch) / RATE)

    return place(onsets(rng, rng.uniform(2, 6), 0.3), chirp)


SOUNDS: dict[str, Callable[[Generator], np.ndarray]] = {
    "rain": rain,
    "wind": wind,
    "siren": siren,
    "dog bark": dog_bark,
    "clock tick": clock_tick,
    "footsteps": footsteps,
    "engine": engine,
    "birds": birds,
}


def clip(name: str, rng: Generator) -> np.ndarray:
    """One synthetic clip of kind ``name``: float32 [16000], 2 s at 8 kHz, peak 0.9.

    The sound lies 4 to -14 dB above a background of coloured noise.
    """
    sound = SOUNDS[name](rng)
    sound = sound / np.sqrt(np.mean(sound**2) + 1e-12)
    background = band_noise(rng, rng.uniform(50, 800), rng.uniform(1200, 3900))
    mixed = sound + background * 10 ** (-rng.uniform(-14, 4) / 20)
    return (0.9 * mixed / np.abs(mixed).max()).astype(np.float32)


def clips(n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """``n`` clips of every kind, by kind: float32 [8 n, 16000] and labels [8 n]."""
    check("clips_per_class", n, n >= 5, "at least 5")
    rng = np.random.default_rng(seed)
    waves = np.stack([clip(name, rng) for name in SOUNDS for _ in range(n)])
    return waves, np.repeat(np.arange(len(SOUNDS)), n)


@register("sounds", "synthetic environmental sounds, log-mel 1 x 32 x 32 (made on the spot, needs no files)")
def sounds(
    data_dir: Path, time_steps: int, download: bool, clips_per_class: int = 150, sound_seed: int = 0
) -> Source:
    """Synthetic sounds; ``clips_per_class``: size of the set, ``sound_seed``: which clips are made."""
    waves, y = clips(clips_per_class, sound_seed)
    x = log_mel(torch.from_numpy(waves), RATE, bands=32, n_fft=512, hop=512)
    return Source(
        "audio",
        y,
        lambda index: x[index],
        tuple(SOUNDS),
        f"synthetic environmental sounds, {len(y):,} clips of 2 s made from noise and oscillators by seed",
        synthetic=True,
    )
