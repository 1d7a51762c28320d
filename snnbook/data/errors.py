"""What can be wrong with a data set on disk: a part is missing, or a file is damaged."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from pathlib import Path


class MissingData(FileNotFoundError):
    """A data set, or a part of it, is not where it is expected; says what belongs where and how to get it."""


class DamagedFile(ValueError):
    """A file is not what it should be; says what was expected and what found. The file is left alone."""


def missing(name: str, expected: str | os.PathLike, how: str) -> MissingData:
    """The error for set ``name`` of which ``expected`` (a path) is not there; ``how`` tells how to get it."""
    return MissingData(f"data set {name!r}: expected {expected}, which is not there. {how}")


def md5(path: str | os.PathLike) -> str:
    """MD5 of a file as 32 hex digits, read in pieces."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


def damaged(path: str | os.PathLike, expected: str) -> DamagedFile:
    """The error for a file which should have been ``expected`` (a checksum, or a format in words)."""
    return DamagedFile(
        f"{path} is damaged: expected {expected}, found md5 {md5(path)}. "
        "The file was left as it is; fetch or write it again."
    )


def check_md5(path: str | os.PathLike, expected: str) -> None:
    """Compare a file with its published MD5.

    Raises:
        DamagedFile: naming file, expected and found checksum.
    """
    if md5(path) != expected:
        raise damaged(path, f"md5 {expected}")


def check_files(
    name: str, folder: Path, files: Iterable[tuple[str, str]], how: str, missing_ok: bool = False
) -> None:
    """Check that ``files`` (name, MD5) lie in ``folder``; a damaged file counts before a missing one.

    Raises:
        DamagedFile: for a file with another checksum.
        MissingData: for the first file that is not there, unless ``missing_ok``.
    """
    files = list(files)
    for file, checksum in files:
        if (folder / file).is_file():
            check_md5(folder / file, checksum)
    for file, _ in files:
        if not missing_ok and not (folder / file).is_file():
            raise missing(name, folder / file, how)
