"""Entropy-coded payloads of trained networks: bytes by context, and what one flipped bit does to them."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pandas as pd
from torch import Tensor

from ..link.coding import SpikeModel, decode, encode, fit, sizes
from ..link.messages import HEADER_BYTES
from ..network import Network
from .halves import sent
from .samples import spread
from .spike_bottlenet import SpikeBottleNet


def lossless(
    nets: dict[str, Network], e: SpikeBottleNet, contexts: Sequence[str], samples: int | None = None
) -> pd.DataFrame:
    """Mean bytes of a sample's spikes as packed and as range-coded.

    Models come from calibration images, and bytes are those of test images; :func:`chosen_contexts` chooses.

    Args:
        nets: name to a network with a codec.
        e: the experiment.
        contexts: names in ``snnbook.link.coding.CONTEXTS``.
        samples: images that are coded of the test and of the validation split, spread over it; all by default.

    Returns:
        Columns ``network``, ``context``, ``rate`` (share of ones), ``model`` (bytes that both sides keep), ``packed``,
        ``ideal``, ``actual``, ``framed`` (with the header of a message), ``validation_actual`` (range-coded bytes of
        validation images).
    """
    rows = []
    for name, net in nets.items():
        seen = sent(net, e, "calibration")
        validated, coming = (sent(net, e, spread(split, samples)) for split in (e.data.validation, e.data.test))
        for context in contexts:
            model = fit(seen, context)
            of_validation, mean = (sizes(spikes, model, HEADER_BYTES).mean() for spikes in (validated, coming))
            own = {"network": name, "context": context, "model": len(model.to_bytes())}
            rows.append({**own, **mean, "validation_actual": of_validation["actual"]})
    columns = ["network", "context", "rate", "model", "packed", "ideal", "actual", "framed", "validation_actual"]
    return pd.DataFrame(rows)[columns]


def chosen_contexts(table: pd.DataFrame) -> pd.DataFrame:
    """The rows of :func:`lossless`, one for each network, with fewest range-coded bytes for validation images."""
    return table.sort_values("validation_actual", kind="stable").groupby("network", sort=False).head(1)


def damage(spikes: Tensor, model: SpikeModel, seed: int = 0) -> pd.DataFrame:
    """What one flipped bit does to coded spikes, sample by sample.

    Args:
        spikes: 0/1 [T, N, c', h', w'].
        model: of the range coder.
        seed: picks the bit.

    Returns:
        Columns ``bit`` (share of the payload before it), ``wrong`` (share of the sample's spikes that are wrong after
        decoding; nan where the decoder refused). Both are nan of a sample whose code is empty: there is no bit to flip.
    """
    rng, rows = np.random.default_rng(seed), []
    for one in spikes.transpose(0, 1):
        if not (data := bytearray(encode(one, model))):
            rows.append((math.nan, math.nan))
            continue
        bit = int(rng.integers(8 * len(data)))
        data[bit // 8] ^= 0x80 >> bit % 8
        try:
            wrong = (decode(bytes(data), len(one), model) != one).float().mean().item()
        except ValueError:
            wrong = math.nan
        rows.append((bit / (8 * len(data)), wrong))
    return pd.DataFrame(rows, columns=["bit", "wrong"])
