"""Range-coded spikes between real endpoints: the same answers, fewer bytes, and nothing that brings the server down."""

import time

import pytest
import torch
from fleets import T, make_fleet, make_split, serving, single_process, working

from snnbook import store
from snnbook.link import coding
from snnbook.link.client import Client
from snnbook.link.device import open_device
from snnbook.link.folder import as_sample, part_file, read_plan, write_fleet
from snnbook.link.measure import Measured
from snnbook.link.messages import CODED, WANTS_ANSWER, Kind, Message, decode, encode
from snnbook.link.payload import pack
from snnbook.link.transport import Channel


def rare(shape, rate=0.04, seed=0, steps=T) -> torch.Tensor:
    """Sparse spikes [T, 1, C, H, W]."""
    return (torch.rand(steps, 1, *shape, generator=torch.Generator().manual_seed(seed)) < rate).float()


@pytest.fixture(scope="module")
def split(tmp_path_factory):
    """``(folder, head, tail, samples)`` of one device whose spikes are coded with a model fitted to them."""
    _, head, tail, samples, _ = make_split(tmp_path_factory.mktemp("plain"))
    with torch.no_grad():
        seen = torch.cat([head(as_sample(x)) for x in samples], 1)
    folder = tmp_path_factory.mktemp("coded")
    write_fleet(folder, [head], tail, samples, codes=[coding.fit(seen, "neuron")], deadline=60.0)
    return folder, head, tail, samples


def test_a_model_survives_being_described():
    model = coding.fit(rare((2, 3, 3)), "previous", memory=5.0)
    again = coding.SpikeModel.read(model.describe())
    assert again.describe() == model.describe()
    spikes = rare((2, 3, 3), seed=1)[:, 0]
    assert torch.equal(coding.decode(coding.encode(spikes, model), T, again), spikes)


@pytest.mark.parametrize(
    ("change", "said"),
    [({"context": "weather"}, "context"), ({"bits": 7}, "bits"), ({"shape": [1, 2]}, "shape"),
     ({"levels": [0]}, "levels"), ({"levels": [1, 2, 3]}, "levels"), ({"memory": -1}, "memory"), ({"more": 1}, "code")],
)  # fmt: skip
def test_descriptions_that_are_none_are_refused(change, said):
    with pytest.raises(ValueError, match=f"^{said}"):
        coding.SpikeModel.read(coding.fit(rare((2, 3, 3)), "tensor").describe() | change)


def test_answers_are_those_of_one_process_with_fewer_bytes(split):
    folder, head, tail, samples = split
    packed = read_plan(folder).payload_bytes()[0]
    with serving(folder) as server, working(folder, server.listener.address) as device:
        client = Client(server.listener.address)
        try:
            while not device.known:
                time.sleep(1e-3)
            answered, seconds = client.run(range(len(samples)), window=3)
        finally:
            client.close()
        counts = dict(server.counts)
    measured = Measured.of(answered, range(len(samples)), seconds)
    for i, found in enumerate(measured.answered):
        assert torch.allclose(found.answer.logits, single_process([head], tail, as_sample(samples[i])), atol=1e-5)
    assert measured.table["payload_bytes"].max() < packed and counts["features"] == len(samples)
    assert not counts.get("bad code") and not counts.get("bad shape")


def test_spikes_that_do_not_shrink_are_packed(split):
    folder, _, _, samples = split
    device = open_device(part_file(folder, 0), folder / "samples.safetensors", channel=None)
    coded = device.features(0, 0, T)
    assert coded.flags == CODED and len(coded.payload) < len(pack(device.spikes(0)[0]))
    half = torch.full_like(torch.from_numpy(device.code.levels), 2**15).numpy()
    device.code = coding.SpikeModel(device.code.context, device.code.shape, half)
    plain = device.features(0, 0, T, WANTS_ANSWER)
    assert plain.flags == WANTS_ANSWER and plain.payload == pack(device.spikes(0)[0])


def test_steps_are_coded_on_their_own(split):
    folder, *_ = split
    device = open_device(part_file(folder, 0), folder / "samples.safetensors", channel=None)
    whole = device.spikes(1)[0]
    for first, steps in ((0, 1), (1, 2), (3, 1)):
        m = device.features(1, first, steps)
        found = coding.decode(m.payload, steps, device.code) if m.flags & CODED else None
        assert found is None or torch.equal(found, whole[first : first + steps, 0])


def test_random_payloads_of_a_known_device_do_not_stop_the_server(split):
    """Right header, right checksum, a payload that no coder made: decoded to some spikes, or counted and dropped."""
    folder, _, _, samples = split
    shape, rng = read_plan(folder).shapes[0], torch.Generator().manual_seed(0)
    with serving(folder) as server:
        channel = Channel(server.listener.address)
        channel.send(encode(Message(Kind.HELLO, server.plan.fleet, steps=T, shape=shape)))
        assert decode(channel.receive(10)[0]).kind == Kind.HELLO
        for i in range(300):
            size = int(torch.randint(0, read_plan(folder).payload_bytes()[0], (), generator=rng))
            data = bytes(torch.randint(0, 256, (size,), generator=rng, dtype=torch.uint8).tolist())
            m = Message(Kind.FEATURES, i + 1, 0, 0, T, shape, 5, WANTS_ANSWER | CODED, data)
            assert channel.send(encode(m), 10)
            while server.counts["features"] + server.counts["bad code"] <= i:  # no flood: this is about payloads
                time.sleep(1e-4)
            answer = channel.receive(0.0)
            assert answer is None or decode(answer[0]).kind == Kind.ANSWER
        assert server.counts["bad code"] > 0 and server.counts["features"] > 0
        channel.close()
        with working(folder, server.listener.address) as device:
            client = Client(server.listener.address)
            while not device.known:
                time.sleep(1e-3)
            answered, _ = client.run([0])
            client.close()
        assert len(answered) == 1


def test_coded_features_of_a_part_without_a_code_are_dropped(tmp_path):
    _, _, _, plan = make_fleet(tmp_path, parts=1, deadline=60.0)
    shape, data = plan.shapes[0], b"\1"
    with serving(tmp_path) as server:
        channel = Channel(server.listener.address)
        channel.send(encode(Message(Kind.HELLO, server.plan.fleet, steps=T, shape=shape)))
        channel.receive(10)
        channel.send(encode(Message(Kind.FEATURES, 1, 0, 0, T, shape, 5, WANTS_ANSWER | CODED, data)))
        client = Client(server.listener.address)
        while not server.counts["bad code"]:
            client.status()
        client.close()
        channel.close()
        assert not server.counts["features"]


def test_codes_of_another_shape_are_refused(tmp_path):
    _, head, tail, samples, _ = make_split(tmp_path)
    wrong = coding.fit(rare((1, 2, 2)), "tensor")
    write_fleet(tmp_path, [head], tail, samples, codes=[wrong])
    module = store.load(tmp_path / "server.safetensors")[0]
    with pytest.raises(ValueError, match="shape of code 0"), serving(tmp_path, module):
        pass
    with pytest.raises(ValueError, match="one code or None for each part"):
        write_fleet(tmp_path, [head], tail, samples, codes=[wrong, None])
