"""The folder of a fleet: what each process needs, and nothing of what others need.

    fleet.json                 for the server: T, shapes, deadline, early exit, codes
    server.safetensors         for the server: the module that fuses
    part_<i>.safetensors       for device i: its part of the networks
    samples.safetensors        what the sensors see: x, and labels y if they are known
"""

from __future__ import annotations

import atexit
import hashlib
import json
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from .. import store
from ..checks import check
from ..runs import atomic
from .messages import VERSION
from .payload import packed_bytes

if TYPE_CHECKING:  # the coder's library is loaded where something is coded
    from .coding import SpikeModel

#: As many parts as an answer has bits for.
MOST_PARTS = 64


@dataclass(frozen=True)
class Plan:
    """What a server has to know beside its module.

    Attributes:
        shapes: (C, H, W) of each part's spikes.
        time_steps: T.
        deadline: seconds that a sample may wait for its parts.
        in_flight: samples that are assembled at once, at most; features of one part may open an equal share of them.
        emits: height of a spike of each part; all 1 by default.
        first_steps: time steps that devices send at first; 0 means all T.
        confidence: with ``first_steps``: the highest class probability from which no further steps are asked for.
        codes: of each part the description of a :class:`snnbook.link.coding.SpikeModel`, with which its spikes may
            be range-coded, or ``None``; none by default.
        fleet: of :func:`fleet_id`; parts with another one are refused.
        version: of the protocol.

    Raises:
        ValueError: if anything is out of range.
    """

    shapes: tuple[tuple[int, int, int], ...]
    time_steps: int
    deadline: float = 1.0
    in_flight: int = 64
    emits: tuple[float, ...] = ()
    first_steps: int = 0
    confidence: float = 1.0
    codes: tuple[dict | None, ...] = ()
    fleet: int = 0
    version: int = VERSION

    def __post_init__(self):
        object.__setattr__(self, "shapes", tuple(tuple(s) for s in self.shapes))
        object.__setattr__(self, "emits", tuple(self.emits) or (1.0,) * len(self.shapes))
        check("version", self.version, self.version == VERSION, f"{VERSION}, what this side speaks")
        check("parts", len(self.shapes), 1 <= len(self.shapes) <= MOST_PARTS, f"1 to {MOST_PARTS}")
        for s in self.shapes:
            check("shape", s, len(s) == 3 and all(1 <= n < 2**16 for n in s), "(C, H, W), each 1 to 65535")
        check("time_steps", self.time_steps, 1 <= self.time_steps < 2**16, "1 to 65535")
        check("deadline", self.deadline, self.deadline > 0, "a positive number of seconds")
        check("in_flight", self.in_flight, self.in_flight >= 1, "at least 1")
        object.__setattr__(self, "codes", tuple(self.codes) or (None,) * len(self.shapes))
        check("codes", len(self.codes), len(self.codes) == len(self.shapes), "one code or None for each part")
        check("emits", self.emits, len(self.emits) == len(self.shapes), "one height for each part")
        check("first_steps", self.first_steps, 0 <= self.first_steps <= self.time_steps, f"0 to {self.time_steps}")
        check("confidence", self.confidence, 0 <= self.confidence <= 1, "0 to 1")

    @property
    def steps_at_first(self) -> int:
        """Time steps that devices send without being asked for more."""
        return self.first_steps or self.time_steps

    @property
    def in_flight_each(self) -> int:
        """Samples that features of one part may open: its equal share, at least one."""
        return max(1, self.in_flight // len(self.shapes))

    def payload_bytes(self) -> list[int]:
        """Packed bytes of each part for all T steps."""
        return [packed_bytes((self.time_steps, *s)) for s in self.shapes]


def fleet_folder(path: str = "") -> Path:
    """The folder ``path``, or if that is empty a new one that is removed when this process ends, killed or not."""
    if path:
        return Path(path)
    made = tempfile.mkdtemp(prefix="snnbook-fleet-")
    _remove_afterwards(made)
    return Path(made)


def _remove_afterwards(folder: str) -> None:
    """Let a shell wait for the end of this process and then remove ``folder``.

    Functions of ``atexit`` would not do: Jupyter kills a kernel that has used a fleet, since the helpers of
    ``multiprocessing`` stay in its process group until it ends. The shell is in a session of its own.
    """
    remove = ["sh", "-c", 'read -r _; rm -rf -- "$0"', folder]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    shell = subprocess.Popen(remove, stdin=subprocess.PIPE, start_new_session=True, **quiet)
    atexit.register(shell.communicate, b"\n")  # at an ordinary end it is told, and waited for


def write_plan(folder: Path | str, plan: Plan) -> None:
    """Write ``fleet.json``, whole or not at all."""
    with atomic(Path(folder) / "fleet.json") as part:
        part.write_text(json.dumps(asdict(plan), indent=2) + "\n", encoding="utf-8")


def read_plan(folder: Path | str) -> Plan:
    """Read ``fleet.json``.

    Raises:
        FileNotFoundError: if there is none.
        ValueError: if it is no plan; it is named.
    """
    path = Path(folder) / "fleet.json"
    try:
        return Plan(**json.loads(path.read_text(encoding="utf-8")))
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path} is no plan of a fleet: {error}") from error


def fleet_id(modules: Sequence[nn.Module]) -> int:
    """52 bits that say which weights belong together; every file of a fleet holds them."""
    found = "".join(store.digest(store.weights(m)) for m in modules)
    return int(hashlib.sha256(found.encode()).hexdigest()[:13], 16)


def read_server(folder: Path | str, plan: Plan) -> nn.Module:
    """The module of ``server.safetensors``.

    Raises:
        FileNotFoundError: if there is none.
        ValueError: if it is damaged, a device's file, or belongs to another fleet than ``plan``; it is named.
    """
    path = Path(folder) / "server.safetensors"
    module, about = store.load(path)
    check(str(path), f"part {about.get('part')}", about.get("part") == "server", "the file of a server")
    fits = about.get("fleet") == plan.fleet
    check(str(path), f"fleet {about.get('fleet')}", fits, f"fleet {plan.fleet}, that of fleet.json")
    return module


def part_file(folder: Path | str, part: int) -> Path:
    """File of device ``part``."""
    return Path(folder) / f"part_{part}.safetensors"


def write_fleet(
    folder: Path | str,
    parts: Sequence[nn.Module],
    server: nn.Module,
    samples: Tensor,
    *,
    labels: Tensor | None = None,
    emits: Sequence[float] | None = None,
    codes: Sequence[SpikeModel | None] | None = None,
    about: dict | None = None,
    **plan,
) -> Plan:
    """Write everything that a fleet needs into one folder.

    Args:
        folder: is made if need be; files of the same names are replaced.
        parts: device parts: a sample [1, C, H, W] or events [T, 1, C, H, W] to spikes [T, 1, C', H', W'].
        server: the server part: a list of such spikes or ``None`` to logits [T, 1, K].
        samples: what the sensors see, [n, C, H, W] or events [n, T, C, H, W], float32.
        labels: [n], for whoever measures accuracy; no process of the fleet reads them.
        emits: height of a spike of each part, 1 by default.
        codes: of each part a model of its spikes, to send them range-coded; packed by default.
        about: goes into every module's file.
        plan: further fields of :class:`Plan`: deadline, in_flight, first_steps, confidence.

    Returns:
        The plan; shapes and T come from what the parts make of the first sample.

    Raises:
        ValueError: for modules that cannot be stored, or parts that disagree about T.
    """
    folder, emits = Path(folder), tuple(emits or (1.0,) * len(parts))
    check("samples", tuple(samples.shape), samples.ndim in (4, 5) and len(samples), "[n, C, H, W] or [n, T, C, H, W]")
    with torch.no_grad():
        found = [tuple(part.eval()(as_sample(samples[0])).shape) for part in parts]
    steps = {shape[0] for shape in found}
    check("time steps of parts", sorted(steps), len(steps) == 1, "the same of every part")
    described = [None if code is None else code.describe() for code in codes or (None,) * len(parts)]
    shared = {"fleet": fleet_id([*parts, server])}
    made = Plan(tuple(s[2:] for s in found), steps.pop(), emits=emits, codes=tuple(described), **shared, **plan)
    for i, (part, emit, code) in enumerate(zip(parts, emits, described, strict=True)):
        store.save(part_file(folder, i), part, (about or {}) | shared | {"part": i, "emit": emit, "code": code})
    store.save(folder / "server.safetensors", server, (about or {}) | shared | {"part": "server"})
    with atomic(folder / "samples.safetensors") as path:
        known = {} if labels is None else {"y": labels.contiguous()}
        save_file({"x": samples.float().contiguous()} | known, path)
    write_plan(folder, made)
    return made


def as_sample(row: Tensor) -> Tensor:
    """A row of the sensor's file as a batch of one: [1, C, H, W] of an image, [T, 1, C, H, W] of events."""
    return row.unsqueeze(1) if row.ndim == 4 else row.unsqueeze(0)


class Sensor:
    """Rows of a samples file, read one at a time.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is none of :func:`write_fleet`; it is named.
    """

    def __init__(self, path: Path | str):
        if not Path(path).is_file():
            raise FileNotFoundError(f"no file {path}")
        try:
            self._rows = safe_open(path, "pt").get_slice("x")
            self.shape = tuple(self._rows.get_shape())
            check("x", self.shape, len(self.shape) in (4, 5), "[n, C, H, W] or [n, T, C, H, W]")
        except (SafetensorError, ValueError) as error:
            raise ValueError(f"{path} holds no samples ({error})") from error

    def __len__(self) -> int:
        return self.shape[0]

    def __call__(self, index: int) -> Tensor:
        """Sample ``index`` as a batch of one; ValueError outside the file."""
        check("sample", index, 0 <= index < len(self), f"0 to {len(self) - 1}")
        return as_sample(self._rows[index].clone())


def read_labels(path: Path | str) -> Tensor | None:
    """Labels [n] of a samples file, or of the one in a folder; ``None`` if they are not known.

    Raises:
        ValueError: if they are not one for each sample.
    """
    path = Path(path)
    with safe_open(path / "samples.safetensors" if path.is_dir() else path, "pt") as file:
        if "y" not in file.keys():  # noqa: SIM118
            return None
        y, n = file.get_tensor("y"), file.get_slice("x").get_shape()[0]
    check("labels", tuple(y.shape), tuple(y.shape) == (n,), f"({n},), one for each sample")
    return y
