"""A split network over a noisy link: spikes as they are, trained with noise, coded, or in the place of an image.

Bits leave the device once and are kept; every channel, code and draw is then tried on the server's half alone. An LDPC
code is linear and its channels here are symmetric, so that the share of packets that arrive right does not depend on
what is in them: it is measured on random packets, and accuracies follow from it.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial

import numpy as np
import pandas as pd
import torch
from torch import Generator, Tensor, nn

from ..bottleneck import baseline
from ..bottleneck.codec import compress, head, tail
from ..bottleneck.selection import Candidate
from ..cache import trained
from ..checks import check
from ..data import Split
from ..link.channels import Channel, Noisy, bsc, channel
from ..link.coding import Penalty, SpikeModel, decode, encode, fit, sizes
from ..link.messages import HEADER_BYTES
from ..link.protection import Protection, bit_logits
from ..network import Network
from ..side_by_side import together
from ..train import pick_device
from .samples import spread
from .spike_bottlenet import SpikeBottleNet

#: Samples of a batch on either half.
BATCH = 256

#: Data bytes of a packet under an error-correcting code at most.
PACKET_BYTES = 474


class Mask(nn.Module):
    """A fixed random choice of places: the others are 0, and are not sent.

    Args:
        shape: (c', h', w').
        keep: share of places that stay, above 0, at most 1.
        seed: of the choice.
    """

    def __init__(self, shape: tuple[int, int, int], keep: float, seed: int = 0):
        super().__init__()
        check("keep", keep, 0 < keep <= 1, "above 0, at most 1")
        order = torch.rand(math.prod(shape), generator=Generator().manual_seed(seed)).argsort()
        places = torch.zeros(math.prod(shape)).index_fill(0, order[: round(keep * len(order))], 1.0)
        self.register_buffer("places", places.view(shape))

    def forward(self, x: Tensor) -> Tensor:
        """[..., c', h', w'] with zeros outside the chosen places."""
        return x * self.places


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


def step_bits(e: SpikeBottleNet, candidate: Candidate) -> int:
    """Bits of one time step of the spikes of ``candidate``."""
    here = e.points().set_index("split_point").loc[candidate.split_point]
    return candidate.channels * int(here["height"] * here["width"]) // candidate.stride**2


def _with(net: Network, *layers: nn.Module) -> Network:
    """A copy of ``net`` whose encoder ends with more layers."""
    net = copy.deepcopy(net)
    net.body.encoder.extend(layers)
    return net


def _tuned(net: Network, e: SpikeBottleNet) -> Network:
    trained(net, e.data, replace(e.fine_tuning, seed=e.seed), device=e.device)
    return net


def spiking(e: SpikeBottleNet, candidate: Candidate, channel: Channel | None = None, penalty: float = 0.0) -> Network:
    """The backbone with a spike codec, fine-tuned with ``channel`` behind its encoder and a price on its bits.

    Args:
        e: experiment.
        candidate: split point, channels, stride, T.
        channel: noise in training; none by default.
        penalty: weight of the entropy of the firing rates in the loss (:class:`snnbook.link.coding.Penalty`).
    """
    if channel is None and not penalty:
        return e.compressed(candidate)[0]
    split_point, channels, stride, T = candidate
    net, _ = compress(e.backbone(T), e.data.shape, split_point, channels, stride, seed=e.seed)
    return _tuned(_with(net, *([Penalty(penalty)] if penalty else []), Noisy(channel)), e)


def codes(e: SpikeBottleNet, candidate: Candidate, bits: int = 1, channel: Channel | None = None) -> Network:
    """The ANN with a BottleNet++ of ``bits`` bits an element, and as many bits in all as the spikes of ``candidate``.

    It has T / ``bits`` times the channels; where that is no whole number the next below, but one at least. Trained in
    BottleNet++'s three steps, the last two with ``channel`` behind the encoder.

    Raises:
        ValueError: if the map at the split point does not have so many channels; for a channel and elements of several
            bits: the encoder puts those out as numbers, and a channel acts on bits.
    """
    check("bits", bits, channel is None or bits == 1, "1 where there is noise in training")
    split_point, channels, stride, T = candidate
    wide = max(1, channels * T // bits)
    if channel is None:
        return e.bottlenet(split_point, wide, stride, bits)[0]
    net, _ = baseline.compress(e.ann(), e.data.shape, split_point, wide, stride, bits=bits, seed=e.seed)
    net = _with(net, Noisy(channel))
    with baseline.frozen(net):
        trained(net, e.data, replace(e.codec_training, seed=e.seed), device=e.device)
    return _tuned(net, e)


def masked(e: SpikeBottleNet, candidate: Candidate, keep: float = 0.25, channel: Channel | None = None) -> Network:
    """A spike codec of 1 / ``keep`` times the channels, of whose map a random share ``keep`` is sent.

    As many bits as the spikes of ``candidate``, but chosen by chance and not by training; fine-tuned with the mask.
    """
    split_point, channels, stride, T = candidate
    wide = round(channels / keep)
    net, report = compress(e.backbone(T), e.data.shape, split_point, wide, stride, seed=e.seed)
    mask = Mask(report.payload, keep, e.seed)
    net = _with(net, Noisy(channel))
    net.body.decoder = nn.Sequential(mask, *net.body.decoder)  # the server knows which places are not sent
    return _tuned(net, e)


def contenders(
    e: SpikeBottleNet, candidate: Candidate, channel: Channel, keep: float = 0.25, bits: int = 8
) -> dict[str, Network]:
    """The networks of a sweep over noise, trained side by side: name to network.

    "spikes" and "1 bit" (codes), each also trained with ``channel`` ("…, noise"); "mask" (:func:`masked` with
    ``keep``); codes of ``bits`` bits ("8 bits").
    """
    together([partial(e.backbone, candidate.time_steps), e.ann])
    calls = {
        "spikes": partial(spiking, e, candidate),
        "spikes, noise": partial(spiking, e, candidate, channel),
        "mask": partial(masked, e, candidate, keep),
        "1 bit": partial(codes, e, candidate),
        "1 bit, noise": partial(codes, e, candidate, 1, channel),
        f"{bits} bits": partial(codes, e, candidate, bits),
    }
    return dict(zip(calls, together(list(calls.values())), strict=True))


def check_cut(e: SpikeBottleNet, candidate: Candidate, keep: float = 1.0) -> None:
    """Refuse a cut at which one of the networks of this module cannot be built, before anything is trained.

    Args:
        e: experiment.
        candidate: split point, channels, stride, T.
        keep: see :func:`masked`.

    Raises:
        ValueError: with the name of the parameter.
    """
    points, (split_point, channels, stride, T) = e.points().set_index("split_point"), candidate
    check("split_point", split_point, split_point in points.index, f"1 to {len(points)}")
    C, height, width = (int(n) for n in points.loc[split_point, ["channels", "height", "width"]])
    check("stride", stride, height % stride == 0 and width % stride == 0, f"a divisor of {height} and {width}")
    check("channels", channels, channels <= C, f"1 to {C}, the channels behind block {split_point}")
    check("time_steps", T, channels * T <= C, f"1 to {C // channels} for {channels} of {C} channels")
    check("keep", keep, round(channels / keep) <= C, f"at least {channels / C:g} for {channels} of {C} channels")


def bits_sent(net: Network, spikes: Tensor) -> int:
    """Bits of one sample of ``spikes`` [T, N, c', h', w'] on the link: those that no :class:`Mask` leaves out."""
    masks = [m for m in net.modules() if isinstance(m, Mask)]
    return len(spikes) * int(masks[0].places.sum()) if masks else spikes[:, 0].numel()


def sent(net: Network, e: SpikeBottleNet, split: str | Split = "test") -> Tensor:
    """Bits that the device sends of every sample of a split, uint8 [T, N, c', h', w'].

    Codes of an ANN are bit planes, the highest first: there T stands for the bits of an element.
    """
    values = put_out(net, e, split)
    return values.to(torch.uint8) if net.time_steps else _planes(quantiser(net).codes(values), quantiser(net).bits)


def put_out(net: Network, e: SpikeBottleNet, split: str | Split = "test") -> Tensor:
    """What the encoder puts out of every sample of a split: spikes [T, N, c', h', w'], or values of codes [N, ...]."""
    device = head(net).eval().to(pick_device(e.device))
    with torch.no_grad():
        parts = [device(x).cpu() for x, _ in e.data.batches(split, BATCH, device=pick_device(e.device))]
    return torch.cat(parts, 1 if net.time_steps else 0)


def quantiser(net: Network) -> baseline.Quantise:
    """What makes codes at the end of the encoder of an ANN."""
    return next(m for m in net.body.encoder if isinstance(m, baseline.Quantise))


def _planes(codes: Tensor, bits: int) -> Tensor:
    """Codes [...] as bits [b, ...], the highest first."""
    return torch.stack([codes >> k & 1 for k in reversed(range(bits))])


def _values(planes: Tensor) -> Tensor:
    """Bits [b, ...] as the values of codes [...], 0 to 1; of probabilities of bits what is expected."""
    weights = 2.0 ** torch.arange(len(planes) - 1, -1, -1, device=planes.device)
    return torch.tensordot(weights, planes.float(), 1) / (2 ** len(planes) - 1)


def answers(net: Network, received: Tensor, device: str = "cpu") -> Tensor:
    """Logits [T, N, K] of the server for bits [T, N, c', h', w'] as they were received; of an ANN [1, N, K]."""
    if net.time_steps is None:
        return answers_to_values(net, _values(received), device)
    server = tail(net).eval().to(device)
    with torch.no_grad():
        return torch.cat([server(part.float().to(device)).cpu() for part in received.split(BATCH, 1)], 1)


def answers_to_values(net: Network, values: Tensor, device: str = "cpu") -> Tensor:
    """Logits [1, N, K] of the server of an ANN for values [N, c', h', w'] as they were received."""
    server = tail(net).eval().to(device)
    with torch.no_grad():
        return torch.cat([server(part.float().to(device)).cpu() for part in values.split(BATCH)])[None]


def right(logits: Tensor, y: Tensor) -> float:
    """Share, 0 to 1, of samples whose largest mean logit over T is at the label; logits [T, N, K], y [N]."""
    return (logits.mean(0).argmax(1) == y).double().mean().item()


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
    silence. An image takes as many packets of the same size as its file fills; unless all are right, its class is
    guessed.

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
    spikes, rows = sent(net, e), []
    image_right, files = _jpeg(e, quality)
    size = -(-spikes[:, 0].numel() // 8)
    for rate in rates:
        code = Protection(size, rate, packet_bytes=min(size, PACKET_BYTES))
        one = Protection(code.data_bytes, rate, packet_bytes=code.data_bytes)
        count = -(-files // code.data_bytes)  # packets of each image
        for ber in bers:
            q = packets_right(one, ber, packets, seed)
            complete = q**count
            guessed = complete * image_right + (1 - complete) / e.data.n_classes
            rows.append(("spikes", rate, code.bits, ber, q, _with_packets_lost(net, e, spikes, code, q, seed)))
            rows.append(("jpeg", rate, one.bits * count.mean(), ber, q, guessed.mean()))
    return pd.DataFrame(rows, columns=["network", "rate", "bits", "level", "packet", "accuracy"])


def _with_packets_lost(
    net: Network, e: SpikeBottleNet, spikes: Tensor, code: Protection, share: float, seed: int
) -> float:
    """Expected accuracy if a packet arrives with probability ``share``; drawn once if a payload has several packets."""
    y, device = e.data.test.y, pick_device(e.device)
    if code.packets == 1:
        whole, silent = (right(answers(net, s, device), y) for s in (spikes, torch.zeros_like(spikes)))
        return share * whole + (1 - share) * silent
    there = torch.rand(spikes.shape[1], code.packets, generator=Generator().manual_seed(seed)) < share
    packet = torch.arange(spikes[:, 0].numel()) // (8 * code.data_bytes)  # of each bit of a sample
    bits = there[:, packet].view(spikes.shape[1], len(spikes), *spikes.shape[2:]).transpose(0, 1)
    return right(answers(net, spikes * bits, device), y)


def _jpeg(e: SpikeBottleNet, quality: int) -> tuple[np.ndarray, np.ndarray]:
    """Test images as JPEG: whether the ANN has each right, and bytes of each file."""
    images, files = baseline.recode(e.data.test.x, "jpeg", quality)
    device = pick_device(e.device)
    net = e.ann().eval().to(device)
    with torch.no_grad():
        logits = torch.cat([net(e.data.normalise(part).to(device)).cpu() for part in images.split(BATCH)])
    return (logits.argmax(1) == e.data.test.y).numpy(), files.numpy()


def early_exit(logits: Tensor, y: Tensor, thresholds: Sequence[float], bits_a_step: int) -> pd.DataFrame:
    """Answer as soon as the server is sure enough; only then are further time steps not sent.

    After each step the logits so far are averaged; their largest softmax is the confidence.

    Args:
        logits: [T, N, K].
        y: labels [N].
        thresholds: confidences at which the server answers; above 1 it always waits for all T steps.
        bits_a_step: of one sample.

    Returns:
        Columns ``threshold``, ``steps`` and ``bits`` (means over samples), ``accuracy`` (0 to 1).
    """
    T = len(logits)
    mean = logits.cumsum(0) / torch.arange(1, T + 1)[:, None, None]
    confidence, predicted = mean.softmax(2).max(2)
    rows = []
    for threshold in thresholds:
        sure = confidence >= threshold
        sure[-1] = True
        at = sure.int().argmax(0)  # the first step that is sure
        reached = (predicted.gather(0, at[None])[0] == y).double().mean().item()
        steps = at.double().mean().item() + 1
        rows.append((threshold, steps, bits_a_step * steps, reached))
    return pd.DataFrame(rows, columns=["threshold", "steps", "bits", "accuracy"])


def exits(
    nets: dict[str, Network],
    e: SpikeBottleNet,
    channels: Sequence[Channel],
    thresholds: Sequence[float],
    seed: int = 0,
) -> pd.DataFrame:
    """:func:`early_exit` of each spiking network behind each channel, with ``network`` and ``level`` (of noise)."""
    parts, device = [], pick_device(e.device)
    for name, net in nets.items():
        spikes = sent(net, e).float()
        for link in channels:
            logits = answers(net, link(spikes, Generator().manual_seed(seed)), device)
            rows = early_exit(logits, e.data.test.y, thresholds, bits_sent(net, spikes) // len(spikes))
            parts.append(rows.assign(network=name, level=link.options[0][1]))
    return pd.concat(parts, ignore_index=True)


def lossless(
    nets: dict[str, Network], e: SpikeBottleNet, contexts: Sequence[str], samples: int | None = None
) -> pd.DataFrame:
    """Mean bytes of a sample's spikes as packed and as range-coded.

    Models come from calibration images, and bytes are those of test images; :func:`chosen_contexts` chooses.

    Args:
        nets: name to a network with a codec.
        e: the experiment.
        contexts: names in ``snnbook.link.coding.CONTEXTS``.
        samples: images that are coded of the test and of the validation split, spread over it; all by default.

    Returns:
        Columns ``network``, ``context``, ``rate`` (share of ones), ``model`` (bytes that both sides keep), ``packed``,
        ``ideal``, ``actual``, ``framed`` (with the header of a message), ``validation_actual`` (range-coded bytes of
        validation images).
    """
    rows = []
    for name, net in nets.items():
        seen = sent(net, e, "calibration")
        validated, coming = (sent(net, e, spread(split, samples)) for split in (e.data.validation, e.data.test))
        for context in contexts:
            model = fit(seen, context)
            of_validation, mean = (sizes(spikes, model, HEADER_BYTES).mean() for spikes in (validated, coming))
            own = {"network": name, "context": context, "model": len(model.to_bytes())}
            rows.append({**own, **mean, "validation_actual": of_validation["actual"]})
    columns = ["network", "context", "rate", "model", "packed", "ideal", "actual", "framed", "validation_actual"]
    return pd.DataFrame(rows)[columns]


def chosen_contexts(table: pd.DataFrame) -> pd.DataFrame:
    """The rows of :func:`lossless`, one for each network, with fewest range-coded bytes for validation images."""
    return table.sort_values("validation_actual", kind="stable").groupby("network", sort=False).head(1)


def damage(spikes: Tensor, model: SpikeModel, seed: int = 0) -> pd.DataFrame:
    """What one flipped bit does to coded spikes, sample by sample.

    Args:
        spikes: 0/1 [T, N, c', h', w'].
        model: of the range coder.
        seed: picks the bit.

    Returns:
        Columns ``bit`` (share of the payload before it), ``wrong`` (share of the sample's spikes that are wrong after
        decoding; nan where the decoder refused). Both are nan of a sample whose code is empty: there is no bit to flip.
    """
    rng, rows = np.random.default_rng(seed), []
    for one in spikes.transpose(0, 1):
        if not (data := bytearray(encode(one, model))):
            rows.append((math.nan, math.nan))
            continue
        bit = int(rng.integers(8 * len(data)))
        data[bit // 8] ^= 0x80 >> bit % 8
        try:
            wrong = (decode(bytes(data), len(one), model) != one).float().mean().item()
        except ValueError:
            wrong = math.nan
        rows.append((bit / (8 * len(data)), wrong))
    return pd.DataFrame(rows, columns=["bit", "wrong"])
