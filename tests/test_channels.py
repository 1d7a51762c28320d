"""Noisy links against binomial bounds, closed forms and a step-by-step token bucket."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from torch import nn

from snnbook.link.channels import (
    CHANNELS,
    Noisy,
    analogue,
    arrived,
    awgn,
    awgn_soft,
    binary_entropy,
    bpsk_ber,
    bpsk_ebn0_db,
    bsc,
    bsc_limit,
    byte_erasure,
    capacity,
    channel,
    departures,
    noisy,
    packet_erasure,
    transfer_time,
)

SHAPE = (4, 50, 8, 8, 8)  # T, N, C, H, W: 102,400 bits
LEVELS = {"bsc": 0.1, "packet_erasure": 0.1, "byte_erasure": 0.1, "awgn": 2.0, "awgn_soft": 2.0, "analogue": 10.0}


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def bits(rate: float = 0.3, seed: int = 1, shape=SHAPE) -> torch.Tensor:
    return (torch.rand(shape, generator=generator(seed)) < rate).float()


def named(name: str):
    level = {"bsc": "ber", "awgn": "ebn0_db", "awgn_soft": "ebn0_db", "analogue": "snr_db"}.get(name, "loss")
    return channel(name, **{level: LEVELS[name]})


def plausible(events: int, trials: int, p: float) -> bool:
    """Whether ``events`` lies where all but 1e-6 of a binomial distribution does."""
    return stats.binom.ppf(5e-7, trials, p) <= events <= stats.binom.isf(5e-7, trials, p)


@pytest.mark.parametrize("ber", [0.0, 0.001, 0.1, 0.3, 0.5])
def test_bits_flip_at_the_given_rate_whatever_they_are(ber):
    x = bits()
    flips = bsc(x, ber, generator()) != x
    for value in (0, 1):
        assert plausible(flips[x == value].sum().item(), (x == value).sum().item(), ber)


def test_flips_of_different_bits_samples_and_steps_are_independent():
    x = torch.zeros(SHAPE)
    flips = bsc(x, 0.2, generator()).flatten()
    for lag in (1, 8, 64, 512, 25600):  # neighbours in W, H, C, N, T
        pairs = flips[:-lag] * flips[lag:]
        n = len(pairs)
        assert abs(pairs.mean() - 0.04) < 5 * math.sqrt(0.04 / n) * 1.5
    assert plausible(int(bsc(x, 0.2, generator(1)).flatten().dot(flips)), x.numel(), 0.04)


@pytest.mark.parametrize("packet", [1, 8, 100, 512, 4096])
def test_a_packet_arrives_whole_or_not_at_all(packet):
    kept = arrived(torch.zeros(SHAPE), 0.3, packet, generator()).flatten(2)
    groups = [g for g in kept.split(packet, dim=2)]
    assert all(((g.all(2)) | (~g.any(2))).all() for g in groups)
    lost = sum((~g[..., 0]).sum().item() for g in groups)
    assert plausible(lost, len(groups) * 200, 0.3)


def test_lost_bits_are_zeros_and_the_rest_is_as_sent():
    x = torch.ones(SHAPE)
    for y in (packet_erasure(x, 0.4, 64, generator(3)), byte_erasure(x, 0.4, generator(3))):
        assert set(y.unique().tolist()) == {0.0, 1.0}
    assert torch.equal(byte_erasure(x, 0.4, generator(3)), packet_erasure(x, 0.4, 8, generator(3)))
    sent = bits()
    assert torch.equal(packet_erasure(sent, 0.4, 64, generator(3)), sent * arrived(x, 0.4, 64, generator(3)))
    assert not packet_erasure(x, 1.0, 64, generator()).any() and packet_erasure(x, 0.0, 64, generator()).all()


@pytest.mark.parametrize("ebn0_db", [-3.0, 0.0, 4.0])
def test_bpsk_with_a_hard_decision_is_a_bsc(ebn0_db):
    x, p = bits(), stats.norm.sf(math.sqrt(2 * 10 ** (ebn0_db / 10)))
    assert bpsk_ber(ebn0_db) == pytest.approx(p, rel=1e-12)
    assert bpsk_ebn0_db(p) == pytest.approx(ebn0_db, abs=1e-9)
    errors = awgn(x, ebn0_db, generator()) != x
    for value in (0, 1):
        assert plausible(errors[x == value].sum().item(), (x == value).sum().item(), p)
    flips = bsc(x, p, generator(7)) != x
    table = [[errors.sum(), (~errors).sum()], [flips.sum(), (~flips).sum()]]
    assert stats.chi2_contingency(table).pvalue > 1e-4


def test_published_ber_of_bpsk_at_9_6_dB():
    assert bpsk_ber(9.588) == pytest.approx(1e-5, rel=0.01)


def test_soft_values_are_calibrated_probabilities_and_decide_like_the_hard_ones():
    x = bits(0.5)
    soft = awgn_soft(x, 0.0, generator())
    assert torch.equal((soft > 0.5).float(), awgn(x, 0.0, generator()))
    for low in np.arange(0, 1, 0.1):
        inside = (soft >= low) & (soft < low + 0.1)
        n, expected = inside.sum().item(), soft[inside].mean().item()
        assert abs(x[inside].mean().item() - expected) < 5 * math.sqrt(0.25 / n)


@pytest.mark.parametrize("snr_db", [0.0, 20.0])
def test_analogue_noise_has_the_power_that_the_ratio_leaves(snr_db):
    x = torch.rand(SHAPE, generator=generator(5)) * torch.arange(1, 51).view(1, 50, 1, 1, 1)
    noise = analogue(x, snr_db, generator()) - x
    ratio = x.square().mean((0, 2, 3, 4)) / noise.square().mean((0, 2, 3, 4))
    assert torch.allclose(10 * ratio.log10(), torch.tensor(snr_db), atol=0.7)


@pytest.mark.parametrize("name", CHANNELS)
def test_shape_dtype_and_seed(name):
    x, made = bits(shape=(2, 3, 4, 5, 6)), named(name)
    before = torch.get_rng_state()
    y = made(x, generator(4))
    assert y.shape == x.shape and y.dtype == x.dtype
    assert torch.equal(y, made(x, generator(4))) and not torch.equal(y, made(x, generator(5)))
    assert torch.equal(before, torch.get_rng_state())
    assert made(x.half(), generator()).dtype == torch.float16
    if name != "analogue":
        assert torch.equal(made(x.to(torch.uint8), generator(4)).float(), y)


@pytest.mark.parametrize(
    ("name", "options", "said"),
    [
        ("wire", {}, "name"),
        ("bsc", {}, "ber"),
        ("bsc", {"ber": 0.6}, "ber = 0.6"),
        ("bsc", {"ber": -0.1}, "ber"),
        ("bsc", {"ber": 0.1, "loss": 1}, "option"),
        ("packet_erasure", {"loss": 1.5}, "loss"),
        ("packet_erasure", {"loss": 0.5, "packet_bits": 0}, "packet_bits"),
        ("packet_erasure", {"loss": 0.5, "packet_bits": math.inf}, "packet_bits = inf"),
        ("awgn", {"ebn0_db": math.nan}, "ebn0_db = nan is not allowed: -300 to 300 dB"),
        ("awgn_soft", {"ebn0_db": math.inf}, "ebn0_db = inf"),
        ("analogue", {"snr_db": -1e4}, "snr_db = -10000.0"),
        ("byte_erasure", {"loss": 0.5, "packet_bits": 9}, "option"),
    ],
)
def test_bad_channels_are_refused(name, options, said):
    with pytest.raises(ValueError, match=said):
        channel(name, **options)


def test_decibels_out_of_range_are_refused():
    for value in (1e4, -1e4, math.nan):
        with pytest.raises(ValueError, match="ebn0_db"):
            bpsk_ber(value)
    assert bpsk_ber(300) == 0 and bpsk_ber(-300) == pytest.approx(0.5)
    for value in (-300.0, 300.0):
        for name in ("awgn", "awgn_soft"):
            assert channel(name, ebn0_db=value)(bits(), generator()).isfinite().all()


def test_maps_without_channels_are_refused():
    with pytest.raises(ValueError, match="shape of x"):
        packet_erasure(torch.zeros(3, 4), 0.5)


def test_noise_as_a_layer_acts_in_training_only_and_gradients_pass_straight():
    layer, x = Noisy(channel("bsc", ber=0.3), generator=generator()), bits().requires_grad_()
    y = layer(x)
    assert torch.equal(y.detach(), bsc(x.detach(), 0.3, generator()))
    weights = torch.rand(SHAPE, generator=generator(9))
    (y * weights).sum().backward()
    assert torch.equal(x.grad, weights)
    assert layer.eval()(x) is x
    perfect = Noisy(None, in_eval=True)
    assert perfect(x) is x and "bsc(ber=0.3)" in repr(layer)


def test_noise_without_a_generator_follows_the_global_seed_like_dropout():
    layer, x = Noisy(channel("bsc", ber=0.3)), bits()
    with torch.random.fork_rng():
        torch.manual_seed(3)
        first, second = layer(x), layer(x)
        torch.manual_seed(3)
        again = layer(x)
    assert torch.equal(first, again) and not torch.equal(first, second)


def test_noisy_puts_layers_back_and_is_reproducible():
    net = nn.Sequential(Noisy(channel("bsc", ber=0.1)), nn.Identity(), Noisy(None)).eval()
    x = bits()
    with noisy(net, channel("bsc", ber=0.5), seed=2):
        once = net(x)
    with noisy(net, channel("bsc", ber=0.5), seed=2):
        assert torch.equal(once, net(x)) and not torch.equal(once, x)
    with pytest.raises(RuntimeError), noisy(net, None):
        assert net(x) is x
        raise RuntimeError
    assert net(x) is x and str(net[0].channel) == "bsc(ber=0.1)" and net[2].channel is None
    assert not net[0].in_eval and net[0].generator is None
    with pytest.raises(ValueError, match="Noisy"), noisy(nn.Identity(), None):
        pass


def test_entropy_and_capacity_in_closed_form():
    p = torch.tensor([0.42, 0.25, 0.10, 0.05, 0.0, 0.5, 1.0], dtype=torch.float64)
    assert [round(h, 2) for h in binary_entropy(p).tolist()] == [0.98, 0.81, 0.47, 0.29, 0.0, 1.0, 0.0]
    assert np.allclose(binary_entropy(p), stats.entropy([p, 1 - p], base=2))
    assert capacity(channel("bsc", ber=0.11)) == pytest.approx(0.5, abs=1e-3)
    assert capacity(channel("awgn", ebn0_db=bpsk_ebn0_db(0.2))) == pytest.approx(capacity(channel("bsc", ber=0.2)))
    assert capacity(channel("byte_erasure", loss=0.3)) == pytest.approx(0.7)
    assert capacity(channel("packet_erasure", packet_bits=128, loss=0.3)) == pytest.approx(0.7)  # in any order
    with pytest.raises(ValueError, match="analogue"):
        capacity(channel("analogue", snr_db=3))


def test_limit_of_a_code_rate_inverts_the_capacity():
    assert bsc_limit(0.5) == pytest.approx(0.1100279, abs=1e-6)
    for rate in (0.1, 0.25, 0.9):
        assert capacity(channel("bsc", ber=bsc_limit(rate))) == pytest.approx(rate)
    for rate in (0.0, 1.0):
        with pytest.raises(ValueError, match="rate"):
            bsc_limit(rate)


def bucket(arrivals, sizes, rate, burst):
    """A token bucket that is asked message by message: an independent account of the same shaper."""
    out, tokens, now = [], burst, 0.0
    for a, b in zip(arrivals, sizes, strict=True):
        if a > now:
            tokens, now = min(burst, tokens + (a - now) * rate), a
        wait = max(0.0, b - tokens) / rate
        tokens, now = max(0.0, tokens - b), now + wait
        out.append(now)
    return out


@settings(deadline=None, max_examples=100)
@given(
    st.lists(st.tuples(st.floats(0, 3), st.integers(0, 5000)), min_size=1, max_size=20),
    st.floats(100, 10000),
    st.floats(0, 8000),
)
def test_departures_equal_a_bucket_that_is_asked_message_by_message(messages, rate, burst):
    arrivals = np.cumsum([a for a, _ in messages])
    sizes = [b for _, b in messages]
    assert np.allclose(departures(arrivals, sizes, rate, burst), bucket(arrivals, sizes, rate, burst), atol=1e-6)


def test_transfer_time_by_hand_and_what_is_refused():
    assert transfer_time(2048, 1e6) == pytest.approx(2.048e-3)
    assert transfer_time(2048, 1e6, burst=1024) == pytest.approx(1.024e-3) and transfer_time(10, 1.0, 20) == 0
    for bad in (([0, 1], [1], 1.0), ([1, 0], [1, 1], 1.0), ([0], [1], 0.0), ([0], [1], 1.0, -1.0), ([], [], 1.0)):
        with pytest.raises(ValueError):
            departures(*bad)
