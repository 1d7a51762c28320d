"""ZeroMQ sockets with the limits of this package: sizes, queues, heartbeats, keys beyond the own machine.

A server listens on a ROUTER socket, devices and clients connect DEALER sockets. Queues are short, so that a sender
that is too fast notices (``send`` returns False). Devices and clients send ZeroMQ's heartbeats; one whose heartbeats
stay out, or are not answered, is cut off and connects again by itself.

What these limits do not cover: ``MAXMSGSIZE`` bounds a frame, and the queues count whole messages. libzmq bounds
neither the number of frames of a message nor what of it is there before its end. A peer that sends frames without end
makes the server's memory grow. Beyond loopback only holders of keys can do that; on loopback, any process here.
"""

from __future__ import annotations

import ipaddress
from pathlib import Path
from urllib.parse import urlsplit

import zmq
from zmq.auth.thread import ThreadAuthenticator
from zmq.utils import z85

from ..checks import check
from . import keys as curve
from .messages import HEADER_BYTES, MAX_PAYLOAD
from .shaper import Rate, Shaper

#: Messages that wait in a queue at most, each way, for each peer.
HIGH_WATER = 64
#: Failed handshakes that are counted at once, at most.
MOST_FAILURES = 1000
#: Milliseconds between heartbeats, and without one before a peer is cut off.
HEARTBEAT_MS, SILENCE_MS = 500, 3000
#: What a connection between sides whose keys do not fit ends with; without detail where the other side hangs up first.
HANDSHAKE_FAILED = (
    zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL | zmq.EVENT_HANDSHAKE_FAILED_AUTH | zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL
)


def silent(text: str) -> None:
    """Say nothing; the default wherever a process may say what happens."""


def is_local(address: str) -> bool:
    """Whether only this machine can reach a ZeroMQ address: ipc, inproc, or TCP on a loopback address."""
    scheme, _, rest = address.partition("://")
    check("address", address, bool(rest) and scheme in ("tcp", "ipc", "inproc"), "like tcp://127.0.0.1:5555")
    if scheme != "tcp":
        return True
    port = rest.rpartition(":")[2]
    check("address", address, port == "*" or port.isdigit() and int(port) < 2**16, "tcp://HOST:PORT, PORT below 65536")
    host = urlsplit(f"//{rest}").hostname or ""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _check_reach(address: str, keys: Path | str | None) -> None:
    allowed = "a loopback address; beyond this machine only with keys (snnbook.link.keys.make_keys)"
    check("address", address, is_local(address) or keys is not None, allowed)


def _limits(socket: zmq.Socket) -> None:
    for option, value in (
        (zmq.LINGER, 0),
        (zmq.SNDHWM, HIGH_WATER),
        (zmq.RCVHWM, HIGH_WATER),
        (zmq.MAXMSGSIZE, HEADER_BYTES + MAX_PAYLOAD),
        (zmq.HEARTBEAT_IVL, HEARTBEAT_MS),
        (zmq.HEARTBEAT_TIMEOUT, SILENCE_MS),
        (zmq.HEARTBEAT_TTL, SILENCE_MS),
        (zmq.HANDSHAKE_IVL, SILENCE_MS),
        (zmq.RECONNECT_IVL, 20),
        (zmq.RECONNECT_IVL_MAX, 500),
    ):
        socket.setsockopt(option, value)


class _Guard(ThreadAuthenticator):
    """Gives every peer that is let in the name of its key.

    Args:
        context: of the socket.
        names: public key → name.
    """

    def __init__(self, context: zmq.Context, names: dict[bytes, str]):
        super().__init__(context)
        self._names = names

    def curve_user_id(self, client_public_key: bytes) -> str:
        """The name of a key; empty for one that came into the folder meanwhile."""
        return self._names.get(z85.encode(client_public_key), "")


class Listener:
    """The server's socket; every peer has an identity that ZeroMQ makes up.

    It sends no heartbeats of its own: libzmq 4.3.5 ends the process if one is due on a connection that broke while the
    queue of its messages was full. Those of the peers say how long their silence may last.

    Args:
        address: where to listen; port ``*`` takes a free one.
        keys: the server's folder of :func:`snnbook.link.keys.make_keys`; needed beyond loopback.

    Raises:
        ValueError: for an address beyond this machine without keys, or one that cannot be had.
    """

    def __init__(self, address: str = "tcp://127.0.0.1:*", keys: Path | str | None = None):
        _check_reach(address, keys)
        self._context = zmq.Context()
        self._guard = None
        self.socket = self._context.socket(zmq.ROUTER)
        self._failures = self._monitor()
        _limits(self.socket)
        self.socket.setsockopt(zmq.HEARTBEAT_IVL, 0)
        self.socket.setsockopt(zmq.ROUTER_MANDATORY, 1)
        try:
            if keys is not None:
                self._lock(keys)
            self.socket.bind(address)
        except zmq.ZMQError as error:
            self.close()
            raise ValueError(f"address = {address!r} is not allowed: {error}") from error
        except BaseException:
            self.close()
            raise
        self.address = self.socket.getsockopt_string(zmq.LAST_ENDPOINT).rstrip("\0")

    def _monitor(self) -> zmq.Socket:
        """Where libzmq reports handshakes that failed; without a limit, at which it would stop its own thread."""
        found = self._context.socket(zmq.PAIR)
        found.set_hwm(0)
        self.socket.monitor("inproc://failures", HANDSHAKE_FAILED)
        found.connect("inproc://failures")
        return found

    def _lock(self, keys: Path | str) -> None:
        """Encrypt, and let in only the public keys of the folder."""
        self.socket.curve_publickey, self.socket.curve_secretkey = curve.own_keys(keys)
        clients = curve.allowed_clients(keys)
        self._guard = _Guard(self._context, curve.client_names(keys))
        self._guard.start()
        self._guard.configure_curve(domain="*", location=str(clients))
        self.socket.curve_server = True

    def send(self, peer: bytes, data: bytes) -> bool:
        """Whether the message could be queued: not for a peer that is gone or does not keep up."""
        try:
            self.socket.send_multipart([peer, data], zmq.NOBLOCK, copy=False)
            return True
        except zmq.ZMQError:
            return False

    def receive(self, timeout: float) -> tuple[bytes, list[bytes], str | None] | None:
        """``(peer, frames, name)`` of the next message, or ``None`` after ``timeout`` seconds.

        ``name`` is that of the peer's key, ``None`` without keys.
        """
        if not self.socket.poll(max(0, round(timeout * 1000))):
            return None
        peer, *frames = self.socket.recv_multipart(copy=False)
        return peer.bytes, [frame.bytes for frame in frames], self._name(peer)

    def _name(self, peer: zmq.Frame) -> str | None:
        return None if self._guard is None else peer.get("User-Id")

    def failed_handshakes(self) -> int:
        """Connections since the last call that ended before the keys were found to fit; each try counts."""
        n = 0
        while n < MOST_FAILURES and self._failures.poll(0):
            self._failures.recv_multipart()
            n += 1
        return n

    def close(self) -> None:
        """Close the socket; what is queued is dropped."""
        self.socket.disable_monitor()
        if self._guard is not None:
            self._guard.stop()
        self._context.destroy(linger=0)


class Channel:
    """A device's or client's socket, over a link of limited rate if one is given.

    Args:
        address: of the server.
        keys: the own folder of :func:`snnbook.link.keys.make_keys`; needed beyond loopback.
        up: rate towards the server; unlimited by default.
        down: rate from the server.

    Raises:
        ValueError: for an address beyond this machine without keys, or none at all.
    """

    def __init__(
        self, address: str, keys: Path | str | None = None, up: Rate | None = None, down: Rate | None = None
    ):
        _check_reach(address, keys)
        self.address, self._context = address, zmq.Context()
        self.socket = self._context.socket(zmq.DEALER)
        _limits(self.socket)
        self._shaper, self._up = None, up
        try:
            if keys is not None:
                self.socket.curve_publickey, self.socket.curve_secretkey = curve.own_keys(keys)
                self.socket.curve_serverkey = curve.server_key(keys)
            self.socket.connect(address)
        except zmq.ZMQError as error:
            self.close()
            raise ValueError(f"address = {address!r} is not allowed: {error}") from error
        except BaseException:
            self.close()
            raise
        if up or down:
            self._shape(up, down)

    def _shape(self, up: Rate | None, down: Rate | None) -> None:
        """Put a :class:`Shaper` between this object and its socket."""
        outer, self.socket, inner = self.socket, *(self._context.socket(zmq.PAIR) for _ in range(2))
        for end in (self.socket, inner):
            end.setsockopt(zmq.LINGER, 0)
            end.set_hwm(4)
        inner.bind("inproc://shaper")
        self.socket.connect("inproc://shaper")
        self._shaper = Shaper(inner, outer, up, down)
        self._shaper.start()

    def send(self, data: bytes, wait: float = 0.0) -> bool:
        """Whether the message could be queued within ``wait`` seconds; not while the link is too slow for it."""
        if wait:
            self.socket.poll(round(wait * 1000), zmq.POLLOUT)
        try:
            self.socket.send(data, zmq.NOBLOCK, copy=False)
            return True
        except zmq.Again:
            return False

    @property
    def idle(self) -> bool:
        """Whether the link has nothing to carry towards the server; always without a rate."""
        return self._shaper is None or self._shaper.lanes[0].held is None

    def seconds(self, n_bytes: int) -> float:
        """How long the link towards the server carries a message of so many bytes; 0 without a rate."""
        return 8 * n_bytes / self._up.bits_per_second if self._up else 0.0

    def receive(self, timeout: float) -> list[bytes] | None:
        """Frames of the next message, or ``None`` after ``timeout`` seconds."""
        return self.socket.recv_multipart() if self.socket.poll(max(0, round(timeout * 1000))) else None

    def close(self) -> None:
        """Close the socket; what is queued is dropped."""
        self.socket.close(0)
        if self._shaper is None:
            self._context.destroy(linger=0)
        else:
            self._context.term()
            self._shaper.join()
