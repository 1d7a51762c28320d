"""Train the source networks of the chapters on conversion with all processes of torchrun.

    .venv/bin/torchrun --nproc_per_node=4 tools/train_networks.py -p dataset cifar10 -p model vgg16 -p width 1.0

Parameters are those of notebooks/12_two_stage_conversion.ipynb. The networks are kept in the cache of trained networks
(SNNBOOK_CACHE, else _build/networks), by what went into them: a notebook with the same parameters finds them.
"""

from __future__ import annotations

import argparse
import os

from snnbook import params
from snnbook.__main__ import parse
from snnbook.data import load
from snnbook.experiments import two_stage

SOURCES = ("relu", "qc", "qcfs")


def main(arguments: list[str] | None = None) -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-p", nargs=2, action="append", default=[], metavar=("NAME", "VALUE"), help="one parameter")
    p = params.TwoStageConversion(**parse(parser.parse_args(arguments).p, [], []))
    data = load(p.dataset, p.data_dir, p.seed, calibration=p.calibration, validation=p.validation)
    for experiment in two_stage.experiments(p, data):
        for source in SOURCES:
            experiment.network(source)
            if int(os.environ.get("RANK", 0)) == 0:
                print(f"{source}, seed {experiment.seed}: trained", flush=True)


if __name__ == "__main__":
    main()
