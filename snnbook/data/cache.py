"""Features that take long to compute (spectrograms, event frames) are kept beside the data they come from."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np

from ..sources import NOTED


def _code() -> str:
    """Digest of the loaders that this process runs, so that features of another version are not taken for theirs."""
    return json.dumps({module: digest for module, digest in NOTED.items() if module.startswith("data/")})


def cached(
    folder: Path, name: str, files: Sequence[Path], options: dict, make: Callable[[], np.ndarray]
) -> np.ndarray:
    """What ``make`` returns, computed once for the same files (path, size, time of change), options and code.

    The array lies in ``folder``/snnbook-cache and is mapped, not read, when it is there. A folder that cannot
    be written to, or a damaged cache file, only means that it is computed again.
    """
    state = [(str(f), f.stat().st_size, f.stat().st_mtime_ns) for f in files]
    key = hashlib.sha256(json.dumps([options, state, _code()]).encode()).hexdigest()[:16]
    path = folder / "snnbook-cache" / f"{name}-{key}.npy"
    with suppress(OSError, ValueError, EOFError):
        return np.load(path, mmap_mode="r")
    x = make()
    with suppress(OSError):
        path.parent.mkdir(exist_ok=True)
        part = path.with_suffix(f".{os.getpid()}.part")
        try:
            with open(part, "wb") as file:
                np.save(file, x)
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)
    return x
