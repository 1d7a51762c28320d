"""A whole fleet on one machine: one process a device, one for the server, measured from here.

    with Fleet(folder) as fleet:
        measured = fleet.run(range(100))
        fleet.kill(1)
        without_one = fleet.run(range(100))

Processes are forked from a helper of the standard library that has imported this package once. They end with
:meth:`Fleet.close`, and also when the process that made them dies.
"""

from __future__ import annotations

import atexit
import json
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Sequence
from multiprocessing import connection
from pathlib import Path

import torch

from ..checks import check
from .answers import Answer
from .client import Client
from .device import serve_part, walk_part
from .folder import Sensor, part_file, read_plan
from .garbage import garbage
from .kernel_link import KernelLinks, enter
from .measure import Measured
from .messages import decode, encode
from .server import serve
from .shaper import Rate
from .walk import Answered, checked_rows

_processes = multiprocessing.get_context("forkserver")
_processes.set_forkserver_preload(["snnbook.link.fleet"])


def _follow_parent() -> None:
    """End this process and its group, stopped ones too, when the process that wanted it has died."""
    connection.wait([multiprocessing.parent_process().sentinel])
    os.killpg(0, signal.SIGKILL)


def _child(work, group: int, threads: int, report, namespace: str, arguments: dict) -> None:
    """Main function of every process here: join the fleet's process group, work, report why that did not go."""
    try:
        os.setpgid(0, group)
    except OSError:  # the group has ended
        os.setpgid(0, 0)
    threading.Thread(target=_follow_parent, daemon=True).start()
    torch.set_num_threads(threads)
    try:
        if namespace:
            enter(namespace)
        work(**arguments)
    except (ValueError, OSError) as error:
        report.send_bytes(str(error).encode())
        sys.exit(2)


def _server(pipe, **arguments) -> None:
    serve(ready=lambda address: pipe.send_bytes(address.encode()), **arguments)


def _walker(pipe, **arguments) -> None:
    """Walk, then hand over each answer as JSON and as the message that it came in."""
    answered, seconds = walk_part(**arguments)
    for a in answered:
        pipe.send_bytes(json.dumps([a.index, a.seconds, a.tries, a.started, seconds]).encode())
        pipe.send_bytes(encode(a.answer.to_message()))


def _collect(pipe) -> tuple[list[Answered], float]:
    """What a walker hands over, as far as it came."""
    answered, seconds = [], 0.0
    try:
        while True:
            index, latency, tries, started, seconds = json.loads(pipe.recv_bytes())
            answer = Answer.from_message(decode(pipe.recv_bytes()))
            answered.append(Answered(index, answer, latency, tries, started))
    except EOFError:
        return answered, seconds


class Fleet:
    """A server and its devices, as processes of this machine.

    Args:
        folder: of :func:`snnbook.link.folder.write_fleet`.
        up: rate of the links towards the server, one for all or one for each device; unlimited by default.
        down: rate of the links from the server, likewise.
        threads: of each process.
        deadline: seconds, instead of the plan's.
        patience: seconds that starting may take.
        kernel: whether the kernel makes the links (:mod:`snnbook.link.kernel_link`), encrypted, each with a network of
            its own; by default the transport holds messages back.

    Attributes:
        plan: what the folder says.
        address: of the server.

    Raises:
        ValueError: for a damaged folder, or links that the kernel cannot make here.
        ChildProcessError: if a process does not come up.
    """

    def __init__(
        self,
        folder: Path | str,
        *,
        up: Rate | Sequence[Rate | None] | None = None,
        down: Rate | Sequence[Rate | None] | None = None,
        threads: int = 1,
        deadline: float | None = None,
        patience: float = 120.0,
        kernel: bool = False,
    ):
        self.folder, self.plan = Path(folder), read_plan(folder)
        self.parts = range(len(self.plan.shapes))
        self._up, self._down = self._rates("up", up), self._rates("down", down)
        self._links = KernelLinks(self._up, self._down) if kernel else None
        self._threads, self._patience = threads, patience
        self._running: dict[int, multiprocessing.Process] = {}
        self._before: dict[int, tuple[str, int]] = {}
        self._reports: dict[int, connection.Connection] = {}
        self._server = self.client = None
        atexit.register(self.close)
        try:
            self._start_server(deadline)
            for part in self.parts:
                self.start(part)
            self.wait_for(self.parts)
        except BaseException:
            self.close()
            raise

    def _rates(self, name: str, given) -> list[Rate | None]:
        rates = [given] * len(self.parts) if given is None or isinstance(given, Rate) else list(given)
        check(name, rates, len(rates) == len(self.parts), "one rate, or one for each device")
        return rates

    def __enter__(self) -> Fleet:
        return self

    def __exit__(self, *_) -> None:
        self.close()

    def _process(self, work, group: int, namespace: str = "", **arguments) -> multiprocessing.Process:
        ours, theirs = _processes.Pipe(duplex=False)
        given = (work, group, self._threads, theirs, namespace, arguments)
        found = _processes.Process(target=_child, args=given, daemon=True)
        found.start()
        theirs.close()
        self._reports[found.pid] = ours
        return found

    def _why(self, process: multiprocessing.Process) -> str:
        """What a process reported before it ended."""
        report = self._reports[process.pid]
        try:
            return report.recv_bytes().decode() if report.poll() else f"exit status {process.exitcode}"
        except EOFError:
            return f"exit status {process.exitcode}"

    def _start_server(self, deadline: float | None) -> None:
        ours, theirs = _processes.Pipe(duplex=False)
        where = {"address": self._links.bind, "keys": self._keys("server")} if self._links else {}
        self._server = self._process(_server, 0, pipe=theirs, folder=self.folder, deadline=deadline, **where)
        theirs.close()
        try:
            up = ours.poll(self._patience)
            self.address = ours.recv_bytes().decode() if up else ""
        except EOFError:
            up = False
        if not up:
            raise ChildProcessError(f"the server did not come up: {self._why(self._server)}")
        self.client = Client(self.address, self._keys("client"))

    def _keys(self, name: str) -> Path | None:
        return self._links.keys / name if self._links else None

    def _link(self, part: int) -> dict:
        """What the process of a device is told of its link."""
        if self._links:
            return {"namespace": self._links[part].name, "keys": self._keys(f"part_{part}")}
        return {"up": self._up[part], "down": self._down[part]}

    @property
    def pids(self) -> dict[str | int, int]:
        """Process ids: of ``"server"``, and of each running device by its part."""
        return {"server": self._server.pid} | {part: p.pid for part, p in self._running.items()}

    def start(self, part: int, work=serve_part, **arguments) -> None:
        """Start the process of a device; one that runs is killed before."""
        self.kill(part)
        self._remember("arrivals", part)
        self._running[part] = self._process(
            work, self._server.pid, part_file=part_file(self.folder, part),
            samples=self.folder / "samples.safetensors", address=self.address, **self._link(part), **arguments,
        )  # fmt: skip

    def _remember(self, counter: str, part: int) -> None:
        """What :meth:`wait_for` is to see grow: ``arrivals`` of new devices, or ``hellos`` of any."""
        self._before[part] = counter, self.status()[counter][part]

    def _awaited(self, parts: Sequence[int]) -> bool:
        status = self.status()
        return any(status[counter][part] <= n for part, (counter, n) in self._before.items() if part in parts)

    def wait_for(self, parts: Sequence[int]) -> None:
        """Wait until devices that were started or resumed are registered.

        Raises:
            ChildProcessError: with the reason if one is not.
        """
        until = time.monotonic() + self._patience
        while self._awaited(parts):
            for part in parts:
                if self._running[part].exitcode is not None:
                    raise ChildProcessError(f"device {part} did not come up: {self._why(self._running[part])}")
            if time.monotonic() > until:
                raise ChildProcessError(f"devices did not come up within {self._patience:g} s")
            time.sleep(0.02)

    def _rows(self, samples: Sequence[int]) -> list[int]:
        return checked_rows(samples, len(Sensor(self.folder / "samples.safetensors")))

    def run(self, samples: Sequence[int], window: int = 1, **options) -> Measured:
        """Infer samples, ``window`` at a time; the server triggers the devices.

        Args:
            samples: rows of the samples file, each once.
            window: samples on their way at most.
            options: ``timeout``, ``patience`` in seconds.

        Raises:
            ValueError: for rows that are not there or come twice.
            TimeoutError: if nothing is answered for long.
        """
        samples = self._rows(samples)
        answered, seconds = self.client.run(samples, window, **options)
        return Measured.of(answered, samples, seconds)

    def walk(self, samples: Sequence[int], window: int = 1, part: int = 0, **options) -> Measured:
        """Let a device drive itself through samples; it takes the place of the one that obeys triggers meanwhile.

        Latency counts from the start of its computing.

        Args:
            samples: rows of the samples file, each once.
            window: samples on their way at most.
            part: which device.
            options: ``timeout``, ``patience`` in seconds.

        Raises:
            ValueError: for rows that are not there or come twice.
            ChildProcessError: if the walk did not come to its end.
        """
        samples = self._rows(samples)
        ours, theirs = _processes.Pipe(duplex=False)
        self.start(part, _walker, pipe=theirs, rows=samples, window=window, **options)
        theirs.close()
        answered, seconds = _collect(ours)
        if len(answered) < len(samples):
            raise ChildProcessError(f"the walk of part {part} did not end: {self._why(self._running[part])}")
        self.start(part)
        self.wait_for([part])
        return Measured.of(answered, samples, seconds)

    def kill(self, part: int) -> None:
        """End a device's process at once (SIGKILL); nothing if it does not run."""
        process = self._running.pop(part, None)
        if process is not None:
            self._end(process)

    def _end(self, process: multiprocessing.Process) -> None:
        process.kill()
        process.join()
        self._reports.pop(process.pid).close()

    def hang(self, part: int) -> None:
        """Stop a device's process where it is (SIGSTOP): its connection stays, it does not answer."""
        os.kill(self._running[part].pid, signal.SIGSTOP)

    def resume(self, part: int) -> None:
        """Let a stopped device go on; :meth:`wait_for` then waits until it has said hello, cut off meanwhile or not."""
        self._remember("hellos", part)
        os.kill(self._running[part].pid, signal.SIGCONT)

    def status(self) -> dict:
        """What :meth:`snnbook.link.client.Client.status` returns."""
        return self.client.status(self._patience)

    def garbage(self, n: int, seed: int = 0) -> None:
        """Send ``n`` malformed messages to the server, and wait until it has taken them all.

        Raises:
            TimeoutError: if it does not answer after them.
        """
        client = Client(self.address, self._keys("client"))
        try:
            for frames in garbage(n, seed):
                client.channel.socket.send_multipart(frames)
            client.status(self._patience)  # messages of one connection are taken in their order
        finally:
            client.close()

    def close(self) -> None:
        """End all processes."""
        atexit.unregister(self.close)
        for part in list(self._running):
            self.kill(part)
        if self._server is not None:
            self._end(self._server)
        if self.client is not None:
            self.client.close()
        if self._links is not None:
            self._links.close()
        self._server = self.client = None
