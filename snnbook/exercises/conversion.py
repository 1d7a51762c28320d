"""Checkers of the exercises in the part on conversion: chapters 10 to 14."""

from __future__ import annotations

import math
from bisect import bisect_left
from fractions import Fraction

import numpy as np
import pandas as pd
import torch
from scipy.optimize import brentq
from scipy.stats import binom, kendalltau
from spikingjelly.activation_based import neuron
from torch import nn

from snnbook import counts, models, residual, staircase
from snnbook.exercises.core import call, close, equal, exercise, law, require, show
from snnbook.experiments import conversion_energy, conversion_tables, two_stage


def _eighths(rng: np.random.Generator, steps: int, low: float, high: float) -> list[float]:
    """Drives that are multiples of 1/8, so that sums are exact."""
    return (np.round(8 * rng.uniform(low, high, steps)) / 8).tolist()


@exercise("ex-10-by-hand", "10_conversion_errors")
def constant_drive(answer):
    """Against the neuron, simulated step by step."""

    def simulated(z, threshold, time_steps, v0):
        n, v = residual.outcome(torch.full((time_steps,), z, dtype=torch.float64), v0, threshold)
        return float(n), float(n) * threshold / time_steps, float(v)

    def unclipped(z, threshold, time_steps, v0):
        n = math.floor((time_steps * z + v0) / threshold)
        return n, n * threshold / time_steps, v0 + time_steps * z - threshold * n

    close(
        answer,
        simulated,
        [(0.7, 1.0, 4, 0.0), (0.7, 1.0, 4, 0.5), (0.3125, 0.5, 8, 0.25), (-0.25, 1.0, 5, 0.0), (1.5, 1.0, 4, 0.5)],
        hint="The order is (n, φ, v(T)).",
        mistakes={"A count is never below 0 and never above T; what cannot be sent stays in v(T).": unclipped},
    )


@exercise("ex-10-split", "10_conversion_errors")
def split(answer):
    """Against the package, whose errors are tensors, and against the law that they never occur together."""

    def package(z, threshold, time_steps):
        errors = staircase.errors(torch.tensor(z, dtype=torch.float64), threshold, time_steps)
        return tuple(float(error) for error in errors)

    cases = [(0.5, 1.0, 4), (0.6, 1.0, 4), (1.7, 1.0, 4), (-0.3, 1.0, 4), (0.8, 2.0, 3), (2.6, 2.0, 16)]
    close(
        answer,
        package,
        cases,
        hint="The clipping error is a − min(a, θ) with a = ReLU(z), the quantisation error min(a, θ) − φ.",
        mistakes={"The order is (clipping, quantisation).": lambda *case: package(*case)[::-1]},
    )
    law(answer, cases, lambda errors, *_: errors[0] * errors[1] == 0, "one of the two errors is zero")


@exercise("ex-10-threshold", "10_conversion_errors")
def best_threshold(answer):
    """Against a search in which each drive is simulated."""

    def searched(drives, time_steps, candidates):
        errors = []
        for theta in candidates:
            n, _ = residual.outcome(drives.expand(time_steps, -1), 0.0, theta)
            errors.append(float((drives.relu() - theta * n / time_steps).square().mean()))
        return candidates[int(np.argmin(errors))]

    g = torch.Generator().manual_seed(10)
    normal = torch.randn(400, generator=g, dtype=torch.float64)
    tailed = normal.exp() - 1
    equal(
        answer,
        searched,
        [(x, T, [0.25, 0.5, 1.0, 1.5, 2.0, 3.0, 5.0]) for x in (normal, tailed) for T in (2, 8, 64)],
        hint="Compare with ReLU(z), not with the clipped ReLU; both errors count.",
        mistakes={
            "The largest threshold clips least, and that is the clipping error alone.": lambda x, T, thetas: max(
                thetas
            ),
            "The smallest threshold has the finest steps, and that is the quantisation error alone.": (
                lambda x, T, thetas: min(thetas)
            ),
        },
    )


@exercise("ex-10-start", "10_conversion_errors")
def start(answer):
    """Against the root of the package's bias, which is linear in the shift."""
    close(
        answer,
        lambda time_steps, levels: -staircase.bias(time_steps, levels) * time_steps,
        [(8, 8), (4, 8), (1, 8), (16, 8), (64, 8), (3, 4)],
        hint="Set the bias to zero with δ_L = 0 and solve for δ_T; the result is in units of θ.",
        mistakes={"The sign is wrong way round: for T < L the staircase is too low and wants charge.": (
            lambda time_steps, levels: staircase.bias(time_steps, levels) * time_steps
        )},
    )  # fmt: skip


@exercise("ex-10-opt-opi", "10_conversion_errors")
def first_spikes(answer):
    """Against both neurons, simulated."""

    def simulated(z, threshold, time_steps):
        x = torch.full((time_steps,), z, dtype=torch.float64)
        ways = {"OPI": (x, threshold / 2), "Opt": (x + threshold / (2 * time_steps), 0.0)}
        trains = {name: residual.trace(drive, v0, threshold)[0] for name, (drive, v0) in ways.items()}
        return {name: 1 + int(torch.argmax(spikes)) for name, spikes in trains.items()}

    close(
        answer,
        simulated,
        [(0.6, 1.0, 5), (0.25, 1.0, 4), (0.3125, 1.0, 8), (0.75, 2.0, 16), (1.0, 1.0, 4)],
        hint="The keys are 'OPI' and 'Opt', and the first step is step 1.",
    )


@exercise("ex-11-verdict", "11_rmpe_derivation")
def verdict(answer):
    """Neurons are simulated; whether a count is right is read off the charge, which the reader does not see."""
    words = {-1: "too rarely", 0: "right", 1: "too often"}
    rng, truth = np.random.default_rng(11), {(0, -1.0, 5, 1.0): "right", (5, 1.5, 5, 1.0): "right"}
    for _ in range(300):
        T, theta = int(rng.integers(1, 6)), float(rng.choice([0.5, 1.0, 2.0]))
        x = torch.tensor(_eighths(rng, T, -1.5 * theta, 2 * theta), dtype=torch.float64)
        n, v = residual.outcome(x, 0.0, theta)
        wrong = int(n) - int(residual.ideal_count(x, 0.0, theta))
        truth[int(n), float(v), T, theta] = words[int(np.sign(wrong))]

    def plain(n, v, time_steps, threshold):
        return words[1 if v < 0 else -1 if v >= threshold else 0]

    equal(
        answer,
        lambda *case: truth[case],
        sorted(truth),
        hint="Allowed are 'right', 'too often' and 'too rarely'; the arguments are (n, v, time_steps, threshold).",
        mistakes={"That is the plain criterion: it also marks the silent and the saturated, which are right.": plain},
    )


@exercise("ex-11-worst-order", "11_rmpe_derivation")
def worst_order(answer):
    """The order is run; how many spikes are possible is counted over all orders."""
    for plus, minus, T in [(2, 3, 5), (1, 1, 2), (3, 3, 5), (2, 0, 3), (0, 2, 4), (4, 2, 6)]:
        got = call(answer, plus, minus, T)
        given = f"worst_order({plus}, {minus}, {T}) returned {show(got)}"
        require(isinstance(got, tuple | list) and len(got) == 2, f"{given}: two lists of steps were expected.")
        x = torch.zeros(T, dtype=torch.float64)
        for steps, number, sign in zip(got, (plus, minus), (1, -1), strict=True):
            fits = len(set(steps)) == len(steps) == number and all(1 <= t <= T for t in steps)
            require(fits, f"{given}: {show(steps)} is not {number} different steps from 1 to {T}.")
            for t in steps:
                x[t - 1] += sign
        n, most = int(residual.outcome(x).n), max(residual.count_distribution([plus, minus], [1, -1], T))
        require(n == most, f"{given}: the neuron sends {n} spikes, and there is an order with {most}.")


@exercise("ex-11-hard-reset", "11_rmpe_derivation")
def hard_ledger(answer):
    """Against SpikingJelly's neuron with hard reset; what is lost is what the ledger then lacks."""

    def simulated(drive, threshold):
        x = torch.tensor(drive, dtype=torch.float64)[:, None]
        node = neuron.IFNode(threshold, v_reset=0.0, step_mode="m").eval()
        n = int(node(x).sum())
        return n, float(node.v), float(x.sum() - threshold * n - node.v)

    rng = np.random.default_rng(12)
    cases = [([1.6, 1.6, 0.8], 1.0), ([0.5, 0.5], 1.0), ([0.75] * 4, 1.0), ([-1.0, 3.0], 2.0)]
    close(
        answer,
        simulated,
        cases + [(_eighths(rng, 6, -0.5, 1.5), 1.0) for _ in range(15)],
        hint="The order is (n, v(T), lost): a reset at the potential h throws h − θ away.",
    )


@exercise("ex-11-signed", "11_rmpe_derivation")
def next_potential(answer):
    """Against the package's step of equation (13)."""

    def package(v0, target, outputs, time_steps, signed=True):
        return residual.potential_step(v0, target, torch.tensor(outputs, dtype=torch.float64), time_steps, signed)

    cases = [(0.0, 0.0, [0.0, 0.2, 0.2, 0.4], 5), (0.0, 0.5, [0.25, 0.25], 4), (0.5, 0.5, [0.25, 1.0], 4)]
    close(
        answer,
        package,
        cases + [(-0.25, 0.75, [0.5, 0.5, 1.0, 0.0], 2)],
        hint="The mean error of the output times T is the charge that is missing, or that is too much.",
        mistakes={
            "With absolute values, as printed, charge is only ever added.": lambda *case: package(*case, False),
            "A mean output of T steps lacks T times as much charge.": lambda v0, target, outputs, T: package(
                v0, target, outputs, 1
            ),
            "A step adds to the potential that the neuron has already.": lambda v0, *case: package(0.0, *case),
        },
    )


@exercise("ex-11-opt-opi", "11_rmpe_derivation")
def two_starts(answer):
    """The reader's drives are run under both rules, in exact fractions."""

    def outcome(drives, v0, extra):
        v, n = v0, 0
        for x in drives:
            v += x + extra
            if v >= 1:
                v, n = v - 1, n + 1
        return n

    require(isinstance(answer, tuple | list) and len(answer) == 2, "two lists of drives were expected.")
    for drives, right, wrong in zip(answer, ("Opt", "OPI"), ("OPI", "Opt"), strict=True):
        require(drives is not None and drives is not ..., f"still a stub: the drives for which {right} is right.")
        require(len(drives) == 5, f"{show(drives)} are not the drives of 5 steps.")
        exact = [Fraction(str(float(x))) for x in drives]
        half = Fraction(1, 2)
        found = {"OPI": outcome(exact, half, 0), "Opt": outcome(exact, Fraction(0), half / 5)}
        ideal = min(max(math.floor(half + sum(exact)), 0), 5)
        given = f"With {show(drives)} OPI counts {found['OPI']} and Opt {found['Opt']}, and n* is {ideal}"
        require(found["OPI"] != found["Opt"], f"{given}: both count the same.")
        require(
            found[right] == ideal, f"{given}: {wrong if found[wrong] == ideal else 'neither'} is right, not {right}."
        )


@exercise("ex-two-stage-activation", "12_two_stage_conversion")
def quantised(answer):
    """Against an IF neuron that runs for T = L steps from v(0) = δλ: it is to say the same."""

    def neuron_says(z, lam, levels, shift):
        x = torch.full((levels,), z, dtype=torch.float64)
        return float(residual.outcome(x, shift * lam, lam).n) * lam / levels

    drives = (-0.75, 0.0, 0.1875, 0.5, 0.8125, 1.0, 1.3125, 2.0, 3.5)
    close(
        answer,
        neuron_says,
        [(z, lam, 8, shift) for z in drives for lam in (1.0, 2.0) for shift in (0.0, 0.5)],
        hint="Expected is what an IF neuron with θ = λ and v(0) = δλ says in T = L steps.",
        mistakes={
            "The shift δ is missing: it is added before rounding down.": lambda z, lam, L, shift: neuron_says(
                z, lam, L, 0.0
            ),
            "Without the clip there are outputs that a neuron cannot send.": lambda z, lam, L, shift: (
                lam / L * math.floor(z * L / lam + shift)
            ),
        },
    )


@exercise("ex-two-stage-fold", "12_two_stage_conversion")
def fold(answer):
    """The folded convolution is run beside PyTorch's convolution with batch norm."""
    g = torch.Generator().manual_seed(13)

    def same(new, weight, bias, gamma, beta, mean, variance, eps):
        require(len(new) == 2, "two tensors (weight, bias) were expected.")
        shapes = [list(weight.shape), list(bias.shape)]
        kept = [list(t.shape) for t in new] == shapes
        require(kept, f"weight and bias should keep their shapes {shapes}, not {[list(t.shape) for t in new]}.")
        x = torch.randn(2, weight.shape[1], 6, 6, generator=g)
        y = nn.functional.conv2d(x, weight, bias)
        y = nn.functional.batch_norm(y, mean, variance, gamma, beta, training=False, eps=eps)
        return torch.allclose(nn.functional.conv2d(x, *new), y, atol=1e-4)

    def case(outputs, inputs, kernel, eps):
        shape = (outputs, inputs, kernel, kernel)
        vectors = [torch.randn(outputs, generator=g) for _ in range(4)]
        return torch.randn(shape, generator=g), *vectors, 0.2 + torch.rand(outputs, generator=g), eps

    law(
        answer,
        [case(3, 2, 3, 1e-5), case(3, 3, 1, 1e-5), case(4, 4, 3, 0.5)],
        same,
        "the folded convolution gives what convolution and batch norm gave "
        "(γ/√(σ² + ε) belongs to output channels, the first axis of the weight)",
    )


@exercise("ex-two-stage-cure", "12_two_stage_conversion")
def cure(answer):
    """The mean over an even spread of drives is simulated where the start can be repaid; else the closed form."""
    z = (torch.arange(4096, dtype=torch.float64) + 0.5) / 4096

    def means_agree(v0, time_steps, levels, shift):
        spikes = residual.outcome(z.expand(time_steps, -1), v0).n / time_steps
        ann = (levels * z + shift).floor() / levels
        return abs(float((spikes - ann).mean())) < 1e-3

    law(
        answer,
        [(4, 8, 0.0), (2, 8, 0.0), (8, 8, 0.0), (3, 4, 0.0), (8, 8, 0.5), (4, 8, 0.5), (32, 8, 0.5)],
        means_agree,
        "the mean output over drives spread evenly from 0 to θ = 1 is that of the ANN",
    )
    close(
        answer,
        lambda T, L, shift: -staircase.bias(T, L, ann_shift=shift) * T,
        [(16, 8, 0.0), (64, 8, 0.25), (2, 8, 0.25)],
        hint="Beyond T = L the formula goes on, below zero.",
    )


@exercise("ex-two-stage-enough", "12_two_stage_conversion")
def enough(answer):
    """Against the function behind the chapter's table."""

    def package(losses, within):
        rows = [("m", T, loss) for T, loss in losses.items()]
        found = two_stage.enough_steps(pd.DataFrame(rows, columns=["method", "time_steps", "loss"]), within)
        first = found["time_steps"].iloc[0]
        return None if pd.isna(first) else int(first)

    rising = {1: 0.8, 2: 0.4, 4: 0.05, 8: 0.009, 16: 0.004, 32: 0.001}
    falls_back = {1: 0.8, 4: 0.1, 8: 0.005, 16: 0.008, 64: 0.2}
    comes_again = {1: 0.9, 2: 0.01, 4: 0.3, 8: 0.01, 16: 0.0, 32: -0.01}
    unsorted = {16: 0.0, 1: 0.005, 4: 0.5}
    cases = [(table, 0.01) for table in (rising, falls_back, comes_again, unsorted)]
    equal(
        answer,
        package,
        [*cases, (rising, 0.06), (rising, 0.0001), ({1: 0.5, 2: 0.0, 4: -0.3}, 0.01)],
        hint="None where no measured T is enough.",
        mistakes={
            "The loss gets larger again behind that T: it has to stay small.": lambda losses, within: min(
                (T for T, loss in losses.items() if loss <= within), default=None
            ),
            "A loss below 0 is a gain, and within any bound.": lambda losses, within: package(
                {T: abs(loss) for T, loss in losses.items()}, within
            ),
        },
    )


@exercise("ex-two-stage-through-reset", "12_two_stage_conversion")
def through_reset(answer):
    """Against the derivative carried forward through charge, fire and reset, once for each step."""

    def carried(slopes, threshold, detached=False):
        found = []
        for start in range(len(slopes)):
            change, output = 1.0, 0.0  # of the potential before the reset, of θ·n
            for g in slopes[start:]:
                output += threshold * g * change
                change *= 1 - (0 if detached else threshold * g)
            found.append(output)
        return found

    rng = np.random.default_rng(14)
    cases = [([0.5], 1.0), ([0.0, 0.0, 1.0], 1.0), ([0.5, 0.5], 1.0), ([0.25, 0.0, 0.5], 2.0)]
    close(
        answer,
        carried,
        cases + [(rng.uniform(0, 0.5, 7).round(3).tolist(), 1.5) for _ in range(5)],
        hint="One number for each step t', the first step first.",
        mistakes={
            "These are the gradients with the reset detached; they grow with T.": lambda *case: carried(*case, True),
            "The last step comes first here.": lambda *case: carried(*case)[::-1],
        },
    )


@exercise("ex-two-stage-images", "12_two_stage_conversion")
def images_for(answer):
    """Against a search for the fewest images."""

    def searched(sigma, time_steps, within):
        return next(n for n in range(1, 10**6) if time_steps * sigma / math.sqrt(n) <= within)

    equal(
        answer,
        searched,
        [(0.25, 4, 0.0625), (0.25, 8, 0.0625), (0.5, 1, 0.25), (0.3, 4, 0.07), (0.1, 2, 0.9)],
        hint="The standard error of a mean over N images is σ/√N, and a potential is T times a mean.",
        mistakes={
            "Equation (13) multiplies the mean by T, and its error too.": lambda sigma, T, within: searched(
                sigma, 1, within
            )
        },
    )


@exercise("ex-benchmark-budget", "13_conversion_benchmark")
def best_within(answer):
    """Against the function behind the chapter's table."""
    columns = ["method", "time_steps", "prerun", "accuracy"]

    def package(rows, budget, column="total_steps"):
        table = pd.DataFrame(rows, columns=columns).assign(validation_accuracy=lambda t: t["accuracy"])
        table["total_steps"] = table["time_steps"] + (table["prerun"] if column == "total_steps" else 0)
        if table["total_steps"].min() > budget:
            return None
        return conversion_tables.best_within(table, [budget])["method"].iloc[0]

    rows = [("opi", 1, 0, 0.31), ("srp", 1, 4, 0.93), ("cos", 1, 7, 0.96), ("opi", 4, 0, 0.88), ("opi", 8, 0, 0.95)]
    equal(
        answer,
        package,
        [(rows, budget) for budget in (5, 1, 4, 8, 0)],
        hint="A row is (method, T, steps besides these T, accuracy); None if nothing fits.",
        mistakes={"An image waits for the pre-run too: T alone is not the time.": lambda *case: package(*case, "T")},
    )


@exercise("ex-benchmark-front", "13_conversion_benchmark")
def front(answer):
    """Against a comparison of every point with every other."""

    def compared(points):
        def beaten(p):
            return any(q != p and q[0] <= p[0] and q[1] >= p[1] for q in points)

        return sorted(p for p in points if not beaten(p))

    rng = np.random.default_rng(15)
    cases = [[(1, 0.9)], [(1, 0.5), (2, 0.9), (3, 0.7)], [(2, 0.9), (1, 0.9)], [(4, 0.8), (4, 0.9), (1, 0.1)]]
    cases += [[(int(c), round(float(a), 2)) for c, a in rng.uniform((1, 0), (9, 1), (8, 2))] for _ in range(20)]
    equal(
        answer,
        compared,
        [(list(dict.fromkeys(points)),) for points in cases],
        hint="A point is (cost, accuracy); the cheapest comes first, and a point that costs more has to be better.",
    )


@exercise("ex-benchmark-swaps", "13_conversion_benchmark")
def swaps(answer):
    """Against Kendall's rank correlation, which counts the same pairs."""

    def kendall(rows):
        _, ann, snn = zip(*rows, strict=True)
        tau = kendalltau(snn, [a - s for a, s in zip(ann, snn, strict=True)]).statistic
        pairs = len(rows) * (len(rows) - 1) / 2
        return round(pairs * (1 + tau) / 2)  # a small loss is good, so pairs in the same order have changed places

    rng = np.random.default_rng(16)
    printed = [("OPI", 94.57, 94.20), ("QCFS", 95.52, 95.56), ("Phase I", 95.71, 95.24), ("RateNorm", 92.82, 85.40)]
    cases = [printed[:2], printed]
    cases += [[(f"m{i}", 90 + 7 * a, 80 + 15 * b) for i, (a, b) in enumerate(rng.random((6, 2)))] for _ in range(10)]
    equal(
        answer,
        kendall,
        [(rows,) for rows in cases],
        hint="A row is (method, ANN, SNN); the loss is ANN − SNN, and a small loss is good. Count each pair once.",
        mistakes={
            "These are the pairs on which both orders agree.": lambda rows: (
                len(rows) * (len(rows) - 1) // 2 - kendall(rows)
            ),
            "Each pair was counted twice.": lambda rows: 2 * kendall(rows),
        },
    )


@exercise("ex-benchmark-images", "13_conversion_benchmark")
def images_needed(answer):
    """Against the spread of a binomial count, from SciPy."""

    def searched(accuracy, error):
        return 1 + bisect_left(range(1, 10**6), True, key=lambda n: binom(n, accuracy).std() / n <= error)

    equal(
        answer,
        searched,
        [(0.5, 0.03), (0.9, 0.007), (0.95, 0.0031), (0.99, 0.013)],
        hint="The number of right answers among n is binomial with the variance n·p·(1 − p); an accuracy is it over n.",
    )


@exercise("ex-conversion-energy-even", "14_conversion_energy")
def break_even(answer):
    """Against the T at which a root finder sees both energies meet."""

    def roots(rate, first_share, mac=4.6, ac=0.9):
        def saved(T, times):
            return mac - first_share * times(T) * mac - (1 - first_share) * rate * T * ac

        return tuple(brentq(saved, 0, 1e6, (times,)) for times in (lambda T: 1, lambda T: T))

    close(
        answer,
        roots,
        [(0.1, 0.01, 4.6, 0.9), (0.1, 0.01, 0.23, 0.03), (0.05, 0.1, 4.6, 0.9), (0.3, 0.005, 4.6, 0.9)],
        hint="Take the ANN's MACs as 1; the order is (first layer once, at every step).",
        mistakes={"The order is (once, at every step).": lambda *case: roots(*case)[::-1]},
        rtol=1e-4,
    )


@exercise("ex-conversion-energy-mean", "14_conversion_energy")
def misleading(answer):
    """The reader's network is counted both ways."""
    require(not callable(answer) and len(answer) == 2, "a list of two layers was expected.")
    for layer in answer:
        require(len(layer) == 3, f"{show(layer)} is not (neurons, connections of a neuron, rate).")
        require(... not in layer, "still a stub: put numbers in the place of the dots.")
        fine = layer[0] >= 1 and layer[1] >= 1 and 0 < layer[2] <= 1
        require(fine, f"{show(layer)}: at least one neuron, one connection, and a rate above 0 and at most 1.")
    spikes = sum(n * rate for n, _, rate in answer)
    exact = sum(n * fan * rate for n, fan, rate in answer)
    formula = spikes / sum(n for n, _, _ in answer) * sum(n * fan for n, fan, _ in answer)
    require(
        formula >= 2 * exact,
        f"{show(answer)}: mean rate × MACs gives {formula:g} a step, {formula / exact:.2f} times the exact {exact:g}. "
        "Where should the many connections be, and where the many spikes?",
    )


@exercise("ex-conversion-energy-crossing", "14_conversion_energy")
def crossing(answer):
    """Against the function behind the chapter's table."""

    close(
        answer,
        conversion_energy.break_even_steps,
        [
            ([1, 2, 4, 8], [0.1, 0.3, 0.8, 1.6]),
            ([4, 8, 16], [0.25, 0.5, 1.0]),
            ([8, 16], [2.0, 4.0]),
            ([1, 2, 4], [0.1, 0.2, 0.4]),
            ([1, 4, 64], [0.2, 0.5, 7.7]),
        ],
        hint="At T = 0 nothing is spent, so the line starts at (0, 0); math.inf where the ratio stays below one.",
        mistakes={"A line through a measured T is wanted, not the first measured T itself.": (
            lambda steps, ratios: next((T for T, r in zip(steps, ratios, strict=True) if r >= 1), math.inf)
        )},
    )  # fmt: skip


@exercise("ex-conversion-energy-traffic", "14_conversion_energy")
def moved(answer):
    """Against the package's count for two small networks."""
    truth = {}
    for width, T in [(0.25, 4), (0.25, 64), (0.5, 8)]:
        net = models.build("vgg5", "if", shape=(1, 8, 8), width=width, time_steps=2, seed=0)
        parameters = counts.count(net, (1, 8, 8))["parameters"]
        case = int(parameters.iloc[0]), int(parameters.iloc[1:].sum()), conversion_energy.neurons(net, (1, 8, 8)), T
        bytes_ = conversion_energy.traffic(net, (1, 8, 8), T, 0.0, 0.0).set_index("schedule")
        totals = bytes_["weights"] + bytes_["potentials"]
        truth[case] = {"step by step": totals["SNN, step by step"], "layer by layer": totals["SNN, layer by layer"]}
    close(
        answer,
        lambda *case: truth[case],
        list(truth),
        hint="Four bytes a number; step by step each potential is read and written at every step.",
        mistakes={
            "The first layer's drive is computed once, so its weights are read once.": lambda a, b, n, T: {
                "step by step": 4 * T * (a + b) + 8 * T * n,
                "layer by layer": 4 * (a + b),
            },
            "A potential is read and written, which is twice.": lambda a, b, n, T: {
                "step by step": 4 * (a + T * b) + 4 * T * n,
                "layer by layer": 4 * (a + b),
            },
        },
    )
