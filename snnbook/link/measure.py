"""Answers as tables: latency, computing, bytes, what was missing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from torch import Tensor

from .walk import Answered


@dataclass(frozen=True)
class Measured:
    """What came of many samples.

    Attributes:
        answered: one entry for each sample, in the order of the samples that were asked for.
        seconds: from the first request to the last answer.
    """

    answered: tuple[Answered, ...]
    seconds: float

    @classmethod
    def of(cls, answered: Sequence[Answered], samples: Sequence[int], seconds: float) -> Measured:
        """Answers in the order of ``samples``, each of which was asked for once."""
        by_index = {a.index: a for a in answered}
        return cls(tuple(by_index[i] for i in samples), seconds)

    @property
    def logits(self) -> list[Tensor]:
        """[T', 1, K] of each sample."""
        return [a.answer.logits for a in self.answered]

    @property
    def table(self) -> pd.DataFrame:
        """One row a sample.

        ``sample``, ``prediction`` (argmax of the logits' mean over T'), ``steps`` T', ``mask`` of the received parts,
        ``received`` their number, ``partial``, ``start_ms`` of the request since the first, ``latency_ms`` end to end,
        ``device_ms`` of the slowest device's computing, ``server_ms`` of the server's, ``overhead_ms`` = latency −
        device, ``payload_bytes``, ``framed_bytes``, ``tries``.
        """
        return pd.DataFrame([_row(a) for a in self.answered])

    def summary(self) -> pd.DataFrame:
        """One row: ``samples``, medians and 99th percentiles of the times, ``per_second``, mean bytes, ``partial``."""
        table = self.table
        found: dict[str, object] = {"samples": len(table)}
        for name in ("latency", "device", "server", "overhead"):
            found[f"{name}_median_ms"] = table[f"{name}_ms"].median()
            found[f"{name}_p99_ms"] = np.percentile(table[f"{name}_ms"], 99)
        found |= {"per_second": len(table) / self.seconds, "steps": table["steps"].mean()}
        found |= {"payload_bytes": table["payload_bytes"].mean(), "framed_bytes": table["framed_bytes"].mean()}
        return pd.DataFrame([found | {"partial": int(table["partial"].sum()), "tries": table["tries"].max()}])


def _row(a: Answered) -> dict[str, object]:
    answer, device = a.answer, max(a.answer.part_micros) / 1e3
    return {
        "sample": a.index,
        "prediction": int(answer.logits.mean(0).argmax()),
        "steps": len(answer.logits),
        "mask": answer.mask,
        "received": answer.mask.bit_count(),
        "partial": answer.partial,
        "start_ms": 1e3 * a.started,
        "latency_ms": 1e3 * a.seconds,
        "device_ms": device,
        "server_ms": answer.server_micros / 1e3,
        "overhead_ms": 1e3 * a.seconds - device,
        "payload_bytes": answer.payload_bytes,
        "framed_bytes": answer.framed_bytes,
        "tries": a.tries,
    }
