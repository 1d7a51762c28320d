"""Plausible wrong answers to the exercises of chapters 30 to 35 are refused, with the message that helps."""

import math

import numpy as np
import pytest
from scipy.special import softmax
from scipy.stats import bernoulli

from snnbook.exercises import NotYet, check, compression


def soft_reset(drive, leak, threshold):
    v, out = 0.0, []
    for x in drive:
        h = leak * v + x
        out.append(int(h >= threshold))
        v = h - threshold * out[-1]
    return out


def above_only(drive, leak, threshold):
    v, out = 0.0, []
    for x in drive:
        h = leak * v + x
        out.append(int(h > threshold))
        v = h * (1 - out[-1])
    return out


def front(work, bits):
    pairs = list(zip(work, bits, strict=True))
    return [i for i, a in enumerate(pairs) if not any(b != a and b[0] <= a[0] and b[1] <= a[1] for b in pairs)]


def map_of_the_stage_before(block):
    stage = sum(block > last for last in (4, 8, 14))
    return 256 * 2**stage * (32 // 2**stage) ** 2


def dense(spikes, out_channels, kernel, padding):
    return int(spikes.sum()) * out_channels * kernel**2


def each_step(logits, threshold):
    sure = softmax(logits, 1).max(1) >= threshold
    return int(np.append(sure[:-1], True).argmax()) + 1


def surer_than(logits, threshold):
    means = logits.cumsum(0) / np.arange(1, len(logits) + 1)[:, None]
    return int(np.append(softmax(means, 1).max(1)[:-1] > threshold, True).argmax()) + 1


def bytes_of_each_channel(channels, height, width, *depths):
    return [channels * math.ceil(height * width * n / 8) for n in depths]


def bytes_of_each_step(channels, height, width, *depths):
    return [n * math.ceil(channels * height * width / 8) for n in depths]


def price_without_a_saving(joules, payload, image):
    return math.inf if payload > image else joules / (8 * (image - payload))


def rate_without_a_delay(image, spikes, device, server, whole):
    more = device + server - whole
    return math.inf if more < 0 else 8 * (image - spikes) / more


def mean_of_softmaxes(logits, threshold):
    so_far = [softmax(logits, 1)[: t + 1].mean(0).max() >= threshold for t in range(len(logits) - 1)]
    return int(np.append(so_far, True).argmax()) + 1


def one_probability(spikes):
    return spikes.size * bernoulli(spikes.mean()).entropy() / np.log(2)


WRONG = [
    ("ex-split-map", map_of_the_stage_before, "first of their stages"),
    ("ex-split-map", lambda block: 3 * 32 * 32, "expected 262144"),
    ("ex-split-price", lambda joules, payload, image: joules / (image - payload), "not of a byte"),
    ("ex-split-price", lambda joules, payload, image: joules / (8 * (image - payload)), "expected inf"),
    ("ex-split-price", price_without_a_saving, "ZeroDivisionError"),
    ("ex-split-envelope", front, "above the lines of two others"),
    ("ex-split-envelope", lambda work, bits: list(range(len(work))), "expected [0, 2]"),
    ("ex-codec-bits", lambda c, h, w, T, bits: (c * h * w * T, c * h * w * bits), "Those are bits"),
    ("ex-codec-bits", lambda c, h, w, T, bits: (c * h * w * T // 8, c * h * w * bits // 8), "not full is sent"),
    ("ex-codec-bits", lambda c, h, w, T, bits: (c * h * w * T / 8, c * h * w * bits / 8), "rounded up"),
    ("ex-codec-bits", lambda c, h, w, T, bits: (round(c * h * w * T / 8), round(c * h * w * bits / 8)), "returned"),
    ("ex-codec-bits", bytes_of_each_channel, "rounded up once"),
    ("ex-codec-bits", bytes_of_each_step, "bytes as spikes, bytes as codes"),
    ("ex-codec-bits", lambda c, h, w, T, bits: (c * h * w * bits // 8, c * h * w * T // 8), "The order is"),
    ("ex-codec-reduction", lambda T, snn, ann, bits: 100 * (1 - T / bits), "different numbers of channels"),
    ("ex-codec-reduction", lambda T, snn, ann, bits: 1 - T * snn / (bits * ann), "In percent"),
    ("ex-codec-lif", soft_reset, "The reset is hard"),
    ("ex-codec-lif", above_only, "just reaches"),
    ("ex-codec-wrap", lambda x, bits: round(2**bits * x) % 2**bits, "wrap around"),
    ("ex-codec-wrap", lambda x, bits: int((2**bits - 1) * x), "rounding down"),
    ("ex-codec-wrap", lambda x, bits: min(round(2**bits * x), 2**bits - 1), "With 2^b steps"),
    ("ex-codec-wrap", lambda x, bits: round(2**bits * x), "does not fit"),
    ("ex-energy-break-even", lambda mac, ac, T: mac / ac, "T times the rate"),
    ("ex-energy-break-even", lambda mac, ac, T: min(1, mac / (ac * T)), "is not capped"),
    ("ex-energy-implied", lambda ratio, T, mac, ac: mac / (ac * ratio), "printed ratio"),
    ("ex-energy-shortcut", lambda b, s, T, rate: (rate * T * b * 0.9e-12, s * 4.6e-12), "every time step"),
    ("ex-energy-shortcut", lambda b, s, T, rate: (rate * T * b * 0.9e-12, rate * T * s * 0.9e-12), "costs MACs"),
    ("ex-energy-arrive", dense, "at the border"),
    ("ex-noise-hops", lambda p, q: 1 - (1 - p) * (1 - q), "right again"),
    ("ex-noise-hops", lambda p, q: p + q, "do not add up"),
    ("ex-noise-db", lambda db: compression._hard(max(db, 0.1)), "Decibels"),
    ("ex-noise-exit", each_step, "each step by itself"),
    ("ex-noise-exit", surer_than, "returned 3, expected 1"),
    ("ex-noise-exit", mean_of_softmaxes, "Average the logits first"),
    ("ex-noise-context", one_probability, "one probability for all"),
    ("ex-co-break-even", lambda image, spikes, d, s, whole: (image - spikes) / (d + s - whole), "eight bits"),
    ("ex-co-break-even", lambda image, spikes, d, s, whole: 8 * (image - spikes) / (d + s - whole), "expected inf"),
    ("ex-co-break-even", rate_without_a_delay, "ZeroDivisionError"),
    ("ex-co-window", lambda d, link, s: (d + link + s) // max(d, link, s), "round up"),
    ("ex-co-window", lambda d, link, s: (d + link + s) // max(d, link, s) + 1, "One is too many"),
    ("ex-co-exit", lambda step, header: step / (step + header), "may need both"),
    ("ex-co-exit", lambda step, header: header / step, "its step and its header"),
]


@pytest.mark.parametrize(("label", "answer", "says"), WRONG)
def test_a_wrong_answer_is_refused_with_a_message_that_helps(label, answer, says):
    with pytest.raises(NotYet) as refused:
        check(label, answer)
    assert str(refused.value).startswith(label)
    assert says in str(refused.value)


@pytest.mark.parametrize("stages", [(4, 24, 4), (10, 10, 10), (1, 50, 1), (3, 4, 5)])
def test_three_stages_in_a_row_keep_the_pace_of_littles_law(stages):
    for window in range(1, 5):
        assert math.isclose(compression._pace(window, *stages), max(max(stages), sum(stages) / window))


def test_intervals_of_prices_at_which_a_cut_is_best_tell_the_envelope_of_random_lines():
    rng = np.random.default_rng(0)
    prices = np.concatenate([np.geomspace(1e-6, 1e4, 100_000), np.linspace(1e-3, 20, 100_000)])
    for _ in range(20):
        work, bits = rng.random(6), rng.integers(1, 40, 6)
        seen = np.unique((work[:, None] + bits[:, None] * prices).argmin(0))
        assert set(seen) == {i for i in range(6) if compression._interval(i, work, bits)}
