"""Trained networks by content: the same network, data, recipe and code are trained once and shared."""

from __future__ import annotations

import hashlib
import io
import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import cache
from pathlib import Path
from types import CodeType, FunctionType

import pandas as pd
import torch
from filelock import FileLock
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from . import sources
from .checks import check
from .data import Data
from .neurons import spiking_layers
from .runs import NETWORKS, UsedNetwork, atomic, build_dir
from .train import Recipe, fit

_PACKAGE = Path(__file__).parent

#: The modules that decide what a training makes of a network and its data (its structure and first weights are
#: part of the key themselves); spiking networks add those of their neurons.
TRAINING_CODE = ("train", "evaluate", "network", "quantise", "augment", "data/core", "fold")
SPIKING_CODE = ("neurons", "kernels")

#: Packages whose layers a key knows by this package's code or PyTorch's version; see :func:`foreign_code` for others.
_KNOWN = ("builtins", _PACKAGE.name, "torch", "torchvision", "spikingjelly")


def cache_folder() -> Path:
    """Where trained networks are kept: the environment's SNNBOOK_CACHE, else ``_build/networks``."""
    return Path(os.environ["SNNBOOK_CACHE"]) if os.environ.get("SNNBOOK_CACHE") else build_dir("networks")


def kept_table(parts: Sequence, make: Callable[[], pd.DataFrame]) -> pd.DataFrame:
    """A table that takes long to make: from the cache's folder, or made and kept there, whole or not at all.

    Networks that ``make`` was the first of its process to use count as used by everybody who takes the table.

    Args:
        parts: all that the table depends on, code included (:func:`code_hash`), as JSON can hold it.
        make: makes it; its cells are what CSV can hold, its index is not kept.

    Raises:
        ValueError: for a damaged file, with its name; it is left alone.
    """
    path = cache_folder() / f"{hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:24]}.csv"
    if not path.exists():
        _make_and_keep(make, path)
    head, _, content = path.read_bytes().partition(b"\n")
    if head.decode(errors="replace") != f"# sha256 {hashlib.sha256(content).hexdigest()}":
        raise ValueError(f"{path} is damaged (its sha256 is another): remove it, and it will be made again")
    used, _, table = content.partition(b"\n")
    for name, seconds in json.loads(used).items():
        NETWORKS.setdefault(name, UsedNetwork(True, seconds))
    return pd.read_csv(io.BytesIO(table), encoding="utf-8")


def _make_and_keep(make: Callable[[], pd.DataFrame], path: Path) -> None:
    known = set(NETWORKS)
    table = make().to_csv(index=False, lineterminator="\n").encode()
    used = {name: network.seconds for name, network in NETWORKS.items() if name not in known}
    content = json.dumps(used).encode() + b"\n" + table
    with atomic(path) as part:
        part.write_bytes(f"# sha256 {hashlib.sha256(content).hexdigest()}\n".encode() + content)


@cache
def code_hash(modules: tuple[str, ...]) -> str:
    """sha256 over what ``modules`` of this package do; comments, docstrings and layout do not count.

    Raises:
        FileNotFoundError: for a module that is not there.
        ValueError: if a file has changed since this process started, which runs the old code.
    """
    return hashlib.sha256("\n".join(map(sources.running, modules)).encode()).hexdigest()


def layer_code(net: nn.Module) -> tuple[str, ...]:
    """Modules of this package that define layers of ``net``, but for those that belong to every key anyway."""
    classes = {cls for m in net.modules() for cls in type(m).__mro__ if _top(cls) == _PACKAGE.name}
    files = {Path(sys.modules[cls.__module__].__file__) for cls in classes}
    names = {file.relative_to(_PACKAGE).with_suffix("").as_posix() for file in files}
    return tuple(sorted(names - {*TRAINING_CODE, *SPIKING_CODE}))


def _top(cls: type) -> str:
    return cls.__module__.partition(".")[0]


def _constant(value: object) -> str:
    """Code and constants as text that is the same in every process; of any other value the name of its type."""
    if isinstance(value, FunctionType):
        around = getattr(value, "__wrapped__", None)
        return _constant((value.__code__, value.__defaults__, value.__kwdefaults__, around))
    if isinstance(value, CodeType):
        return _constant((value.co_code, value.co_names, value.co_consts))
    if isinstance(value, classmethod | staticmethod):
        return _constant(value.__func__)
    if isinstance(value, property):
        return _constant((value.fget, value.fset))
    if isinstance(value, dict):
        return str([(name, _constant(value[name])) for name in sorted(value, key=str)])
    if isinstance(value, tuple | list | set | frozenset):
        parts = [_constant(v) for v in value]
        return str(sorted(parts) if isinstance(value, set | frozenset) else parts)
    return repr(value) if isinstance(value, int | float | complex | str | bytes | None) else type(value).__qualname__


def foreign_code(net: nn.Module) -> str:
    """Code and constants of the layers that are defined elsewhere: in a notebook, or in a package of the user's.

    The functions and constants of their classes, docstrings included, and the constants of each layer. What those
    functions call is not looked at. "" without such layers.
    """
    found = set()
    for layer in net.modules():
        for cls in (cls for cls in type(layer).__mro__ if _top(cls) not in _KNOWN):
            own = {n: v for n, v in vars(cls).items() if not n.startswith("__") or isinstance(v, FunctionType)}
            held = {n: v for n, v in vars(layer).items() if not n.startswith("_") and n != "training"}
            found.add(_constant((cls.__qualname__, own, held)))
    return "\n".join(sorted(found))


def state_hash(net: nn.Module) -> str:
    """sha256 over the names, shapes and bytes of every parameter and buffer."""
    return _digest(net.state_dict())


def _digest(state: dict[str, Tensor]) -> str:
    digest = hashlib.sha256()
    for name, value in state.items():
        array = value.detach().cpu().contiguous().numpy()
        digest.update(f"{name}{array.dtype}{array.shape}".encode() + array.tobytes())
    return digest.hexdigest()


def key(net: nn.Module, data: Data, recipe: Recipe) -> str:
    """Name of a trained network: what goes in (structure, weights, data, recipe) and the code that trains."""
    trainable = [name for name, p in net.named_parameters() if p.requires_grad]
    parts = [
        repr(net),
        str(getattr(net, "time_steps", None)),
        str(trainable),
        state_hash(net),
        data.fingerprint,
    ]
    parts += [data.kind, str(data.mean.tolist()), str(data.std.tolist())]
    parts += [json.dumps(asdict(recipe), sort_keys=True), torch.__version__]
    parts += [code_hash(TRAINING_CODE + (SPIKING_CODE if spiking_layers(net) else ()) + layer_code(net))]
    parts += [foreign_code(net)]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:24]


def _load(net: nn.Module, path: Path) -> pd.DataFrame:
    try:
        with safe_open(path, "pt") as file:
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            about = file.metadata()
        digest, history = about["state"], json.loads(about["history"])
        seconds = json.loads(about.get("seconds", "null"))
        found = _digest({name: state[name] for name in net.state_dict()})
        check("state", found[:12], found == digest, f"{digest[:12]}… as when it was written")
        net.load_state_dict(state)
    except (SafetensorError, RuntimeError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path} is damaged ({error}); remove it and the network is trained again") from error
    NETWORKS.setdefault(path.stem, UsedNetwork(True, seconds))  # one that this run trained itself stays so
    return pd.DataFrame(history)


def trained(
    net: nn.Module, data: Data, recipe: Recipe, *, folder: Path | None = None, device: str = "auto"
) -> pd.DataFrame:
    """Give ``net`` its trained weights: from the cache, or by training now, which goes on after a kill.

    Of several processes that ask for the same network at once, one trains and the others wait for it; those that
    ``torchrun`` started train it together, and the first of them keeps it.

    Args:
        net: the network at its start; changed in place, left in eval mode.
        data: data set.
        recipe: how to train.
        folder: cache folder; :func:`cache_folder` by default.
        device: auto, cpu or cuda.

    Returns:
        The history of :func:`snnbook.train.fit`.

    Raises:
        ValueError: if a cached file is damaged; it is named and left alone.
    """
    folder = folder or cache_folder()
    name = key(net, data, recipe)
    path = folder / f"{name}.safetensors"
    folder.mkdir(parents=True, exist_ok=True)
    if not path.exists() and _together():  # a lock would keep apart what Fabric brings together
        return _train_and_keep(net, data, recipe, path, device)
    if not path.exists():
        lock = path.with_suffix(".lock")
        with FileLock(lock):
            try:
                if not path.exists():
                    return _train_and_keep(net, data, recipe, path, device)
            finally:  # a new lock of somebody who comes between finds the network, or trains it
                lock.unlink(missing_ok=True)
    history = _load(net, path)
    net.eval()
    return history


def _together() -> bool:
    """Whether ``torchrun`` started this process and others."""
    return int(os.environ.get("WORLD_SIZE", 1)) > 1


def _train_and_keep(net: nn.Module, data: Data, recipe: Recipe, path: Path, device: str) -> pd.DataFrame:
    checkpoint, started = path.with_suffix(".checkpoint"), time.monotonic()
    goes_on = checkpoint.exists()  # a killed process took time that nobody counted
    history = fit(net, data, recipe, checkpoint=checkpoint, device=device)
    seconds = None if goes_on else round(time.monotonic() - started, 1)
    NETWORKS[path.stem] = UsedNetwork(False, seconds)
    if int(os.environ.get("RANK", 0)) == 0 or not _together():
        _keep(net, history, seconds, path)
    if _together():
        torch.distributed.barrier()
    return history


def _keep(net: nn.Module, history: pd.DataFrame, seconds: float | None, path: Path) -> None:
    checkpoint, state = path.with_suffix(".checkpoint"), {k: v.contiguous() for k, v in net.state_dict().items()}
    with atomic(path) as part:
        about = {"history": json.dumps(history.to_dict("records")), "state": state_hash(net)}
        about["seconds"] = json.dumps(seconds)
        save_file(state, part, metadata=about)
    for left in (checkpoint, *path.parent.glob(f"{path.stem}.*.part")):  # parts of processes killed while they wrote
        left.unlink(missing_ok=True)
