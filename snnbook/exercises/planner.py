"""Checkers of chapter 40 (planner)."""

from __future__ import annotations

import numpy as np
from scipy.optimize import brentq

from snnbook.exercises.core import close, equal, exercise
from snnbook.link.channels import departures

PLANNER = "40_planner"


@exercise("ex-planner-crossover", PLANNER)
def planner_crossover(answer):
    """The rate at which two plans take equally long, against a root search over the rate."""

    def reference(seconds_a, bits_a, seconds_b, bits_b):
        def gap(log_rate):
            return (seconds_a - seconds_b) + (bits_a - bits_b) * 10**-log_rate

        return 10 ** brentq(gap, -6, 15, xtol=1e-13)

    mistakes = {
        "A plan that computes longer has to send *less* to be as fast: check the sign.": lambda *case: (
            -reference(*case)
        ),
        "That is the time per bit; the rate is its inverse.": lambda *case: 1 / reference(*case),
    }
    cases = [(0.0, 800, 0.009, 8), (0.010, 100, 0.002, 500), (0.5, 1, 0.25, 1001), (0.0, 24576, 0.3, 512)]
    close(answer, reference, cases, "Set c_a + B_a/r = c_b + B_b/r and solve for r.", mistakes, rtol=1e-6)


@exercise("ex-planner-shared", PLANNER)
def planner_shared(answer):
    """When the last message is through, against the queue of the book's simulated link."""

    def reference(ready, bits, rate):
        order = np.argsort(ready, kind="stable")
        return float(departures(np.asarray(ready)[order], np.asarray(bits)[order].tolist(), rate)[-1])

    mistakes = {
        "That is a link for each device; here all messages go through one.": lambda ready, bits, rate: max(
            c + b / rate for c, b in zip(ready, bits, strict=True)
        ),
        "The link need not wait until the last device is ready: it sends what is there.": lambda ready, bits, rate: (
            max(ready) + sum(bits) / rate
        ),
        "The link may be idle while it waits for a device that is not ready yet.": lambda ready, bits, rate: (
            min(ready) + sum(bits) / rate
        ),
        "The link serves whoever is ready first, whatever the order of the list.": lambda ready, bits, rate: float(
            departures(np.maximum.accumulate(ready), list(bits), rate)[-1]
        ),
    }
    cases = [([0.1, 0.2], [1000, 1000], 1e4), ([0.0, 5.0], [100, 100], 1e3), ([3.0, 0.0, 1.0], [500, 4000, 10], 1e3)]
    rng = np.random.default_rng(40)
    cases += [(rng.random(n).round(2).tolist(), rng.integers(1, 999, n).tolist(), 1e3) for n in (4, 6, 9)]
    close(answer, reference, cases, "Serve messages in the order in which they get ready.", mistakes)


@exercise("ex-planner-front", PLANNER)
def planner_front(answer):
    """Indices of the plans that no other beats, against every pair of plans."""

    def reference(accuracy, joules):
        def beats(i, j):
            no_worse = accuracy[i] >= accuracy[j] and joules[i] <= joules[j]
            return no_worse and (accuracy[i] > accuracy[j] or joules[i] < joules[j])

        n = range(len(accuracy))
        return [j for j in n if not any(beats(i, j) for i in n)]

    def strictly(accuracy, joules):
        n = range(len(accuracy))
        return [j for j in n if not any(accuracy[i] > accuracy[j] and joules[i] < joules[j] for i in n)]

    def alone(accuracy, joules):
        n = range(len(accuracy))
        return [j for j in n if not any(accuracy[i] >= accuracy[j] and joules[i] <= joules[j] and i != j for i in n)]

    mistakes = {
        "A plan is beaten as well if another is better in one column and equal in the other.": strictly,
        "Two plans that are equal in both do not beat each other.": alone,
        "Of accuracy more is better, of joules less.": lambda a, e: reference([-x for x in a], e),
    }
    cases = [([0.9, 0.8], [2.0, 1.0]), ([0.9, 0.8, 0.85], [1.0, 2.0, 1.0]), ([0.9, 0.9], [1.0, 1.0])]
    rng = np.random.default_rng(41)
    cases += [(rng.integers(80, 90, n).tolist(), rng.integers(1, 9, n).tolist()) for n in (5, 8, 12)]
    equal(answer, reference, cases, "Return a list of indices, in increasing order.", mistakes)
