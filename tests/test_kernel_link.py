"""Links that the kernel makes; most of it only where namespaces may be made."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from fleets import make_split

from benchmarks.link import stream_seconds
from snnbook.link import kernel_link
from snnbook.link.fleet import Fleet
from snnbook.link.kernel_link import KernelLink, KernelLinks, frames_bytes
from snnbook.link.shaper import Rate
from snnbook.link.transport import Channel, Listener

REASON = kernel_link.why_not()
needs_rights = pytest.mark.skipif(bool(REASON), reason=REASON)

#: What ZMTP and CurveZMQ add to a message of more than 255 bytes: a frame's header, "MESSAGE", nonce, tag and flags.
ENCRYPTED = 9 + 8 + 8 + 16 + 1


def namespaces() -> set[str]:
    return {path.name for path in Path("/run/netns").glob(f"snnbook-{os.getpid()}-*")}


@pytest.mark.parametrize(
    ("size", "frames"), [(0, 0), (1, 1), (1448, 1), (1449, 2), (14480, 10), (14481, 11)]
)
def test_bytes_on_the_wire_by_hand(size, frames):
    """1500 bytes of an IP packet less 20 of IP, 20 of TCP and 12 of its time stamps; 14 of Ethernet."""
    assert frames_bytes(size) == size + frames * (14 + 20 + 20 + 12)


@pytest.mark.parametrize(
    ("tools", "user", "reason"),
    [((), 0, "ip and tc of iproute2 not found"), (("ip",), 0, "tc of iproute2 not found"),
     (("ip", "tc"), 1000, "only root may make network namespaces")],
)  # fmt: skip
def test_why_links_cannot_be_made(monkeypatch, tools, user, reason):
    monkeypatch.setattr(kernel_link.shutil, "which", lambda tool: tool if tool in tools else None)
    monkeypatch.setattr(kernel_link.os, "geteuid", lambda: user)
    assert kernel_link.why_not() == reason
    with pytest.raises(ValueError, match=f"kernel = True is not allowed: False here: {reason}"):
        KernelLinks([None], [None])


def test_a_container_without_rights_says_so(monkeypatch):
    def refused(*command):
        raise OSError(f"{' '.join(command[:3])}: Operation not permitted")

    monkeypatch.setattr(kernel_link.shutil, "which", lambda tool: tool)
    monkeypatch.setattr(kernel_link.os, "geteuid", lambda: 0)
    monkeypatch.setattr(kernel_link, "_run", refused)
    assert kernel_link.why_not() == "ip netns add: Operation not permitted"


@pytest.mark.parametrize("noise", [{"ber": 0.1}, {"loss": 0.1}])
def test_noisy_links_are_not_the_kernels(noise):
    with pytest.raises(ValueError, match=r"down = .* is not allowed: a link without noise"):
        KernelLink(None, Rate(1e6, **noise))


@needs_rights
def test_a_failing_command_leaves_nothing_behind():
    with pytest.raises(OSError, match="tc -n snnbook-"):
        KernelLink(Rate(0.1))  # 0 bit/s
    assert not namespaces()


@needs_rights
def test_a_megabit_a_second_is_one_with_all_headers():
    """Messages of 4 KB against the closed form, within 5 %; the other direction is not held back."""
    links = KernelLinks([Rate(1e6)], [None])
    listener = Listener(links.bind, links.keys / "server")
    try:
        with links[0].entered():
            channel = Channel(listener.address, links.keys / "part_0")
        assert channel.send(b"hello", 5)
        peer, frames, name = listener.receive(10)
        assert frames == [b"hello"] and name == "part_0"
        size, n = 4096, 30
        expected = 8 * frames_bytes(n * (size + ENCRYPTED)) / 1e6 / n
        assert stream_seconds(channel, listener, size, n) / n == pytest.approx(expected, rel=0.05)
        assert expected == pytest.approx(8 * size / 1e6, rel=0.1)
        started = time.monotonic()
        assert listener.send(peer, bytes(10**6)) and channel.receive(10) is not None
        assert time.monotonic() - started < 4  # at 1 Mbit/s it would be 8 s
        channel.close()
    finally:
        listener.close()
        links.close()
    assert not namespaces()


@needs_rights
def test_this_process_stays_where_it_was():
    before = Path("/proc/thread-self/ns/net").readlink()
    link = KernelLink()
    try:
        with link.entered():
            assert Path("/proc/thread-self/ns/net").readlink() != before
            shown = subprocess.run(["ip", "-br", "addr"], capture_output=True, text=True).stdout
        assert link.inside in shown and link.outside not in shown
        assert Path("/proc/thread-self/ns/net").readlink() == before
    finally:
        link.close()


@needs_rights
def test_a_fleet_behind_slow_links_of_the_kernel(tmp_path):
    """The same answers, bit for bit; each sample costs at least its payload over the rate."""
    net, _, _, x, plan = make_split(tmp_path, torch.randn(12, 1, 8, 8), deadline=30.0)
    rate = 1e5
    with Fleet(tmp_path, up=Rate(rate), kernel=True) as fleet:
        measured = fleet.walk(range(12), window=4, timeout=20.0)
        obeyed = fleet.run([0])
        fleet.kill(0)
        fleet.start(0)
        fleet.wait_for([0])
        again = fleet.run([0])
    with torch.no_grad():
        assert all(torch.equal(v, net(x[i : i + 1])) for i, v in enumerate(measured.logits))
    assert torch.equal(obeyed.logits[0], measured.logits[0]) and torch.equal(again.logits[0], measured.logits[0])
    message = plan.payload_bytes()[0] + 40 + ENCRYPTED
    assert 0.7 * 8 * message / rate * 12 < measured.seconds < 3 * 8 * frames_bytes(message) / rate * 12
    assert not namespaces()


@needs_rights
def test_what_a_killed_process_left_is_taken_away():
    script = "import os, signal; from snnbook.link.kernel_link import KernelLink; "
    script += "k = KernelLink(); print(k.name, flush=True)"
    done = subprocess.run([sys.executable, "-c", f"{script}; os.kill(os.getpid(), signal.SIGKILL)"],
                          capture_output=True, text=True, cwd=Path(__file__).resolve().parent.parent)  # fmt: skip
    left = Path("/run/netns") / done.stdout.strip()
    assert done.returncode == -9 and left.name.startswith("snnbook-") and left.exists()
    KernelLinks([None], [None]).close()
    assert not left.exists()
