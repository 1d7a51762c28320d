"""Accuracy of split networks behind noisy links: bits as they are, and in packets under an error-correcting code.

Bits leave the device once and are kept; every channel, code and draw is then tried on the server's half alone. An LDPC
code is linear and its channels here are symmetric, so that the share of packets that arrive right does not depend on
what is in them: it is measured on random packets, and accuracies follow from it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import torch
from torch import Generator, Tensor

from ..bottleneck import baseline
from ..bottleneck.layers import Mask
from ..checks import check
from ..link.channels import Channel, bsc, channel
from ..link.protection import Protection, bit_logits
from ..network import Network
from ..train import pick_device
from .halves import BATCH, answers, answers_to_values, bits_sent, put_out, quantiser, right, sent
from .spike_bottlenet import SpikeBottleNet

#: Data bytes of a packet under an error-correcting code at most.
PACKET_BYTES = 474


def noise(name: str, level: float, packet_bits: int = 1024) -> Channel:
    """The channel ``name`` with its level of noise: ``ber`` of a BSC, Eb/N0 of AWGN in dB, else ``loss``.

    Args:
        name: in ``snnbook.link.channels.CHANNELS``.
        level: of noise.
        packet_bits: bits of a packet, where packets are lost.
    """
    option = {"bsc": "ber", "awgn": "ebn0_db", "awgn_soft": "ebn0_db"}.get(name, "loss")
    packets = {"packet_bits": packet_bits} if name == "packet_erasure" else {}
    return channel(name, **{option: level}, **packets)


def through(link: Channel, net: Network, bits: Tensor, generator: Generator | None = None) -> Tensor:
    """What arrives of the bits that the device sends.

    Packets and bytes that are lost are cut from a sample's whole payload, spikes step by step, codes element by
    element, without what a :class:`Mask` leaves out: networks that send equally many bits meet the same link.

    Args:
        link: the channel.
        net: whose bits they are.
        bits: from :func:`sent`, 0/1 [T, N, c', h', w'].
        generator: random numbers.

    Returns:
        The same shape; zeros where nothing arrives or nothing is sent.
    """
    if not link.name.endswith("erasure"):
        return link(bits, generator)
    samples = bits.transpose(0, 1) if net.time_steps else bits.movedim(0, -1)
    flat, masks = samples.flatten(1), [m for m in net.modules() if isinstance(m, Mask)]
    places = masks[0].places.bool().flatten().repeat(len(bits)).cpu() if masks else torch.ones_like(flat[0]).bool()
    received = torch.zeros_like(flat)
    received[:, places] = link(flat[:, None, None, places], generator)[:, 0, 0]
    received = received.view(samples.shape)
    return received.transpose(0, 1) if net.time_steps else received.movedim(-1, 0)


def sweep(
    nets: dict[str, Network], e: SpikeBottleNet, channels: Sequence[Channel], draws: int = 3, seed: int = 0
) -> pd.DataFrame:
    """Test accuracy of each network behind each channel.

    Args:
        nets: networks with a codec, by name.
        e: the experiment they belong to.
        channels: what happens to the bits.
        draws: times that the whole test split is sent.
        seed: of the first draw's noise, the same for every network.

    Returns:
        Columns ``network``, ``bits`` (of a sample), ``channel``, ``level`` (of noise), ``draw``, ``accuracy``, and
        ``chance``, the accuracy of a guess (both 0 to 1).
    """
    y, rows, device = e.data.test.y, [], pick_device(e.device)
    for name, net in nets.items():
        spikes = sent(net, e).float()
        bits = bits_sent(net, spikes)
        for link in channels:
            level = link.options[0][1]
            for draw in range(draws):
                received = through(link, net, spikes, Generator().manual_seed(seed + draw))
                reached = right(answers(net, received, device), y)
                rows.append((name, bits, link.name, level, draw, reached))
    table = pd.DataFrame(rows, columns=["network", "bits", "channel", "level", "draw", "accuracy"])
    return table.assign(chance=1 / e.data.n_classes)


def unquantised(
    net: Network, e: SpikeBottleNet, ebn0_db: Sequence[float], draws: int = 3, seed: int = 0
) -> pd.DataFrame:
    """Test accuracy of an ANN whose elements go out as amplitudes through white noise, and not as bits.

    An element has the energy of its b bits, so that its signal-to-noise ratio is 2b·Eb/N0.

    Args:
        net: ANN with a codec.
        e: the experiment it belongs to.
        ebn0_db: Eb/N0 in dB.
        draws: times that the whole test split is sent.
        seed: of the first draw's noise.

    Returns:
        The columns of :func:`sweep` without ``network``, ``bits`` and ``chance``; ``level`` is Eb/N0.
    """
    values, rows, device = put_out(net, e), [], pick_device(e.device)
    gain = 10 * math.log10(2 * quantiser(net).bits)
    for level in ebn0_db:
        link = channel("analogue", snr_db=level + gain)
        for draw in range(draws):
            received = link(values, Generator().manual_seed(seed + draw))
            rows.append((link.name, level, draw, right(answers_to_values(net, received, device), e.data.test.y)))
    return pd.DataFrame(rows, columns=["channel", "level", "draw", "accuracy"])


def recorded_sweeps(found: Mapping[str, tuple[dict, dict]], names: Mapping[str, str] | None = None) -> pd.DataFrame:
    """Accuracies of recorded runs of chapter 34, bare and coded; empty without runs.

    Args:
        found: name to manifest and tables, from :func:`snnbook.experiments.conversion_tables.recorded_runs`.
        names: network → how it is shown; others keep their names.

    Returns:
        Columns ``run``, ``dataset``, ``width``, ``time_steps``, ``chance`` (%), ``network`` (with the rate of its
        code), ``bits``, ``channel``, and one for each level of noise (its number as text): mean test accuracy, %, nan
        where a run does not have it.
    """
    names = names or {}
    parts = []
    for name, (manifest, tables) in found.items():
        given, coded = manifest["parameters"], tables["coded"]
        named = coded["network"].replace(names) + ", code of rate " + coded["rate"].map("{:g}".format)
        about = {"run": name} | {key: given[key] for key in ("dataset", "width", "time_steps")}
        about["chance"] = 100 * tables["sweep"]["chance"].iloc[0]
        parts += [tables["sweep"].replace({"network": names}).assign(**about),
                  coded.assign(network=named, channel="bsc", **about)]  # fmt: skip
    if not parts:
        return pd.DataFrame()
    keys = ["run", "dataset", "width", "time_steps", "chance", "network", "bits", "channel"]
    groups = pd.concat(parts).groupby([*keys, "level"], sort=False, dropna=False)
    wide = 100 * groups["accuracy"].mean().unstack("level")
    return wide[sorted(wide.columns)].rename(columns="{:g}".format).reset_index().rename_axis(columns=None)


def packets_right(code: Protection, ber: float, packets: int, seed: int = 0) -> float:
    """Share, 0 to 1, of random payloads of one packet that a receiver gets right through a BSC; it knows ``ber``.

    Raises:
        ValueError: if payloads of ``code`` take several packets.
    """
    check("packets of a payload", code.packets, code.packets == 1, "1")
    payloads = np.random.default_rng(seed).integers(0, 256, (packets, code.payload_bytes), dtype=np.uint8)
    received = bsc(code.encode(payloads), ber, Generator().manual_seed(seed))
    found, flags = code.decode(bit_logits(received, ber))
    return float((flags[:, 0] & (found == payloads).all(1)).mean())


def coded(
    net: Network,
    e: SpikeBottleNet,
    rates: Sequence[float],
    bers: Sequence[float],
    packets: int,
    quality: int = 75,
    seed: int = 0,
) -> pd.DataFrame:
    """Expected accuracy of spikes, and of JPEG images, in CRC-checked packets under an LDPC code over a BSC.

    A payload of spikes is one packet, or as few equal ones as ``PACKET_BYTES`` allows; of a lost one the server sees
    silence. Image files have packets of one size too, that of the longest file's; an image takes as many as its own
    file fills, and unless all are right, its class is guessed.

    Args:
        net: spiking network with a codec.
        e: its experiment; images are classified by its ANN.
        rates: of the code.
        bers: bit error rates.
        packets: random packets for each pair of the two.
        quality: of JPEG.
        seed: of packets and noise.

    Returns:
        Columns ``network`` ("spikes" or "jpeg"), ``rate``, ``bits`` (mean, of a sample), ``level``, ``packet`` (share
        that arrives right), ``accuracy`` (0 to 1).
    """
    spikes, rows, device = sent(net, e), [], pick_device(e.device)
    whole, silent = (right(answers(net, s, device), e.data.test.y) for s in (spikes, torch.zeros_like(spikes)))
    image_right, files = _jpeg(e, quality)
    size = -(-spikes[:, 0].numel() // 8)
    for rate in rates:
        code = Protection(size, rate, packet_bytes=PACKET_BYTES)
        one, of_image = (_packet(size, rate), _packet(int(files.max()), rate))
        count = -(-files // of_image.data_bytes)  # packets of each image
        for ber in bers:
            q, image_q = (packets_right(packet, ber, packets, seed) for packet in (one, of_image))
            complete = image_q**count
            guessed = complete * image_right + (1 - complete) / e.data.n_classes
            several = code.packets > 1  # of one the expectation is exact
            reached = _with_packets_lost(net, e, spikes, code, q, seed) if several else q * whole + (1 - q) * silent
            rows.append(("spikes", rate, code.bits, ber, q, reached))
            rows.append(("jpeg", rate, of_image.bits * count.mean(), ber, image_q, guessed.mean()))
    return pd.DataFrame(rows, columns=["network", "rate", "bits", "level", "packet", "accuracy"])


def _packet(size: int, rate: float) -> Protection:
    """One of the equal packets into which ``size`` bytes are cut."""
    data = Protection(size, rate, packet_bytes=PACKET_BYTES).data_bytes
    return Protection(data, rate, packet_bytes=data)


def _with_packets_lost(
    net: Network, e: SpikeBottleNet, spikes: Tensor, code: Protection, share: float, seed: int
) -> float:
    """Accuracy if each packet of a payload arrives with probability ``share``, drawn once."""
    there = torch.rand(spikes.shape[1], code.packets, generator=Generator().manual_seed(seed)) < share
    packet = torch.arange(spikes[:, 0].numel()) // (8 * code.data_bytes)  # of each bit of a sample
    bits = there[:, packet].view(spikes.shape[1], len(spikes), *spikes.shape[2:]).transpose(0, 1)
    return right(answers(net, spikes * bits, pick_device(e.device)), e.data.test.y)


def _jpeg(e: SpikeBottleNet, quality: int) -> tuple[np.ndarray, np.ndarray]:
    """Test images as JPEG: whether the ANN has each right, and bytes of each file."""
    images, files = baseline.recode(e.data.test.x, "jpeg", quality)
    device = pick_device(e.device)
    net = e.ann().eval().to(device)
    with torch.no_grad():
        logits = torch.cat([net(e.data.normalise(part).to(device)).cpu() for part in images.split(BATCH)])
    return (logits.argmax(1) == e.data.test.y).numpy(), files.numpy()
