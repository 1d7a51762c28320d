"""Sockets: who may connect, how much may wait, how long a shaped link takes."""

import shutil
import socket
import stat
import subprocess
import sys
import time

import numpy as np
import pytest
import zmq
from hypothesis import given
from hypothesis import strategies as st

from snnbook.link import transport
from snnbook.link.keys import make_keys, own_keys, server_key
from snnbook.link.messages import HEADER_BYTES, MAX_PAYLOAD
from snnbook.link.shaper import Rate, TokenBucket
from snnbook.link.transport import HIGH_WATER, Channel, Listener, is_local


@pytest.fixture
def listener():
    found = Listener()
    yield found
    found.close()


@pytest.fixture
def connect(listener):
    """Channels to the listener, closed afterwards."""
    made = []

    def connect(address: str | None = None, **options) -> Channel:
        made.append(Channel(address or listener.address, **options))
        return made[-1]

    yield connect
    for channel in made:
        channel.close()


@pytest.mark.parametrize("address, local", [
    ("tcp://127.0.0.1:5555", True), ("tcp://127.0.0.1:*", True), ("tcp://127.8.9.1:1", True), ("tcp://[::1]:5", True),
    ("tcp://localhost:5555", True), ("ipc:///some/path", True), ("inproc://name", True),
    ("tcp://*:5555", False), ("tcp://0.0.0.0:5555", False), ("tcp://[::]:5555", False), ("tcp://192.168.0.2:5", False),
    ("tcp://eth0:5555", False), ("tcp://localhost.example.org:5", False), ("tcp://127.0.0.1.example.org:5", False),
])  # fmt: skip
def test_what_only_this_machine_reaches(address, local):
    assert is_local(address) == local


@pytest.mark.parametrize("address", ["", "tcp://", "5555", "udp://127.0.0.1:5", "tcp://127.0.0.1:99999",
                                     "tcp://127.0.0.1:nought", "tcp://127.0.0.1"])  # fmt: skip
def test_what_is_no_address(address):
    for make in (is_local, Listener, Channel):
        with pytest.raises(ValueError, match="address = .* is not allowed: (like )?tcp"):
            make(address)


@pytest.mark.parametrize("make", [Listener, Channel])
def test_beyond_this_machine_only_with_keys(make):
    with pytest.raises(ValueError, match=r"address = 'tcp://0.0.0.0:5555' is not allowed: a loopback.*make_keys"):
        make("tcp://0.0.0.0:5555")


def test_addresses_that_cannot_be_had(listener):
    with pytest.raises(ValueError, match="address = .* is not allowed: Address already in use"):
        Listener(listener.address)
    with pytest.raises(ValueError, match="address = .* is not allowed"):
        Channel("ipc://" + "x" * 200)


def test_messages_go_both_ways_and_peers_are_told_apart(listener, connect):
    one, two = connect(), connect()
    for channel, text in ((one, b"one"), (two, b"two")):
        assert channel.send(text)
    peers = {frames[0]: peer for peer, frames, _ in (listener.receive(5) for _ in range(2))}
    assert set(peers) == {b"one", b"two"} and peers[b"one"] != peers[b"two"]
    assert listener.send(peers[b"two"], b"for two") and listener.send(peers[b"one"], b"for one")
    assert (one.receive(5), two.receive(5)) == ([b"for one"], [b"for two"])


def test_waiting_ends(listener, connect):
    channel, started = connect(), time.monotonic()
    assert listener.receive(0.02) is None and channel.receive(0.02) is None and channel.receive(0) is None
    assert 0.03 < time.monotonic() - started < 2


def test_a_peer_that_is_gone_is_noticed(listener, connect):
    channel = connect()
    channel.send(b"here")
    peer, *_ = listener.receive(5)
    channel.close()
    until = time.monotonic() + 10
    while listener.send(peer, b"still there?"):
        assert time.monotonic() < until
        time.sleep(0.01)
    assert not listener.send(b"nobody", b"x")


SLOW_READER = """
import time
from snnbook.link.transport import Listener
listener = Listener()
print(listener.address, flush=True)
time.sleep(2)
n = 0
while listener.receive(0.5):
    n += 1
print(n)
"""


def test_a_peer_that_floods_and_vanishes_does_not_end_a_slow_server(connect):
    """libzmq 4.3.5 aborts a process whose own heartbeat is due on a connection that ended while its queue was full."""
    process = subprocess.Popen([sys.executable, "-c", SLOW_READER], stdout=subprocess.PIPE, text=True)
    channel = connect(process.stdout.readline().strip())
    while channel.send(bytes(100_000), 0.2):
        pass
    channel.close()
    out, _ = process.communicate(timeout=30)
    assert process.returncode == 0 and int(out) > 0


def test_queues_are_short(listener, connect):
    """Nobody reads: what the system's buffers and two queues hold goes, then send says no, and both sides live on."""
    channel, data = connect(), bytes(2**20)
    sent = 0
    while channel.send(data):
        sent += 1
        time.sleep(0.001)
        assert sent < 4 * HIGH_WATER
    assert sent >= HIGH_WATER
    received = 0
    while listener.receive(0.5):
        received += 1
    assert received == sent and channel.send(b"again") and listener.receive(5)[1] == [b"again"]


def test_a_message_that_is_too_large_ends_its_connection_only(listener, connect):
    large, other = connect(), connect()
    large.send(bytes(HEADER_BYTES + MAX_PAYLOAD + 1))
    other.send(b"other")
    assert listener.receive(5)[1] == [b"other"]
    large.send(b"small")
    assert listener.receive(5)[1] == [b"small"]
    large.send(bytes(HEADER_BYTES + MAX_PAYLOAD))
    assert len(listener.receive(5)[1][0]) == HEADER_BYTES + MAX_PAYLOAD


def test_a_channel_finds_a_server_that_comes_later(tmp_path):
    address = f"ipc://{tmp_path}/s"
    channel = Channel(address)
    try:
        assert channel.send(b"early")
        for _ in range(2):  # and one that comes back
            listener = Listener(address)
            channel.send(b"hello")
            assert listener.receive(5) is not None
            listener.close()
    finally:
        channel.close()


def test_bytes_that_are_not_zeromqs_do_no_harm(listener, connect):
    host, port = listener.address.removeprefix("tcp://").split(":")
    with socket.create_connection((host, int(port)), 5) as raw:
        raw.sendall(np.random.default_rng(0).bytes(20_000))
        channel = connect()
        channel.send(b"fine")
        while listener.receive(5)[1] != [b"fine"]:  # ZeroMQ's oldest protocol finds messages in almost anything
            pass


# Keys


@pytest.fixture(scope="module")
def keys(tmp_path_factory):
    return make_keys(tmp_path_factory.mktemp("keys") / "k", ["part_0", "client"])


def test_each_machine_gets_its_own_secret_and_only_public_keys_of_others(keys):
    assert sorted(str(p.relative_to(keys)) for p in keys.rglob("*") if p.is_file()) == [
        "client/own.key_secret", "client/server.key", "part_0/own.key_secret", "part_0/server.key",
        "server/clients/client.key", "server/clients/part_0.key", "server/own.key_secret",
    ]  # fmt: skip
    secrets = [own_keys(keys / n) for n in ("server", "part_0", "client")]
    assert len({s for _, s in secrets}) == 3 and server_key(keys / "part_0") == secrets[0][0]
    assert all(stat.S_IMODE(p.stat().st_mode) == 0o600 for p in keys.rglob("*.key_secret"))
    assert not any(s in p.read_bytes() for _, s in secrets for p in keys.rglob("*.key"))
    assert all(stat.S_IMODE(p.stat().st_mode) == 0o700 for p in (keys, *keys.rglob("*")) if p.is_dir())


def test_secret_keys_are_nobody_elses_from_their_first_moment(tmp_path, monkeypatch):
    """pyzmq writes them with the modes of any file, so their folders are closed before."""
    modes, create = [], zmq.auth.create_certificates

    def watched(folder, name):
        modes.extend(stat.S_IMODE(p.stat().st_mode) for p in (folder, folder.parent))
        return create(folder, name)

    monkeypatch.setattr(zmq.auth, "create_certificates", watched)
    make_keys(tmp_path / "k", ["client"])
    assert modes == [0o700] * 4


def exchange(listener: Listener, channel: Channel, timeout: float) -> str | None:
    """Name of the key with which a message arrives, or ``None``."""
    try:
        channel.send(b"hello")
        return (listener.receive(timeout) or (None,))[-1]
    finally:
        channel.close()


def test_only_those_with_keys_come_in(keys, tmp_path):
    stranger = make_keys(tmp_path / "k", ["part_0"]) / "part_0"
    shutil.copy(keys / "part_0" / "server.key", stranger / "server.key")
    listener = Listener("tcp://0.0.0.0:*", keys / "server")
    address = listener.address.replace("0.0.0.0", "127.0.0.1")
    try:
        assert exchange(listener, Channel(address, keys / "part_0"), 10) == "part_0"
        assert exchange(listener, Channel(address, keys / "client"), 10) == "client"
        assert not exchange(listener, Channel(address), 0.3)
        assert not exchange(listener, Channel(address, stranger), 0.3)
    finally:
        listener.close()


def handshakes_that_fail(ours, theirs) -> int:
    """How many are counted until one is, or a message has come."""
    listener, until = Listener(keys=ours), time.monotonic() + 10
    channel = Channel(listener.address, theirs)
    try:
        channel.send(b"hello")
        while not (failed := listener.failed_handshakes()) and not listener.receive(0.05):
            assert time.monotonic() < until
        return failed
    finally:
        channel.close()
        listener.close()


def test_handshakes_that_fail_are_counted(keys, tmp_path):
    """No keys, those of another make_keys, a stranger who knows the server's; keys where none are asked for."""
    other = make_keys(tmp_path / "k", ["part_0"])
    stranger = shutil.copytree(other / "part_0", tmp_path / "stranger")
    shutil.copy(keys / "part_0" / "server.key", stranger / "server.key")
    assert handshakes_that_fail(keys / "server", keys / "part_0") == 0 and handshakes_that_fail(None, None) == 0
    for theirs in (None, other / "part_0", stranger):
        assert handshakes_that_fail(keys / "server", theirs) > 0
    assert handshakes_that_fail(None, stranger) > 0


def test_handshakes_that_nobody_counts_stop_nothing(keys):
    """More than two queues of ZeroMQ hold; the greetings are right and ask for no encryption."""
    listener = Listener(keys=keys / "server")
    greeting = b"\xff" + bytes(8) + b"\x7f\x03\x00" + b"NULL".ljust(20, b"\x00") + bytes(32)
    host, port = listener.address.removeprefix("tcp://").split(":")
    for _ in range(2500):
        with socket.create_connection((host, int(port)), 5) as raw:
            raw.sendall(greeting)
            raw.recv(1)  # not faster than they are accepted
    assert exchange(listener, Channel(listener.address, keys / "part_0"), 10) == "part_0"
    assert listener.failed_handshakes() == transport.MOST_FAILURES
    started = time.monotonic()
    listener.close()
    assert time.monotonic() - started < 2


def test_a_server_with_another_key_is_not_talked_to(keys, tmp_path):
    other = make_keys(tmp_path / "k", ["part_0"])
    listener = Listener(keys=other / "server")
    try:
        assert not exchange(listener, Channel(listener.address, keys / "part_0"), 0.3)
    finally:
        listener.close()


def test_keys_that_are_not_there(keys, tmp_path):
    with pytest.raises(ValueError, match="keys = .* is not allowed: a folder of make_keys"):
        Channel("tcp://127.0.0.1:5", tmp_path)
    with pytest.raises(ValueError, match="keys = .*part_0' is not allowed: the server's folder"):
        Listener(keys=keys / "part_0")
    with pytest.raises(ValueError, match="folder = .* is not allowed: a folder that does not exist"):
        make_keys(keys, ["a"])
    for names in (["../a"], ["server"], ["a", "a"], ["a b"]):
        with pytest.raises(ValueError, match="name = "):
            make_keys(tmp_path / "new", names)
    assert not (tmp_path / "new").exists()


# The shaped link


@given(st.lists(st.tuples(st.floats(0, 3), st.integers(1, 4000)), max_size=20), st.sampled_from([0, 500, 2000]))
def test_token_bucket_against_one_that_is_filled_in_small_steps(messages, burst):
    """Tokens in an explicit bucket: filled at 1000 bit/s up to ``burst`` while idle, taken bit by bit otherwise."""
    bucket, now, tokens, free_at = TokenBucket(Rate(1000, burst)), 0.0, float(burst), 0.0
    for gap, bits in messages:
        now += gap
        if now > free_at:
            tokens, free_at = min(burst, tokens + 1000 * (now - free_at)), now
        missing = max(0.0, bits - tokens)
        tokens, free_at = max(0.0, tokens - bits), free_at + missing / 1000
        assert bucket.departure(bits, now) == pytest.approx(free_at, abs=1e-6)


def test_an_idle_link_takes_bits_over_rate():
    bucket = TokenBucket(Rate(1e6))
    assert [bucket.departure(1e5, t) for t in (10.0, 10.0, 10.25, 11.0)] == pytest.approx([10.1, 10.2, 10.35, 11.1])


@pytest.mark.parametrize("values", [(0,), (-1,), (1, -1)])
def test_rates_are_checked(values):
    with pytest.raises(ValueError, match="bits"):
        Rate(*values)


def transfer_times(send, receive, messages: int, size: int) -> list[float]:
    """Seconds from sending to receiving of each message, all sent at once."""
    started, found = time.monotonic(), []
    for _ in range(messages):
        assert send(bytes(size))
    for _ in range(messages):
        assert receive(10) is not None
        found.append(time.monotonic() - started)
    return found


def test_one_megabit_a_second_is_one_megabit_a_second(listener, connect):
    """Within 10 % at 5 kB (40 ms), and in the sum of many small messages."""
    channel = connect(up=Rate(1e6))
    transfer_times(channel.send, listener.receive, 1, 100)  # connected now
    best = min(transfer_times(channel.send, listener.receive, 1, 5000)[0] for _ in range(5))
    assert 0.04 <= best < 0.044
    times = min((transfer_times(channel.send, listener.receive, 4, 2500) for _ in range(3)), key=max)
    assert times[-1] == pytest.approx(0.08, rel=0.1) and times[1] - times[0] == pytest.approx(0.02, rel=0.3)


def test_the_way_back_has_its_own_rate(listener, connect):
    channel = connect(down=Rate(1e6))
    channel.send(b"here")
    peer, *_ = listener.receive(5)
    best = min(
        transfer_times(lambda d: listener.send(peer, d), channel.receive, 1, 2500)[0] for _ in range(5)
    )
    assert 0.02 <= best < 0.024


def test_a_slow_link_pushes_back_and_closes_at_once(listener, connect):
    channel = connect(up=Rate(8000))
    sent = 0
    while channel.send(bytes(1000)):
        sent += 1
        assert sent < 20
    assert sent >= 4
    started = time.monotonic()
    channel.close()
    assert time.monotonic() - started < 3


def test_socket_options_are_set(listener, connect):
    for end in (listener.socket, connect().socket):
        assert end.getsockopt(zmq.MAXMSGSIZE) == HEADER_BYTES + MAX_PAYLOAD
        assert end.getsockopt(zmq.LINGER) == 0 and end.getsockopt(zmq.SNDHWM) == HIGH_WATER
    assert listener.socket.getsockopt(zmq.HEARTBEAT_IVL) == 0  # see transport.Listener
    assert connect().socket.getsockopt(zmq.HEARTBEAT_IVL) == transport.HEARTBEAT_MS
    assert connect().socket.getsockopt(zmq.HEARTBEAT_TTL) == transport.SILENCE_MS
