"""The engine against its peers: times, memory and the roofline, recorded under results/benchmarks/engine.

    .venv/bin/python -m benchmarks.engine [--repeats 3 --networks '[vgg16]' ...]

Every contender is one process. They do the same work on the same weights in turn, one repeat after the other, so that
whatever else the machine does hits all of them. Before anything is timed, what they computed is compared.
"""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from snnbook import roofline
from snnbook.engine import Int8Conv
from snnbook.fields import Params, field
from snnbook.runs import ROOT, Run
from snnbook.train import bf16_is_native, pick_device

from . import bars, options, source
from .contenders import CONTENDERS, EXACT
from .source import Workload

#: Keep freed memory instead of returning it page by page; the same for every contender.
ALLOCATOR = {"MALLOC_MMAP_THRESHOLD_": "1073741824", "MALLOC_TRIM_THRESHOLD_": "1073741824"}
AGREEMENT = ("equal", "difference", "same_class")
#: Where memory is measured, every large tensor goes back to the system when it is freed, so that resident is used.
RETURNING = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}
GROUPS = ("neuron", "inference", "training", "conversion", "counting", "memory")


@dataclass(frozen=True)
class EngineBenchmark(Params):
    """What to measure."""

    groups: list[str] = field(list(GROUPS), "kinds of work", choices=GROUPS)
    contenders: list[str] = field(list(CONTENDERS), "who takes part", choices=tuple(CONTENDERS))
    networks: list[str] = field(["vgg9", "vgg16", "resnet20"], "networks of the inference",
                                choices=("vgg5", "vgg9", "vgg16", "resnet20"))  # fmt: skip
    time_steps: list[int] = field([1, 2, 4, 8, 16, 64], "time steps T of the inference", low=1, high=1024)
    batch: int = field(32, "images of a batch", low=1, high=4096)
    frames: int = field(256, "largest T·N: at larger T the batch is smaller", low=1, high=10**6)
    width: float = field(1.0, "multiplier on the width of every hidden layer", low=0.01, high=4)
    size: int = field(32, "height and width of an image", low=8, high=256)
    channels: int = field(64, "channels of the layer of neurons", low=1, high=4096)
    repeats: int = field(5, "rounds", low=1, high=100)
    slow_repeats: int = field(2, "rounds of conversion and calibration", low=1, high=100)
    at_least: float = field(0.3, "seconds that one repeat of short work is repeated for", low=0.001, high=60)
    threads: int = field(max(1, os.cpu_count() or 1), "threads of each contender", low=1, high=1024)
    device: str = field("auto", "auto, cpu or cuda", choices=("auto", "cpu", "cuda"))
    seed: int = field(0, "seed of weights and images", low=0, high=2**31 - 1)
    out_dir: str = field("", "folder for tables and run.json; empty means results/benchmarks/engine, or engine_cuda")


def workloads(p: EngineBenchmark, device: str) -> list[Workload]:
    """What is timed, in order."""
    def work(name: str, kind: str, model: str = "", T: int = 4, batch: int = p.batch, channels: int = 3) -> Workload:
        return Workload(name, kind, model, p.width, T, (batch, channels, p.size, p.size), device, p.seed)

    found = []
    if "neuron" in p.groups:
        found += [work("neuron forward", "neuron", channels=p.channels),
                  work("neuron forward and backward", "neuron_training", channels=p.channels)]  # fmt: skip
    if "inference" in p.groups:
        for model in p.networks:
            for T in p.time_steps:
                found.append(work(f"{model} T={T}", "inference", model, T, max(1, min(p.batch, p.frames // T))))
    if "training" in p.groups:
        found.append(work("vgg9 training T=5", "training", "vgg9", 5))
    if "conversion" in p.groups:
        small = max(1, p.batch // 2)
        found += [work("vgg16 conversion", "conversion", "vgg16", 4, small),
                  work("vgg16 calibration", "calibration", "vgg16", 4, small)]  # fmt: skip
    if "counting" in p.groups:
        found.append(work("vgg16 counting T=4", "counting", "vgg16", 4))
    return found


class Peer:
    """One contender's process."""

    def __init__(self, contender: str, threads: int, log, allocator: dict[str, str] = ALLOCATOR):
        environment = os.environ | allocator | {"OMP_NUM_THREADS": str(threads)}
        self.contender = contender
        self.process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.worker", contender, str(threads)],
            cwd=ROOT, env=environment, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log,
        )  # fmt: skip

    def __call__(self, do: str, **command) -> dict:
        """Send one command and wait for its answer; RuntimeError if anything but a setup fails."""
        self.process.stdin.write(json.dumps({"do": do} | command) + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        answer = json.loads(line) if line else {"failed": "its process ended"}
        if "failed" in answer and do != "setup":
            raise RuntimeError(f"{self.contender}, {do}: {answer['failed']}")
        return answer

    def close(self) -> None:
        """Let the process end."""
        self.process.stdin.close()
        self.process.wait(timeout=60)


def agreement(found: np.ndarray, reference: np.ndarray) -> dict[str, float | None]:
    """How far two results agree.

    Returns:
        ``equal``: share of values that are equal in every bit; ``difference``: largest absolute difference over the
        largest absolute value; ``same_class``: share of images whose logits [T, N, K], averaged over T, have their
        maximum at the same class (``None`` for other results).
    """
    if found.shape != reference.shape:
        return {"equal": 0.0, "difference": None, "same_class": None}
    largest = max(float(np.abs(reference).max()), 1e-30)
    logits = found.ndim == 3
    same = float((found.mean(0).argmax(-1) == reference.mean(0).argmax(-1)).mean()) if logits else None
    difference = float(np.abs(found - reference).max()) / largest
    return {"equal": float((found == reference).mean()), "difference": difference, "same_class": same}


def compare(w: Workload, outputs: dict[str, np.ndarray]) -> dict[str, dict]:
    """:func:`agreement` with ``ours`` by contender, for those that do the same work.

    Raises:
        RuntimeError: if a contender that must agree in every bit does not.
    """
    reference = outputs.get("ours")
    peers = [name for name in outputs if name in EXACT + ("ours_bf16", "ours_int8")]
    if reference is None or w.kind == "conversion":
        return {}
    found = {name: agreement(outputs[name], reference) for name in peers}
    exact = [name for name in found if name in EXACT and w.kind in ("neuron", "inference")]
    wrong = {name: found[name]["equal"] for name in exact if found[name]["equal"] < 1}
    if wrong:
        raise RuntimeError(f"{w.name}: other spikes than ours: {wrong}")
    return found


def measure(w: Workload, peers: list[Peer], repeats: int, at_least: float, folder: Path, absent: list) -> pd.DataFrame:
    """One row a contender and repeat: ``contender``, ``repeat``, ``seconds``, ``first_call_seconds`` and agreement.

    Contenders that cannot take part are added to ``absent`` with the reason.
    """
    outputs, first, there = {}, {}, []
    for peer in peers:
        path = folder / f"{peer.contender}.npy"
        answer = peer("setup", workload=asdict(w), output=str(path))
        reason = answer.get("failed", answer.get("left_out"))
        if reason:
            absent.append((w.name, peer.contender, reason))
            print(f"  without {peer.contender}: {reason}", file=sys.stderr)
        if "first_call_seconds" in answer:
            outputs[peer.contender], first[peer.contender] = np.load(path), answer["first_call_seconds"]
            there.append(peer)
    agreed, rows = compare(w, outputs), []
    for repeat in range(repeats):
        for peer in there[repeat % max(1, len(there)) :] + there[: repeat % max(1, len(there))]:
            row = {"workload": w.name, "contender": peer.contender, "repeat": repeat}
            row |= peer("run", at_least=at_least) | {"first_call_seconds": first[peer.contender]}
            rows.append(row | agreed.get(peer.contender, dict.fromkeys(AGREEMENT)))
    for peer in peers:
        peer("drop")
    return pd.DataFrame(rows)


def work_of(w: Workload, frames: int | None) -> roofline.Work | None:
    """The least operations and bytes of a workload; ``None`` where the roofline says nothing.

    Args:
        w: the workload.
        frames: frames of each image that the ANN of the network sees instead; ``None`` for the SNN.
    """
    shape = tuple(w.shape[1:])
    if w.kind in ("neuron", "neuron_training"):
        return roofline.neuron_work(w.time_steps * int(np.prod(w.shape)), w.kind == "neuron_training")
    if w.kind == "training":
        return roofline.training_work(source.learner(w).cpu(), shape, w.batch)
    if w.kind in ("inference", "counting"):
        net = source.network(w).cpu()
        net = net if frames is None else source.as_ann(net)
        return roofline.inference_work(net, shape, w.batch * (frames or 1))
    return None


def summary(samples: pd.DataFrame, works: list[Workload], peaks: dict[str, roofline.Peak]) -> pd.DataFrame:
    """Medians with spread, and the roofline of the contender's precision: one row a workload and contender."""
    rows, by_name, known = [], {w.name: w for w in works}, {}
    for (name, contender), found in samples.groupby(["workload", "contender"], sort=False):
        w, s = by_name[name], found["seconds"]
        frames = (w.time_steps if contender == "ann_frames" else 1) if contender.startswith("ann") else None
        if (name, frames) not in known:
            known[name, frames] = work_of(w, frames)
        work = known[name, frames]
        precision = contender.removeprefix("ours_") if contender in ("ours_bf16", "ours_int8") else "fp32"
        bound = work.bound(peaks[precision]) if work and precision in peaks else None
        rows.append({
            "workload": name, "kind": w.kind, "model": w.model, "contender": contender,
            "time_steps": w.time_steps, "batch": w.batch, "repeats": len(s),
            "median_s": s.median(), "lowest_s": s.min(),
            "lower_quartile_s": s.quantile(0.25), "upper_quartile_s": s.quantile(0.75), "highest_s": s.max(),
            "images_per_s": w.batch / s.median(), "gflop": work.flops / 1e9 if work else None,
            "gbyte": work.bytes / 1e9 if work else None, "bound_s": bound,
            "times_bound": s.median() / bound if bound else None,
            "first_call_s": found["first_call_seconds"].iloc[0],
        } | {column: found[column].iloc[0] for column in AGREEMENT})  # fmt: skip
    return pd.DataFrame(rows)


def eight_bits(device: str) -> bool:
    """Whether the engine's 8-bit convolutions run here."""
    return device == "cpu" and torch.backends.mkldnn.is_available()


def int8_rate(channels: int = 512, batch: int = 128, size: int = 4) -> float:
    """Best operations a second of the engine's 8-bit convolution, 3×3 on [batch, channels, size, size]."""
    conv = Int8Conv(torch.nn.Conv2d(channels, channels, 3, padding=1, bias=False), 1.0)
    spikes = torch.ones(batch, channels, size, size, dtype=torch.uint8).to(memory_format=torch.channels_last)
    conv(spikes)
    return 2 * batch * 9 * (channels * size) ** 2 / min(roofline.seconds(lambda: conv(spikes), 0.0) for _ in range(5))


def peaks(device: str) -> pd.DataFrame:
    """Best rates of this machine: ``what``, ``value``, ``unit``."""
    rows = [("fp32 matrix product", roofline.matmul_rate(device=device) / 1e9, "GFLOP/s"),
            ("fp32 convolution", roofline.convolution_rate(device=device) / 1e9, "GFLOP/s")]  # fmt: skip
    if bf16_is_native(device):
        rows.append(("bf16 matrix product", roofline.matmul_rate(device=device, dtype=torch.bfloat16) / 1e9, "GFLOP/s"))
    if eight_bits(device):
        rows.append(("int8 convolution", int8_rate() / 1e9, "GFLOP/s"))
    for size in (32, 256):
        rows.append((f"copy of {size} MiB, read and written", roofline.copy_rate(size, device=device) / 1e9, "GB/s"))
    return pd.DataFrame(rows, columns=["what", "value", "unit"])


def rooflines(table: pd.DataFrame) -> dict[str, roofline.Peak]:
    """The roofline of each precision that :func:`peaks` measured."""
    bandwidth = table[table["unit"] == "GB/s"]["value"].max() * 1e9
    rates = table[table["unit"] == "GFLOP/s"]
    best = rates.groupby(rates["what"].str.split().str[0])["value"].max()
    return {precision: roofline.Peak(rate * 1e9, bandwidth) for precision, rate in best.items()}


def memory(p: EngineBenchmark, device: str, log, folder: Path) -> pd.DataFrame:
    """Peak memory of VGG-9 inference at T = 4 and T = 64, each in a fresh process."""
    rows = []
    for T in (4, 64):
        w = Workload(f"vgg9 T={T}", "inference", "vgg9", p.width, T, (min(8, p.batch), 3, p.size, p.size), device,
                     p.seed)  # fmt: skip
        for name in [c for c in p.contenders if c in EXACT + ("ours_bf16", "ours_int8")]:
            peer = Peer(name, p.threads, log, RETURNING)
            try:
                # Loaded, compiled and warmed with eight steps, two pieces, so that libraries and code do not count.
                warm = peer("setup", workload=asdict(w) | {"time_steps": 8}, output=str(folder / "warm.npy"))
                answer = peer("memory", workload=asdict(w)) if "first_call_seconds" in warm else {}
                if "bytes" in answer:
                    rows.append((w.name, "vgg9", name, T, w.batch, answer["bytes"] / 2**20))
            finally:
                peer.close()
    return pd.DataFrame(rows, columns=["workload", "model", "contender", "time_steps", "batch", "peak_mib"])


def environment(p: EngineBenchmark, device: str) -> pd.DataFrame:
    """What the times depend on and ``run.json`` does not say: ``what``, ``value``."""
    def installed(name: str) -> str:
        try:
            return version(name)
        except PackageNotFoundError:
            return "not installed"

    rows = {
        "device": torch.cuda.get_device_name() if device == "cuda" else "cpu",
        "vector instructions": torch.backends.cpu.get_cpu_capability(),
        "bf16 in hardware": str(bf16_is_native(device)),
        "threads of each contender": str(p.threads),
        "snntorch": installed("snntorch"),
        "load average at the start": f"{os.getloadavg()[0]:.2f}",
    }
    return pd.DataFrame(list((rows | ALLOCATOR).items()), columns=["what", "value"])


def execute(p: EngineBenchmark, command: str) -> Run:
    """Measure everything and record it; tables are written as they come."""
    device = pick_device(p.device)
    torch.set_num_threads(p.threads)
    out_dir = p.out_dir or f"results/benchmarks/{'engine' if device == 'cpu' else 'engine_cuda'}"
    run = Run(p, ROOT / out_dir, command)
    run.save("environment", environment(p, device))
    rates = peaks(device)
    run.save("peaks", rates)
    works, samples, absent, used = workloads(p, device), [], [], pd.DataFrame()
    with tempfile.TemporaryDirectory() as folder, open(Path(folder) / "log", "w+") as log:
        peers = [Peer(name, p.threads, log) for name in p.contenders]
        try:
            for w in works:
                started = time.monotonic()
                repeats = p.slow_repeats if w.kind in ("conversion", "calibration") else p.repeats
                samples.append(measure(w, peers, repeats, p.at_least, Path(folder), absent))
                run.save("samples", pd.concat(samples)[["workload", "contender", "repeat", "seconds"]])
                print(f"{w.name}: {time.monotonic() - started:.0f} s", flush=True)
        finally:
            for peer in peers:
                peer.close()
        if "memory" in p.groups:
            used = memory(p, device, log, Path(folder))
            run.save("memory", used)
    run.save("left_out", pd.DataFrame(absent, columns=["workload", "contender", "reason"]))
    samples = pd.concat(samples, ignore_index=True) if samples else pd.DataFrame()
    if len(samples):
        times = summary(samples, works, rooflines(rates))
        run.save("times", times)
        run.save("bars", bars.bars(samples, times, used))
    return run


def parse(argv: list[str]) -> EngineBenchmark:
    """Parameters from ``--name value``; values are YAML, so ``--time_steps '[1, 4]'`` is a list."""
    return options.read(EngineBenchmark, "benchmarks.engine", __doc__.split("\n")[0], argv)


def main(argv: list[str] | None = None) -> int:
    """Entry point; returns the exit status."""
    argv = sys.argv[1:] if argv is None else argv
    try:
        p = parse(argv)
        run = execute(p, shlex.join(["python", "-m", "benchmarks.engine", *argv]))
    except ValueError as error:
        print(f"benchmarks: {error}", file=sys.stderr)
        return 2
    print(run.out_dir)
    return 0


if __name__ == "__main__":
    sys.exit(main())
