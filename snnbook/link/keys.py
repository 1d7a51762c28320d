"""Keys for links beyond one machine: CurveZMQ, each side with its own key pair and the other's public key.

``make_keys`` makes one folder for each machine, to be carried there by hand:

    server/own.key_secret   server/clients/NAME.key      for the server: who may come in
    NAME/own.key_secret     NAME/server.key              for one device or client

What a key proves: to the server, that a connection is that of the machine NAME; to the others, that they talk to the
server. The name says what its holder may be: part_0 is device 0 and no other, and a name that is no part's is a client.
Whoever is let in may ask for samples and for the status. A key does not prove that spikes are honest, nor who carried
the folder: whoever has a copy of it is that machine.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import zmq.auth

from ..checks import check


def make_keys(folder: Path | str, names: list[str]) -> Path:
    """New key pairs for a server and for each of ``names``.

    Args:
        folder: a folder that does not exist yet.
        names: part_0, part_1, ... for devices, anything else for clients, such as client.

    Returns:
        ``folder``, which only its owner can enter.

    Raises:
        ValueError: if ``folder`` exists, or a name is no plain file name or taken.
    """
    folder = Path(folder)
    check("folder", str(folder), not folder.exists(), "a folder that does not exist yet")
    for name in names:
        check("name", name, name.isidentifier() and name != "server" and names.count(name) == 1, "a plain, new name")
    folder.mkdir(0o700, parents=True)  # first: the secret keys in it are written with the modes of other files
    for name in ("server", *names):
        (folder / name).mkdir(0o700)
        zmq.auth.create_certificates(folder / name, "own")
        (folder / name / "own.key_secret").chmod(0o600)
    (folder / "server" / "clients").mkdir(0o700)
    for name in names:
        shutil.move(folder / name / "own.key", folder / "server" / "clients" / f"{name}.key")
        shutil.copy(folder / "server" / "own.key", folder / name / "server.key")
    (folder / "server" / "own.key").unlink()
    return folder


def _load(path: Path) -> tuple[bytes, bytes | None]:
    try:
        return zmq.auth.load_certificate(path)
    except (OSError, ValueError) as error:
        raise ValueError(f"keys = {str(path.parent)!r} is not allowed: a folder of make_keys ({error})") from error


def own_keys(folder: Path | str) -> tuple[bytes, bytes]:
    """Public and secret key of the machine that ``folder`` was made for (ValueError if there are none)."""
    public, secret = _load(Path(folder) / "own.key_secret")
    check("secret key", secret, secret is not None, f"in {folder}/own.key_secret")
    return public, secret


def server_key(folder: Path | str) -> bytes:
    """The server's public key, from a device's or client's folder (ValueError if it is not there)."""
    return _load(Path(folder) / "server.key")[0]


def allowed_clients(folder: Path | str) -> Path:
    """Folder with the public keys of those who may connect to the server (ValueError if there is none)."""
    path = Path(folder) / "clients"
    check("keys", str(folder), path.is_dir(), "the server's folder of make_keys")
    return path


def client_names(folder: Path | str) -> dict[bytes, str]:
    """Public key → name of those who may connect to the server (ValueError as of :func:`allowed_clients`)."""
    return {_load(path)[0]: path.stem for path in allowed_clients(folder).glob("*.key")}


def may_be(name: str | None, part: int) -> bool:
    """Whether the holder of the key ``name`` may speak for device ``part``; without keys (``None``) anybody may."""
    return name is None or name == f"part_{part}"
