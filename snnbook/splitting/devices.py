"""Devices as small TOML profiles: what each has, what each operation costs on it, and where every figure comes from.

Energy figures are those of whole boards, not of arithmetic units: 10 nJ a MAC on a Raspberry Pi against 4.6 pJ for
the arithmetic alone (45 nm). A profile is a name and a table ``value``, ``source`` for each figure.
"""

from __future__ import annotations

import math
import tomllib
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path

import pandas as pd

from ..checks import check, check_choice

_FOLDER = Path(__file__).parent.parent / "profiles"

#: Figures of a profile and their units; ``ac_rate`` may be left out where it is that of MACs.
UNITS = {
    "memory": "byte",
    "energy_budget": "J/sample",
    "mac_rate": "MAC/s",
    "ac_rate": "AC/s",
    "link_rate": "bit/s",
    "joules_per_mac": "J/MAC",
    "joules_per_ac": "J/AC",
    "joules_per_bit": "J/bit",
}


@dataclass(frozen=True)
class Device:
    """One edge device.

    Attributes:
        name: unique in a fleet.
        memory: bytes that a model may take.
        energy_budget: joules that one sample may cost, transmission included.
        mac_rate: multiply–accumulates a second.
        ac_rate: accumulates a second.
        link_rate: bits a second to the server.
        joules_per_mac, joules_per_ac, joules_per_bit: energy of one operation or one bit sent.
        skips_zeros: whether an input of zero costs nothing (event-driven hardware); a dense processor multiplies it.
        title: name for readers.
        sources: figure → where it comes from.
    """

    name: str
    memory: float
    energy_budget: float
    mac_rate: float
    ac_rate: float
    link_rate: float
    joules_per_mac: float
    joules_per_ac: float
    joules_per_bit: float
    skips_zeros: bool = False
    title: str = ""
    sources: dict[str, str] = field(default_factory=dict, compare=False, repr=False)

    def __post_init__(self) -> None:
        for figure in UNITS:
            value = getattr(self, figure)
            number = isinstance(value, int | float) and not isinstance(value, bool)
            free = figure.startswith("joules")  # only energies may be zero
            good = number and not math.isnan(value) and (value >= 0 if free else value > 0)
            check(f"{self.name}: {figure}", value, good, f"a {'number of at least 0' if free else 'positive number'}")
        check(f"{self.name}: skips_zeros", self.skips_zeros, isinstance(self.skips_zeros, bool), "true or false")


def profiles() -> list[str]:
    """Names of the profiles that come with the package."""
    return sorted(p.stem for p in _FOLDER.glob("*.toml"))


def _file(profile: str | Path) -> Path:
    """The file of a profile: a path that ends in .toml, or a name of :func:`profiles`."""
    if Path(profile).suffix == ".toml":
        check("profile", str(profile), Path(profile).is_file(), "an existing file")
        return Path(profile)
    known = f"one of {', '.join(profiles())}, or the path of a .toml file"
    check("profile", str(profile), profile in profiles(), known)
    return _FOLDER / f"{profile}.toml"


def _figure(file: str, name: str, entry: object) -> tuple[float, str]:
    """Value and source of one figure of a profile."""
    check(f"{file}: {name}", entry, isinstance(entry, dict), "a table with value and source")
    check(f"{file}: {name}", sorted(entry), set(entry) == {"value", "source"}, "a table with value and source, no more")
    source = entry["source"]
    check(f"{file}: source of {name}", source, isinstance(source, str) and bool(source.strip()), "where it comes from")
    return entry["value"], source


def device(profile: str | Path) -> Device:
    """Read one profile.

    Args:
        profile: a name of :func:`profiles`, or the path of a .toml file.

    Raises:
        ValueError: for an unknown profile, a file that is no TOML, an unknown or missing figure, a figure without
            source, or a value that cannot be.
    """
    path = _file(profile)
    try:
        given = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is no profile: {error}") from error
    title, skips = given.pop("name", path.stem), given.pop("skips_zeros", False)
    given.setdefault("ac_rate", given.get("mac_rate"))
    for name in given:
        check_choice(f"{path.name}: figure", name, UNITS)
    missing = [name for name in UNITS if given.get(name) is None]
    check(f"{path.name}: missing figures", missing, not missing, f"a profile has {', '.join(UNITS)}")
    read = {name: _figure(path.name, name, given[name]) for name in UNITS}
    values, sources = ({name: pair[i] for name, pair in read.items()} for i in (0, 1))
    return Device(path.stem, **values, skips_zeros=skips, title=title, sources=sources)


def kinds(profiles: Iterable[str | Path]) -> list[Device]:
    """The device of each profile, once, in the order of the list.

    Raises:
        ValueError: for an unknown profile, a file that is not there or no profile, or two files of one name.
    """
    found = [device(profile) for profile in dict.fromkeys(profiles)]
    names = [d.name for d in found]
    check("profiles", names, len(set(names)) == len(names), "files of different names, by which tables call devices")
    return found


def fleet(profile: str | Path | Iterable[str | Path], n: int) -> list[Device]:
    """``n`` devices, numbered from 1; a list of profiles is dealt out in turn.

    Raises:
        ValueError: for an unknown profile, no profile or fewer than one device.
    """
    check("n", n, n >= 1, "at least 1")
    kinds = [device(p) for p in ([profile] if isinstance(profile, str | Path) else profile)]
    check("profile", profile, bool(kinds), "at least one profile")
    return [replace(kinds[i % len(kinds)], name=f"{kinds[i % len(kinds)].name} {i + 1}") for i in range(n)]


def limited(devices: Iterable[Device], memory: float) -> list[Device]:
    """The same devices with at most ``memory`` bytes each, as when most of it is taken already."""
    return [replace(d, memory=min(d.memory, memory)) for d in devices]


def table(devices: Iterable[Device]) -> pd.DataFrame:
    """One row a device: ``device``, its figures and ``skips_zeros``."""
    return pd.DataFrame([{"device": d.name, **{f: getattr(d, f) for f in UNITS}, "skips_zeros": d.skips_zeros}
                         for d in devices])  # fmt: skip


def sources(profile: str | Path) -> pd.DataFrame:
    """Every figure of a profile: ``figure``, ``value``, ``unit``, ``source``."""
    d = device(profile)
    rows = [(f, getattr(d, f), unit, d.sources[f]) for f, unit in UNITS.items()]
    return pd.DataFrame(rows, columns=["figure", "value", "unit", "source"])
