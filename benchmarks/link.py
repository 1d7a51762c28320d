"""Payloads, processes, a shaped link and a server under garbage, recorded under results/benchmarks/link.

    .venv/bin/python -m benchmarks.link [--out_dir FOLDER --samples 200 ...]
"""

from __future__ import annotations

import shlex
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import psutil
import torch
from torch import nn

from snnbook.fields import Params, field
from snnbook.link.fleet import Fleet
from snnbook.link.folder import write_fleet
from snnbook.link.kernel_link import KernelLinks, frames_bytes, why_not
from snnbook.link.parts import Fuse
from snnbook.link.payload import pack, unpack
from snnbook.link.shaper import Rate
from snnbook.link.transport import Channel, Listener
from snnbook.models import build
from snnbook.network import Network
from snnbook.runs import ROOT, Run

from . import options


@dataclass(frozen=True)
class LinkBenchmark(Params):
    """What to measure."""

    elements: list[int] = field([2**12, 2**16, 2**20, 2**24], "spikes of a payload", low=8, high=2**28)
    devices: list[int] = field([1, 2, 3], "numbers of devices on this machine", low=1, high=64)
    model: str = field("vgg9", "network of a device", choices=("vgg5", "vgg9", "vgg16"))
    width: float = field(0.25, "multiplier on its width", low=0.01, high=4)
    time_steps: int = field(5, "time steps T", low=1, high=64)
    samples: int = field(200, "samples of a fleet", low=10, high=10**5)
    rate: float = field(1e6, "bit/s of the shaped link", low=1e3, high=1e9)
    payloads: list[int] = field([256, 1024, 4096, 16384], "bytes that are sent over it", low=1, high=10**7)
    garbage: int = field(100_000, "malformed messages that the server gets", low=0, high=10**8)
    repeats: int = field(10, "rounds", low=1, high=1000)
    seed: int = field(0, "seed of weights, spikes and garbage", low=0, high=2**31 - 1)
    out_dir: str = field("", "folder for tables and run.json; empty means results/benchmarks/link")


def _best(work, repeats: int) -> float:
    """Seconds of the fastest of several calls, after one more."""
    work()
    times = []
    for _ in range(repeats):
        started = time.perf_counter()
        work()
        times.append(time.perf_counter() - started)
    return min(times)


def payload_rates(p: LinkBenchmark) -> pd.DataFrame:
    """GB of float32 spikes that one core packs and unpacks in a second."""
    rows, generator = [], torch.Generator().manual_seed(p.seed)
    for n in p.elements:
        spikes = (torch.rand(n, generator=generator) < 0.2).float()
        data = pack(spikes)
        times = _best(lambda s=spikes: pack(s), p.repeats), _best(lambda d=data, n=n: unpack(d, (n,)), p.repeats)
        rows.append((n, 4 * n / times[0] / 1e9, 4 * n / times[1] / 1e9))
    return pd.DataFrame(rows, columns=["spikes", "pack_gb_per_s", "unpack_gb_per_s"])


def make_fleet(p: LinkBenchmark, folder: Path, n: int) -> tuple[list, Fuse, torch.Tensor]:
    """A fleet of ``n`` networks for 3×32×32 images, and their fusion."""
    nets = [build(p.model, "lif", width=p.width, time_steps=p.time_steps, seed=p.seed + i).eval() for i in range(n)]
    parts = [Network(net.stem, net.body[:-1], nn.Identity()) for net in nets]
    for part in parts:
        part.time_steps = p.time_steps
    x = torch.randn(p.samples, 3, 32, 32, generator=torch.Generator().manual_seed(p.seed))
    with torch.inference_mode():
        shape = tuple(parts[0](x[:1]).shape[2:])
    features = n * shape[0] * shape[1] * shape[2] // 4
    pools = nn.ModuleList([nn.Sequential(nn.AvgPool2d(2), nn.Flatten()) for _ in nets])
    torch.manual_seed(p.seed)
    fuse = Fuse(pools, nn.Sequential(nn.Linear(features, 192), nn.Linear(192, 10)), [shape] * n, p.time_steps).eval()
    write_fleet(folder, parts, fuse, x, deadline=30.0)
    return parts, fuse, x


def differing(measured, parts, fuse, x: torch.Tensor) -> int:
    """Samples whose logits differ from those of this process in any bit."""
    with torch.inference_mode():
        return sum(
            not torch.equal(a.answer.logits, fuse([part(x[a.index : a.index + 1]) for part in parts]))
            for a in measured.answered
        )


def loopback(p: LinkBenchmark, folder: Path) -> pd.DataFrame:
    """One row for each number of devices and window: the summary, and how many answers differ from one process."""
    rows = []
    for n in p.devices:
        fleet_of = make_fleet(p, folder / f"fleet_{n}", n)
        with Fleet(folder / f"fleet_{n}") as fleet:
            fleet.run(range(min(20, p.samples)))
            for window in (1, 4):
                measured = fleet.run(range(p.samples), window=window)
                row = {"devices": n, "window": window, "differing": differing(measured, *fleet_of)}
                rows.append(row | measured.summary().iloc[0].to_dict())
    return pd.DataFrame(rows)


def shaped(p: LinkBenchmark) -> pd.DataFrame:
    """Median measured seconds of single messages over the shaped link, one after the other, beside payload / rate."""
    listener, rows = Listener(), []
    channel = Channel(listener.address, up=Rate(p.rate))
    channel.send(b"hello")
    listener.receive(10)
    for size in p.payloads:
        times = []
        for _ in range(p.repeats):
            started = time.perf_counter()
            channel.send(bytes(size))
            listener.receive(60)
            times.append(time.perf_counter() - started)
        ideal = 8 * size / p.rate
        rows.append((size, ideal, float(np.median(times)), float(np.median(times)) / ideal))
    channel.close()
    listener.close()
    return pd.DataFrame(rows, columns=["payload_bytes", "ideal_s", "measured_s", "ratio"])


def shaped_by_kernel(p: LinkBenchmark) -> pd.DataFrame:
    """Over ``tc tbf`` and encrypted; nothing is measured without the rights.

    ``measured_s`` is not that of :func:`shaped`: it is the seconds a message of a stream takes, in which several small
    messages share a segment. ``headers`` is what TCP, IP and Ethernet alone make of ``ratio`` if segments are full.
    """
    sizes = [(size, max(p.repeats, 2**17 // size)) for size in p.payloads]
    if reason := why_not():
        print(f"no links of the kernel: {reason}")
        seconds = [float("nan")] * len(sizes)
    else:
        links = KernelLinks([Rate(p.rate)], [None])
        listener = Listener(links.bind, links.keys / "server")
        with links[0].entered():
            channel = Channel(listener.address, links.keys / "part_0")
        stream_seconds(channel, listener, 5, 1)  # connected now
        seconds = [stream_seconds(channel, listener, size, n) / n for size, n in sizes]
        channel.close()
        listener.close()
        links.close()
    rows = [(size, 8 * size / p.rate, s, s / (8 * size / p.rate), frames_bytes(n * size) / (n * size))
            for (size, n), s in zip(sizes, seconds, strict=True)]  # fmt: skip
    return pd.DataFrame(rows, columns=["payload_bytes", "ideal_s", "measured_s", "ratio", "headers"])


def stream_seconds(channel: Channel, listener: Listener, size: int, n: int) -> float:
    """Seconds that ``n`` messages take, sent as fast as the link takes them; TimeoutError if one is lost."""
    started = time.perf_counter()
    sender = threading.Thread(target=lambda: [channel.send(bytes(size), 60.0) for _ in range(n)])
    sender.start()
    for _ in range(n):
        if listener.receive(60) is None:
            raise TimeoutError(f"a message of {size} bytes did not arrive within 60 s")
    sender.join()
    return time.perf_counter() - started


def under_garbage(p: LinkBenchmark, folder: Path) -> pd.DataFrame:
    """Memory of a server before and after malformed messages, and whether it still answers right."""
    fleet_of = make_fleet(p, folder / "garbage", 1)
    with Fleet(folder / "garbage") as fleet:
        server = psutil.Process(fleet.pids["server"])
        fleet.run(range(10))
        fleet.garbage(min(5000, p.garbage), p.seed)
        fleet.run(range(10))
        before, started, resident = _dropped(fleet), time.monotonic(), server.memory_info().rss
        fleet.garbage(p.garbage, p.seed + 1)
        seconds, grown = time.monotonic() - started, server.memory_info().rss - resident
        row = {"sent": p.garbage, "dropped": _dropped(fleet) - before, "seconds": seconds, "grown_mib": grown / 2**20}
        return pd.DataFrame([row | {"differing": differing(fleet.run(range(10)), *fleet_of)}])


def _dropped(fleet: Fleet) -> int:
    counts = fleet.status()["counts"]
    return sum(n for name, n in counts.items() if name.startswith(("bad", "refused", "unregistered")))


def main(argv: list[str] | None = None) -> None:
    """Measure and record."""
    argv = sys.argv[1:] if argv is None else argv
    p = options.read(LinkBenchmark, "benchmarks.link", __doc__.splitlines()[0], argv)
    torch.set_num_threads(1)
    command = "python -m benchmarks.link " + " ".join(map(shlex.quote, argv))
    run = Run(p, Path(p.out_dir) if p.out_dir else ROOT / "results" / "benchmarks" / "link", command.strip())
    with tempfile.TemporaryDirectory() as folder:
        tables = {"payload": payload_rates(p), "shaped": shaped(p), "loopback": loopback(p, Path(folder))}
        tables["garbage"] = under_garbage(p, Path(folder))
        tables["kernel"] = shaped_by_kernel(p)
    for name, table in tables.items():
        run.save(name, table)
        print(f"\n{name}\n{table.to_string(index=False)}")


if __name__ == "__main__":
    main()
