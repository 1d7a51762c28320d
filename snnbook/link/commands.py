"""Command line of the processes: ``python -m snnbook serve | device | fleet | status | keys``.

On one machine ``fleet FOLDER`` does everything. On several, carry to each the files that it needs, and its keys:

    here    keys KEYS part_0 part_1 client
    server  serve FOLDER --bind tcp://0.0.0.0:5555 --keys KEYS/server
    device  device part_0.safetensors samples.safetensors --connect tcp://SERVER:5555 --keys KEYS/part_0
    client  fleet FOLDER --connect tcp://SERVER:5555 --keys KEYS/client
            status tcp://SERVER:5555 --keys KEYS/client
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
import threading
from pathlib import Path

from ..checks import check


def add(commands) -> None:
    """Add the sub-commands; each sets ``call``, a function of the parsed arguments that returns the exit status."""
    p = commands.add_parser("keys", help="make key pairs for a server and for each device and client")
    p.add_argument("folder", type=Path, help="a new folder")
    p.add_argument("names", nargs="+", metavar="NAME", help="part_0, part_1, ..., client")
    p.set_defaults(call=_keys)

    p = commands.add_parser("serve", help="be the server of a fleet")
    p.add_argument("folder", type=Path, help="with fleet.json and server.safetensors")
    p.add_argument("--bind", default="tcp://127.0.0.1:*", metavar="ADDRESS", help="where to listen (%(default)s)")
    p.add_argument("--deadline", type=float, help="seconds that a sample waits for its parts, instead of the plan's")
    _common(p)
    p.set_defaults(call=_serve)

    p = commands.add_parser("device", help="be one device of a fleet")
    p.add_argument("part", type=Path, help="its part, part_<i>.safetensors")
    p.add_argument("sensor", type=Path, help="what its sensor sees, samples.safetensors")
    p.add_argument("--connect", required=True, metavar="ADDRESS", help="of the server")
    _common(p)
    _link(p)
    _asking(p, "walk through the first N samples by itself, then stop")
    p.set_defaults(call=_device)

    p = commands.add_parser("status", help="print which devices a running server has, and its counters")
    p.add_argument("address", metavar="ADDRESS", help="of the server")
    _keys_option(p)
    p.add_argument("--timeout", type=float, default=5.0, help="seconds to wait for its answer (%(default)s)")
    p.set_defaults(call=_status)

    p = commands.add_parser("fleet", help="run a whole fleet on this machine, or ask one that runs, and measure")
    p.add_argument("folder", type=Path)
    p.add_argument("--connect", metavar="ADDRESS", help="ask the server there instead of starting processes")
    p.add_argument("--drive", action="store_true", help="let device 0 drive itself instead of being triggered")
    p.add_argument("--deadline", type=float, help="seconds that a sample waits for its parts, instead of the plan's")
    p.add_argument("--out", type=Path, metavar="CSV", help="write one row a sample there")
    p.add_argument("--kernel", action="store_true", help="let the kernel make the links (tc tbf; Linux, as root)")
    _common(p)
    _link(p)
    _asking(p, "ask for the first N samples (all)")
    p.set_defaults(call=_fleet)


def _positive(text: str) -> int:
    """A whole number of at least 1, for argparse."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text} is not allowed: a whole number, at least 1")
    return int(text)


def _keys_option(p: argparse.ArgumentParser) -> None:
    p.add_argument("--keys", type=Path, metavar="FOLDER", help="own folder of keys, needed beyond this machine")


def _common(p: argparse.ArgumentParser) -> None:
    _keys_option(p)
    p.add_argument("--threads", type=_positive, default=1, help="threads of each process (%(default)s)")


def _link(p: argparse.ArgumentParser) -> None:
    p.add_argument("--up", type=float, metavar="BIT/S", help="rate of the link towards the server")
    p.add_argument("--down", type=float, metavar="BIT/S", help="rate of the link from the server")
    p.add_argument("--ber", type=float, default=0.0, help="bits that the link towards the server flips (%(default)s)")
    p.add_argument("--loss", type=float, default=0.0, help="messages that it loses (%(default)s)")
    p.add_argument("--noise-seed", type=int, default=0, help="seed of both (%(default)s)")


def _asking(p: argparse.ArgumentParser, text: str) -> None:
    p.add_argument("--samples", type=_positive, metavar="N", help=text)
    p.add_argument("--window", type=_positive, default=1, help="samples on their way at most (%(default)s)")
    p.add_argument("--timeout", type=float, default=5.0, help="seconds until a sample is sent again (%(default)s)")


def _until_told() -> threading.Event:
    """An event that Ctrl-C and SIGTERM set."""
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    return stop


def _limit_threads(args) -> None:
    import torch

    torch.set_num_threads(args.threads)


#: Defaults of options that concern the processes which ``fleet`` starts.
_OF_PROCESSES = {"drive": False, "deadline": None, "kernel": False, "threads": 1, "up": None, "down": None, "ber": 0.0,
                 "loss": 0.0, "noise_seed": 0}  # fmt: skip
#: Defaults of options that concern asking.
_OF_ASKING = {"window": 1, "timeout": 5.0}


def _refuse(args, defaults: dict[str, object], allowed: str) -> None:
    """ValueError for the first option that is not at its default and would do nothing."""
    for name, default in defaults.items():
        given = getattr(args, name)
        check(f"--{name.replace('_', '-')}", str(given), given == default, allowed)


def _rates(args):
    from .shaper import Rate

    noise = {"ber": args.ber, "loss": args.loss, "seed": args.noise_seed}
    rate = float("inf") if args.up is None else args.up
    up = None if args.up is None and not (args.ber or args.loss) else Rate(rate, **noise)
    return {"up": up, "down": None if args.down is None else Rate(args.down)}


def _say(text: str) -> None:
    print(text, flush=True)


def _warn(text: str) -> None:
    print(f"snnbook: {text}", file=sys.stderr, flush=True)


def _keys(args) -> int:
    from .keys import make_keys

    print(make_keys(args.folder, args.names))
    return 0


def _serve(args) -> int:
    from .server import serve

    _limit_threads(args)
    lines = {"ready": lambda address: _say(f"listening at {address}"), "say": _say}
    server = serve(args.folder, args.bind, args.keys, stop=_until_told(), deadline=args.deadline, **lines)
    print({name: n for name, n in server.counts.items() if n})
    return 0


def _device(args) -> int:
    from .device import Contact, serve_part, walk_part
    from .measure import Measured

    _limit_threads(args)
    files, options = (args.part, args.sensor, args.connect, args.keys), _rates(args) | {"contact": Contact(_say, _warn)}
    if args.samples is None:
        _refuse(args, _OF_ASKING, "only with --samples")
        serve_part(*files, stop=_until_told(), **options)
        return 0
    rows = range(args.samples)
    answered, seconds = walk_part(*files, rows=rows, window=args.window, timeout=args.timeout, **options)
    return _show(Measured.of(answered, rows, seconds), args.sensor)


def _status(args) -> int:
    from .client import Client

    client = Client(args.address, args.keys)
    try:
        for name, value in client.status(args.timeout).items():
            print(f"{name}: {json.dumps(value)}")
        return 0
    except TimeoutError as error:
        _warn(str(error))
        return 1
    finally:
        client.close()


def _fleet(args) -> int:
    from .fleet import Fleet
    from .folder import Sensor

    if args.connect:
        _refuse(args, _OF_PROCESSES, "only without --connect")
    else:
        _refuse(args, {"keys": None}, "only with --connect")
    file = args.folder / "samples.safetensors"
    n = len(Sensor(file))
    samples, asking = range(min(args.samples or n, n)), {"window": args.window, "timeout": args.timeout}
    if args.connect:
        return _show(_ask(args, samples, asking), file, args.out)
    options = {"threads": args.threads, "deadline": args.deadline, "kernel": args.kernel}
    with Fleet(args.folder, **options, **_rates(args)) as fleet:
        return _show((fleet.walk if args.drive else fleet.run)(samples, **asking), file, args.out)


def _ask(args, samples, asking):
    from .client import Client
    from .measure import Measured

    client = Client(args.connect, args.keys)
    try:
        client.status()  # whoever does not answer this answers nothing
        answered, seconds = client.run(samples, **asking)
        return Measured.of(answered, samples, seconds)
    finally:
        client.close()


def _show(measured, samples: Path, out: Path | None = None) -> int:
    """Print the summary, and the accuracy if the samples file has labels; write the table if asked to."""
    from .folder import read_labels

    table, labels = measured.table, read_labels(samples)
    if labels is not None:
        table.insert(1, "label", labels[table["sample"].to_list()].numpy())
    if out is not None:
        from ..runs import atomic

        with atomic(out) as part:
            table.to_csv(part, index=False)
    print(measured.summary().T.to_string(header=False))
    if labels is not None:
        right = int((table["prediction"] == table["label"]).sum())
        print(f"accuracy {right / len(table):.2%} ({right} of {len(table)} samples)")
    return 0
