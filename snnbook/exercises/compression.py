"""Checkers of the chapters on compression: 30 (split points), 31, 33, 34 and 35 (co-inference)."""

from __future__ import annotations

import math
from functools import cache
from itertools import product

import numpy as np
import torch
from scipy.optimize import brentq
from scipy.special import softmax
from scipy.stats import bernoulli, norm

from snnbook import papers
from snnbook.bottleneck import backbone, energy
from snnbook.bottleneck.baseline import Quantise
from snnbook.bottleneck.sizes import pack_codes
from snnbook.energy import ENERGY_MODELS
from snnbook.exercises.core import close, equal, exercise, law
from snnbook.experiments import early_exit
from snnbook.link.payload import pack
from snnbook.neurons import LIF

SPLIT_POINTS = "30_split_points"
CODEC = "31_bottleneck_codec"
ENERGY = "33_energy_tables"
NOISE = "34_noisy_channels"
CO_INFERENCE = "35_co_inference"


@cache
def _maps() -> list[int]:
    """Elements of the map behind each block of the full ResNet-50, from one an eighth as wide."""
    points = backbone.split_points(backbone.twin(width=0.125), (3, 32, 32))
    return (8 * points["channels"] * points["height"] * points["width"]).tolist()


@exercise("ex-split-map", SPLIT_POINTS)
def split_map(answer):
    """Sizes of feature maps, against those of a network that runs."""
    mistakes = {
        "Blocks 4, 8 and 14 are the first of their stages, and halve the map already.":
            lambda block: _maps()[max(block - 2, 0)],
        "Blocks 3, 7 and 13 are the last of their stages.": lambda block: _maps()[min(block, 15)],
        "A block puts out 256 channels in the first stage, at the size of the image.":
            lambda block: _maps()[block - 1] // 4,
    }
    equal(answer, lambda block: _maps()[block - 1], [(k,) for k in (1, 2, 3, 4, 7, 8, 13, 14, 16)], mistakes=mistakes)


@exercise("ex-split-price", SPLIT_POINTS)
def split_price(answer):
    """Price of a bit at which a cut costs what the image does, found as a root."""

    def reference(joules, payload, image):
        def more(price):
            return joules + 8 * payload * price - 8 * image * price

        return brentq(more, 0, 1e3, xtol=1e-20, rtol=1e-14) if more(1e3) < 0 else math.inf

    def bytes_for_bits(joules, payload, image):
        return joules / (image - payload) if payload < image else math.inf

    cases = [(3.067e-3, 64, 3072), (1e-4, 1024, 3072), (5e-3, 2048, 150_528), (1e-3, 8192, 3072), (1e-3, 3072, 3072)]
    mistakes = {"The price is that of a bit, not of a byte.": bytes_for_bits}
    close(answer, reference, cases, "In joules a bit; math.inf if the cut never saves.", mistakes, atol=0.0)


@exercise("ex-split-envelope", SPLIT_POINTS)
def split_envelope(answer):
    """Cuts that are best at some price, by the interval of prices at which each beats every other."""

    def reference(work, bits):
        return [i for i in range(len(work)) if _interval(i, work, bits)]

    def undominated(work, bits):
        pairs = list(zip(work, bits, strict=True))
        beaten = [any(x <= w and y <= b and (x, y) != (w, b) for x, y in pairs) for w, b in pairs]
        return [i for i, lost in enumerate(beaten) if not lost]

    rng = np.random.default_rng(30)
    cases = [([0, 1, 3], [24, 8, 4]), ([0, 2, 3], [24, 20, 4]), ([1, 2, 3, 4], [8, 8, 2, 2])]
    cases += [(np.sort(rng.random(7)).round(3).tolist(), rng.integers(1, 99, 7).tolist()) for _ in range(4)]
    mistakes = {
        "A cut that no other beats in both can still lie above the lines of two others at every price.": undominated
    }
    equal(answer, reference, cases, "Indices in ascending order, for prices above 0.", mistakes)


def _interval(i: int, work: list[float], bits: list[float]) -> bool:
    """Whether there are prices above 0 at which cut ``i`` costs less than every other."""
    low, high = 0.0, math.inf
    for w, b in [pair for j, pair in enumerate(zip(work, bits, strict=True)) if j != i]:
        if b == bits[i] and w <= work[i]:
            return False
        if b > bits[i]:
            low = max(low, (work[i] - w) / (b - bits[i]))
        if b < bits[i]:
            high = min(high, (w - work[i]) / (bits[i] - b))
    return low < high


@exercise("ex-codec-bits", CODEC)
def codec_bits(answer):
    """Whole bytes of channels as spikes and as codes, by packing both."""

    def reference(channels, height, width, time_steps, bits):
        codes = torch.zeros(channels, height, width, dtype=torch.uint8)
        return len(pack(torch.zeros(time_steps, *codes.shape))), len(pack_codes(codes, bits))

    def each(channels, height, width, *depths):
        return tuple(channels * math.ceil(height * width * n / 8) for n in depths)

    mistakes = {
        "The order is (spikes, codes).": lambda *case: reference(*case)[::-1],
        "Those are bits; a byte has eight.": lambda c, h, w, T, b: (c * h * w * T, c * h * w * b),
        "A byte that is not full is sent as well.": lambda c, h, w, T, b: (c * h * w * T // 8, c * h * w * b // 8),
        "Bytes are in whole numbers, rounded up.": lambda c, h, w, T, b: (c * h * w * T / 8, c * h * w * b / 8),
        "Channels are packed one behind the other: the bytes are rounded up once, not for each channel.": each,
        "Every channel has height × width elements.": lambda c, h, w, T, b: reference(c, 1, 1, T, b),
    }
    cases = [(64, 4, 4, 2, 8), (16, 4, 4, 4, 8), (5, 3, 3, 3, 6), (1, 3, 3, 1, 8), (7, 3, 3, 2, 4), (32, 2, 2, 4, 1)]
    equal(answer, reference, cases, "Two numbers: bytes as spikes, bytes as codes.", mistakes)


@exercise("ex-codec-reduction", CODEC)
def codec_reduction(answer):
    """Bytes saved in percent, against packed spikes and packed codes, and all columns of Table 1."""

    def reference(time_steps, snn_channels, ann_channels, ann_bits):
        spikes = pack(torch.zeros(time_steps, snn_channels, 4, 4))
        codes = pack_codes(torch.zeros(ann_channels, 4, 4, dtype=torch.uint8), ann_bits)
        return 100 * (1 - len(spikes) / len(codes))

    mistakes = {
        "That is the share that is left, not the share saved.": lambda *case: 100 - reference(*case),
        "In percent, please.": lambda *case: reference(*case) / 100,
        "The two may send different numbers of channels.": lambda T, snn, ann, b: 100 * (1 - T / b),
    }
    table = papers.table("spikebottlenet_table1")
    printed = zip(table["time_steps"], table["snn_channels"], table["ann_channels"], strict=True)
    cases = [(*map(int, row), 8) for row in printed] + [(2, 64, 64, 2), (4, 16, 16, 1), (4, 32, 64, 4)]
    close(answer, reference, cases, mistakes=mistakes)


@exercise("ex-codec-lif", CODEC)
def codec_lif(answer):
    """The iterative LIF neuron, against the layer of the package."""

    def reference(drive, leak, threshold):
        neuron = LIF(**backbone.iterative_lif(leak, threshold))
        return neuron(torch.tensor(drive)[:, None]).flatten().int().tolist()

    def by_hand(drive, leak, threshold, fires=lambda h, theta: h >= theta, reset=lambda h, theta: 0.0, gain=1.0):
        v, out = 0.0, []
        for x in drive:
            h = leak * v + gain * x
            out.append(int(fires(h, threshold)))
            v = reset(h, threshold) if out[-1] else h
        return out

    mistakes = {
        "The reset is hard: after a spike the potential is 0.":
            lambda *case: by_hand(*case, reset=lambda h, theta: h - theta),
        "A potential that just reaches the threshold fires.": lambda *case: by_hand(*case, lambda h, theta: h > theta),
        "The drive is not multiplied by 1/τ here.": lambda *case: by_hand(*case, gain=1 - case[1]),
    }
    rng = np.random.default_rng(31)
    cases = [([0.25, 0.5, 0.25, 0.25], 0.25, 0.5), ([0.375, 0.375, 0.375, 1.5, 0.25], 0.5, 0.5)]
    cases += [((rng.integers(-2, 8, 10) / 8).tolist(), leak, theta) for leak in (0.25, 0.5) for theta in (0.5, 1.0)]
    equal(answer, reference, cases, "A list of 0 and 1.", mistakes)


@exercise("ex-codec-wrap", CODEC)
def codec_wrap(answer):
    """The nearest code of b bits, against the quantiser of BottleNet++ and the decoder that the text gives."""

    def reference(x, bits):
        return int(Quantise(bits).codes(torch.tensor(x, dtype=torch.float64)))

    mistakes = {
        "With 2^b steps in place of 2^b − 1 the values of codes and numbers do not agree.":
            lambda x, bits: min(round(2**bits * x), 2**bits - 1),
        "The largest values wrap around.": lambda x, bits: round(2**bits * x) % 2**bits,
        "That code does not fit into b bits.": lambda x, bits: round(2**bits * x),
        "Rounding to the nearest step is closer than rounding down.": lambda x, bits: int((2**bits - 1) * x),
    }
    cases = [(0.999, 8), (1.0, 8), (0.0, 8), (0.4, 1), (0.7, 2), (1.0, 1), (0.61, 4), (0.123, 6)]
    equal(answer, reference, cases, mistakes=mistakes)


@exercise("ex-energy-break-even", ENERGY)
def energy_break_even(answer):
    """Firing rate at which blocks cost the same, found as a root."""

    def reference(mac, ac, time_steps):
        return brentq(lambda rate: 1e6 * mac - rate * time_steps * 1e6 * ac, 0, 1e4, xtol=1e-13)

    mistakes = {
        "That is T times the rate.": lambda mac, ac, T: mac / ac,
        "That is the other way round.": lambda mac, ac, T: ac / (mac * T),
    }
    prices = [(m.mac, m.ac) for m in ENERGY_MODELS.values()]
    hint = "T · rate · ac is then mac. A rate above 1, which no neuron reaches, is not capped."
    close(answer, reference, [(*pair, T) for pair in prices for T in (1, 4, 8)], hint, mistakes)


@exercise("ex-energy-implied", ENERGY)
def energy_implied(answer):
    """Firing rates behind Table 3: both rows of ratios, and back again to the ratio."""
    table = papers.table("spikebottlenet_table3")
    for column, name in (("ratio", "45nm_fp32"), ("rolls_ratio", "rolls")):
        model, rows = ENERGY_MODELS[name], zip(table[column], table["time_steps"], strict=True)
        cases = [(float(ratio), int(T), model.mac, model.ac) for ratio, T in rows]

        def back(rate, ratio, T, mac, ac, name=name):
            return math.isclose(energy.ann_joules(1e9) / energy.snn_joules(1e9, float(rate), T, name), ratio)

        law(answer, cases, back, "with this rate, E_ANN / E_SNN is the printed ratio")


@exercise("ex-energy-shortcut", ENERGY)
def energy_shortcut(answer):
    """Joules of blocks and shortcuts on the spiking device, against the package's prices."""

    def reference(block_macs, shortcut_macs, time_steps, rate):
        each_step = [energy.ann_joules(shortcut_macs) for _ in range(time_steps)]
        return energy.snn_joules(block_macs, rate, time_steps), sum(each_step)

    mistakes = {
        "Potentials arrive at a shortcut at every time step.":
            lambda b, s, T, r: (energy.snn_joules(b, r, T), energy.ann_joules(s)),
        "A shortcut carries potentials, not spikes: it costs MACs.":
            lambda b, s, T, r: (energy.snn_joules(b, r, T), energy.snn_joules(s, r, T)),
        "In joules: a picojoule is 1e-12 J.": lambda *case: tuple(1e12 * e for e in reference(*case)),
    }
    cases = [(1178.6e6, 100.66e6, 4, 0.247), (100e6, 10e6, 2, 0.1), (1e6, 5e6, 1, 0.9)]
    close(answer, reference, cases, "Two numbers: blocks, shortcuts.", mistakes, atol=0.0)


@exercise("ex-energy-arrive", ENERGY)
def energy_arrive(answer):
    """Accumulates of a convolution, connection by connection."""

    def reference(spikes, out_channels, kernel, padding):
        _, height, width = spikes.shape
        total = 0
        for _, i, j in np.argwhere(spikes):
            for di, dj in product(range(kernel), repeat=2):
                row, column = i + padding - di, j + padding - dj
                total += 0 <= row <= height + 2 * padding - kernel and 0 <= column <= width + 2 * padding - kernel
        return int(total) * out_channels

    mistakes = {
        "A spike at the border reaches fewer positions.": lambda s, out, k, padding: int(s.sum()) * k * k * out,
        "Every spike goes to all output channels.": lambda s, out, k, padding: reference(s, 1, k, padding),
    }
    rng = np.random.default_rng(33)
    centre, corner = np.zeros((2, 1, 4, 4), int)
    centre[0, 1, 2] = corner[0, 0, 0] = 1
    cases = [(centre, 5, 3, 1), (corner, 5, 3, 1), ((rng.random((3, 5, 4)) < 0.4).astype(int), 2, 3, 1)]
    cases += [((rng.random((2, 6, 6)) < 0.4).astype(int), 4, k, padding) for k, padding in ((1, 0), (3, 0), (5, 2))]
    equal(answer, reference, cases, "Stride 1.", mistakes)


@exercise("ex-noise-hops", NOISE)
def noise_hops(answer):
    """Two links in a row, by all four ways that they can flip a bit."""

    def reference(p, q):
        ways = product(((0, 1 - p), (1, p)), ((0, 1 - q), (1, q)))
        return sum(a * b for (first, a), (second, b) in ways if first != second)

    mistakes = {
        "A bit that is flipped twice is right again.": lambda p, q: 1 - (1 - p) * (1 - q),
        "Probabilities of things that may both happen do not add up.": lambda p, q: p + q,
    }
    close(answer, reference, [(0.1, 0.1), (0.01, 0.2), (0.5, 0.3), (0.0, 0.07)], mistakes=mistakes)


@exercise("ex-noise-db", NOISE)
def noise_db(answer):
    """Bit error rate and capacity, against SciPy's normal and Bernoulli distributions."""

    def reference(ebn0_db):
        return _hard(10 ** (ebn0_db / 10))

    def nats(ebn0_db):
        p = reference(ebn0_db)[0]
        return p, 1 - float(bernoulli(p).entropy())

    mistakes = {
        "Decibels are ten times a logarithm: Eb/N0 itself is 10 ** (dB / 10).": lambda db: _hard(abs(db)),
        "The entropy is in bits: logarithms to base 2.": nats,
    }
    cases = [(4.0,), (0.0,), (-2.0,), (7.5,)]
    close(answer, reference, cases, "Two numbers: bit error rate, capacity.", mistakes, rtol=1e-5)


def _hard(ebn0: float) -> tuple[float, float]:
    """Bit error rate of a hard decision, and capacity, by SciPy."""
    p = float(norm.sf(math.sqrt(2 * ebn0)))
    return p, 1 - float(bernoulli(p).entropy()) / math.log(2)


@exercise("ex-noise-context", NOISE)
def noise_context(answer):
    """Ideal code length under a context, spike by spike."""

    def reference(spikes, alone=False):
        states = np.vstack([np.full(spikes.shape[1], 2), spikes[:-1]]) * (not alone)
        pairs = list(zip(states.ravel(), spikes.ravel(), strict=True))
        given = [[fired for before, fired in pairs if before == state] for state, _ in pairs]
        return -sum(math.log2(seen.count(fired) / len(seen)) for (_, fired), seen in zip(pairs, given, strict=True))

    def entropies(spikes):
        return reference(spikes) / spikes.size

    rng = np.random.default_rng(34)
    base = (rng.random((1, 12)) < 0.4).astype(int)
    repeated = np.vstack([base, base ^ (rng.random((4, 12)) < 0.1)])
    mistakes = {
        "That is one probability for all: the spike one step before is not used.": lambda s: reference(s, alone=True),
        "That is bits a spike; the whole map was asked for.": entropies,
    }
    hint = "The first step is a state of its own."
    cases = [(np.array([[1, 0, 1, 0], [1, 0, 0, 0]]),), (repeated,), ((rng.random((4, 9)) < 0.3).astype(int),)]
    close(answer, reference, cases, hint, mistakes, atol=1e-6)


@exercise("ex-noise-exit", NOISE)
def noise_exit(answer):
    """Step at which the server answers, against the chapter's own rule."""

    def reference(logits, threshold):
        table = early_exit.early_exit(torch.tensor(logits)[:, None], torch.zeros(1, dtype=torch.int64), [threshold], 1)
        return int(table["steps"].iloc[0])

    def first(confidence, threshold):
        return int(np.append(confidence[:-1] >= threshold, True).argmax()) + 1

    def mean_of_softmaxes(logits, threshold):
        so_far = softmax(logits, 1).cumsum(0) / np.arange(1, len(logits) + 1)[:, None]
        return first(so_far.max(1), threshold)

    mistakes = {
        "That looks at each step by itself; the server averages all logits so far.":
            lambda logits, threshold: first(softmax(logits, 1).max(1), threshold),
        "Average the logits first, then take the softmax.": mean_of_softmaxes,
        "Steps are counted from 1.": lambda *case: reference(*case) - 1,
    }
    rng = np.random.default_rng(35)
    cases = [(np.array([[0.0, 1.0], [0.0, 5.0], [0.0, 0.0]]), level) for level in (0.6, 0.9, 0.95, 0.999)]
    cases += [(rng.normal(0, 3, (5, 4)).round(1), level) for level in (0.5, 0.8, 0.8, 0.95, 0.99)]
    cases += [(np.zeros((3, 2)), 0.5)]
    equal(answer, reference, cases, "At the last step the server answers in any case.", mistakes)


def _latency(rate: float, size: float, seconds: float) -> float:
    """Seconds until an answer: a message of ``size`` bytes with a header of 40, and computing."""
    return 8 * (size + 40) / rate + seconds


@exercise("ex-co-break-even", CO_INFERENCE)
def co_break_even(answer):
    """Rate at which both latencies are equal, found as a root."""

    def reference(image, spikes, device, server, whole):
        def slower(log_rate):
            rate = math.exp(log_rate)
            return _latency(rate, spikes, device + server) - _latency(rate, image, whole)

        return math.exp(brentq(slower, 0, 35, xtol=1e-13)) if slower(35) > 0 else math.inf

    mistakes = {
        "A byte has eight bits.": lambda *case: reference(*case) / 8,
        "The server saves work as well when it runs only its half.":
            lambda image, spikes, device, server, whole: 8 * (image - spikes) / (device + server),
    }
    cases = [(3072, 64, 0.080, 0.005, 0.007), (256, 64, 0.01, 0.002, 0.006), (3072, 512, 0.001, 0.002, 0.004)]
    cases += [(256, 64, 0.5, 0.25, 0.75)]
    hint = "In bits a second; math.inf if splitting is faster at every rate."
    close(answer, reference, cases, hint, mistakes)


def _pace(window: int, *stages: int) -> float:
    """Time between answers in the long run, of three stages one behind the other and a window; simulated."""
    done, answers = [0, 0, 0], []
    for n in range(400):
        ready = answers[n - window] if n >= window else 0
        for i, stage in enumerate(stages):
            ready = done[i] = max(ready, done[i]) + stage
        answers.append(ready)
    return (answers[399] - answers[159]) / 240


@exercise("ex-co-window", CO_INFERENCE)
def co_window(answer):
    """Smallest window that keeps the slowest stage busy, by simulating the three stages."""

    def reference(device, link, server):
        return next(w for w in range(1, 100) if _pace(w, device, link, server) == max(device, link, server))

    mistakes = {
        "That window leaves the slowest stage idle now and then: round up.":
            lambda *stages: sum(stages) // max(stages),
        "One is too many: the slowest stage is busy with fewer.": lambda *stages: sum(stages) // max(stages) + 1,
    }
    cases = [(4, 24, 4), (10, 10, 10), (5, 2, 9), (7, 6, 7), (1, 50, 1), (12, 24, 12)]
    equal(answer, reference, cases, "The slowest of the three stages sets the pace.", mistakes)


@exercise("ex-co-exit", CO_INFERENCE)
def co_exit(answer):
    """Share of early answers at which the bytes are equal, message by message."""

    def sent(early, step, header, samples=1000):
        messages = [1] * early + [2] * (samples - early)
        return sum(n * (step + header) for n in messages), samples * (2 * step + header)

    def reference(step, header):
        (none, both), (all_early, _) = sent(0, step, header), sent(1000, step, header)
        return (none - both) / (none - all_early)

    mistakes = {
        "That is the share that may need both steps.": lambda *case: 1 - reference(*case),
        "A message carries its step and its header.": lambda step, header: header / step,
    }
    close(answer, reference, [(32, 40), (1000, 40), (8, 120), (16, 16)], mistakes=mistakes)
