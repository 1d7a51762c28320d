"""Slow links that the kernel makes: a network namespace behind a veth pair whose ends are token buckets (``tc tbf``).

    links = KernelLinks([Rate(1e6)], [None])
    server listens on links.bind with links.keys / "server"
    with links[0].entered():
        Channel(address, links.keys / "part_0")        # behind the link

Beside :mod:`snnbook.link.shaper`, which counts the bits of messages, the kernel counts whole Ethernet frames with the
headers of TCP and IP, the acknowledgements on the way back, and what is encrypted. It needs Linux, ``ip`` and ``tc``
(iproute2), and the rights of root.
"""

from __future__ import annotations

import ctypes
import itertools
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from math import isinf
from pathlib import Path

from ..checks import check
from .keys import make_keys
from .shaper import Rate

#: Largest payload of an IP packet in bytes, and its Ethernet frame.
MTU, FRAME = 1500, 1514
#: Headers of a TCP segment with time stamps on Ethernet, bytes.
HEADERS = 14 + 20 + 32
#: Where ``ip netns`` keeps its namespaces.
NAMESPACES = Path("/run/netns")
CLONE_NEWNET = 0x40000000
_numbers = itertools.count()


def why_not() -> str:
    """Why this process cannot make such links: a sentence, empty if it can."""
    missing = [tool for tool in ("ip", "tc") if shutil.which(tool) is None]
    if missing:
        return f"{' and '.join(missing)} of iproute2 not found"
    if os.geteuid() != 0:
        return "only root may make network namespaces"
    try:
        KernelLink(Rate(1e6), Rate(1e6)).close()
    except OSError as error:
        return str(error)
    return ""


def frames_bytes(size: int) -> int:
    """Bytes on the wire of ``size`` bytes of TCP's stream, in segments as full as they can be."""
    segment = FRAME - HEADERS
    return size + HEADERS * -(-size // segment)


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise OSError(f"{' '.join(command)}: {done.stderr.strip() or done.returncode}")


def _set_namespace(fd: int) -> None:
    """Move the calling thread, and the threads that it starts, into a network namespace."""
    if hasattr(os, "setns"):  # Python 3.12
        os.setns(fd, CLONE_NEWNET)
    elif ctypes.CDLL(None, use_errno=True).setns(fd, CLONE_NEWNET):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def _sweep() -> None:
    """Take away what processes that were killed left behind."""
    for path in NAMESPACES.glob("snnbook-*-*"):
        pid = path.name.split("-")[1]
        if pid.isdigit() and not Path("/proc", pid).exists():
            subprocess.run(("ip", "netns", "del", path.name), capture_output=True)


def enter(name: str) -> None:
    """Move the calling thread into the network namespace ``name`` for good (OSError if that is not allowed)."""
    with open(NAMESPACES / name) as there:
        _set_namespace(there.fileno())


class KernelLink:
    """One device's link: two addresses of a network of its own, from those set apart for benchmarks (RFC 2544).

    Args:
        up: rate towards the server; unlimited by default. Its burst is at least one frame: tbf lets nothing pass else.
        down: rate from the server.

    Attributes:
        name: of the namespace.
        outside: address of the server's end.
        inside: address of the device's end.

    Raises:
        ValueError: for a noisy link, which this one cannot be.
        OSError: if the kernel does not allow it.
    """

    def __init__(self, up: Rate | None = None, down: Rate | None = None):
        for name, rate in (("up", up), ("down", down)):
            check(name, rate, rate is None or not (rate.ber or rate.loss), "a link without noise")
        number = next(_numbers)
        self.name, self._end = f"snnbook-{os.getpid()}-{number}", f"sb{os.getpid()}x{number}"
        network = (8 * os.getpid() + number) % 2**15 * 4
        self.outside, self.inside = (f"198.{18 + n // 2**16}.{n // 256 % 256}.{n % 256}"
                                     for n in (network + 1, network + 2))  # fmt: skip
        try:
            self._make()
            self._limit(up, inside=True)
            self._limit(down, inside=False)
        except BaseException:
            self.close()
            raise

    def _make(self) -> None:
        end, there = self._end, ("ip", "-n", self.name)
        _run("ip", "netns", "add", self.name)
        _run("ip", "link", "add", end, "type", "veth", "peer", "name", "net0", "netns", self.name)
        _run("ip", "addr", "add", f"{self.outside}/30", "dev", end)
        _run("ip", "link", "set", end, "mtu", str(MTU), "up")
        _run(*there, "addr", "add", f"{self.inside}/30", "dev", "net0")
        _run(*there, "link", "set", "net0", "mtu", str(MTU), "up")
        _run(*there, "route", "add", "default", "via", self.outside)

    def _limit(self, rate: Rate | None, inside: bool) -> None:
        if rate is None or isinf(rate.bits_per_second):
            return
        where = ("-n", self.name, "qdisc", "add", "dev", "net0") if inside else ("qdisc", "add", "dev", self._end)
        burst = max(round(rate.burst_bits / 8), FRAME)
        limits = ("rate", f"{round(rate.bits_per_second)}bit", "burst", f"{burst}b", "limit", str(2**24))
        _run("tc", *where, "root", "tbf", *limits)

    @contextmanager
    def entered(self) -> Iterator[None]:
        """Sockets that are opened within it, by this thread or by those that it starts, are behind the link."""
        with open("/proc/thread-self/ns/net") as before:
            enter(self.name)
            try:
                yield
            finally:
                _set_namespace(before.fileno())

    def close(self) -> None:
        """Take the link away; whoever still uses it has none."""
        for command in (("ip", "link", "del", self._end), ("ip", "netns", "del", self.name)):
            subprocess.run(command, capture_output=True)


class KernelLinks(list[KernelLink]):
    """A link for each device, and the keys that a server beyond loopback asks for.

    Args:
        up: of each device.
        down: of each device.

    Attributes:
        bind: where the server listens.
        keys: folder of :func:`snnbook.link.keys.make_keys` for server, part_0, part_1, ... and client.

    Raises:
        ValueError: if links cannot be made here, or one is noisy.
    """

    def __init__(self, up: Sequence[Rate | None], down: Sequence[Rate | None]):
        check("kernel", True, not (reason := why_not()), f"False here: {reason}")
        _sweep()
        super().__init__()
        self._folder = tempfile.TemporaryDirectory(prefix="snnbook-keys-")
        try:
            self.keys = make_keys(Path(self._folder.name) / "keys", [*(f"part_{i}" for i in range(len(up))), "client"])
            for rates in zip(up, down, strict=True):
                self.append(KernelLink(*rates))
        except BaseException:
            self.close()
            raise
        self.bind = f"tcp://{self[0].outside}:*"

    def close(self) -> None:
        """Take all links and keys away."""
        while self:
            self.pop().close()
        self._folder.cleanup()
