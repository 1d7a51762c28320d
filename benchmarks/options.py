"""Options of a benchmark's command line: one for each field of its parameters, read as YAML."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import fields
from typing import TypeVar

import yaml

from snnbook.fields import Params

Given = TypeVar("Given", bound=Params)


def read(cls: type[Given], module: str, text: str, argv: Sequence[str]) -> Given:
    """The parameters that ``argv`` gives: ``--devices "[1, 3]"``; those that it leaves out have their defaults.

    Args:
        cls: the class of the parameters.
        module: as ``python -m`` takes it.
        text: one line of help.
        argv: words of the command line.

    Raises:
        ValueError: for a value that is not allowed.
    """
    parser = argparse.ArgumentParser(prog=f"python -m {module}", description=text)
    for f in fields(cls):
        parser.add_argument(f"--{f.name}", type=yaml.safe_load, help=f.metadata["help"], default=argparse.SUPPRESS)
    return cls(**vars(parser.parse_args(argv)))
