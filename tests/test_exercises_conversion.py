"""Plausible wrong answers to the exercises of chapters 10 to 14 are refused, with the message that helps."""

import math
from itertools import combinations

import pytest

from snnbook.exercises import NotYet, check


def unclipped(z, threshold, time_steps, v0):
    n = math.floor((v0 + time_steps * z) / threshold)
    return n, threshold * n / time_steps, v0 + time_steps * z - threshold * n


def swapped_errors(z, threshold, time_steps):
    a = max(z, 0.0)
    c = min(a, threshold)
    return c - threshold * math.floor(time_steps * c / threshold) / time_steps, a - c


def plain_criterion(n, v, time_steps, threshold):
    return "too often" if v < 0 else "too rarely" if v >= threshold else "right"


def inhibition_first(plus, minus, time_steps):
    steps = list(range(1, time_steps + 1))
    return steps[time_steps - plus :], steps[:minus]


def soft_ledger(drive, threshold):
    n, v = 0, 0.0
    for x in drive:
        v += x
        if v >= threshold:
            n, v = n + 1, v - threshold
    return n, v, 0.0


def absolute(v0, target, outputs, time_steps):
    return v0 + time_steps * sum(abs(target - phi) for phi in outputs) / len(outputs)


def mean_only(v0, target, outputs, time_steps):
    return v0 + sum(target - phi for phi in outputs) / len(outputs)


def rate_unclipped(z, lam, levels, shift):
    return lam * math.floor(z * levels / lam + shift) / levels


def floor_only(z, lam, levels, shift):
    return lam * min(max(math.floor(z * levels / lam) / levels, 0), 1)


def along_inputs(weight, bias, gamma, beta, mean, variance, eps):
    factor = gamma / (variance + eps).sqrt()
    return weight * factor[None, : weight.shape[1], None, None], beta + (bias - mean) * factor


def bias_forgotten(weight, bias, gamma, beta, mean, variance, eps):
    return weight * (gamma / (variance + eps).sqrt())[:, None, None, None], bias


def first_good(losses, within):
    return min((T for T, loss in losses.items() if loss <= within), default=None)


def small_either_way(losses, within):
    found = None
    for T in sorted(losses, reverse=True):
        if abs(losses[T]) > within:
            break
        found = T
    return found


def least_as_a_number(losses, within):
    """Right wherever there is a measured T that is enough, and 0 in place of None."""
    late = [T for T in losses if all(losses[t] <= within for t in losses if t >= T)]
    return min(late, default=0)


def silent_if_unsorted(losses, within):
    return None if list(losses) != sorted(losses) else least_as_a_number(losses, within) or None


def reset_detached(slopes, threshold):
    return [threshold * sum(slopes[start:]) for start in range(len(slopes))]


def pre_run_free(rows, budget):
    fits = [row for row in rows if row[1] <= budget]
    return max(fits, key=lambda row: row[3])[0] if fits else None


def sorted_only(points):
    return sorted(points)


def agreements(rows):
    scores = [(snn, ann - snn) for _, ann, snn in rows]
    return sum((a[0] - b[0]) * (a[1] - b[1]) < 0 for a, b in combinations(scores, 2))


def first_above(steps, ratios):
    return next((T for T, ratio in zip(steps, ratios, strict=True) if ratio >= 1), math.inf)


def all_weights_every_step(first, rest, neurons, time_steps):
    moved = 4 * time_steps * (first + rest) + 8 * time_steps * neurons
    return {"step by step": moved, "layer by layer": 4 * (first + rest)}


def potentials_read_only(first, rest, neurons, time_steps):
    moved = 4 * (first + time_steps * rest) + 4 * time_steps * neurons
    return {"step by step": moved, "layer by layer": 4 * (first + rest)}


OPT, OPI = [0.5, -0.6, 0, 0, 0], [0, 0, 0, 0.5, 1.0]

WRONG = [
    ("ex-10-by-hand", unclipped, "never below 0"),
    ("ex-10-split", swapped_errors, "The order is (clipping, quantisation)"),
    ("ex-10-threshold", lambda drives, T, candidates: max(candidates), "the clipping error alone"),
    ("ex-10-threshold", lambda drives, T, candidates: min(candidates), "the quantisation error alone"),
    ("ex-10-start", lambda T, L: T / (2 * L) - 1 / 2, "sign"),
    ("ex-10-opt-opi", lambda z, theta, T: {"OPI": 1, "Opt": 1}, "the first step is step 1"),
    ("ex-11-verdict", plain_criterion, "plain criterion"),
    ("ex-11-worst-order", inhibition_first, "there is an order with"),
    ("ex-11-worst-order", lambda plus, minus, T: ([1] * plus, [T] * minus), "different steps"),
    ("ex-11-hard-reset", soft_ledger, "throws h − θ away"),
    ("ex-11-signed", absolute, "as printed, charge is only ever added"),
    ("ex-11-signed", mean_only, "T times as much charge"),
    ("ex-11-opt-opi", (OPI, OPT), "OPI is right, not Opt"),
    ("ex-11-opt-opi", (OPT, [0.0] * 5), "both count the same"),
    ("ex-11-opt-opi", (OPT, [0.5, 1.0]), "drives of 5 steps"),
    ("ex-11-opt-opi", (OPT, ...), "still a stub"),
    ("ex-two-stage-activation", rate_unclipped, "outputs that a neuron cannot send"),
    ("ex-two-stage-activation", floor_only, "added before rounding down"),
    ("ex-two-stage-fold", along_inputs, "first axis of the weight"),
    ("ex-two-stage-fold", bias_forgotten, "breaks the law"),
    ("ex-two-stage-cure", lambda T, L, shift: 1 / 2, "the mean output"),
    ("ex-two-stage-cure", lambda T, L, shift: max(0.0, 1 / 2 - T / L * (1 / 2 - shift)), "below zero"),
    ("ex-two-stage-enough", first_good, "it has to stay small"),
    ("ex-two-stage-enough", small_either_way, "returned None, expected 2. A loss below 0 is a gain"),
    ("ex-two-stage-enough", least_as_a_number, "expected None"),
    ("ex-two-stage-enough", silent_if_unsorted, "returned None, expected 16. None where no measured T"),
    ("ex-two-stage-enough", lambda losses, within: None, "still a stub"),
    ("ex-benchmark-budget", lambda rows, budget: None, "still a stub"),
    ("ex-two-stage-through-reset", reset_detached, "with the reset detached"),
    ("ex-two-stage-images", lambda sigma, T, within: math.ceil((sigma / within) ** 2), "and its error too"),
    ("ex-benchmark-budget", pre_run_free, "waits for the pre-run"),
    ("ex-benchmark-front", sorted_only, "has to be better"),
    ("ex-benchmark-swaps", agreements, "both orders agree"),
    ("ex-benchmark-images", lambda p, error: math.ceil(p * (1 - p) / error), "binomial"),
    ("ex-conversion-energy-even", lambda rate, first, mac, ac: (mac / (rate * ac),) * 2, "once, at every step"),
    ("ex-conversion-energy-crossing", first_above, "not the first measured T itself"),
    ("ex-conversion-energy-mean", [(100, 10, 0.1), (100, 10, 0.1)], "1.00 times"),
    ("ex-conversion-energy-mean", [(..., ..., ...)] * 2, "still a stub"),
    ("ex-conversion-energy-mean", [(100, 10, 1.5), (100, 10, 0.1)], "at most 1"),
    ("ex-conversion-energy-traffic", all_weights_every_step, "its weights are read once"),
    ("ex-conversion-energy-traffic", potentials_read_only, "which is twice"),
]


@pytest.mark.parametrize(("label", "answer", "message"), WRONG, ids=[f"{w[0]}-{i}" for i, w in enumerate(WRONG)])
def test_wrong_answer_is_refused_with_a_message_that_helps(label, answer, message):
    with pytest.raises(NotYet, match=label) as raised:
        check(label, answer)
    assert message in str(raised.value)


def test_other_answers_of_an_open_exercise_are_accepted(capsys):
    """Exercises that ask for an example are checked by trying it, not against the printed one."""
    check("ex-11-opt-opi", ([0.75, -0.7, 0, 0, -0.1], [0, 0, -1, 1.5, 1.0]))
    check("ex-conversion-energy-mean", [(10, 5000, 0.01), (9000, 1, 0.5)])
    check("ex-11-worst-order", lambda plus, minus, T: (list(range(plus, 0, -1)), list(range(T, T - minus, -1))))
    assert capsys.readouterr().out.count("right.") == 3
