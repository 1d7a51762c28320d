"""Server, devices and clients in one process: what is answered, when, and what is counted and dropped."""

import re
import shutil
import threading
import time
from contextlib import contextmanager

import pytest
import torch
from fleets import CLASSES, T, images, make_fleet, make_split, running, sensor, serving, single_process, working
from safetensors.torch import save_file
from torch import nn

from snnbook import store
from snnbook.link import device as device_module
from snnbook.link import server as server_module
from snnbook.link.answers import Answer
from snnbook.link.client import Client
from snnbook.link.device import Contact, Device, Refused, open_device, serve_part, walk_part
from snnbook.link.folder import Sensor, as_sample, part_file, read_labels, read_plan, write_fleet
from snnbook.link.garbage import checked, garbage
from snnbook.link.keys import make_keys
from snnbook.link.measure import Measured
from snnbook.link.messages import WANTS_ANSWER, Kind, Message, decode, encode
from snnbook.link.parts import Fuse, Tail
from snnbook.link.payload import pack, packed_bytes
from snnbook.link.shaper import Rate
from snnbook.link.transport import Channel, Listener
from snnbook.link.walk import Walk


@pytest.fixture(scope="module")
def fleet(tmp_path_factory):
    """``(folder, devices, fuse, samples)`` with a deadline that no test waits for."""
    folder = tmp_path_factory.mktemp("fleet")
    devices, fuse, samples, _ = make_fleet(folder, deadline=60.0)
    return folder, devices, fuse, samples


class Hand:
    """A device or client that a test moves by hand."""

    def __init__(self, address: str, part: int = 0, keys=None, fleet: int = 0):
        self.channel, self.part, self.fleet = Channel(address, keys), part, fleet

    def send(self, m: Message) -> None:
        assert self.channel.send(encode(m))

    def take(self, kind: Kind, timeout: float = 10.0) -> Message:
        """The next message, which has to be of that kind."""
        frames = self.channel.receive(timeout)
        assert frames is not None, f"no {kind.name}"
        m = decode(frames[0])
        assert m.kind == kind, (m.kind, m.payload)
        return m

    def hello(self, shape, steps: int = T) -> Message:
        self.send(Message(Kind.HELLO, self.fleet, part=self.part, steps=steps, shape=shape))
        return self.take(Kind.HELLO)

    def features(self, sample: int, spikes: torch.Tensor, first: int = 0, flags: int = 0) -> Message:
        shape = tuple(spikes.shape[2:])
        return Message(Kind.FEATURES, sample, self.part, first, len(spikes), shape, 5, flags, pack(spikes))


@pytest.fixture
def hands():
    """Makes hands; closes them afterwards."""
    made = []

    def make(server, part: int = 0) -> Hand:
        made.append(Hand(server.listener.address, part, fleet=server.plan.fleet))
        return made[-1]

    yield make
    for hand in made:
        hand.channel.close()


def wait_until(condition, seconds: float = 10.0) -> None:
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.005)


def registered(server, n: int) -> None:
    wait_until(lambda: len(server.where) == n)


def ask(server, hand: Hand, sample: int) -> None:
    hand.send(Message(Kind.ASK, sample))
    wait_until(lambda: sample in server.assembly.open or server.assembly.answered(sample) is not None)


def spikes_of(fleet, part: int, index: int) -> torch.Tensor:
    with torch.inference_mode():
        return fleet[1][part](fleet[3][index : index + 1])


# The parts of a server


@pytest.mark.parametrize("lost", [(), (1,), (0, 2), (0, 1, 2)])
def test_fuse_pools_concatenates_and_puts_zeros_for_lost_ones(fleet, lost):
    _, devices, fuse, x = fleet
    spikes = [d(x[:2]) for d in devices]
    given = [None if i in lost else s for i, s in enumerate(spikes)]
    found, rows = fuse(given), []
    for t in range(T):
        for n in range(1 if len(lost) == 3 else 2):
            maps = [torch.zeros_like(s[t, n]) if i in lost else s[t, n] for i, s in enumerate(spikes)]
            pooled = [nn.functional.avg_pool2d(m[None], 2).flatten() for m in maps]
            rows.append(fuse.fusion.weight @ torch.cat(pooled) + fuse.fusion.bias)
    assert torch.allclose(found, torch.stack(rows).view(found.shape), atol=1e-6)
    assert found.shape == (T, 1 if len(lost) == 3 else 2, CLASSES) and all(0 < s.mean() < 1 for s in spikes)


def test_tail_is_the_rest_of_the_network_for_any_first_steps(tmp_path):
    net, head, tail, x, _ = make_split(tmp_path)
    with torch.no_grad():
        spikes, logits = head(x[:2]), net(x[:2])
        assert 0 < spikes.mean() < 1 and torch.equal(tail([spikes]), logits)
        assert torch.allclose(tail([spikes[:2]]), logits[:2], rtol=1e-4, atol=1e-5)
        assert torch.equal(tail([None]), tail([torch.zeros_like(spikes[:, :1])]))
        again, _ = store.load(tmp_path / "server.safetensors")
        assert isinstance(again, Tail) and torch.equal(again([spikes]), logits)


def test_numbers_of_parts_are_checked(fleet):
    with pytest.raises(ValueError, match="features = 2 is not allowed: 3, one for each device"):
        fleet[2]([None, None])
    with pytest.raises(ValueError, match="features = 2 is not allowed: one"):
        Tail(nn.Identity(), (1, 1, 1), 1)([None, None])
    with pytest.raises(ValueError, match="2 shapes"):
        Fuse(nn.ModuleList([nn.Flatten(), nn.Flatten()]), nn.Linear(1, 1), [(1, 1, 1)], 1)


# The folder


def test_the_folder_gives_each_process_its_own(fleet):
    folder, devices, fuse, x = fleet
    assert sorted(p.name for p in folder.iterdir()) == [
        "fleet.json", "part_0.safetensors", "part_1.safetensors", "part_2.safetensors", "samples.safetensors",
        "server.safetensors",
    ]  # fmt: skip
    plan = read_plan(folder)
    assert plan.time_steps == T and plan.deadline == 60 and plan.emits == (1.0,) * 3
    assert plan.payload_bytes() == [-(-T * c * h * w // 8) for c, h, w in plan.shapes]
    for i, device in enumerate(devices):
        module, about = store.load(part_file(folder, i))
        assert about["part"] == i and torch.equal(module(x[:1]), device(x[:1]))
    assert torch.equal(sensor(folder)(2), x[2:3]) and len(sensor(folder)) == len(x)
    assert read_labels(folder) is None


def test_events_and_labels(tmp_path):
    events, labels = torch.rand(3, T, 1, 8, 8), torch.tensor([1, 0, 2])
    devices, fuse, *_ = make_fleet(tmp_path)
    plan = write_fleet(tmp_path, devices, fuse, events, labels=labels, deadline=2.0)
    assert plan.time_steps == T and torch.equal(read_labels(tmp_path), labels)
    assert torch.equal(read_labels(tmp_path / "samples.safetensors"), labels)
    assert torch.equal(Sensor(tmp_path / "samples.safetensors")(1), events[1].unsqueeze(1))
    assert as_sample(events[0]).shape == (T, 1, 1, 8, 8)


def test_labels_are_one_for_each_sample(tmp_path):
    save_file({"x": images(3), "y": torch.tensor([1, 0])}, tmp_path / "samples.safetensors")
    with pytest.raises(ValueError, match=r"labels = \(2,\) is not allowed: \(3,\), one for each sample"):
        read_labels(tmp_path)


def test_folders_that_are_not_in_order(tmp_path, fleet):
    with pytest.raises(FileNotFoundError):
        read_plan(tmp_path)
    (tmp_path / "fleet.json").write_text('{"shapes": [[1, 1, 1]], "time_steps": 0}')
    with pytest.raises(ValueError, match=r"fleet.json is no plan of a fleet: time_steps = 0"):
        read_plan(tmp_path)
    (tmp_path / "fleet.json").write_text('{"surprise": 1}')
    with pytest.raises(ValueError, match="fleet.json is no plan"):
        read_plan(tmp_path)
    with pytest.raises(FileNotFoundError):
        Sensor(tmp_path / "none")
    with pytest.raises(ValueError, match="fleet.json holds no samples"):
        Sensor(tmp_path / "fleet.json")
    with pytest.raises(ValueError, match="part_0.safetensors holds no samples"):
        Sensor(part_file(fleet[0], 0))
    with pytest.raises(ValueError, match="server.safetensors = .* is not allowed: the file of a device's part"):
        open_device(fleet[0] / "server.safetensors", fleet[0] / "samples.safetensors", None)
    with pytest.raises(ValueError, match="sample = 6 is not allowed: 0 to 5"):
        sensor(fleet[0])(6)
    device, other = fleet[1][0], make_split(tmp_path / "x")[1]
    other.time_steps = 2
    with pytest.raises(ValueError, match=r"time steps of parts = \[2, 4\]"):
        write_fleet(tmp_path / "y", [device, other], fleet[2], images())


# Devices and server together


def test_answers_are_those_of_a_single_process_bit_for_bit(fleet):
    folder, devices, fuse, x = fleet
    with serving(folder) as server, working(folder, server.listener.address, 0), \
            working(folder, server.listener.address, 1), working(folder, server.listener.address, 2):  # fmt: skip
        client = Client(server.listener.address)
        registered(server, 3)
        answered, seconds = client.run(range(len(x)), window=3)
        status = client.status()
        client.close()
    found = Measured.of(answered, range(len(x)), seconds)
    for i, logits in enumerate(found.logits):
        assert torch.equal(logits, single_process(devices, fuse, x[i : i + 1]))
    table, plan = found.table, read_plan(folder)
    assert list(table["sample"]) == list(range(len(x))) and not table["partial"].any()
    assert (table["payload_bytes"] == sum(plan.payload_bytes())).all() and (table["received"] == 3).all()
    assert (table["latency_ms"] > table["device_ms"]).all() and (table["device_ms"] > 0).all()
    assert list(table["prediction"]) == [int(v.mean(0).argmax()) for v in found.logits]
    assert status["parts"] == [0, 1, 2] and status["open"] == 0
    assert status["counts"]["answered"] == len(x) and status["counts"]["features"] == 3 * len(x)
    summary = found.summary().iloc[0]
    assert summary["samples"] == len(x) and summary["per_second"] == pytest.approx(len(x) / seconds)
    assert summary["latency_median_ms"] == table["latency_ms"].median() and summary["partial"] == 0


def test_a_device_that_drives_itself_gets_the_network_bit_for_bit(tmp_path):
    net, _, _, x, _ = make_split(tmp_path, deadline=60.0)
    with serving(tmp_path) as server:
        channel = Channel(server.listener.address)
        walk = Walk(open_device(part_file(tmp_path, 0), tmp_path / "samples.safetensors", channel), range(6), window=3)
        found = Measured.of(walk.run(), range(6), walk.seconds)
        channel.close()
    with torch.no_grad():
        assert all(torch.equal(v, net(x[i : i + 1])) for i, v in enumerate(found.logits))
    assert walk.again == 0 and (found.table["tries"] == 1).all()


def test_the_other_devices_are_triggered_when_one_drives(fleet):
    folder, devices, fuse, x = fleet
    with serving(folder) as server, working(folder, server.listener.address, 1), \
            working(folder, server.listener.address, 2):  # fmt: skip
        registered(server, 2)
        channel = Channel(server.listener.address)
        driver = open_device(part_file(folder, 0), folder / "samples.safetensors", channel)
        answered = Walk(driver, [4, 1]).run()
        channel.close()
    for a in answered:
        assert torch.equal(a.answer.logits, single_process(devices, fuse, x[a.index : a.index + 1]))


def test_unsure_servers_ask_for_further_steps(tmp_path):
    """The answer has as many steps as the confidence took, and is that of a run over all steps, cut there."""
    x = images(8)
    net, head, tail, _, _ = make_split(tmp_path / "all", x)
    with torch.no_grad():
        logits = [net(v[None]) for v in x]
    means = [[v[:s].mean(0).softmax(-1).max().item() for s in range(1, T + 1)] for v in logits]
    confidence = sorted(m[0] for m in means)[4]
    expected = [next((s for s in range(1, T + 1) if m[s - 1] >= confidence), T) for m in means]
    assert min(expected) == 1 and max(expected) > 1  # it matters here
    make_split(tmp_path, x, first_steps=1, confidence=confidence, deadline=60.0)
    with serving(tmp_path) as server:
        for drive in (False, True):
            channel = Channel(server.listener.address)
            device = open_device(part_file(tmp_path, 0), tmp_path / "samples.safetensors", channel)
            if drive:
                answered = Walk(device, range(8), window=4).run()
            else:
                stop, client = threading.Event(), Client(server.listener.address)
                thread = threading.Thread(target=device.run, args=(stop,))
                thread.start()
                registered(server, 1)
                answered, _ = client.run(range(8), window=4)
                stop.set()
                thread.join()
                client.close()
            channel.close()
            found = sorted(answered, key=lambda a: a.index)
            assert [len(a.answer.logits) for a in found] == expected
            for a in found:
                with torch.no_grad():
                    spikes = head(x[a.index : a.index + 1])[: expected[a.index]]
                    assert torch.equal(a.answer.logits, tail([spikes]))
                assert torch.allclose(a.answer.logits, logits[a.index][: expected[a.index]], rtol=1e-4, atol=1e-5)
            one_step = read_plan(tmp_path).payload_bytes()[0] // T
            assert [a.answer.payload_bytes for a in found] == [s * one_step for s in expected]
        assert server.counts["asked for more"] == 2 * sum(s - 1 for s in expected)


class Slow(nn.Module):
    """A server part that takes its time, and says how often it ran on features."""

    def __init__(self, module: nn.Module, seconds: float):
        super().__init__()
        self.module, self.seconds, self.runs = module, seconds, 0

    def forward(self, features):
        self.runs += any(f is not None for f in features)  # the first run, on none, is the warm-up
        time.sleep(self.seconds)
        return self.module(features)


def test_time_of_the_server_is_that_of_all_its_runs(tmp_path):
    make_split(tmp_path, images(1), first_steps=1, confidence=1.0, deadline=60.0)
    slow = Slow(store.load(tmp_path / "server.safetensors")[0], 0.02)
    with serving(tmp_path, slow) as server:
        channel = Channel(server.listener.address)
        device = open_device(part_file(tmp_path, 0), tmp_path / "samples.safetensors", channel)
        (answered,) = Walk(device, range(1)).run()
        channel.close()
    assert slow.runs == T and len(answered.answer.logits) == T > 1
    assert 0.02 * T <= 1e-6 * answered.answer.server_micros <= answered.seconds


# What goes wrong


def test_lost_parts_are_zeros_and_the_answer_says_so(tmp_path):
    devices, fuse, x, plan = make_fleet(tmp_path, deadline=0.3)
    with serving(tmp_path) as server, working(tmp_path, server.listener.address, 1):
        client, silent = Client(server.listener.address), Hand(server.listener.address, 2, None, plan.fleet)
        registered(server, 1)
        first, _ = client.run([0])
        silent.hello(plan.shapes[2])
        started = time.monotonic()
        second, _ = client.run([1])
        waited = time.monotonic() - started
        client.close()
        silent.channel.close()
    assert first[0].answer.mask == second[0].answer.mask == 0b010 and first[0].answer.partial
    assert waited >= 0.3 and server.counts["partial"] == 2
    for a in (first[0], second[0]):
        assert torch.equal(a.answer.logits, single_process(devices, fuse, x[a.index : a.index + 1], lost=(0, 2)))
        assert a.answer.part_micros[0] == a.answer.part_micros[2] == 0 < a.answer.part_micros[1]


def test_no_device_at_all_is_an_answer_too(tmp_path, hands):
    """At the deadline: until then, one may come."""
    devices, fuse, x, _ = make_fleet(tmp_path, deadline=0.3)
    with serving(tmp_path) as server:
        client, started = hands(server), time.monotonic()
        client.send(Message(Kind.ASK, 1))
        answer = Answer.from_message(client.take(Kind.ANSWER))
    assert time.monotonic() - started >= 0.3
    assert answer.mask == 0 and torch.equal(answer.logits, single_process(devices, fuse, x[:1], lost=(0, 1, 2)))


def test_samples_wait_for_devices_that_come_and_come_back(tmp_path, hands):
    """Asked for while nobody is there; then one device leaves in the middle of a sample and another takes its place."""
    devices, fuse, x, plan = make_fleet(tmp_path, deadline=60.0)
    with torch.inference_mode():
        spikes = [d(x[:1]) for d in devices]
    with serving(tmp_path) as server:
        client, old, new, *others = (hands(server, i) for i in (0, 0, 0, 1, 2))
        ask(server, client, 7)
        old.hello(plan.shapes[0])
        assert old.take(Kind.TRIGGER) == Message(Kind.TRIGGER, 7, 0, 0, T)  # and dies
        new.hello(plan.shapes[0])
        for part, hand in enumerate((new, *others)):
            _ = part and hand.hello(plan.shapes[part])
            assert hand.take(Kind.TRIGGER) == Message(Kind.TRIGGER, 7, part, 0, T)
            hand.send(hand.features(7, spikes[part]))
        answer = Answer.from_message(client.take(Kind.ANSWER))
        assert new.channel.receive(0.05) is None
    assert not answer.partial and torch.equal(answer.logits, single_process(devices, fuse, x[:1]))


@pytest.mark.parametrize("change", [{"shape": (1, 1, 8)}, {"first": 1}, {"steps": T + 1}])
def test_features_that_are_not_due_open_nothing_and_disturb_nobody(tmp_path, hands, change):
    devices, _, x, plan = make_fleet(tmp_path, deadline=60.0)
    with serving(tmp_path) as server:
        zero, one, client = (hands(server, i) for i in (0, 1, 0))
        for hand in (zero, one):
            hand.hello(plan.shapes[hand.part])
        bad = Message(Kind.FEATURES, 7, 1, 0, T, plan.shapes[1], flags=WANTS_ANSWER)._replace(**change)
        for i in range(40):
            one.send(bad._replace(sample=7 + i, payload=bytes(packed_bytes((bad.steps, *bad.shape)))))
        wait_until(lambda: server.counts["bad shape"] == 40)
        assert not server.assembly.open and zero.channel.receive(0.05) is None
        ask(server, client, 1000)
        assert zero.take(Kind.TRIGGER).sample == 1000 and not server.counts["busy"]


def test_a_device_that_sends_too_few_steps_does_not_shorten_the_answer(tmp_path, hands):
    devices, fuse, x, plan = make_fleet(tmp_path, deadline=0.5)
    with torch.inference_mode():
        spikes = [d(x[:1]) for d in devices]
    with serving(tmp_path) as server:
        client, *three = (hands(server, i) for i in (0, 0, 1, 2))
        for hand in three:
            hand.hello(plan.shapes[hand.part])
        client.send(Message(Kind.ASK, 7))
        for hand, n in zip(three, (T, 1, T), strict=True):
            hand.take(Kind.TRIGGER)
            hand.send(hand.features(7, spikes[hand.part][:n]))
        answer = Answer.from_message(client.take(Kind.ANSWER))
        assert answer.mask == 0b101 and answer.partial
        assert torch.equal(answer.logits, single_process(devices, fuse, x[:1], lost=(1,)))
        client.send(Message(Kind.ASK, 8))
        for hand in three:
            hand.take(Kind.TRIGGER)
            hand.send(hand.features(8, spikes[hand.part][:1]))
        answer = Answer.from_message(client.take(Kind.ANSWER))
    assert answer.mask == 0b111 and len(answer.logits) == 1 and answer.missing_steps == T - 1 and answer.partial


def test_hellos_leave_a_slow_link_to_spikes(tmp_path):
    """320 bits each at 2000 bit/s: at most one every 3.2 seconds, and none while spikes are on their way."""
    make_fleet(tmp_path, deadline=60.0)
    with serving(tmp_path) as server:
        channel, stop = Channel(server.listener.address, up=Rate(2000.0)), threading.Event()
        device = open_device(part_file(tmp_path, 0), tmp_path / "samples.safetensors", channel)
        thread = threading.Thread(target=device.run, args=(stop,))
        thread.start()
        wait_until(lambda: device.known)
        before = server.hellos[0]
        time.sleep(1.6)
        said = server.hellos[0] - before
        stop.set()
        thread.join()
        assert channel.idle and channel.seconds(40) == pytest.approx(0.16)
        channel.send(bytes(1000))
        wait_until(lambda: not channel.idle)
        channel.close()
    assert said <= 1  # one may have been on its way when the first was answered


def test_features_that_come_late_or_twice_are_counted(tmp_path, hands):
    """Part 0 answers twice, part 1 after the deadline, part 2 for a sample that nobody asked for."""
    devices, _, x, plan = make_fleet(tmp_path, deadline=0.2)
    with serving(tmp_path) as server:
        zero, one, two, client = (hands(server, i) for i in (0, 1, 2, 0))
        for hand in (zero, one, two):
            hand.hello(plan.shapes[hand.part])
        ask(server, client, 7)
        with torch.inference_mode():
            spikes = [d(x[:1]) for d in devices]
        assert zero.take(Kind.TRIGGER) == Message(Kind.TRIGGER, 7, 0, 0, T)
        zero.send(zero.features(7, spikes[0]))
        zero.send(zero.features(7, spikes[0]))
        assert Answer.from_message(client.take(Kind.ANSWER)).mask == 0b001
        one.send(one.features(7, spikes[1]))
        zero.send(zero.features(7, spikes[0]))
        two.send(two.features(8, spikes[2]))
        wait_until(lambda: server.counts["late"] == 2 and server.counts["duplicate"] == 2)
        assert server.counts["answered"] == 1 and not server.assembly.open


def test_who_asks_again_is_answered_from_memory(tmp_path, hands):
    """The server part runs once; all answers are the same bytes."""
    _, fuse, _, _ = make_fleet(tmp_path, deadline=0.1)
    calls = []

    def counting(features):
        calls.append(1)
        return fuse(features)

    with serving(tmp_path, counting) as server:
        client, other = hands(server), hands(server)
        answers = []
        for hand in (client, client, other):
            hand.send(Message(Kind.ASK, 5))
            answers.append(hand.take(Kind.ANSWER))
        assert answers[0] == answers[1] == answers[2] and len(calls) == 2  # one was the warm-up
        assert server.counts["answered"] == 1 and server.counts["answered again"] == 2


def test_all_who_ask_for_an_open_sample_are_answered(fleet, hands):
    folder, devices, fuse, x = fleet
    with serving(folder) as server:
        device, one, two = hands(server, 0), hands(server), hands(server)
        device.hello(read_plan(folder).shapes[0])
        ask(server, one, 5)
        two.send(Message(Kind.ASK, 5))
        wait_until(lambda: len(server.assembly.open[5].askers) == 2)
        device.take(Kind.TRIGGER)
        device.send(device.features(5, spikes_of(fleet, 0, 2)))
        assert one.take(Kind.ANSWER) == two.take(Kind.ANSWER)
        assert server.counts["asked"] == 1


def test_a_full_server_says_busy(tmp_path, hands):
    _, _, _, plan = make_fleet(tmp_path, deadline=60.0, in_flight=2)
    with serving(tmp_path) as server:
        device, client = hands(server, 0), hands(server)
        device.hello(plan.shapes[0])
        for sample in (1, 2):
            ask(server, client, sample)
        client.send(Message(Kind.ASK, 3))
        busy = client.take(Kind.ERROR)
        assert (busy.sample, busy.payload) == (3, b"busy") and server.counts["busy"] == 1
        for _ in (1, 2):
            device.take(Kind.TRIGGER)
        device.send(device.features(4, torch.zeros(T, 1, *plan.shapes[0]), flags=WANTS_ANSWER))
        busy = device.take(Kind.ERROR)
        assert (busy.sample, busy.payload) == (4, b"busy") and server.counts["busy"] == 2
        assert list(server.assembly.open) == [1, 2]


def test_a_device_that_drives_itself_waits_for_a_full_server(tmp_path, hands):
    """It is told, and tries again long before its timeout."""
    net, _, _, x, _ = make_split(tmp_path, deadline=60.0, in_flight=1)
    with serving(tmp_path) as server:
        channel = Channel(server.listener.address)
        device = open_device(part_file(tmp_path, 0), tmp_path / "samples.safetensors", channel)
        while not device.known:
            device.hello()
            device.receive(0.1)
        ask(server, hands(server), 3)  # the trigger waits until the walk obeys it
        answered = Walk(device, [2], timeout=30.0).run()
        channel.close()
    assert answered[0].tries > 1 and answered[0].seconds < 10 and server.counts["busy"] > 0
    with torch.no_grad():
        assert torch.equal(answered[0].answer.logits, net(x[2:3]))


def test_a_device_that_does_not_answer_is_triggered_again(tmp_path, hands):
    """Once at half of the deadline, and whenever the same asker repeats itself; not those that are done."""
    devices, _, x, plan = make_fleet(tmp_path, deadline=1.0)
    with serving(tmp_path) as server:
        zero, one, client, other = (hands(server, i) for i in (0, 1, 0, 0))
        for hand in (zero, one):
            hand.hello(plan.shapes[hand.part])
        started = time.monotonic()
        ask(server, client, 7)
        with torch.inference_mode():
            spikes = [d(x[:1]) for d in devices]
        zero.take(Kind.TRIGGER)
        zero.send(zero.features(7, spikes[0]))
        asked = one.take(Kind.TRIGGER)  # and loses it
        other.send(Message(Kind.ASK, 7))  # another one's first request
        assert one.take(Kind.TRIGGER) == asked and 0.5 <= time.monotonic() - started < 0.95
        client.send(Message(Kind.ASK, 7))
        assert one.take(Kind.TRIGGER) == asked and server.counts["triggered again"] == 2
        for _ in (1, 2):
            one.send(one.features(7, spikes[1]))
        answer = Answer.from_message(client.take(Kind.ANSWER))
        assert answer.mask == 0b011 and client.channel.receive(0.05) is None
        assert zero.channel.receive(0.05) is None and server.counts["answered"] == 1


def test_the_others_are_triggered_again_when_a_driver_repeats_itself(tmp_path, hands):
    devices, _, x, plan = make_fleet(tmp_path, deadline=60.0)
    with serving(tmp_path) as server:
        driver, other = hands(server, 0), hands(server, 1)
        for hand in (driver, other):
            hand.hello(plan.shapes[hand.part])
        with torch.inference_mode():
            spikes = [d(x[:1]) for d in devices]
        for _ in (1, 2):
            driver.send(driver.features(7, spikes[0], flags=WANTS_ANSWER))
            assert other.take(Kind.TRIGGER) == Message(Kind.TRIGGER, 7, 1, 0, T)
        other.send(other.features(7, spikes[1]))
        assert Answer.from_message(driver.take(Kind.ANSWER)).mask == 0b011
        assert server.counts["duplicate"] == 1


def test_only_the_key_of_a_part_speaks_for_it(tmp_path):
    """Keys of other parts and of clients are let in, but not as this part."""
    devices, _, x, plan = make_fleet(tmp_path, deadline=60.0)
    keys = make_keys(tmp_path / "keys", ["part_0", "part_1", "client"])
    with serving(tmp_path, keys=keys / "server") as server:
        address = server.listener.address
        zero, one, client = (Hand(address, 0, keys / name, plan.fleet) for name in ("part_0", "part_1", "client"))
        for hand, name in ((one, "part_1"), (client, "client")):
            hand.send(Message(Kind.HELLO, plan.fleet, part=0, steps=T, shape=plan.shapes[0]))
            assert hand.take(Kind.ERROR).payload.decode() == f"the key of {name} is not that of part 0"
        assert not server.where
        assert zero.hello(plan.shapes[0]).part == 3
        client.send(Message(Kind.ASK, 5))
        zero.take(Kind.TRIGGER)
        with torch.inference_mode():
            spikes = devices[0](x[:1])
        for hand in (one, client):
            hand.send(hand.features(5, torch.ones_like(spikes)))
        wait_until(lambda: server.counts["refused key"] == 4)
        zero.send(zero.features(5, spikes))
        assert Answer.from_message(client.take(Kind.ANSWER)).mask == 0b001
        assert server.counts["features"] == 1 and server.hellos == [1, 0, 0]
        for hand in (zero, one, client):
            hand.channel.close()


def test_a_device_with_the_key_of_another_stops_with_the_reason(fleet, tmp_path):
    keys = make_keys(tmp_path / "keys", ["part_1"])
    with serving(fleet[0], keys=keys / "server") as server:
        channel = Channel(server.listener.address, keys / "part_1")
        device = open_device(part_file(fleet[0], 0), fleet[0] / "samples.safetensors", channel)
        with pytest.raises(Refused, match="the key of part_1 is not that of part 0"):
            device.run(threading.Event())
        channel.close()


def test_a_server_says_who_comes_who_is_refused_and_who_is_gone(tmp_path, hands):
    _, _, _, plan = make_fleet(tmp_path, deadline=0.2)
    with serving(tmp_path) as server:
        said = []
        server.say = said.append
        zero, one = hands(server, 0), hands(server, 1)
        for _ in range(2):  # once each
            zero.hello(plan.shapes[0])
        one.hello(plan.shapes[1])
        assert said == ["part 0 came: 1 of 3 devices are here", "part 1 came: 2 of 3 devices are here"]
        for _ in range(3):  # in a short time once
            one.send(Message(Kind.HELLO, plan.fleet, part=7))
            reason = one.take(Kind.ERROR).payload.decode()
        wait_until(lambda: len(said) == 3)
        assert said[2] == f"refused: {reason}" and "parts 0 to 2" in reason
        one.channel.close()
        asker = hands(server)
        wait_until(lambda: asker.channel.send(encode(Message(Kind.ASK, len(said)))) and len(said) == 4)
        assert said[3] == "part 1 is gone (no connection): 1 of 3 devices are here"
        server._heard[0] -= 60
        wait_until(lambda: asker.channel.send(encode(Message(Kind.ASK, 99))) and len(said) == 5)
        assert said[4] == "part 0 is gone (silent): 0 of 3 devices are here"


def test_trouble_is_said_again_after_a_while(fleet, monkeypatch):
    listener, said = Listener(), []
    server = server_module.Server(read_plan(fleet[0]), fleet[2], listener, said.append)
    for about in ("a", "b", "a"):
        server._say_once(about, about)
    monkeypatch.setattr(server_module, "PAUSE", 0.0)
    server._say_once("a", "a")
    listener.close()
    assert said == ["a", "b", "a"]


def test_contact_is_said_once_when_it_changes():
    said, long, short = [], 60.0, -1.0
    contact = Contact(said.append, said.append)
    contact.check(short, "too early: nothing was asked")
    contact.asked()
    contact.check(long, "too early")
    for _ in range(2):
        contact.check(short, "lost")
    contact.heard()
    for _ in range(2):
        contact.registered("there")
    contact.check(short, "nothing was asked since")
    contact.asked()
    contact.check(short, "lost again")
    contact.registered("back")
    assert said == ["lost", "there", "lost again", "back"]


@contextmanager
def contacted(folder, address: str, keys=None):
    """What a device says and warns of, which runs meanwhile."""
    said, warned, stop = [], [], threading.Event()
    files = part_file(folder, 0), folder / "samples.safetensors", address, keys
    contact = Contact(said.append, warned.append)
    thread = threading.Thread(target=serve_part, args=files, kwargs={"stop": stop, "contact": contact})
    thread.start()
    try:
        yield said, warned
    finally:
        stop.set()
        thread.join()


def test_a_device_says_when_the_server_comes_goes_and_comes_back(fleet, tmp_path, monkeypatch):
    monkeypatch.setattr(device_module, "BEAT", 0.1)
    monkeypatch.setattr(device_module, "MISSING", 0.3)
    address = f"ipc://{tmp_path}/s"
    with contacted(fleet[0], address) as (said, warned):
        for n in (1, 2):
            wait_until(lambda n=n: len(warned) == n)
            listener = Listener(address)
            with running(server_module.Server(read_plan(fleet[0]), fleet[2], listener), listener):
                wait_until(lambda n=n: len(said) == n)
        wait_until(lambda: len(warned) == 3)
    assert said == [f"registered as part 0 at {address}"] * 2
    assert set(warned) == {f"no answer from {address}: is the server running, is the address right, do the keys fit?"}


@pytest.mark.parametrize("whose", [None, "theirs"])
def test_keys_that_do_not_fit_are_noticed_on_both_sides(fleet, tmp_path, monkeypatch, whose):
    monkeypatch.setattr(device_module, "MISSING", 0.5)
    ours, theirs = (make_keys(tmp_path / name, ["part_0"]) for name in ("ours", "theirs"))
    with serving(fleet[0], keys=ours / "server") as server:
        told = []
        server.say = told.append
        with contacted(fleet[0], server.listener.address, whose and theirs / "part_0") as (said, warned):
            wait_until(lambda: warned and told)
        assert not said and len(warned) == len(told) == 1 and server.counts["failed handshakes"] > 0
        assert re.fullmatch(r"\d+ handshakes failed so far: somebody has no keys, or others", told[0])


def test_status_is_of_now(fleet):
    """A reply to a call that was given up comes first, and is not taken for the next one's."""
    server = server_module.Server(read_plan(fleet[0]), fleet[2], Listener())
    client, stop = Client(server.listener.address), threading.Event()
    with pytest.raises(TimeoutError):
        client.status(0.2)
    while not client.channel.socket.poll(10):
        server.turn()  # answers late
    server.counts["answered"] = 5
    thread = threading.Thread(target=server.run, args=(stop,))
    thread.start()
    try:
        assert client.status()["counts"]["answered"] == 5
    finally:
        stop.set()
        thread.join()
        client.close()
        server.listener.close()


def test_samples_of_a_walk_are_checked(fleet):
    client = Client("tcp://127.0.0.1:9")
    for samples in ([], [1, 1, 2]):
        with pytest.raises(ValueError, match="samples = .* is not allowed: at least one, each once"):
            client.run(samples, window=3)
    with pytest.raises(ValueError, match="samples = -1 is not allowed"):
        client.run([0, -1])
    client.close()
    files = part_file(fleet[0], 0), fleet[0] / "samples.safetensors", "tcp://127.0.0.1:9"
    with pytest.raises(ValueError, match="samples = 6 is not allowed: rows 0 to 5"):
        walk_part(*files, rows=range(7))


@pytest.mark.parametrize("part, shape, steps, text", [
    (3, (1, 1, 1), T, "part 3 .* parts 0 to 2"), (65535, (1, 1, 1), T, "parts 0 to 2"),
    (1, (1, 1, 1), T, r"part 1 with \(1, 1, 1\), T = 4, is not expected"), (0, None, T + 1, "T = 5"),
])  # fmt: skip
def test_devices_that_do_not_belong_here_are_told(fleet, hands, part, shape, steps, text):
    with serving(fleet[0]) as server:
        hand = hands(server, part)
        hand.send(Message(Kind.HELLO, part=part, steps=steps, shape=shape or read_plan(fleet[0]).shapes[part]))
        error = hand.take(Kind.ERROR).payload.decode()
        assert re.search(text, error)
        assert not server.where and server.counts["refused hello"] == 1


def test_a_refused_device_stops_with_the_reason(fleet, tmp_path):
    make_split(tmp_path)
    check_refused(fleet[0], tmp_path, "part 0 with .* is not expected here")


def check_refused(ours, others, reason: str) -> None:
    """A device of one folder is refused by the server of another."""
    with serving(ours) as server:
        channel = Channel(server.listener.address)
        device = open_device(part_file(others, 0), others / "samples.safetensors", channel)
        with pytest.raises(Refused, match=reason):
            device.run(threading.Event())
        channel.close()
        assert not server.where and server.counts["refused hello"] == 1


def test_a_device_of_another_training_is_refused(fleet, tmp_path):
    """Same shapes, same T, other weights: one value of one weight is enough."""
    devices, fuse, samples, plan = make_fleet(tmp_path, deadline=60.0)
    assert plan == read_plan(fleet[0])  # the same networks make the same fleet
    with torch.no_grad():
        next(devices[2].parameters()).view(-1)[0] += 1
    other = write_fleet(tmp_path, devices, fuse, samples, deadline=60.0)
    assert other.shapes == plan.shapes and other.fleet != plan.fleet
    check_refused(fleet[0], tmp_path, f"part 0 is of fleet {other.fleet} and this server of {plan.fleet}")


def test_a_server_file_of_another_fleet_or_of_a_device_is_refused(fleet, tmp_path):
    make_split(tmp_path)
    shutil.copy(fleet[0] / "fleet.json", tmp_path)
    with pytest.raises(ValueError, match=r"server.safetensors = .fleet \d+. is not allowed: fleet \d+, that of fleet"):
        server_module.serve(tmp_path)
    shutil.copy(part_file(fleet[0], 0), tmp_path / "server.safetensors")
    with pytest.raises(ValueError, match="server.safetensors = .part 0. is not allowed: the file of a server"):
        server_module.serve(tmp_path)


def test_an_old_version_is_told(fleet, hands):
    with serving(fleet[0]) as server:
        hand = hands(server)
        data = bytearray(encode(Message(Kind.HELLO)))
        data[4] = 0
        hand.channel.send(checked(bytes(data)))
        assert b"protocol version 0" in hand.take(Kind.ERROR).payload
        assert server.counts["bad version"] == 1


def test_only_the_registered_device_of_a_part_is_heard(fleet, hands):
    folder = fleet[0]
    shape = read_plan(folder).shapes[0]
    with serving(folder) as server:
        old, new, client = hands(server, 0), hands(server, 0), hands(server)
        old.hello(shape)
        assert new.hello(shape) == Message(Kind.HELLO, part=3, first=T, steps=T)
        assert server.arrivals == [2, 0, 0]
        ask(server, client, 9)
        new.take(Kind.TRIGGER)
        old.send(old.features(9, torch.ones(T, 1, *shape)))
        wait_until(lambda: server.counts["unregistered"] == 1)
        new.send(new.features(9, spikes_of(fleet, 0, 0)))
        answer = Answer.from_message(client.take(Kind.ANSWER))
        assert torch.equal(answer.logits, single_process(fleet[1], fleet[2], fleet[3][:1], lost=(1, 2)))


def test_wrong_shapes_and_unknown_parts_are_dropped(fleet, hands):
    folder = fleet[0]
    shape = read_plan(folder).shapes[0]
    with serving(folder) as server:
        device, client = hands(server, 0), hands(server)
        device.hello(shape)
        ask(server, client, 3)
        good = device.features(3, spikes_of(fleet, 0, 1))
        device.send(device.features(3, torch.ones(T, 1, shape[0] + 1, *shape[1:])))
        device.send(good._replace(part=40))
        device.send(good._replace(kind=Kind.TRIGGER))
        device.channel.socket.send_multipart([encode(good), b"more"])
        device.channel.socket.send_multipart([b"", encode(good)])
        device.send(good)
        client.take(Kind.ANSWER)
        counts = server.counts
        assert (counts["bad shape"], counts["bad part"], counts["bad kind"], counts["bad frames"]) == (1, 1, 1, 2)


def test_a_server_lives_on_under_garbage(fleet):
    """Answers stay right while thousands of malformed messages come in, also from the device's own socket."""
    folder, devices, fuse, x = fleet
    with serving(folder) as server, working(folder, server.listener.address, 0) as device:
        client, hand = Client(server.listener.address), Hand(server.listener.address)
        registered(server, 1)
        for i, frames in enumerate(garbage(3000, seed=3)):
            (hand.channel if i % 2 else client.channel).socket.send_multipart(frames)
            if i % 500 == 0:
                a = client.run([i % 6])[0][0]
                assert torch.equal(a.answer.logits, single_process(devices, fuse, x[i % 6 : i % 6 + 1], lost=(1, 2)))
        dropped = ("bad", "refused", "unregistered")
        wait_until(lambda: sum(n for name, n in server.counts.items() if name.startswith(dropped)) == 3000)
        assert not server.assembly.open and device.known
        client.close()
        hand.channel.close()


class Deaf(Channel):
    """A channel that loses every other message it sends, and every third that it receives."""

    sent = received = 0

    def send(self, data: bytes) -> bool:
        self.sent += 1
        return True if self.sent % 2 else super().send(data)

    def receive(self, timeout: float):
        frames = super().receive(timeout)
        self.received += frames is not None
        return None if frames is not None and self.received % 3 == 0 else frames


def test_what_is_lost_on_the_way_is_sent_again_and_nothing_counts_twice(tmp_path):
    net, _, _, x, _ = make_split(tmp_path, deadline=60.0)
    with serving(tmp_path) as server:
        channel = Deaf(server.listener.address)
        device = open_device(part_file(tmp_path, 0), tmp_path / "samples.safetensors", channel)
        walk = Walk(device, range(6), window=2, timeout=0.1, patience=30)
        found = Measured.of(walk.run(), range(6), walk.seconds)
        channel.close()
        assert server.counts["answered"] == 6
    assert len(walk.found) == 6 and found.table["tries"].max() > 1
    with torch.no_grad():
        assert all(torch.equal(v, net(x[i : i + 1])) for i, v in enumerate(found.logits))


def test_a_slow_server_is_asked_again_and_answers_once(tmp_path):
    """Answers come after the second sending; the later copies are dropped by the walker."""
    _, _, tail, _, _ = make_split(tmp_path, deadline=60.0)

    def slow(features):
        time.sleep(0.25)
        return tail(features)

    with serving(tmp_path, slow) as server:
        channel = Channel(server.listener.address)
        device = open_device(part_file(tmp_path, 0), tmp_path / "samples.safetensors", channel)
        walk = Walk(device, [0, 1, 2], window=1, timeout=0.1)
        assert [a.index for a in walk.run()] == [0, 1, 2] and len(walk.found) == 3
        assert all(a.tries > 1 for a in walk.found) and server.counts["answered"] == 3
        wait_until(lambda: server.counts["duplicate"] == sum(a.tries - 1 for a in walk.found))
        channel.close()


def test_a_server_that_forgot_everything_is_introduced_again(tmp_path):
    """The server is replaced in the middle of a walk."""
    net, _, tail, x, plan = make_split(tmp_path, deadline=60.0)
    address = f"ipc://{tmp_path}/s"
    servers = []

    def serve_for(samples: int) -> None:
        server = server_module.Server(plan, tail, Listener(address))
        servers.append(server)
        while server.counts["answered"] < samples:
            server.turn()
        time.sleep(0.1)  # the last answer goes out
        server.listener.close()

    thread = threading.Thread(target=lambda: [serve_for(3), serve_for(3)])
    thread.start()
    channel = Channel(address)
    device = open_device(part_file(tmp_path, 0), tmp_path / "samples.safetensors", channel)
    answered = Walk(device, range(6), window=1, timeout=0.2).run()
    thread.join()
    channel.close()
    assert len(servers) == 2 and sorted(a.index for a in answered) == list(range(6))
    with torch.no_grad():
        assert all(torch.equal(a.answer.logits, net(x[a.index : a.index + 1])) for a in answered)


def test_patience_ends(tmp_path):
    make_split(tmp_path)
    channel = Channel(f"ipc://{tmp_path}/nobody")
    device = open_device(part_file(tmp_path, 0), tmp_path / "samples.safetensors", channel)
    with pytest.raises(TimeoutError, match="no answer for 0.1 s; 3 samples are left"):
        Walk(device, range(3), patience=0.1).run()
    client = Client(f"ipc://{tmp_path}/nobody")
    with pytest.raises(TimeoutError, match="the server did not answer within 0.1 s"):
        client.status(0.1)
    client.close()
    channel.close()


@pytest.mark.parametrize("change", [{"window": 0}, {"timeout": 0}, {"patience": 0}])
def test_walks_are_checked(change):
    with pytest.raises(ValueError, match=f"{next(iter(change))} = 0 is not allowed"):
        Walk(None, [0], **change)


def test_triggers_that_make_no_sense_are_left_alone(fleet):
    folder = fleet[0]
    with serving(folder) as server:
        channel = Channel(server.listener.address)
        device = open_device(part_file(folder, 0), folder / "samples.safetensors", channel)
        for first, steps, sample in [(0, T + 1, 0), (T, 1, 0), (0, 0, 0), (0, T, 99)]:
            device.obey(Message(Kind.TRIGGER, sample, 0, first, steps))
        assert isinstance(device, Device) and channel.receive(0.05) is None
        time.sleep(0.05)
        assert not server.counts["features"] and not server.counts["late"] and not server.counts["unregistered"]
        channel.close()


def test_garbage_says_little_and_leaves_little_behind(fleet):
    """Hellos of a thousand parts that are not expected: one line, and one thing remembered."""
    lines = []
    with serving(fleet[0]) as server:
        server.say = lines.append
        hand = Hand(server.listener.address, fleet=server.plan.fleet)
        for part in range(3, 1003):
            hand.channel.socket.send(encode(Message(Kind.HELLO, server.plan.fleet, part=part, steps=T)))
        wait_until(lambda: server.counts["refused hello"] == 1000)
        assert len(lines) == 1 and "part 3 with" in lines[0] and len(server._said) == 1
        hand.channel.close()
