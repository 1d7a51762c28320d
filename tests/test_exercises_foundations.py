"""Plausible wrong answers to the exercises of chapters 01 to 03 are refused, with the message that helps."""

import math

import pytest
import torch

from snnbook.exercises import NotYet, check


def hard_reset(drive, tau, threshold):
    v, spikes = 0.0, []
    for x in drive:
        h = (1 - 1 / tau) * v + x
        spikes.append(int(h >= threshold))
        v = h * (1 - spikes[-1])
    return spikes


def drive_divided(drive, tau, threshold):
    v, spikes = 0.0, []
    for x in drive:
        h = v + (x - v) / tau
        spikes.append(int(h >= threshold))
        v = h - threshold * spikes[-1]
    return spikes


def above_only(drive, tau, threshold):
    v, spikes = 0.0, []
    for x in drive:
        h = (1 - 1 / tau) * v + x
        spikes.append(int(h > threshold))
        v = h - threshold * spikes[-1]
    return spikes


def fan_out_without_edges(size, kernel, stride, padding):
    return [[(kernel // stride) ** 2] * size for _ in range(size)]


def whole_network(a, c, rate, time_steps):
    spiking = 0.9 * rate * time_steps * a
    left_out = 0.9 * (rate * time_steps * a - time_steps * c)
    return {
        "once": (4.6 * c + spiking) / (4.6 * a),
        "every step": (4.6 * c * time_steps + spiking) / (4.6 * a),
        "left out": left_out / (4.6 * a),
    }


def added_times(flops, moved, peak, bandwidth):
    seconds = flops / peak + moved / bandwidth
    return seconds, "memory" if moved / bandwidth > flops / peak else "arithmetic"


def always_memory(flops, moved, peak, bandwidth):
    return max(flops / peak, moved / bandwidth), "memory"


def step_by_step(layer, x):
    return torch.stack([layer(frame) for frame in x])


def batch_first(layer, x):
    return layer(x.transpose(0, 1).flatten(0, 1)).unflatten(0, x.shape[:2])


def forgotten_state(run, x, size):
    return torch.cat([run(part, 0.0)[0] for part in x.split(size)])


def all_at_once(run, x, size):
    return run(x, 0.0)[0]


def last_piece(run, x, size):
    return [run(part, 0.0)[0] for part in x.split(size)][-1]


WRONG = [
    ("ex-01-by-hand", lambda x, theta, T: (int(T * x / theta),) * 2, "throws away what is above"),
    ("ex-01-leaky-step", hard_reset, "resets to 0"),
    ("ex-01-leaky-step", drive_divided, "divides its drive by τ"),
    ("ex-01-leaky-step", above_only, "≥, not >"),
    ("ex-01-translate", lambda keep, gain, theta: (1 / (1 - keep), theta), "same steps"),
    ("ex-01-translate", lambda keep, gain, theta: (1 / keep, theta / gain), "tau follows from keep alone"),
    ("ex-01-translate", lambda keep, gain, theta: (1, 2, 3), "two numbers"),
    ("ex-01-silent", lambda keep, theta: (keep * theta, theta), "silent after 600 steps"),
    ("ex-01-silent", lambda keep, theta: (theta, theta), "fires 300 times"),
    ("ex-01-silent", lambda keep, theta: ((1 - keep) * theta, 2 * theta), "at every step already"),
    ("ex-01-silent", lambda keep, theta: ((1 - keep) * theta, 0.9 * theta), "of 600 steps only"),
    ("ex-01-eight-bits", lambda bits: (2**bits, bits), "no spike is a message"),
    ("ex-01-carried", lambda drives, T, theta: [int(T * x // theta) for x in drives], "reset before each sample"),
    ("ex-02-stride", fan_out_without_edges, "Output o sees"),
    ("ex-02-time", lambda rate, mac, ac, area: math.floor(mac / (ac * rate * area)), "nothing is saved"),
    ("ex-02-time", lambda rate, mac, ac, area: math.ceil(mac / (ac * rate * area)), "as much as the ANN, or more"),
    ("ex-02-time", lambda rate, mac, ac, area: math.ceil(mac / (ac * rate)) - 1, "Behind a pool"),
    ("ex-02-merge", lambda f, mac, ac: (4 * f * ac, 4 * f * mac), "at least one of four"),
    ("ex-02-neurons", lambda n, T, s, leaky, soft: (n * T * leaky, 2 * n * T + s), "1 AC a spike"),
    ("ex-02-ratio", whole_network, "behind the first layer only"),
    ("ex-speed-roofline", added_times, "not their sum"),
    ("ex-speed-roofline", always_memory, "it is arithmetic that binds"),
    ("ex-speed-balance", lambda balance, kernel: math.ceil(8 * balance / kernel**2), "counts as two operations"),
    ("ex-speed-fold", step_by_step, "one call is enough"),
    ("ex-speed-fold", batch_first, "changed places"),
    ("ex-speed-fold", lambda layer, x: layer(x.flatten(0, 1)), "should have the shape"),
    ("ex-speed-stream", forgotten_state, "the piece before left"),
    ("ex-speed-stream", all_at_once, "8 steps at once"),
    ("ex-speed-stream", last_piece, "in one tensor"),
    ("ex-speed-height", lambda weight, bias, theta: (theta * weight, theta * bias), "the height of a spike"),
]


@pytest.mark.parametrize(("label", "answer", "message"), WRONG, ids=[f"{w[0]}-{i}" for i, w in enumerate(WRONG)])
def test_wrong_answer_is_refused_with_a_message_that_helps(label, answer, message):
    with pytest.raises(NotYet, match=label) as raised:
        check(label, answer)
    assert message in str(raised.value)


def test_another_right_form_is_accepted(capsys):
    """A tensor is as good as a list, and whole numbers as good as floats."""
    check("ex-01-eight-bits", lambda bits: torch.tensor([2**bits - 1, bits]))
    check(
        "ex-02-neurons", lambda n, T, s, leaky, soft: [float(n * T) if leaky else 0.0, 2 * n * T + (s if soft else 0)]
    )
    assert capsys.readouterr().out.count("right.") == 2
