"""Fields of a notebook's parameters: what is allowed, one line of help, and a frozen dataclass that holds them to it.

papermill injects whatever it is given, so the cell after ``parameters`` reads the values back through
:meth:`Params.read`, which raises ``ValueError`` with name, value and allowed range.
"""

from __future__ import annotations

import dataclasses
import re
import types
import typing
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar

import yaml
from IPython.display import Markdown, display

from .checks import check, check_choice


class _Loader(yaml.SafeLoader):
    """YAML 1.1 takes 1e-4, without a point, for a string; here it is a number."""


_Loader.add_implicit_resolver("tag:yaml.org,2002:float", re.compile(r"[-+]?\d+[eE][-+]?\d+$"), list("-+0123456789"))


def read_yaml(text: str, name: str = "parameters") -> object:
    """YAML as the command line takes it; ValueError with ``name`` for what is none."""
    try:
        return yaml.load(text, _Loader)
    except yaml.YAMLError as error:
        raise ValueError(f"{name} = {text!r} is not allowed: YAML ({' '.join(str(error).split())})") from error


#: What a page shows where a claim of its text does not hold for the networks that were trained for it.
CLAIM_FAILS = (
    "> **Different here.** The networks of this page were trained on the machine that built it. Its numbers were "
    "rounded otherwise, and not all that the text around here says of them holds. Tables and figures are its own."
)


def field(default: Any, help: str, *, low=None, high=None, choices=None) -> Any:
    """A parameter: its default, one line of help and what is allowed (bounds inclusive, for each element of a list).

    ``choices`` may be a function that gives them.
    """
    meta = {"help": help, "low": low, "high": high, "choices": choices}
    if isinstance(default, list):
        return dataclasses.field(default_factory=lambda: list(default), metadata=meta)
    return dataclasses.field(default=default, metadata=meta)


def _cast(name: str, value: Any, kind: Any) -> Any:
    """Return ``value`` as ``kind`` (int, float, str, bool, list[...]); a float takes an int, nothing else is bent."""
    if typing.get_origin(kind) is list:
        check(
            name,
            value,
            isinstance(value, list | tuple) and len(value) > 0,
            "a list with at least one element",
        )
        return [_cast(f"{name}[{i}]", v, typing.get_args(kind)[0]) for i, v in enumerate(value)]
    if typing.get_origin(kind) in (types.UnionType, typing.Union):
        if value is None:
            return None
        kind = next(k for k in typing.get_args(kind) if k is not type(None))
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    ok = isinstance(value, kind) and not (kind in (int, float) and isinstance(value, bool))
    check(name, value, ok, f"a value of type {kind.__name__}")
    return value


def _check_range(name: str, value: Any, low, high, choices) -> None:
    """Hold one value, or each element of a list, against its bounds and choices."""
    if isinstance(value, list):
        for i, v in enumerate(value):
            _check_range(f"{name}[{i}]", v, low, high, choices)
    elif value is not None:
        if choices is not None:
            check_choice(name, value, choices() if callable(choices) else choices)
        allowed = f"at least {low}" if high is None else f"at most {high}" if low is None else f"{low} to {high}"
        inside = (low is None or value >= low) and (high is None or value <= high)
        check(name, value, inside, allowed)


@dataclass(frozen=True)
class Params:
    """Base of every notebook's parameters; subclasses name their ``notebook`` and add fields."""

    notebook: ClassVar[str] = ""

    def __post_init__(self) -> None:
        hints = typing.get_type_hints(type(self))
        for f in dataclasses.fields(self):
            value = _cast(f.name, getattr(self, f.name), hints[f.name])
            object.__setattr__(self, f.name, value)
            _check_range(f.name, value, f.metadata["low"], f.metadata["high"], f.metadata["choices"])

    @classmethod
    def read(cls, namespace: Mapping[str, Any]) -> Params:
        """Build the parameters from a notebook's ``globals()``.

        Raises:
            ValueError: for a value of the wrong type or out of range (name, value, what is allowed).
            KeyError: if the notebook does not define one of the names.
        """
        return cls(**{f.name: namespace[f.name] for f in dataclasses.fields(cls)})

    @classmethod
    def help(cls) -> dict[str, str]:
        """Name to help text of every parameter."""
        return {f.name: f.metadata["help"] for f in dataclasses.fields(cls)}

    def as_printed(self) -> bool:
        """Whether every value is the default, folders, device and seed aside: what the prose speaks of holds then."""
        free = ("out_dir", "data_dir", "device", "seed")
        default = type(self)()
        return all(getattr(self, n) == getattr(default, n) for n in self.help() if n not in free)

    @contextmanager
    def claims(self) -> Iterator[None]:
        """For a block of assertions: what the text says of trained networks, where all values are as printed.

        Another processor or another number of threads rounds otherwise, and training ends elsewhere. Where a claim does
        not hold then, the page says so at that place, and goes on. With other parameters nothing is claimed.

        Raises:
            NameError, TypeError, AttributeError: for a mistake in the block, where all values are as printed.
        """
        try:
            yield
        except (AssertionError, LookupError, ValueError):
            if self.as_printed():
                display(Markdown(CLAIM_FAILS))
        except Exception:
            if self.as_printed():
                raise

    def asdict(self) -> dict[str, Any]:
        """Plain dictionary of names to values, as written to ``run.json``."""
        return dataclasses.asdict(self)


def out_dir_field() -> Any:
    """The common parameter ``out_dir``."""
    return field("", "folder for the tables and run.json; empty means a default below _build/runs")


def seed_field() -> Any:
    """The common parameter ``seed``."""
    return field(0, "seed of every random generator", low=0, high=2**31 - 1)


def device_field() -> Any:
    """The common parameter ``device``."""
    return field("auto", "where to compute: auto or cpu or cuda", choices=("auto", "cpu", "cuda"))


def repeats_field(default: int = 1) -> Any:
    """The common parameter ``repeats``."""
    return field(default, "networks trained from scratch with seeds counted up from seed", low=1, high=100)


def data_dir_field() -> Any:
    """The common parameter ``data_dir``."""
    return field("", "folder of the data set; empty means the environment variable SNNBOOK_DATA or a user folder")


def fleet_dir_field() -> Any:
    """The common parameter ``fleet_dir``."""
    return field("", "folder that keeps the files of the processes; empty means a temporary one")
