"""A link that flips bits and loses messages by an explicit seed: what it does, and that nothing is lost in the end."""

import math
import threading
import time
from contextlib import contextmanager

import numpy as np
import pytest
import torch
from fleets import make_split, serving, single_process

from snnbook.__main__ import _parser
from snnbook.link.client import Client
from snnbook.link.commands import _rates
from snnbook.link.device import Device, open_device
from snnbook.link.folder import as_sample, part_file
from snnbook.link.shaper import Noise, Rate
from snnbook.link.transport import Channel, Listener
from snnbook.link.walk import Walk

UNLIMITED = float("inf")


def flipped(a: bytes, b: bytes) -> int:
    return sum((x ^ y).bit_count() for x, y in zip(a, b, strict=True))


def test_bits_are_flipped_at_their_rate_and_the_same_for_the_same_seed():
    data, ber = np.random.default_rng(1).bytes(50_000), 0.01
    (first,), (second,) = (Noise(Rate(UNLIMITED, ber=ber, seed=3))([data]) for _ in range(2))
    (other,) = Noise(Rate(UNLIMITED, ber=ber, seed=4))([data])
    n, wanted = 8 * len(data), 8 * len(data) * ber
    assert first == second != other and abs(flipped(data, first) - wanted) < 5 * math.sqrt(n * ber * (1 - ber))
    (worst,) = Noise(Rate(UNLIMITED, ber=0.5))([data])
    assert abs(flipped(data, worst) - n / 2) < 5 * math.sqrt(n / 4)
    assert Noise(Rate(UNLIMITED))([data, b""]) == [data, b""]


def test_messages_are_lost_at_their_rate():
    noise = Noise(Rate(UNLIMITED, loss=0.3, seed=0))
    lost = sum(noise([b"x"]) == [] for _ in range(2000))
    assert abs(lost - 600) < 5 * math.sqrt(2000 * 0.3 * 0.7)
    assert Noise(Rate(UNLIMITED, loss=1.0))([b"x"]) == []


@pytest.mark.parametrize("values", [{"ber": 0.6}, {"ber": -0.1}, {"loss": 1.1}, {"seed": -1}])
def test_noise_is_checked(values):
    with pytest.raises(ValueError, match=f"^{next(iter(values))} = "):
        Rate(1e6, **values)


def test_a_channel_is_noisy_towards_the_server_only():
    listener = Listener()
    channel = Channel(listener.address, up=Rate(UNLIMITED, loss=0.5, seed=1))
    expected = [bool(kept) for kept in map(Noise(Rate(UNLIMITED, loss=0.5, seed=1)), [[b"m"]] * 40)]
    try:
        for i in range(40):
            assert channel.send(bytes([i]), 5)
        found = [listener.receive(5) for _ in range(sum(expected))]
        assert [frames[0][0] for _, frames, _ in found] == [i for i, kept in enumerate(expected) if kept]
        assert listener.receive(0.1) is None
        for _ in range(20):
            assert listener.send(found[0][0], b"back")
        assert [channel.receive(5) for _ in range(20)] == [[b"back"]] * 20
    finally:
        channel.close()
        listener.close()


def test_noise_costs_tries_and_no_sample(tmp_path):
    """A device drives itself over a link that spoils about half of its messages."""
    _, head, tail, samples, plan = make_split(tmp_path, deadline=60.0)
    bits = 8 * (40 + plan.payload_bytes()[0])
    noise = Rate(UNLIMITED, ber=1 - 0.7 ** (1 / bits), loss=0.2, seed=5)
    with serving(tmp_path) as server:
        channel = Channel(server.listener.address, up=noise)
        try:
            device = open_device(part_file(tmp_path, 0), tmp_path / "samples.safetensors", channel)
            rows = list(range(len(samples)))
            answered = Walk(device, rows, window=2, timeout=0.1, patience=30.0).run()
        finally:
            channel.close()
        counts = dict(server.counts)
    assert sorted(a.index for a in answered) == rows
    for a in answered:
        assert torch.allclose(a.answer.logits, single_process([head], tail, as_sample(samples[a.index])), atol=1e-5)
    assert max(a.tries for a in answered) > 1 and counts["answered"] == len(rows)
    assert sum(n for name, n in counts.items() if name.startswith("bad")) > 0


@contextmanager
def obeying(server, channel, folder, quiet=False):
    """A client of a server whose only device obeys in a thread of this process, ``quiet`` after its first hello."""
    stop, device = threading.Event(), open_device(part_file(folder, 0), folder / "samples.safetensors", channel)
    if quiet:
        device.hello = lambda said=[]: said or said.append(Device.hello(device))
    thread = threading.Thread(target=device.run, args=(stop,))
    thread.start()
    client = Client(server.listener.address)
    try:
        while not client.status()["parts"]:
            time.sleep(1e-3)
        yield client
    finally:
        stop.set()
        thread.join()
        client.close()
        channel.close()


class Lossy(Channel):
    """A channel that loses every other message that it receives."""

    received = 0

    def receive(self, timeout: float):
        frames = super().receive(timeout)
        self.received += frames is not None
        return None if frames is not None and self.received % 2 == 0 else frames


@pytest.mark.parametrize("first_steps", [0, 1])
def test_triggers_and_spikes_that_are_lost_are_asked_for_again(tmp_path, first_steps):
    """A client asks; triggers are lost on the way to the device, spikes on the way back. No answer is partial."""
    net, head, tail, samples, plan = make_split(tmp_path, deadline=60.0, first_steps=first_steps)
    rows = list(range(len(samples)))
    with serving(tmp_path) as server:
        channel = Lossy(server.listener.address, up=Rate(UNLIMITED, loss=0.4, seed=2))
        with obeying(server, channel, tmp_path) as client:
            answered, _ = client.run(rows, window=2, timeout=0.1, patience=30.0)
        counts = dict(server.counts)
    assert sorted(a.index for a in answered) == rows and not any(a.answer.partial for a in answered)
    for a in answered:
        assert torch.allclose(a.answer.logits, single_process([head], tail, as_sample(samples[a.index])), atol=1e-5)
        assert a.answer.payload_bytes == plan.payload_bytes()[0]  # nothing was taken twice
    assert counts["triggered again"] > 0 and counts["answered"] == counts["asked"] == len(rows)


def test_a_link_that_needs_most_of_the_deadline_recovers_from_needless_reminders(tmp_path):
    """One payload takes 0.6 of the deadline: reminders double the load, and every answer was partial from then on."""
    deadline = 0.8  # two of them stay below the silence after which a device is taken for gone
    plan = make_split(tmp_path, deadline=deadline)[-1]
    bits = 8 * (40 + plan.payload_bytes()[0])
    with serving(tmp_path) as server:
        channel = Channel(server.listener.address, up=Rate(bits / (0.6 * deadline)))
        with obeying(server, channel, tmp_path, quiet=True) as client:
            asked = [client.run([i], timeout=10.0)[0][0] for i in [0, 1, 2, 3, 4, 5, 0, 1, 2, 3]]
        counts = dict(server.counts)
    assert not asked[0].answer.partial and not any(a.answer.partial for a in asked[-5:])
    assert 0 < counts["triggered again"] < 4


def test_noise_on_the_command_line():
    base = ["device", "part", "samples", "--connect", "tcp://127.0.0.1:1"]
    plain, noisy, slow = (_rates(_parser().parse_args(base + more)) for more in
                          ([], ["--ber", "0.01", "--noise-seed", "7"], ["--up", "1e6", "--loss", "0.5"]))  # fmt: skip
    assert plain == {"up": None, "down": None}
    assert noisy["up"] == Rate(UNLIMITED, ber=0.01, seed=7) and slow["up"] == Rate(1e6, loss=0.5)
