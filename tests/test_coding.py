"""Range-coded spikes: exact round trips, lengths against entropies computed another way, gradients of the penalty."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from torch import nn

from snnbook.link import coding
from snnbook.link.coding import (
    CONTEXTS,
    Penalty,
    SpikeModel,
    decode,
    decode_alone,
    encode,
    encode_alone,
    fit,
    ideal_bits,
    rate_penalty,
    sizes,
)
from snnbook.link.payload import pack


def spikes(rates, shape=(3, 20, 4, 5, 6), seed: int = 0) -> torch.Tensor:
    """[T, N, C, H, W] with a firing rate for each channel."""
    generator = torch.Generator().manual_seed(seed)
    p = torch.as_tensor(rates, dtype=torch.float32).expand(shape[2])
    return (torch.rand(shape, generator=generator) < p[:, None, None]).float()


def sticky(stay: float, shape=(4, 20, 4, 6, 6), seed: int = 0) -> torch.Tensor:
    """Fair spikes that repeat the step before with probability ``stay``."""
    generator = torch.Generator().manual_seed(seed)
    steps = [(torch.rand(shape[1:], generator=generator) < 0.5).float()]
    for _ in range(shape[0] - 1):
        same = torch.rand(shape[1:], generator=generator) < stay
        steps.append(torch.where(same, steps[-1], 1 - steps[-1]))
    return torch.stack(steps)


@pytest.mark.parametrize("context", CONTEXTS)
@pytest.mark.parametrize("memory", [None, 8.0])
def test_decoding_is_exact_for_every_context(context, memory):
    x = spikes([0.02, 0.2, 0.5, 0.97])
    model = fit(x[:, :10], context, memory=memory)
    for one in x[:, 10:].transpose(0, 1):
        data = encode(one, model)
        assert torch.equal(decode(data, 3, model), one)
        assert ideal_bits(one, model) / 8 - 1 <= len(data) <= ideal_bits(one, model) / 8 + 2


SHARE = st.floats(0, 1)


@settings(deadline=None, max_examples=60)
@given(st.tuples(*[st.integers(1, 4)] * 4), SHARE, SHARE, st.sampled_from(list(CONTEXTS)), st.booleans())
def test_any_shape_and_rate_survives_any_model(shape, rate, fitted, context, adapts):
    T, C, H, W = shape
    model = fit(spikes(fitted, (T, 3, C, H, W)), context, memory=4.0 if adapts else None)
    one = spikes(rate, (T, 1, C, H, W), seed=1)[:, 0]
    assert torch.equal(decode(encode(one, model), T, model), one)
    assert torch.equal(decode_alone(encode_alone(one, context), shape, context), one)


@pytest.mark.parametrize("rate", [0.42, 0.25, 0.10, 0.05])
def test_bytes_come_down_to_the_entropy_of_the_rate(rate):
    x = spikes(rate, (2, 8, 64, 16, 16))
    table = sizes(x[:, 4:], fit(x[:, :4], "tensor"), header=12)
    h = stats.entropy([rate, 1 - rate], base=2)
    assert (table["packed"] == len(pack(x[:, 0]))).all() and (table["packed"] == 4096).all()
    assert table["ideal"].mean() / 4096 == pytest.approx(h, abs=0.01)
    assert (table["actual"] - table["ideal"]).between(-1, 2).all()
    assert (table["framed"] == table["actual"] + 12).all()
    assert np.allclose(table["rate"], x[:, 4:].mean((0, 2, 3, 4)))


def test_counts_of_contexts_by_hand():
    """One neuron pair over three steps: 1 1 0 and 0 0 0; p = (ones + ½) / (slots + 1)."""
    x = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 0.0]]).view(3, 1, 2, 1, 1)
    assert np.allclose(fit(x, "tensor").probabilities, [2.5 / 7], atol=1e-4)
    assert np.allclose(fit(x, "channel").probabilities, [2.5 / 4, 0.5 / 4], atol=1e-4)
    # channel 0: first step fired; no silence before; after a spike one spike and one silence
    wanted = [1.5 / 2, 0.5, 1.5 / 3, 0.5 / 2, 0.5 / 3, 0.5]
    assert np.allclose(fit(x, "previous").probabilities, wanted, atol=1e-4)
    assert np.allclose(fit(x, "neuron").probabilities, wanted, atol=1e-4)


def test_a_better_context_spends_what_the_conditional_entropy_says():
    x = sticky(0.9)
    fitted, measured = x[:, :10], x[:, 10:]
    blind, seeing = (sizes(measured, fit(fitted, c))["ideal"].mean() * 8 for c in ("channel", "previous"))
    slots = 4 * 6 * 6
    assert blind == pytest.approx(4 * slots, rel=0.01)
    assert seeing == pytest.approx(slots * (1 + 3 * stats.entropy([0.9, 0.1], base=2)), rel=0.05)


def test_a_model_that_goes_on_counting_recovers_from_a_wrong_start():
    wrong, x = spikes(0.9, (6, 10, 4, 8, 8)), spikes(0.1, (6, 10, 4, 8, 8), seed=1)
    fixed, counting = (sizes(x, fit(wrong, "tensor", memory=m))["ideal"].mean() for m in (None, 16.0))
    assert counting < 0.6 * fixed


def test_side_information_is_counted():
    x = spikes([0.1, 0.2, 0.3, 0.4])[:, 0]
    assert len(encode_alone(x, "channel")) == 4 + len(encode(x, fit(x[:, None], "channel", bits=8)))
    assert len(fit(x[:, None], "channel").to_bytes()) == 8
    assert len(fit(x[:, None], "previous", bits=8).to_bytes()) == 12


def test_the_shortest_bytes_are_taken():
    """No string of fewer bytes decodes to the same: all of them are tried."""
    one = spikes(0.3, (1, 1, 2, 3, 3))[:, 0]
    model = fit(one[:, None], "tensor")
    data = encode(one, model)
    assert len(data) == 2 and torch.equal(decode(data, 1, model), one)
    shorter = [coding._same(part, one.numpy(), model) for part in (b"", *(bytes([b]) for b in range(256)))]
    assert not any(shorter)


def test_damaged_data_give_other_spikes_or_a_plain_error():
    one = spikes(0.3, (4, 1, 8, 8, 8))[:, 0]
    model, outcomes = fit(one[:, None], "tensor"), set()
    data = encode(one, model)
    for i in range(len(data)):
        bad = data[:i] + bytes([data[i] ^ 0x10]) + data[i + 1 :]
        try:
            outcomes.add(torch.equal(decode(bad, 4, model), one))
        except ValueError as error:
            assert "coded with this model" in str(error)
    assert outcomes <= {False}


@pytest.mark.parametrize(
    "call",
    [
        lambda x, m: fit(x, "picture"),
        lambda x, m: fit(x, bits=12),
        lambda x, m: fit(x, memory=0),
        lambda x, m: fit(x, memory=math.inf),
        lambda x, m: fit(x, memory=math.nan),
        lambda x, m: SpikeModel.read(m.describe() | {"memory": math.inf}),
        lambda x, m: SpikeModel.read(m.describe() | {"memory": math.nan}),
        lambda x, m: SpikeModel.read(m.describe() | {"memory": "8"}),
        lambda x, m: fit(x[0]),
        lambda x, m: fit(x * 0.5),
        lambda x, m: encode(x[:, 0] * 2, m),
        lambda x, m: encode(x[:, 0, :2], m),
        lambda x, m: decode(b"", 0, m),
        lambda x, m: decode_alone(b"\1", (3, 4, 5, 6)),
        lambda x, m: rate_penalty(x, "bytes"),
        lambda x, m: rate_penalty(x[0, 0], "rate"),
        lambda x, m: rate_penalty(x[:1], "previous"),
        lambda x, m: Penalty(-1.0),
        lambda x, m: Penalty(math.inf),
        lambda x, m: Penalty(1.0, "previous"),
    ],
)
def test_what_is_not_allowed_is_refused(call):
    x = spikes(0.3)
    with pytest.raises(ValueError, match="not allowed"):
        call(x, fit(x))


def test_penalties_equal_entropies_of_counted_spikes():
    x = spikes([0.05, 0.2, 0.5, 0.9], (4, 30, 4, 5, 6))
    rates = x.mean((0, 1, 3, 4)).numpy()
    assert rate_penalty(x, "rate").item() == pytest.approx(rates.mean(), rel=1e-5)
    assert rate_penalty(x).item() == pytest.approx(stats.entropy([rates, 1 - rates], base=2).mean(), rel=1e-5)
    assert rate_penalty(x.flatten(0, 1)).item() == pytest.approx(rate_penalty(x).item())
    y = sticky(0.8)
    joint = [np.histogram2d(y[:-1, :, c].flatten(), y[1:, :, c].flatten(), 2)[0].ravel() for c in range(4)]
    past = [[(y[:-1, :, c] == v).sum().item() for v in (0, 1)] for c in range(4)]
    wanted = np.mean([stats.entropy(j, base=2) - stats.entropy(p, base=2) for j, p in zip(joint, past, strict=True)])
    assert rate_penalty(y, "previous").item() == pytest.approx(wanted, rel=1e-5)


@pytest.mark.parametrize("kind", ["rate", "entropy", "previous"])
def test_gradients_of_penalties_against_finite_differences(kind):
    x = torch.rand(3, 2, 2, 2, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda v: rate_penalty(v, kind), x.requires_grad_())


@pytest.mark.parametrize("kind", ["rate", "entropy"])
def test_a_layer_adds_the_same_gradient_as_a_term_of_the_loss(kind):
    torch_rng = torch.Generator().manual_seed(1)
    w = torch.rand(6, 4, 3, 3, generator=torch_rng)
    x = torch.rand(6, 4, 3, 3, generator=torch_rng).requires_grad_()
    (Penalty(0.7, kind)(x) * w).sum().backward()
    by_layer, x.grad = x.grad, None
    ((x * w).sum() + 0.7 * rate_penalty(x, kind)).backward()
    assert torch.allclose(by_layer, x.grad)
    layer = Penalty(0.7, kind)
    assert layer.eval()(x) is x and "0.7" in repr(layer) and Penalty(0.0)(x) is x


def test_a_penalty_lowers_the_bytes_of_a_trained_layer():
    """Logistic neurons that only the penalty pulls at: rates fall and so do coded bytes."""
    bias, generator = nn.Parameter(torch.zeros(4, 1, 1)), torch.Generator().manual_seed(0)
    optimizer, layer = torch.optim.SGD([bias], lr=5.0), Penalty(1.0, "rate")

    def fire() -> torch.Tensor:
        p = torch.sigmoid(bias).expand(2, 16, 4, 8, 8)
        return (torch.rand(p.shape, generator=generator) < p).float() + p - p.detach()

    coded = lambda x: sizes(x[:, 8:].detach().round(), fit(x[:, :8].detach().round(), "channel"))["actual"].mean()  # noqa: E731
    before = coded(fire())
    for _ in range(20):
        optimizer.zero_grad()
        (0 * layer(fire()).sum()).backward()
        optimizer.step()
    assert coded(fire()) < 0.6 * before
