"""Checkers of the exercises in the foundations: chapters 01 to 03."""

from __future__ import annotations

from fractions import Fraction
from itertools import product

import numpy as np
import torch
import torch.nn.functional as F
from spikingjelly.activation_based import neuron
from torch import nn

from snnbook import energy, roofline, syops
from snnbook.exercises.core import call, close, equal, exercise, law, require
from snnbook.kernels import Dynamics
from snnbook.network import Network
from snnbook.neurons import IF, LIF, if_run, multi_step


@exercise("ex-01-by-hand", "01_spiking_neurons")
def spike_counts(answer):
    """Against the simulated neuron; the drives are exact in binary, so that a sum meets the threshold exactly."""

    def simulated(drive, threshold, time_steps):
        x = torch.full((time_steps, 1), drive, dtype=torch.float64)
        return tuple(int(IF(threshold, v_reset=reset)(x).sum()) for reset in (None, 0.0))

    equal(
        answer,
        simulated,
        [(0.25, 1.0, 10), (0.375, 1.0, 16), (0.40625, 1.0, 64), (0.375, 0.5, 12), (0.0, 1.0, 5), (1.0, 1.0, 3)],
        hint="A neuron fires when its potential reaches the threshold; the order is (soft, hard).",
        mistakes={
            "These are the counts in the order (hard, soft).": lambda *case: simulated(*case)[::-1],
            "The hard reset throws away what is above the threshold; so it cannot be a division.": lambda *case: (
                simulated(*case)[0],
                simulated(*case)[0],
            ),
        },
    )


def _drives(rng: np.random.Generator, steps: int, low: float, high: float) -> list[float]:
    """Drives that are multiples of 1/16, so that sums are exact."""
    return (np.round(16 * rng.uniform(low, high, steps)) / 16).tolist()


@exercise("ex-01-leaky-step", "01_spiking_neurons")
def leaky_spikes(answer):
    """Against the package's loop, with drives and leaks that are exact in binary."""

    def simulated(drive, tau, threshold, v_reset=None, decay_input=False):
        d = Dynamics(threshold, v_reset, tau, decay_input)
        spikes, _ = multi_step(torch.tensor(drive, dtype=torch.float64), torch.zeros(()), d)
        return [int(s) for s in spikes]

    rng = np.random.default_rng(1)
    drives = [[1.25, 0.5], [1.0], [0.5, 0.5, 0.5], *(_drives(rng, 8, -0.25, 1.25) for _ in range(20))]
    equal(
        answer,
        simulated,
        [(x, tau, theta) for x in drives for tau, theta in ((2.0, 1.0), (4.0, 0.75))],
        hint="Leak, add the drive, compare with ≥, subtract the threshold, in this order.",
        mistakes={
            "This neuron resets to 0; a soft reset subtracts the threshold.": lambda *case: simulated(*case, 0.0),
            "At exactly the threshold a neuron fires: ≥, not >.": lambda x, tau, theta: simulated(x, tau, theta + 1e-9),
            "This neuron divides its drive by τ; here it is added as it is.": lambda *case: simulated(
                *case, decay_input=True
            ),
        },
    )


@exercise("ex-01-translate", "01_spiking_neurons")
def same_neuron(answer):
    """Both neurons run on the same random drives: whatever is returned is put to use."""
    x = torch.from_numpy(np.random.default_rng(2).uniform(-0.2, 1.0, (40, 200)))

    def same(constants, keep, gain, threshold):
        require(len(constants) == 2, f"two numbers (tau, v_threshold) were expected, not {constants!r}.")
        v, spikes = torch.zeros(200), []
        for x_t in x:
            h = keep * v + gain * x_t
            spikes.append((h >= threshold).double())
            v = h - threshold * spikes[-1]
        return constants[0] > 1 and torch.equal(LIF(constants[0], True, constants[1])(x), torch.stack(spikes))

    law(
        answer,
        [(0.25, 0.75, 1.0), (0.5, 0.5, 0.8), (0.25, 1.0, 0.5), (0.9, 1.0, 1.0), (0.8, 0.3, 0.7)],
        same,
        "LIF(tau, True, v_threshold) fires at the same steps for 200 random drives; "
        "tau follows from keep alone, and v_threshold from how much smaller its drive is",
    )


@exercise("ex-01-silent", "01_spiking_neurons")
def window(answer):
    """Against the loop of the chapter, a little below and above each returned drive."""

    def spikes(x, keep, threshold, steps=600):
        u, o, n = 0.0, 0, 0
        for _ in range(steps):
            u = keep * u * (1 - o) + x
            o = int(u > threshold)
            n += o
        return n

    for keep, threshold in [(0.25, 0.5), (0.5, 1.0), (0.0, 1.0), (0.9, 0.8)]:
        got = call(answer, keep, threshold)
        require(len(got) == 2, f"two drives (silent up to, at every step above) were expected, not {got!r}.")
        low, high = got
        given, near = f"window({keep}, {threshold}) returned ({low:g}, {high:g})", 1e-3 * threshold
        n = spikes(low - near, keep, threshold)
        require(n == 0, f"{given}, but with the drive {low - near:g} the neuron fires {n} times in 600 steps.")
        n = spikes(low + near, keep, threshold)
        require(n > 0, f"{given}, but with the drive {low + near:g} it is still silent after 600 steps.")
        n = spikes(high - near, keep, threshold)
        require(n < 600, f"{given}, but with the drive {high - near:g} it fires at every step already.")
        n = spikes(high + near, keep, threshold)
        require(n == 600, f"{given}, but with the drive {high + near:g} it fires in {n} of 600 steps only.")


@exercise("ex-01-eight-bits", "01_spiking_neurons")
def steps_for(answer):
    """Against a search for the fewest steps with enough different messages."""

    def fewest(bits):
        rate = next(T for T in range(1, 5000) if len(range(0, T + 1)) >= 2**bits)  # counts 0, 1, ..., T
        return rate, next(T for T in range(1, 64) if len(list(product((0, 1), repeat=T))) >= 2**bits)

    equal(
        answer,
        fewest,
        [(1,), (2,), (4,), (8,)],
        hint="Count the different messages: 0 to T spikes are T + 1 of them.",
        mistakes={"T steps hold T + 1 counts, because no spike is a message too.": lambda bits: (2**bits, bits)},
    )


@exercise("ex-01-carried", "01_spiking_neurons")
def carried_counts(answer):
    """Against SpikingJelly's neuron, which keeps its state from call to call."""

    def never_reset(drives, time_steps, threshold):
        node = neuron.IFNode(threshold, v_reset=None, step_mode="m").eval()
        return [int(node(torch.full((time_steps, 1), x, dtype=torch.float64)).sum()) for x in drives]

    rng = np.random.default_rng(3)
    few = [([0.375, 0.0625], 8, 1.0), ([0.0625] * 4, 4, 1.0), ([0.5, 0.0, 0.25, 0.375], 3, 1.0)]
    equal(
        answer,
        never_reset,
        few + [(_drives(rng, 6, 0.0, 0.5), int(rng.integers(2, 12)), 0.5) for _ in range(20)],
        hint="The ledger holds over all samples together: charge so far = spikes so far × threshold + what is left.",
        mistakes={
            "These are the counts of a neuron that is reset before each sample.": lambda drives, T, theta: [
                int(T * x // theta) for x in drives
            ]
        },
    )


@exercise("ex-02-stride", "02_energy_accounting")
def fan_out(answer):
    """Against the counter of the package, which follows each tap."""

    def followed(size, kernel, stride, padding):
        conv = nn.Conv2d(1, 1, kernel, stride, padding)
        out = (size + 2 * padding - kernel) // stride + 1
        return energy.fan_out(conv, torch.Size([1, 1, size, size]), torch.Size([1, 1, out, out])).int().tolist()

    equal(
        answer,
        followed,
        [(3, 3, 1, 1), (4, 3, 2, 1), (5, 3, 1, 0), (4, 1, 1, 0), (6, 5, 2, 2), (7, 2, 3, 0)],
        hint="Output o sees the positions o·stride − padding to o·stride − padding + kernel − 1 of each axis.",
    )


@exercise("ex-02-time", "02_energy_accounting")
def last_step(answer):
    """Against adding up step by step, in exact fractions."""

    def added(rate, mac, ac, pool_area=1):
        rate, mac, ac = (Fraction(str(number)) for number in (rate, mac, ac))
        T = 0
        while (T + 1) * rate * pool_area * ac < mac:
            T += 1
        return T

    equal(
        answer,
        added,
        [(0.15, 4.6, 0.9, 1), (0.15, 4.6, 0.9, 4), (0.1, 0.23, 0.03, 1), (0.25, 2.0, 0.5, 1), (0.9, 4.6, 0.9, 9)],
        hint="One connection costs rate · pool_area · T spikes of price ac in place of one mac.",
        mistakes={
            "At this T nothing is saved any more: it costs as much as the ANN, or more.": lambda *case: (
                added(*case) + 1
            ),
            "Behind a pool pool_area times as many spikes arrive.": lambda rate, mac, ac, area: added(rate, mac, ac),
        },
    )


@exercise("ex-02-merge", "02_energy_accounting")
def pool_costs(answer):
    """Against the sixteen patterns that four neurons can send, with their probabilities."""

    def enumerated(f, mac, ac):
        passed = merged = 0.0
        for pattern in product((0, 1), repeat=4):
            p = f ** sum(pattern) * (1 - f) ** (4 - sum(pattern))
            passed, merged = passed + p * sum(pattern) * ac, merged + p * any(pattern) * mac
        return passed, merged

    close(
        answer,
        enumerated,
        [(f, mac, ac) for f in (0.0, 0.1, 0.32, 0.7, 1.0) for mac, ac in ((4.6, 0.9), (9.6, 5.9))],
        hint="The order is (passing on, merging), in pJ per connection and step.",
        mistakes={
            "A merged pool sends one value where at least one of four neurons fires, not one for each spike.": (
                lambda f, mac, ac: (4 * f * ac, 4 * f * mac)
            )
        },
    )


@exercise("ex-02-neurons", "02_energy_accounting")
def neuron_operations(answer):
    """Against the counter of the package on small layers with random drives."""
    cases, truth = [], {}
    rng = torch.Generator().manual_seed(4)
    for n, T, leaky, soft in [(6, 4, False, True), (6, 4, False, False), (5, 3, True, True), (7, 8, True, False)]:
        reset = None if soft else 0.0
        layer = LIF(v_reset=reset) if leaky else IF(v_reset=reset)
        net = Network(nn.Identity(), nn.Sequential(nn.Flatten(), layer), nn.Identity())
        net.time_steps = T
        x = torch.rand(1, 1, 1, n, generator=rng) * 2
        case = (n, T, int(net(x).sum()), leaky, soft)
        operations = energy.count_operations(net, [(x, torch.zeros(1))]).query("part == 'neuron'")
        sums = operations.groupby("kind")["operations"].sum()
        cases.append(case)
        truth[case] = (float(sums.get("mac", 0)), float(sums["ac"]))
    equal(
        answer,
        lambda *case: truth[case],
        cases,
        hint="Drive and bias are 2 AC at each step, a leak 1 MAC at each step, a soft reset 1 AC a spike; (mac, ac).",
    )


@exercise("ex-02-ratio", "02_energy_accounting")
def three_readings(answer):
    """Against the package's equation (18)."""

    def printed(a, c, rate, time_steps):
        return dict(syops.equation_18(a, c, rate, time_steps)[["reading", "ratio"]].itertuples(index=False))

    def careless(a, c, rate, time_steps):
        right = printed(a, c, rate, time_steps)
        return right | {key: right[key] + rate * time_steps * c / a * 0.9 / 4.6 for key in ("once", "every step")}

    close(
        answer,
        printed,
        [(1000.0, 100.0, 0.1, 10), (333_000.0, 1_770.0, 0.0553, 64), (5e6, 1e5, 0.2, 1), (5e6, 1e5, 0.05, 128)],
        hint="Prices are 4.6 and 0.9 pJ; the keys are 'once', 'every step' and 'left out'.",
        mistakes={"The spiking operations are those behind the first layer only, rate · T · (a − c).": careless},
    )


@exercise("ex-speed-roofline", "03_speed")
def bound(answer):
    """Against the package's roofline."""

    def package(flops, moved, peak, bandwidth):
        least = roofline.Work(flops, moved).bound(roofline.Peak(peak, bandwidth))
        return least, "memory" if roofline.Work(flops, moved).intensity < peak / bandwidth else "arithmetic"

    cases = [(3e6, 8e6, 1e11, 1e10), (4e9, 8e6, 1e11, 1e10), (1e9, 1e9, 5e10, 1e10), (1e9, 1e6, 5e10, 1e9)]
    for case in cases:
        got, want = call(answer, *case), package(*case)
        given = f"bound{case} returned {got!r}"
        require(isinstance(got, tuple) and len(got) == 2, f"{given}, a pair (seconds, which) was expected.")
        added = case[0] / case[2] + case[1] / case[3]
        says = " A roofline is the larger of the two times, not their sum." if np.isclose(got[0], added) else ""
        require(np.isclose(got[0], want[0], rtol=1e-6, atol=0), f"{given}, expected {want[0]:g} seconds.{says}")
        require(got[1] == want[1], f"{given}, but it is {want[1]} that binds: {want[0]:g} s is its time.")


@exercise("ex-speed-balance", "03_speed")
def fewest_channels(answer):
    """Against the traffic and operations that the package counts for a layer, channel number by channel number."""

    def searched(balance, kernel):
        for channels in range(1, 1000):
            conv = nn.Conv2d(channels, channels, kernel, padding=kernel // 2, bias=False, device="meta")
            net = Network(nn.Identity(), nn.Sequential(conv), nn.Identity())
            if roofline.frame_work(net, (channels, 6, 6))[1].intensity >= balance:
                return channels

    equal(
        answer,
        searched,
        [(10, 3), (3, 3), (9, 3), (10, 1), (30, 5), (40, 3)],
        hint="A multiply–add is two operations; each position reads C values of four bytes and writes as many.",
        mistakes={"A multiply–add counts as two operations.": lambda balance, kernel: searched(2 * balance, kernel)},
    )


@exercise("ex-speed-fold", "03_speed")
def folded(answer):
    """Against the layer at one step after another; and the calls of the layer are counted."""
    rng = torch.Generator().manual_seed(5)
    for layer, shape in [
        (nn.Linear(6, 3), (4, 5, 6)),
        (nn.Conv2d(2, 3, 3, padding=1), (3, 2, 2, 5, 5)),
        (nn.Sequential(nn.Conv2d(2, 4, 3, stride=2), nn.Flatten()), (5, 3, 2, 6, 6)),
    ]:
        x, calls = torch.rand(shape, generator=rng), []

        def layer_seen(z, layer=layer, calls=calls):
            calls.append(list(z.shape))
            return layer(z)

        with torch.no_grad():
            got, want = call(answer, layer_seen, x), torch.stack([layer(x_t) for x_t in x])
        given = f"For x of shape {list(shape)}"
        require(len(calls) == 1, f"{given} the layer was called {len(calls)} times; one call is enough.")
        require(hasattr(got, "shape"), f"{given} a tensor was expected, not {type(got).__name__}.")
        shapes = f"{list(want.shape)}, not {list(got.shape)}"
        require(got.shape == want.shape, f"{given} the result should have the shape [T, N, …] = {shapes}.")
        same = torch.allclose(got, want, atol=1e-5)
        require(same, f"{given} the shape is right and the values are not: have T and N changed places?")


@exercise("ex-speed-stream", "03_speed")
def in_pieces(answer):
    """Against the whole run; the number of steps of each call is watched."""
    rng = np.random.default_rng(6)
    for steps, size in [(8, 4), (8, 3), (5, 1), (4, 9), (7, 2)]:
        x = torch.from_numpy(np.round(64 * rng.uniform(-0.3, 1.1, (steps, 50))) / 64)
        seen = []

        def run(part, v0=0.0, seen=seen):
            seen.append(len(part))
            return if_run(part, v0)

        got, want = call(answer, run, x, size), if_run(x)[0]
        given = f"For T = {steps} and pieces of {size} steps"
        require(max(seen, default=0) <= size, f"{given} run was given {max(seen, default=0)} steps at once.")
        require(getattr(got, "shape", None) == want.shape, f"{given} all spikes [T, N] were expected, in one tensor.")
        wrong = 1 + (got != want).any(1).nonzero().flatten()
        differ = f"{given} the spikes differ from those of the whole run at the steps {wrong.tolist()}. "
        require(len(wrong) == 0, differ + "Does each piece start from the potential that the piece before left?")


@exercise("ex-speed-height", "03_speed")
def absorb(answer):
    """Both layers are run on random spikes, with height θ and with height one."""
    rng = torch.Generator().manual_seed(7)

    def same(new, weight, bias, theta):
        require(len(new) == 2, "two tensors (weight, bias) were expected.")
        spikes = (torch.rand(4, weight.shape[1], 5, 5, generator=rng) < 0.3).float()
        return torch.allclose(F.conv2d(spikes, *new), F.conv2d(theta * spikes, weight, bias), atol=1e-5)

    kinds = [(shape, theta) for shape in ((3, 2, 3, 3), (4, 3, 1, 1)) for theta in (0.5, 2.7)]
    law(
        answer,
        [(torch.randn(s, generator=rng), torch.randn(s[0], generator=rng), theta) for s, theta in kinds],
        same,
        "spikes of height one into the new layer give what spikes of height theta gave in the old one "
        "(has the bias anything to do with the height of a spike?)",
    )
