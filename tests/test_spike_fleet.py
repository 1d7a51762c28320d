"""SpikeBottleNet as processes: the bits of one process, whole images over the same link, the arithmetic of links."""

from __future__ import annotations

import math
import queue
import threading
import time
from types import SimpleNamespace

import pandas as pd
import psutil
import pytest
import torch
from tiny import blobs, lively

from snnbook import store
from snnbook.bottleneck import baseline
from snnbook.bottleneck.backbone import backbone, twin
from snnbook.bottleneck.codec import compress
from snnbook.experiments import spike_fleet
from snnbook.link.client import Client
from snnbook.link.device import serve_part
from snnbook.link.fleet import Fleet
from snnbook.link.folder import Sensor, part_file, read_labels
from snnbook.link.server import serve
from snnbook.link.shaper import Rate

SHAPE = (1, 8, 8)
SAMPLES = 6


@pytest.fixture(scope="module")
def data():
    return blobs(shape=SHAPE)


@pytest.fixture(scope="module")
def whole():
    """A backbone without training, three steps."""
    return lively(backbone(3, n_classes=3, shape=SHAPE, width=1 / 16, blocks=(1, 1))).eval()


@pytest.fixture(scope="module")
def net(whole):
    return lively(compress(whole, SHAPE, 1, 4)[0]).eval()


@pytest.fixture(scope="module")
def x(data):
    return data.normalise(data.test.x[:SAMPLES])


@pytest.fixture(scope="module")
def spikes(net, data, tmp_path_factory):
    folder = tmp_path_factory.mktemp("spikes")
    return folder, spike_fleet.write(folder, net, data, SAMPLES, deadline=20.0)


@pytest.fixture(scope="module")
def pixels(whole, data, tmp_path_factory):
    folder = tmp_path_factory.mktemp("pixels")
    return folder, spike_fleet.write_pixels(folder, whole, data, SAMPLES, deadline=20.0)


def answers(folder) -> torch.Tensor:
    """What a folder's files answer here, sample by sample."""
    part, server = (store.load(path)[0] for path in (part_file(folder, 0), folder / "server.safetensors"))
    sensor = Sensor(folder / "samples.safetensors")
    with torch.no_grad():
        return torch.cat([server([part(sensor(i))]) for i in range(SAMPLES)], 1)


def test_halves_answer_as_the_whole_network_in_every_bit(spikes, net, x, data):
    folder, plan = spikes
    assert (plan.shapes, plan.time_steps, plan.payload_bytes()) == (((4, 8, 8),), 3, [3 * 4 * 64 // 8])
    expected = spike_fleet.alone(net, x)
    assert expected.shape == (3, SAMPLES, 3) and expected.std() > 0
    assert torch.equal(answers(folder), expected)
    assert torch.equal(read_labels(folder), data.test.y[:SAMPLES])


def test_codes_of_an_ann_are_no_spikes(data, tmp_path):
    ann = twin(n_classes=3, shape=SHAPE, width=1 / 16, blocks=(1, 1))
    with pytest.raises(ValueError, match="net.time_steps = None is not allowed: a spiking network"):
        spike_fleet.write(tmp_path, baseline.compress(ann, data.shape, 2, 4)[0], data)


def test_images_are_sent_as_their_raw_bytes(pixels, whole, x, data):
    folder, plan = pixels
    assert plan.payload_bytes() == [data.test.x[0].numel()]
    part = store.load(part_file(folder, 0))[0]
    bits = part(x)
    values = sum(bits[i] * 2 ** (7 - i) for i in range(8))
    assert torch.equal(values.to(torch.uint8), data.test.x[:SAMPLES])
    assert torch.equal(answers(folder), spike_fleet.alone(whole, x))


def test_a_lost_image_is_black(pixels, whole, data):
    server = store.load(pixels[0] / "server.safetensors")[0]
    black = data.normalise(torch.zeros(1, *SHAPE, dtype=torch.uint8))
    assert torch.equal(server([None]), spike_fleet.alone(whole, black))
    with pytest.raises(ValueError, match="parts = 2 is not allowed"):
        server([None, None])


def test_processes_that_hang_for_a_while_lose_and_double_nothing(spikes, net, x):
    expected = spike_fleet.alone(net, x)
    with Fleet(spikes[0], up=Rate(20e3)) as fleet:
        rows = []
        for name in ("server", 0):
            before = fleet.status()
            with spike_fleet.stalled(fleet.pids[name], 0.05, 0.6):
                measured = fleet.run(range(SAMPLES), window=2, timeout=0.15)
            rows.append(spike_fleet.tally(str(name), measured, before, fleet.status(), expected))
        walked = fleet.walk(range(SAMPLES), window=3)
        table = spike_fleet.over_windows(fleet, [1, 3], range(SAMPLES), repeats=2)
    for row in rows:
        assert (row["asked"], row["answered"], row["partial"], row["equal"]) == (SAMPLES, SAMPLES, 0, SAMPLES)
        assert row["again"] > 0 and row["slowest_ms"] > 400
    assert all(torch.equal(a, expected[:, i : i + 1]) for i, a in enumerate(walked.logits))
    times = spike_fleet.timeline(walked.table)
    assert times["start"].iloc[0] < times["start"].iloc[1] < times["answered"].iloc[0]  # the device works ahead
    assert times["answered"].max() == pytest.approx(1e3 * walked.seconds, abs=20)
    assert table["window"].tolist() == [1, 3] and table["tries"].max() == 1
    assert table["per_second"].max() <= 1.01 / spike_fleet.transfer(96, 20e3)
    assert table["on_the_way"].le(table["window"] + 1e-9).all()


def test_rates_are_measured_against_the_message_with_its_header(spikes):
    table = spike_fleet.over_rates(spikes[0], [None, 20e3], range(4))
    assert table["rate"].tolist() == [math.inf, 20e3] and set(table["payload_bytes"]) == {96}
    assert table["expected_ms"].tolist() == [0, pytest.approx(8e3 * (96 + 40) / 20e3)]
    assert table["link_ms"].iloc[1] > table["expected_ms"].iloc[1] > table["link_ms"].iloc[0]


def test_images_are_answered_whole_though_their_bits_are_more_than_the_time_steps(pixels):
    table = spike_fleet.over_rates(pixels[0], [None], range(2))
    assert table["payload_bytes"].tolist() == [pixels[1].payload_bytes()[0]]


def test_a_rate_at_which_answers_come_too_late_is_refused(net, data, tmp_path):
    spike_fleet.write(tmp_path, net, data, 2, deadline=0.3)
    with pytest.raises(ValueError, match="rates = 1000 is not allowed: rates that carry the spikes within 0.3 s"):
        spike_fleet.over_rates(tmp_path, [1000], range(2))


def test_a_slow_link_holds_a_device_up_and_loses_none_of_its_spikes(net, data, tmp_path):
    """More samples on their way than fit into the device's queue."""
    spike_fleet.write(tmp_path, net, data, 16, deadline=5.0)
    part, samples = part_file(tmp_path, 0), tmp_path / "samples.safetensors"
    stop, address = threading.Event(), queue.Queue()
    server = threading.Thread(target=serve, args=(tmp_path,), kwargs={"stop": stop, "ready": address.put})
    server.start()
    found = address.get(timeout=60)
    device = threading.Thread(target=serve_part, args=(part, samples, found), kwargs={"up": Rate(1e5), "stop": stop})
    device.start()
    client = Client(found)
    try:
        while not client.status()["parts"]:
            time.sleep(0.01)
        answered, seconds = client.run(range(16), window=16)
    finally:
        stop.set()
        device.join()
        server.join()
        client.close()
    assert not any(a.answer.partial for a in answered)
    assert seconds > 15 * spike_fleet.transfer(96, 1e5)


def test_a_process_is_stopped_for_a_while_and_goes_on():
    child = psutil.Popen(["sleep", "30"])
    try:
        with spike_fleet.stalled(child.pid, 30.0, 30.0):
            assert child.status() != psutil.STATUS_STOPPED
        with spike_fleet.stalled(child.pid, 0.0, 30.0):
            until = time.monotonic() + 5
            while child.status() != psutil.STATUS_STOPPED and time.monotonic() < until:
                time.sleep(0.01)
            assert child.status() == psutil.STATUS_STOPPED
        assert child.status() != psutil.STATUS_STOPPED
    finally:
        child.kill()
        child.wait()


def test_stages_follow_each_other_and_the_link_is_a_queue():
    columns = ["sample", "start_ms", "device_ms", "server_ms", "latency_ms"]
    rows = [(4, 0.0, 2.0, 1.0, 8.0), (5, 2.0, 3.0, 1.0, 11.0), (6, 20.0, 2.0, 1.0, 9.0)]
    table = spike_fleet.timeline(pd.DataFrame(rows, columns=columns))
    assert table.columns.tolist() == ["sample", "start", "computed", "sending", "received", "answered"]
    assert table.to_numpy().tolist() == [[4, 0, 2, 2, 7, 8], [5, 2, 5, 7, 12, 13], [6, 20, 22, 22, 28, 29]]


def test_break_even_is_where_both_take_as_long():
    rate = spike_fleet.break_even(192, 0.03)
    few, many = 0.03 + spike_fleet.transfer(64, rate), spike_fleet.transfer(256, rate)
    assert few == pytest.approx(many)
    assert spike_fleet.break_even(192, 0.0) == math.inf
    assert spike_fleet.break_even(0, 1.0) == 0.0  # nothing is saved
    with pytest.raises(ValueError, match="saved_bytes = -1"):
        spike_fleet.break_even(-1, 1.0)


def test_tally_counts_what_differs():
    expected = torch.zeros(2, 3, 4)
    logits = {i: torch.full((2, 1, 4), float(i)) for i in (0, 2)}
    answered = [SimpleNamespace(index=i, answer=SimpleNamespace(logits=z)) for i, z in logits.items()]
    table = pd.DataFrame({"tries": [1, 3], "partial": [False, True], "latency_ms": [2.0, 9.0]})
    measured = SimpleNamespace(answered=answered, table=table)
    found = spike_fleet.tally("a", measured, {"counts": {}}, {"counts": {"answered": 2}}, expected)
    assert found == {"phase": "a", "asked": 2, "answered": 2, "again": 2, "partial": 1, "equal": 1, "slowest_ms": 9.0}
