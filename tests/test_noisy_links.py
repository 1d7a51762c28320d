"""Noisy links on tiny networks: bits that reach the server, controls of equal size, codes, early exit, sizes."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.stats import entropy
from tiny import blobs, same_state

from snnbook import params, store
from snnbook.bottleneck.baseline import recode
from snnbook.bottleneck.codec import compress, export, head
from snnbook.bottleneck.layers import NoisyCodes, random_mask
from snnbook.bottleneck.selection import Candidate
from snnbook.bottleneck.sizes import pack_codes
from snnbook.experiments import coded_spikes, early_exit, halves, noisy_links, noisy_networks
from snnbook.experiments.samples import spread
from snnbook.experiments.spike_bottlenet import experiment
from snnbook.link.channels import analogue, bsc, channel
from snnbook.link.coding import encode, fit, sizes
from snnbook.link.messages import HEADER_BYTES
from snnbook.link.protection import Protection

CUT = Candidate(2, 2, 1, 2)  # 2 channels of 4 × 4 behind block 2, T = 2: 64 bits


@pytest.fixture(scope="module")
def e(tmp_path_factory):
    p = params.NoisyChannels(
        width=1 / 16, blocks=[1, 1], warm_epochs=4, epochs=3, codec_epochs=2, fine_tune_epochs=5, augment="",
        batch_size=4, lr=0.1, ann_lr=0.05, fine_tune_lr=0.05, device="cpu",
    )  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SNNBOOK_CACHE", str(tmp_path_factory.mktemp("networks")))
        yield experiment(p, blobs(shape=(1, 8, 8)), 0)


@pytest.fixture(scope="module")
def nets(e):
    return noisy_networks.contenders(e, CUT, channel("bsc", ber=0.1), 0.5, 4)


def test_all_contenders_send_equally_many_bits(e, nets):
    for name, net in nets.items():
        spikes = halves.sent(net, e)
        assert len(spikes) == (4 if "4 bits" in name else 1 if "1 bit" in name else 2)
        assert spikes.dtype == torch.uint8 and set(spikes.unique().tolist()) <= {0, 1}
        assert 0.1 < spikes.float().mean() < 0.9 and spikes.float().var(1).mean() > 0.1  # they differ by sample
        assert spikes.shape[1] == len(e.data.test) and halves.bits_sent(net, spikes) == 64
    assert halves.sent(nets["mask"], e).shape[2] == 4 and halves.sent(nets["1 bit"], e).shape[:1] == (1,)


def test_training_with_noise_makes_another_network_from_the_same_start(e, nets):
    assert nets["spikes"] is e.compressed(CUT)[0] and nets["1 bit"] is e.bottlenet(2, 4, 1, 1)[0]
    assert not same_state(nets["spikes"], nets["spikes, noise"]) and not same_state(nets["1 bit"], nets["1 bit, noise"])
    assert not same_state(nets["4 bits"], nets["4 bits, noise"])
    assert not same_state(noisy_networks.spiking(e, CUT, penalty=0.3), nets["spikes"])
    again = noisy_networks.spiking(e, CUT, channel("bsc", ber=0.1))  # out of the cache
    assert same_state(again, nets["spikes, noise"])


@pytest.mark.parametrize(
    "name", ["spikes", "spikes, noise", "mask", "1 bit", "1 bit, noise", "4 bits", "4 bits, noise"]
)
def test_halves_answer_like_the_whole_network(e, nets, name):
    net, x = nets[name].eval(), e.data.normalise(e.data.test.x)
    with torch.no_grad():
        whole = net(x)
    answers = halves.answers(net, halves.sent(net, e))
    assert torch.allclose(answers, whole if whole.ndim == 3 else whole[None], atol=1e-5)
    table = noisy_links.sweep({name: net}, e, [channel("bsc", ber=0.0)], draws=1)
    assert table["accuracy"].item() == pytest.approx(e.accuracy(net))


def test_codes_go_out_as_bit_planes(e, nets):
    """Against the codes themselves, as they are packed; an element of eight bits is the whole payload here."""
    net = noisy_networks.codes(e, CUT, 8)
    device = head(net).eval()
    with torch.no_grad():
        values = device(e.data.normalise(e.data.test.x))
    codes, planes = device.body.encoder[-1].codes(values), halves.sent(net, e)
    for n, one in enumerate(codes):
        bits = planes[:, n].movedim(0, -1).flatten()  # all bits of an element one behind the other
        assert np.packbits(bits.numpy()).tobytes() == pack_codes(one, 8)
    assert halves.bits_sent(net, planes) == 8 * codes[0].numel() == 128 and planes.float().mean() > 0.1
    flipped = noisy_links.sweep({"8 bits": net}, e, [channel("bsc", ber=x) for x in (0.0, 0.5)], draws=4)
    at = flipped.groupby("level")["accuracy"].mean()
    assert at[0.0] == pytest.approx(e.accuracy(net)) and set(flipped["bits"]) == {128}


def test_amplitudes_of_codes_through_noise(e, nets):
    """Without noise the network's own accuracy; the ratio of an element is that of its bits and of BPSK together."""
    table = noisy_links.unquantised(nets["4 bits"], e, [-100.0, 100.0], draws=2, seed=3)
    assert table["level"].tolist() == [-100.0] * 2 + [100.0] * 2 and set(table["channel"]) == {"analogue"}
    assert table["accuracy"].iloc[-1] == pytest.approx(e.accuracy(nets["4 bits"]))
    values = halves.put_out(nets["4 bits"], e)
    received = analogue(values, -100 + 10 * math.log10(8), torch.Generator().manual_seed(3))
    logits = halves.answers_to_values(nets["4 bits"], received)
    assert table["accuracy"].iloc[0] == halves.right(logits, e.data.test.y)


@pytest.mark.parametrize(
    "cut, keep, message",
    [
        (Candidate(3, 2, 1, 2), 1.0, r"split_point = 3 is not allowed: 1 to 2"),
        (Candidate(2, 2, 3, 2), 1.0, r"stride = 3 is not allowed: a divisor of 4 and 4"),
        (Candidate(2, 33, 1, 2), 1.0, r"channels = 33 is not allowed: 1 to 32, the channels behind block 2"),
        (Candidate(2, 8, 1, 5), 1.0, r"time_steps = 5 is not allowed: 1 to 4 for 8 of 32 channels"),
        (Candidate(2, 8, 1, 2), 0.2, r"keep = 0.2 is not allowed: at least 0.25 for 8 of 32 channels"),
    ],
)
def test_cuts_that_do_not_fit_are_refused_by_name(e, cut, keep, message):
    noisy_networks.check_cut(e, Candidate(2, 8, 1, 4), 0.25)
    with pytest.raises(ValueError, match=message):
        noisy_networks.check_cut(e, cut, keep)


def test_a_sample_without_coded_bytes_has_no_bit_to_flip():
    model = fit(torch.zeros(2, 500, 1, 2, 2), "tensor")
    spikes = torch.cat([torch.zeros(2, 1, 1, 2, 2), torch.ones(2, 1, 1, 2, 2)], 1)
    assert len(encode(spikes[:, 0], model)) == 0 < len(encode(spikes[:, 1], model))
    table = coded_spikes.damage(spikes, model)
    assert table.loc[0].isna().all() and 0 <= table.loc[1, "bit"] < 1


def test_a_sweep_is_the_mean_over_draws_of_what_arrives(e, nets):
    links = [channel("bsc", ber=0.2), channel("packet_erasure", loss=1.0, packet_bits=32)]
    table = noisy_links.sweep({"spikes": nets["spikes"]}, e, links, draws=2, seed=5)
    spikes = halves.sent(nets["spikes"], e).float()
    for row in table[table["channel"] == "bsc"].itertuples():
        received = bsc(spikes, 0.2, torch.Generator().manual_seed(5 + row.draw))
        assert row.accuracy == halves.right(halves.answers(nets["spikes"], received), e.data.test.y)
    silent = halves.right(halves.answers(nets["spikes"], torch.zeros_like(spikes)), e.data.test.y)
    assert table.loc[table["channel"] == "packet_erasure", "accuracy"].tolist() == [silent] * 2
    assert table["level"].tolist() == [0.2, 0.2, 1.0, 1.0] and set(table["bits"]) == {64}
    assert set(table["chance"]) == {1 / e.data.n_classes}


@pytest.mark.parametrize(("name", "packet"), [("packet_erasure", 32), ("byte_erasure", 8)])
def test_networks_that_send_equally_many_bits_lose_the_same_packets(e, nets, name, packet):
    """Of ones everywhere what is left shows the packets; they are packed here as the payload module packs."""
    link, lost = noisy_links.noise(name, 0.5, packet), {}
    for key, net in nets.items():
        ones = torch.ones_like(halves.sent(net, e).float())
        left = noisy_links.through(link, net, ones, torch.Generator().manual_seed(7))
        assert left.shape == ones.shape and halves.bits_sent(net, ones) == 64
        for n in range(ones.shape[1]):
            own = left[:, n].movedim(0, -1) if "bit" in key else left[:, n]  # an element's bits are together
            if key == "mask":
                places = net.body.decoder[0].places.bool()
                assert not own[:, ~places].any()  # nothing is sent there
                own = own[:, places]
            packets = own.reshape(64 // packet, packet)
            assert (packets == packets[:, :1]).all()  # whole packets arrive, or none of their bits
            lost.setdefault(n, []).append(packets[:, 0].tolist())
    assert all(of == [of[0]] * len(nets) for of in lost.values())
    assert 0.3 < np.mean([of[0] for of in lost.values()]) < 0.7


def test_other_noise_falls_on_each_bit_as_the_channel_draws_it(e, nets):
    bits, link = halves.sent(nets["4 bits"], e).float(), channel("bsc", ber=0.2)
    drawn = bsc(bits, 0.2, torch.Generator().manual_seed(1))
    assert torch.equal(noisy_links.through(link, nets["4 bits"], bits, torch.Generator().manual_seed(1)), drawn)


def test_noise_on_codes_flips_each_of_their_bits(e):
    """Against the bits of the codes by hand; and gradients pass."""
    layer, n = NoisyCodes(3, channel("bsc", ber=0.2)), 20_000
    codes = torch.randint(0, 8, (n, 1, 1, 1), generator=torch.Generator().manual_seed(0))
    x = (codes / 7).requires_grad_()
    torch.manual_seed(0)
    found = layer(x)
    found.sum().backward()
    assert torch.equal(x.grad, torch.ones_like(x)) and layer.eval()(x) is x
    arrived = (found.detach() * 7).round().long()
    assert torch.allclose(found, arrived / 7, atol=1e-6)
    for k in range(3):
        wrong = ((arrived ^ codes) >> k & 1).double().mean().item()
        assert abs(wrong - 0.2) < 5 * math.sqrt(0.2 * 0.8 / n)


def test_lost_packets_take_elements_and_not_planes():
    """A packet of eight bits is one element of eight bits, or two of four."""
    for bits, together in ((8, 1), (4, 2)):
        layer, top = NoisyCodes(bits, channel("packet_erasure", loss=0.5, packet_bits=8)), 2**bits - 1
        torch.manual_seed(1)
        found = (layer(torch.ones(500, 2, 1, 1)) * top).round()
        assert set(found.unique().tolist()) == {0.0, top} and abs(found.mean() / top - 0.5) < 0.1
        assert torch.equal(found[:, 0], found[:, 1]) == (together == 2)


@pytest.mark.parametrize("name", ["spikes", "spikes, noise", "mask", "priced"])
def test_what_was_trained_for_a_noisy_link_is_written_as_two_files(e, nets, tmp_path, name):
    net = noisy_networks.spiking(e, CUT, penalty=0.3) if name == "priced" else nets[name]
    _, report = compress(e.backbone(2), e.data.shape, *CUT[:3])
    device, server = (store.load(path)[0] for path in export(net.cpu().eval(), report, tmp_path))
    x = e.data.normalise(e.data.test.x)[:1]
    with torch.no_grad():
        assert torch.equal(server([device(x)]), net(x))


def test_a_mask_keeps_its_share_and_is_the_same_on_both_sides(e, nets):
    mask = random_mask((3, 4, 5), 0.25, seed=1)
    assert mask.places.sum() == 15 and torch.equal(mask.places, random_mask((3, 4, 5), 0.25, seed=1).places)
    assert not torch.equal(mask.places, random_mask((3, 4, 5), 0.25, seed=2).places)
    assert torch.equal(mask(torch.ones(2, 3, 4, 5)), mask.places.expand(2, 3, 4, 5))
    spikes, places = halves.sent(nets["mask"], e).float(), nets["mask"].body.decoder[0].places
    flipped = torch.where(places == 0, 1 - spikes, spikes)  # what is not sent cannot arrive wrong
    assert torch.equal(halves.answers(nets["mask"], flipped), halves.answers(nets["mask"], spikes))
    with pytest.raises(ValueError, match="keep"):
        random_mask((1, 1, 1), 0.0)


def test_names_of_noise_levels():
    assert str(noisy_links.noise("bsc", 0.1)) == "bsc(ber=0.1)"
    assert str(noisy_links.noise("awgn", 3)) == "awgn(ebn0_db=3)"
    assert str(noisy_links.noise("byte_erasure", 0.5, 32)) == "byte_erasure(loss=0.5)"
    assert str(noisy_links.noise("packet_erasure", 0.5, 32)) == "packet_erasure(loss=0.5, packet_bits=32)"


def test_bits_of_a_step_are_those_that_are_sent_in_it(e, nets):
    assert noisy_networks.step_bits(e, CUT) == halves.sent(nets["spikes"], e)[0, 0].numel() == 32
    assert noisy_networks.step_bits(e, Candidate(1, 3, 2, 4)) == 3 * 4 * 4  # a map of 8 × 8, halved on both sides


def test_recorded_sweeps_are_means_over_draws_by_level():
    sweep = pd.DataFrame({"network": "spikes", "bits": 64, "channel": "bsc", "level": [0.0, 0.1, 0.1],
                          "draw": [0, 0, 1], "accuracy": [0.9, 0.6, 0.8], "chance": 0.01})  # fmt: skip
    coded = pd.DataFrame({"network": "jpeg", "rate": 0.5, "bits": 900.0, "level": [0.1], "accuracy": [0.25]})
    given = {"dataset": "cifar100", "width": 0.25, "time_steps": 2}
    found = {"short": ({"parameters": given}, {"sweep": sweep, "coded": coded})}
    table = noisy_links.recorded_sweeps(found)
    front = ["run", "dataset", "width", "time_steps", "chance", "network", "bits", "channel"]
    assert list(table.columns) == [*front, "0", "0.1"]
    assert set(table["chance"]) == {1} and set(table["time_steps"]) == {2}
    assert table["network"].tolist() == ["spikes", "jpeg, code of rate 0.5"] and set(table["run"]) == {"short"}
    shown = noisy_links.recorded_sweeps(found, {"spikes": "our spikes", "jpeg": "JPEG"})
    assert shown["network"].tolist() == ["our spikes", "JPEG, code of rate 0.5"]
    assert table.loc[0, ["0", "0.1"]].tolist() == pytest.approx([90, 70])
    assert math.isnan(table.loc[1, "0"]) and table.loc[1, "0.1"] == pytest.approx(25)
    assert noisy_links.recorded_sweeps({}).empty


def test_packets_that_arrive_right_by_the_binomial_law():
    """Without a code a packet is right if all its bits are."""
    code, ber = Protection(8), 0.01
    wanted = (1 - ber) ** code.bits
    assert abs(noisy_links.packets_right(code, ber, 2000) - wanted) < 5 * math.sqrt(wanted * (1 - wanted) / 2000)
    with pytest.raises(ValueError, match="packets"):
        noisy_links.packets_right(Protection(20, packet_bytes=8), ber, 10)


def test_coded_accuracy_falls_from_that_of_the_network_to_that_of_silence(e, nets):
    table = noisy_links.coded(nets["spikes"], e, [0.5], [0.0, 0.45], packets=10).set_index(["network", "level"])
    silence = torch.zeros_like(halves.sent(nets["spikes"], e))
    silent = halves.right(halves.answers(nets["spikes"], silence), e.data.test.y)
    assert table.loc[("spikes", 0.0), "accuracy"] == pytest.approx(e.accuracy(nets["spikes"]))
    assert table.loc[("spikes", 0.45), "accuracy"] == pytest.approx(silent)
    assert table.loc[("jpeg", 0.45), "accuracy"] == pytest.approx(1 / e.data.n_classes)
    assert table.loc[("spikes", 0.0), "bits"] == 2 * (64 + 32) and table["packet"].tolist() == [1, 1, 0, 0]
    files = recode(e.data.test.x, "jpeg", 75)[1]
    assert 100 < files.max() <= noisy_links.PACKET_BYTES  # one packet of its own for each image
    assert table.loc[("jpeg", 0.0), "bits"] == 2 * 8 * (files.max() + 4)


def test_long_files_take_packets_of_the_longest_and_need_all_of_them(e, nets, monkeypatch):
    """Files of 100 and of 1000 bytes: packets of 334 bytes, one and three of them."""
    files, hits = np.array([100, 1000]), np.array([True, True])
    monkeypatch.setattr(noisy_links, "_jpeg", lambda e, quality: (hits, files))
    monkeypatch.setattr(noisy_links, "packets_right", lambda code, *rest: 0.5 if code.payload_bytes == 334 else 1.0)
    table = noisy_links.coded(nets["spikes"], e, [0.5], [0.1], packets=1).set_index("network")
    assert table["packet"].to_dict() == {"spikes": 1, "jpeg": 0.5}
    assert table.loc["jpeg", "bits"] == 2 * 2 * 8 * (334 + 4)
    shares, guess = (0.5 + 0.125) / 2, 1 / e.data.n_classes
    assert table.loc["jpeg", "accuracy"] == pytest.approx(shares + (1 - shares) * guess)


def test_payloads_of_several_packets_lose_what_their_lost_packets_carry(e, monkeypatch):
    """512 bytes are two packets of 256. As packets of 64 bytes, which are time steps here, each comes or is silent."""
    net, report = compress(e.untrained(8), e.data.shape, 1, 8, 1, seed=0)
    assert report.bits == 8 * 512
    table = noisy_links.coded(net.eval(), e, [0.5], [0.0, 0.45], packets=2).set_index(["network", "level"])
    spikes, y = halves.sent(net, e), e.data.test.y
    assert table.loc[("spikes", 0.0), "accuracy"] == halves.right(halves.answers(net, spikes), y)
    assert table.loc[("spikes", 0.45), "accuracy"] == halves.right(halves.answers(net, torch.zeros_like(spikes)), y)
    assert table.loc[("spikes", 0.0), "bits"] == 2 * 2 * 8 * (256 + 4)
    seen = []

    def answers(net, received, device):
        seen.append(received)
        return torch.zeros(1, 1, 1)

    monkeypatch.setattr(noisy_links, "answers", answers)
    monkeypatch.setattr(noisy_links, "right", lambda logits, y: 0.0)
    ones = torch.ones(8, 200, 8, 8, 8)
    noisy_links._with_packets_lost(net, e, ones, Protection(512, 0.5, packet_bytes=64), 0.5, seed=0)
    steps = seen[0].flatten(2).mean(2)  # a packet of 512 bits is a time step here
    assert set(steps.unique().tolist()) == {0.0, 1.0} and abs(steps.mean() - 0.5) < 0.05
    assert 0 < steps.mean(0).std() and 0 < steps.mean(1).min()


def test_early_exit_by_hand():
    """Three steps, two samples: the first is sure at once, the second only with the second step's help."""
    logits = torch.tensor([[[9.0, 0.0], [0.1, 0.0]], [[0.0, 9.0], [0.0, 9.0]], [[0.0, 9.0], [0.0, 9.0]]])
    table = early_exit.early_exit(logits, torch.tensor([0, 1]), [0.5, 0.95, 2.0], bits_a_step=10).set_index("threshold")
    assert table["steps"].tolist() == [1.0, 1.5, 3.0] and table["bits"].tolist() == [10.0, 15.0, 30.0]
    assert table["accuracy"].tolist() == [0.5, 1.0, 0.5]  # with all steps the first sample's mean is at class 1


def test_exits_of_networks_and_links(e, nets):
    links = [channel("bsc", ber=x) for x in (0.0, 0.3)]
    table = early_exit.exits({"spikes": nets["spikes"]}, e, links, [0.0, 2.0])
    assert table["steps"].tolist() == [1, 2, 1, 2] and table["bits"].tolist() == [32, 64, 32, 64]
    assert table["accuracy"].iloc[1] == pytest.approx(e.accuracy(nets["spikes"]))
    assert table["level"].tolist() == [0.0, 0.0, 0.3, 0.3]


def test_lossless_sizes_against_the_entropy_of_the_rate(e, nets):
    table = coded_spikes.lossless({"spikes": nets["spikes"]}, e, ["tensor", "neuron"], samples=10).set_index("context")
    rate = halves.sent(nets["spikes"], e, spread(e.data.test, 10)).float().mean().item()
    fitted = halves.sent(nets["spikes"], e, "calibration").float().mean().item()
    cross = entropy([rate, 1 - rate], base=2) + entropy([rate, 1 - rate], [fitted, 1 - fitted], base=2)
    assert table.loc["tensor", "ideal"] == pytest.approx(cross * 8, rel=0.02)  # 64 bits: H bits each, 8 to a byte
    assert table.loc["tensor", "rate"] == pytest.approx(rate) and table.loc["tensor", "packed"] == 8
    assert table.loc["tensor", "model"] == 2 and table.loc["neuron", "model"] == 2 * 3 * 32
    assert table.loc["tensor", "framed"] - table.loc["tensor", "actual"] == pytest.approx(HEADER_BYTES)


def test_a_context_is_chosen_by_validation_images_alone():
    table = pd.DataFrame({"network": ["a", "a", "b", "b"], "context": ["tensor", "neuron"] * 2,
                          "validation_actual": [5.0, 6.0, 8.0, 7.0], "actual": [9.0, 1.0, 1.0, 9.0]})  # fmt: skip
    chosen = coded_spikes.chosen_contexts(table)[["network", "context"]]
    assert chosen.to_numpy().tolist() == [["a", "tensor"], ["b", "neuron"]]


def test_coded_images_are_spread_over_a_split_and_validation_images_are_other_ones(e, nets):
    net = nets["spikes"]
    table = coded_spikes.lossless({"spikes": net}, e, ["tensor"], samples=5).iloc[0]
    model = fit(halves.sent(net, e, "calibration"), "tensor")
    places = [round(i * (len(e.data.test) - 1) / 4) for i in range(5)]
    assert table["actual"] == sizes(halves.sent(net, e)[:, places], model)["actual"].mean()
    places = [round(i * (len(e.data.validation) - 1) / 4) for i in range(5)]
    assert table["validation_actual"] == sizes(halves.sent(net, e, "validation")[:, places], model)["actual"].mean()


def test_one_wrong_bit_damages_coded_spikes_more_than_packed_ones():
    spikes = (torch.rand(2, 30, 4, 8, 8, generator=torch.Generator().manual_seed(0)) < 0.3).float()
    table = coded_spikes.damage(spikes, fit(spikes, "tensor"))
    assert table["bit"].between(0, 1).all() and table["wrong"].dropna().between(0, 1).all()
    assert table["wrong"].mean() > 0.05 > 1 / spikes[:, 0].numel()
    assert isinstance(table, pd.DataFrame) and len(table) == 30
