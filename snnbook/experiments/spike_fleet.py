"""From a SpikeBottleNet experiment to processes: a device that sends spikes, or one that sends the whole image.

    write(folder, net, data)            device: blocks and encoder; server: decoder and the rest
    write_pixels(folder, net, data)     device: only a camera; server: the whole network
    alone(net, x)                       what either answers, in one process
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd
import torch
from torch import Tensor, nn

from .. import store
from ..bottleneck.codec import Server, head, tail
from ..checks import check
from ..link.fleet import Fleet
from ..link.folder import Plan, write_fleet
from ..link.messages import HEADER_BYTES
from ..link.shaper import Rate
from ..network import Network

if TYPE_CHECKING:  # processes import this module, and need no data sets
    from ..data import Data

#: Bits of a pixel, sent as if they were time steps.
BITS = 8


class Pixels(nn.Module):
    """A device that computes nothing: the pixels of a normalised image [N, C, H, W] as bits [8, N, C, H, W].

    Args:
        mean: [C] that was subtracted from pixels 0 to 255.
        std: [C] that they were divided by then.
    """

    def __init__(self, mean: Tensor, std: Tensor):
        super().__init__()
        self.register_buffer("mean", mean.view(-1, 1, 1).float())
        self.register_buffer("std", std.view(-1, 1, 1).float())

    def forward(self, x: Tensor) -> Tensor:
        """Bits 0/1, the most significant of all pixels first."""
        pixels = (x * self.std + self.mean).round().long()
        return torch.stack([(pixels >> bit) & 1 for bit in reversed(range(BITS))]).float()


class Whole(nn.Module):
    """A server that runs a whole network on the bits of :class:`Pixels`.

    Args:
        net: image [N, C, H, W] to logits [T, N, K].
        mean: [C] as of :class:`Pixels`.
        std: [C] likewise.
        shape: (C, H, W) of an image.
    """

    def __init__(self, net: Network, mean: Tensor, std: Tensor, shape: Sequence[int]):
        super().__init__()
        self.net, self.shape = net, tuple(shape)
        self.register_buffer("mean", mean.view(-1, 1, 1).float())
        self.register_buffer("std", std.view(-1, 1, 1).float())

    def forward(self, parts: Sequence[Tensor | None]) -> Tensor:
        """Logits [T, N, K] of one device's bits [8, N, C, H, W] in a list; ``None`` is a black image."""
        check("parts", len(parts), len(parts) == 1, "one device")
        bits = torch.zeros(BITS, 1, *self.shape) if parts[0] is None else parts[0]
        weights = 2.0 ** torch.arange(BITS - 1, -1, -1)
        return self.net(((bits * weights.view(-1, 1, 1, 1, 1)).sum(0) - self.mean) / self.std)


def _statistics(channels: int) -> dict[str, Tensor]:
    return {"mean": torch.zeros(channels), "std": torch.ones(channels)}


store.register(Pixels, lambda m: {"channels": len(m.mean)}, lambda o, c: Pixels(**_statistics(o["channels"])))
store.register(
    Whole, lambda m: {"shape": m.shape}, lambda o, c: Whole(c["net"], **_statistics(o["shape"][0]), shape=o["shape"])
)


def _test_images(data: Data, samples: int) -> tuple[Tensor, Tensor]:
    x, y = data.test.x[:samples], data.test.y[:samples]
    return data.normalise(x), y


def write(folder: Path | str, net: Network, data: Data, samples: int = 100, **plan) -> Plan:
    """Write the two halves of a network with a codec, and the first test images, as files for processes.

    Args:
        folder: is made if need be.
        net: spiking network with a codec.
        data: where the images come from.
        samples: test images.
        plan: further fields of :class:`snnbook.link.folder.Plan`, for instance ``deadline`` in seconds.

    Raises:
        ValueError: for a network without codec, or an ANN, whose codes are no spikes.
    """
    check("net.time_steps", net.time_steps, net.time_steps is not None, "a spiking network")
    net = net.cpu().eval()
    x, y = _test_images(data, samples)
    with torch.no_grad():
        device = head(net)
        payload = tuple(device(x[:1]).shape[2:])
    return write_fleet(folder, [device], Server(tail(net), payload), x, labels=y, **plan)


def write_pixels(folder: Path | str, net: Network, data: Data, samples: int = 100, **plan) -> Plan:
    """The same for a device that sends images and a server that runs all of ``net``; arguments as :func:`write`."""
    x, y = _test_images(data, samples)
    server = Whole(net.cpu().eval(), data.mean, data.std, data.shape).eval()
    return write_fleet(folder, [Pixels(data.mean, data.std)], server, x, labels=y, **plan)


def alone(net: Network, x: Tensor) -> Tensor:
    """Logits [T, N, K] of images [N, C, H, W] in this process: one image and one thread at a time, as processes do."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.no_grad():
            return torch.cat([net.cpu().eval()(image) for image in x.split(1)], 1)
    finally:
        torch.set_num_threads(threads)


def transfer(payload_bytes: float, rate: float) -> float:
    """Seconds that one message with so many bytes of payload needs at ``rate`` bit/s, header included."""
    return 8 * (payload_bytes + HEADER_BYTES) / rate


def break_even(saved_bytes: float, more_seconds: float) -> float:
    """Rate in bit/s below which sending less is faster though it takes ``more_seconds`` of computing.

    Infinite if it does not take more. Equation: r* = 8 · saved bytes / more seconds.

    Raises:
        ValueError: for a negative number of saved bytes.
    """
    check("saved_bytes", saved_bytes, saved_bytes >= 0, "0 or more")
    return 8 * saved_bytes / more_seconds if more_seconds > 0 else float("inf")


def over_rates(folder: Path | str, rates: Sequence[float | None], samples: Sequence[int]) -> pd.DataFrame:
    """Measure a folder's processes, one sample after the other, at several rates of the link to the server.

    Args:
        folder: of :func:`write` or :func:`write_pixels`.
        rates: bit/s; ``None`` is loopback as it is.
        samples: rows of the samples file.

    Returns:
        One row a rate: ``rate`` (bit/s, infinite for ``None``), medians ``latency_ms``, ``device_ms``, ``server_ms``,
        ``link_ms`` (all the rest), ``expected_ms`` (of the message at that rate), ``payload_bytes``.

    Raises:
        ValueError: for a rate at which answers miss the deadline.
    """
    rows = []
    for rate in rates:
        with Fleet(folder, up=None if rate is None else Rate(rate)) as fleet:
            fleet.run(samples[:2])
            table = fleet.run(samples).table
        allowed = f"rates that carry the spikes within {fleet.plan.deadline:g} s"
        check("rates", rate, not table["partial"].any(), allowed)
        row = {name: table[f"{name}_ms"].median() for name in ("latency", "device", "server")}
        row["link"] = (table["latency_ms"] - table["device_ms"] - table["server_ms"]).median()
        payload = table["payload_bytes"].mean()
        row["expected"] = 0.0 if rate is None else 1e3 * transfer(payload, rate)
        row = {f"{name}_ms": value for name, value in row.items()}
        rows.append({"rate": float("inf") if rate is None else rate, **row, "payload_bytes": payload})
    return pd.DataFrame(rows)


def over_windows(fleet: Fleet, windows: Sequence[int], samples: Sequence[int], repeats: int = 3) -> pd.DataFrame:
    """Throughput and latency of a running fleet with several samples on their way at a time.

    Windows take turns, so that a busy machine slows all of them down; the fastest of the ``repeats`` runs counts.

    Returns:
        One row a window: ``window``, ``per_second``, ``latency_ms`` (mean), ``on_the_way`` = throughput × latency,
        which is the mean number of samples on their way (Little's law), ``tries`` (most for any sample).
    """
    rows = []
    for _ in range(repeats):
        for window in windows:
            measured = fleet.run(samples, window=window)
            rate, latency = len(measured.answered) / measured.seconds, measured.table["latency_ms"].mean()
            tries = measured.table["tries"].max()
            rows.append((window, rate, latency, rate * latency / 1e3, tries))
    table = pd.DataFrame(rows, columns=["window", "per_second", "latency_ms", "on_the_way", "tries"])
    return table.loc[table.groupby("window")["per_second"].idxmax()].reset_index(drop=True)


def timeline(table: pd.DataFrame) -> pd.DataFrame:
    """When which stage worked on which sample of a device that drives itself.

    Args:
        table: of :class:`snnbook.link.measure.Measured`, in the order of the samples, from ``Fleet.walk``.

    Returns:
        Milliseconds since the first: ``sample``, ``start`` and ``computed`` on the device, ``sending`` to ``received``
        on the link, which carries one sample at a time and includes all other waiting, then the server until
        ``answered``.
    """
    rows: list[dict[str, float]] = []
    for r in table.itertuples():
        computed, answered = r.start_ms + r.device_ms, r.start_ms + r.latency_ms
        sending = max(computed, rows[-1]["received"] if rows else 0.0)
        received = max(sending, answered - r.server_ms)
        row = {"start": r.start_ms, "computed": computed, "sending": sending, "received": received}
        rows.append({"sample": r.sample, **row, "answered": answered})
    return pd.DataFrame(rows)


@contextmanager
def stalled(pid: int, after: float, seconds: float) -> Iterator[None]:
    """Stop a process (SIGSTOP) ``after`` seconds, and let it go on ``seconds`` later, or at the end of the block."""
    over = threading.Event()

    def stop_and_go() -> None:
        if not over.wait(after):
            os.kill(pid, signal.SIGSTOP)
            over.wait(seconds)
            os.kill(pid, signal.SIGCONT)

    thread = threading.Thread(target=stop_and_go)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def tally(phase: str, measured, before: dict, after: dict, expected: Tensor) -> dict[str, object]:
    """What became of the samples of one phase.

    Args:
        phase: its name.
        measured: of the fleet.
        before: the server's status before the phase.
        after: the server's status after it.
        expected: logits [T, n, K] of one process for the samples 0 to n − 1.

    Returns:
        ``phase``; ``asked``; ``answered`` by the server (times that it computed an answer); ``again`` (requests that
        were sent again); ``partial`` answers; ``equal``, answers that are those of one process in every bit;
        ``slowest_ms``.
    """
    table = measured.table
    equal = [torch.equal(a.answer.logits, expected[:, a.index : a.index + 1]) for a in measured.answered]
    computed = after["counts"].get("answered", 0) - before["counts"].get("answered", 0)
    return {
        "phase": phase, "asked": len(table), "answered": computed, "again": int((table["tries"] - 1).sum()),
        "partial": int(table["partial"].sum()), "equal": sum(equal), "slowest_ms": table["latency_ms"].max(),
    }  # fmt: skip
