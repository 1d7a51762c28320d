"""Plausible wrong answers to the exercises of chapters 20 to 24 are refused, with the message that helps."""

import math

import numpy as np
import pytest

from snnbook.exercises import NotYet, check


def mean_apoz(spikes, labels, bundle, slots):
    pairs = list(zip(spikes, labels, strict=True))
    each = [[n for n, label in pairs if label == k] for k in bundle]
    return np.mean([1 - sum(n) / (slots * len(n)) for n in each])


def kept_without_floor(apoz, zeta, layer, floor):
    return [f for f, a in enumerate(apoz) if a <= (zeta - layer) / 100]


def kept_with_the_last(apoz, zeta, layer, floor):
    below = kept_without_floor(apoz, zeta, layer, floor)
    others = [f for f in reversed(range(len(apoz))) if f not in below]
    return sorted(below + others[: max(0, floor - len(below))])


def others_without_limit(counts, own):
    quota = max(1, int(sum(counts) / (10 * len(counts)) - len(own)))
    return sum(n if k in own else quota for k, n in enumerate(counts))


def biases_added(layers):
    weight = layers[0][0]
    for w, _ in layers[1:]:
        weight = w @ weight
    return weight, sum(bias for _, bias in layers)


def biases_dropped_between_unequal_layers(layers):
    """Right as long as all layers are of one size."""
    weight, bias = layers[0]
    for w, b in layers[1:]:
        weight, bias = w @ weight, (w @ bias if w.shape[0] == w.shape[1] else 0) + b
    return weight, bias


def last_bias(layers):
    return biases_dropped_between_unequal_layers(layers)[0], layers[-1][1]


def kept_strictly(apoz, zeta, layer, floor):
    below = sum(a < (zeta - layer) / 100 for a in apoz)
    return sorted(sorted(range(len(apoz)), key=lambda f: apoz[f])[: max(below, floor)])


def others_by(quota):
    """The retraining size with another way to the quota."""

    def size(counts, own):
        each = quota(sum(counts) / (10 * len(counts)) - len(own))
        return sum(n if k in own else min(n, each) for k, n in enumerate(counts))

    return size


def more_than_the_share(q, share):
    return next(n for n in range(1, 9999) if 1 - (1 - q) ** n > share)


def slack_greedy(sizes, joules, memory, budget):
    free, found = set(range(len(memory))), {}
    for s in sorted(range(len(sizes)), key=lambda s: -sizes[s]):
        fits = [d for d in free if sizes[s] <= memory[d] and joules[s] < budget[d]]
        if not fits:
            return None
        found[s] = min(fits, key=lambda d: memory[d])
        free.remove(found[s])
    return [found[s] for s in range(len(sizes))]


def vote_with_other(logits, own, n_classes):
    outside = logits[0] - math.log(n_classes - len(own))
    return [logits[1 + own.index(k)] if k in own else outside for k in range(n_classes)]


def slowest_sub_model(assignment, macs, bits, mac_rate, link_rate):
    return max(n / mac_rate[d] + b / link_rate[d] for d, n, b in zip(assignment, macs, bits, strict=True))


def first_fit(sizes, joules, memory, budget):
    found = [None] * len(sizes)
    for s in sorted(range(len(sizes)), key=lambda s: -sizes[s]):
        fits = (d for d in range(len(memory)) if d not in found and sizes[s] <= memory[d] and joules[s] <= budget[d])
        found[s] = next(fits, None)
        if found[s] is None:
            return None
    return found


def devices_used_twice(seconds, fits):
    rows = zip(seconds, fits, strict=True)
    best = [min((t for t, f in zip(*row, strict=True) if f), default=math.inf) for row in rows]
    return None if math.inf in best else max(best)


def vote_undivided(logits, own, n_classes):
    return [logits[1 + own.index(k)] if k in own else logits[0] for k in range(n_classes)]


def bias_of_each(features, weights, bias, lost):
    pairs = enumerate(zip(features, weights, strict=True))
    return sum(w @ f.mean(0) + bias for i, (f, w) in pairs if i not in lost)


def frames_of_even_parts(x, y, p, time_steps, height, width):
    counts = np.zeros((time_steps, 2, height, width), int)
    for step, part in enumerate(np.array_split(np.arange(len(x)), time_steps)):
        np.add.at(counts, (step, p[part], y[part], x[part]), 1)
    return counts


def frames_with_rows_first(x, y, p, time_steps, height, width):
    counts = np.zeros((time_steps, 2, height, width), int)
    step = np.minimum(np.arange(len(x)) // max(1, len(x) // time_steps), time_steps - 1)
    np.add.at(counts, (step, p, x, y), 1)
    return counts


WRONG = [
    ("ex-apoz-by-hand", mean_apoz, "same weight"),
    ("ex-apoz-by-hand", lambda spikes, labels, bundle, slots: 1 - sum(spikes) / (slots * len(spikes)), "expected 0.75"),
    ("ex-apoz-no-prune", lambda n_layers: 100, "first layer only"),
    ("ex-apoz-no-prune", lambda n_layers: 100 + n_layers, "counted from 0"),
    ("ex-apoz-chance", lambda a, b, n: a * b / n**2, "smaller mask"),
    ("ex-apoz-chance", lambda a, b, n: a / n, "returned 0.333333, expected 0.5"),
    ("ex-apoz-rule", kept_without_floor, "floor is missing"),
    ("ex-apoz-rule", kept_with_the_last, "last-indexed"),
    ("ex-apoz-rule", kept_strictly, "≤, not <"),
    ("ex-split-linear", lambda features, hidden, outputs: (features * outputs, features * outputs), "as trained"),
    ("ex-split-collapse", biases_added, "layers behind it"),
    ("ex-split-collapse", lambda layers: (layers[0][0] @ layers[1][0], layers[0][1]), "IndexError"),
    ("ex-split-collapse", biases_dropped_between_unequal_layers, "layers behind it"),
    ("ex-split-collapse", last_bias, "A matrix and a bias"),
    ("ex-split-others", others_without_limit, "gives all it has"),
    ("ex-split-others", others_by(lambda quota: max(0, int(quota))), "returned 14, expected 15"),
    ("ex-split-others", others_by(lambda quota: max(1, round(quota))), "returned 560, expected 551"),
    ("ex-split-others", lambda counts, own: sum(counts[k] for k in own), "where are the others"),
    ("ex-split-total", lambda n: 1 / n, "Both ends"),
    ("ex-split-total", lambda n: n**-2, "not of filters"),
    ("ex-placement-seconds", slowest_sub_model, "one after the other"),
    ("ex-placement-greedy", first_fit, "first device that fits"),
    ("ex-placement-greedy", slack_greedy, "slack_greedy([5], [30], [10], [30]) returned None, expected [0]"),
    ("ex-placement-monotone", [(11, 20)], "two pairs"),
    ("ex-placement-monotone", [(8, 20), (8, 90)], "less than"),
    ("ex-placement-monotone", [(10, 20), (8, 90)], "fails with"),
    ("ex-placement-exact", devices_used_twice, "same device"),
    ("ex-fused-bits", lambda *shape: math.prod(shape), "Those are bits"),
    ("ex-fused-bits", lambda *shape: math.prod(shape) // 8, "not full"),
    ("ex-fused-partial", lambda q, share: math.ceil(share / q), "do not just add up"),
    ("ex-fused-partial", more_than_the_share, "more_than_the_share(0.5, 0.75) returned 3, expected 2. With one"),
    ("ex-fused-vote", vote_with_other, "math domain error"),
    ("ex-fused-vote", vote_undivided, 'equal share of "other"'),
    ("ex-fused-vote", lambda logits, own, n_classes: logits, "breaks the law"),
    ("ex-fused-lost", bias_of_each, "bias is added once"),
    ("ex-modality-events", lambda counts, mac, ac: counts.size * mac / ((counts > 0).sum() * ac), "three additions"),
    ("ex-modality-frames", frames_of_even_parts, "remainder"),
    ("ex-modality-frames", frames_with_rows_first, "Rows are y"),
    ("ex-modality-equal", lambda apoz, n: sorted(apoz)[n - 1], "in percent"),
    ("ex-modality-equal", lambda apoz, n: 100 * sorted(apoz)[n - 2], "1 would stay there, not 2"),
    ("ex-modality-equal", lambda apoz, n: 100, "at a lower"),
]


@pytest.mark.parametrize(("label", "answer", "says"), WRONG)
def test_a_wrong_answer_is_refused_with_a_message_that_helps(label, answer, says):
    with pytest.raises(NotYet) as refused:
        check(label, answer)
    assert str(refused.value).startswith(label)
    assert says in str(refused.value)


def test_any_higher_demands_that_greedy_places_are_right(capsys):
    check("ex-placement-monotone", [(20, 30), (10, 100)])
    assert capsys.readouterr().out == "ex-placement-monotone: right.\n"


def test_a_vote_is_right_up_to_a_constant(capsys):
    def probabilities(logits, own, n_classes):
        p = np.exp(logits) / np.exp(logits).sum()
        outside = np.log(p[0] / max(1, n_classes - len(own)))
        return [np.log(p[1 + own.index(k)]) if k in own else outside for k in range(n_classes)]

    check("ex-fused-vote", probabilities)
    assert "right" in capsys.readouterr().out
