"""Make the environment in .venv from requirements.txt and pyproject.toml, and only when they have changed.

Runs under any Python 3, so that a Python that is too old says so in one sentence: no f-strings, no
annotations, the standard library only. The stamp is written last, so an install that was cut short is done
again.
"""

import hashlib
import os
import shutil
import subprocess
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
OLDEST, NEWEST = (3, 11), (3, 14)
GIB = 1024**3
#: Disk for a new environment with its downloads, and for an update of one; torch for Linux brings CUDA.
NEW_BYTES = 10 * GIB if sys.platform.startswith("linux") else 4 * GIB
UPDATE_BYTES = 1 * GIB
#: For kernels of this environment: each says at its start that its loopback connection is not encrypted, which every
#: build would print dozens of times.
KERNEL_CONFIG = 'c.IPKernelApp.log_level = "ERROR"\n'
OFFLINE = (
    "after connection broken by",
    "NewConnectionError",
    "Failed to establish a new connection",
    "Temporary failure in name resolution",
    "Max retries exceeded",
    "Connection to ",
    "ConnectTimeoutError",
    "ReadTimeoutError",
    "ProxyError",
    "Network is unreachable",
)


def dotted(version):
    """Return (3, 11, 7) as "3.11"."""
    return "{}.{}".format(version[0], version[1])


def version_of(python):
    """(major, minor) of a Python executable, or None where it does not run."""
    code = "import sys; print(sys.version_info[0], sys.version_info[1])"
    try:
        out = subprocess.check_output([python, "-c", code], stderr=subprocess.DEVNULL)
        return tuple(int(n) for n in out.split())
    except (OSError, subprocess.CalledProcessError, ValueError):
        return None


def find_python(version=None, which=shutil.which, ask=version_of):
    """Return a Python that fits: this one, else the newest pythonX.Y on PATH that runs.

    Args:
        version: (major, minor) of the Python that runs this; None asks ``sys``.
        which, ask: how to look for a program and for its version.

    Raises:
        SystemExit: if none fits, with one sentence.
    """
    version = tuple(version or sys.version_info)[:2]
    if OLDEST <= version <= NEWEST:
        return sys.executable
    for minor in range(NEWEST[1], OLDEST[1] - 1, -1):
        path = which("python3.{}".format(minor))
        if path and ask(path) == (3, minor):
            return path
    raise SystemExit(
        "snnbook needs Python {} to {}, but python3 is {} and no other was found: install one, or name it "
        "with make PYTHON=/path/to/python.".format(dotted(OLDEST), dotted(NEWEST), dotted(version))
    )


def check_disk(free, need):
    """Refuse to start on a disk that is too full.

    Args:
        free, need: bytes.

    Raises:
        SystemExit: if ``free`` is below ``need``, with one sentence.
    """
    if free < need:
        raise SystemExit(
            "The disk is too full: the environment needs {:.0f} GB and {:.1f} GB are free here.".format(
                need / GIB, free / GIB
            )
        )


def explain(log, python_version=None):
    """One sentence for what pip's output ``log`` says went wrong."""
    if "No space left on device" in log or "Errno 28" in log:
        return "The disk is full: free some space (the environment takes about 10 GB), then run make again."
    if any(mark in log for mark in OFFLINE):
        return "No package index could be reached: connect to the network or set PIP_INDEX_URL, then try again."
    for line in log.splitlines():
        if "No matching distribution found for" in line:
            what = line.split("No matching distribution found for", 1)[1].strip()
            where = dotted(python_version or sys.version_info)
            return "The package index has no {} for Python {} on this machine.".format(what, where)
    return "pip could not install the environment."


def wanted(root):
    """Content hash of what the environment is made from, and where: an editable install names its folder."""
    digest = hashlib.sha256((root + KERNEL_CONFIG).encode())
    for name in ("requirements.txt", "pyproject.toml"):
        with open(os.path.join(root, name), "rb") as file:
            digest.update(file.read())
    return digest.hexdigest()


def read(path):
    """Text of a file, "" where there is none."""
    try:
        with open(path) as file:
            return file.read().strip()
    except (OSError, UnicodeDecodeError):
        return ""


def make_venv(python, venv):
    """Make an empty environment; SystemExit with one sentence where Python lacks the venv module."""
    done = subprocess.run([python, "-m", "venv", "--clear", venv], stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    if done.returncode:
        text = done.stdout.decode(errors="replace")
        if "No space left on device" in text:
            raise SystemExit(explain(text))
        raise SystemExit(
            "{} cannot make an environment: install its venv module "
            "(Debian and Ubuntu: apt install python3-venv).".format(python)
        )


def usable(venv):
    """Whether an environment is whole enough to update: no install was cut short, its Python fits and has pip."""
    python = os.path.join(venv, "bin", "python")
    if os.path.exists(os.path.join(venv, ".unfinished")) or not OLDEST <= (version_of(python) or (0, 0)) <= NEWEST:
        return False
    pip = [python, "-m", "pip", "--version"]
    return subprocess.call(pip, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) == 0


def refuse_another(asked, venv):
    """Refuse a Python that was asked for by name where the environment has another.

    Args:
        asked: its (major, minor).
        venv: folder of the environment.

    Raises:
        SystemExit: with one sentence that says how to have the other one.
    """
    has = version_of(os.path.join(venv, "bin", "python"))
    if has is not None and has != asked and OLDEST <= asked <= NEWEST:
        raise SystemExit(
            "PYTHON is {}, but the environment in .venv has Python {}: remove .venv, and make will "
            "make it anew.".format(dotted(asked), dotted(has))
        )


def install(python, root, log_path):
    """Install the requirements and snnbook itself; SystemExit with one sentence where that fails."""
    command = [
        python,
        "-m",
        "pip",
        "install",
        "--no-input",
        "--disable-pip-version-check",
        "--progress-bar",
        "off",
    ]
    command += ["-r", "requirements.txt", "-e", "."]
    try:
        with open(log_path, "wb") as log:
            code = subprocess.call(command, cwd=root, stdout=log, stderr=subprocess.STDOUT)
    except OSError as error:
        raise SystemExit(explain(str(error)))
    if code:
        with open(log_path, errors="replace") as log:
            text = log.read()
        raise SystemExit("{} (pip's words are in {})".format(explain(text, version_of(python)), log_path))


def configure(venv):
    """Write the settings of the environment's kernels."""
    folder = os.path.join(venv, "etc", "ipython")
    os.makedirs(folder, exist_ok=True)
    with open(os.path.join(folder, "ipython_kernel_config.py"), "w") as file:
        file.write(KERNEL_CONFIG)


def bootstrap(root, version=None, disk_usage=shutil.disk_usage, asked=False):
    """Bring ``root``/.venv up to date; does nothing where its stamp says that it is.

    Args:
        root: the repository's root.
        version: (major, minor) to take this Python for.
        disk_usage: as ``shutil.disk_usage``.
        asked: whether somebody named this Python, so that another one's environment will not do.

    Raises:
        SystemExit: with one sentence, for a Python too old or not that of .venv, no index, or a full disk.
    """
    venv = os.path.join(root, ".venv")
    stamp, unfinished = os.path.join(venv, ".stamp"), os.path.join(venv, ".unfinished")
    python = os.path.join(venv, "bin", "python")
    want = wanted(root)
    if asked:
        refuse_another(tuple(version or sys.version_info)[:2], venv)
    if read(stamp) == want and os.access(python, os.X_OK):
        return
    base = find_python(version)
    whole = usable(venv)
    check_disk(disk_usage(root).free, UPDATE_BYTES if whole else NEW_BYTES)
    log = os.path.join(venv, "install.log")
    print("Installing the environment in .venv: several minutes the first time.", flush=True)
    if not whole:
        make_venv(base, venv)
    open(unfinished, "w").close()
    install(python, root, log)
    configure(venv)
    os.remove(unfinished)
    with open(stamp, "w") as file:
        file.write(want)
    print("The environment is ready.", flush=True)


if __name__ == "__main__":
    try:
        bootstrap(ROOT, asked="--asked" in sys.argv[1:])
    except KeyboardInterrupt:
        raise SystemExit("Interrupted: run make again to finish the environment.")
    except OSError as error:
        raise SystemExit(explain(str(error)) if error.errno == 28 else "The environment was not made: {}".format(error))
