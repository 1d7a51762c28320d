"""Operations and joules of a spiking network, counted exactly.

A spike that arrives at a connection adds one weight to each postsynaptic neuron that it reaches: one accumulate
(AC). An analogue value costs one multiply–accumulate (MAC) at each. Positions in the padding cost nothing, since
nothing arrives from them. A spike that passes an average pool arrives at the pooled position. Equation (18) of
the RMPE paper, SyOPs of SpikeBottleNet and ATSAN of EC-SNN are all sums of these counts.
"""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .checks import check, check_choice
from .counts import count
from .network import Residual, evaluating
from .record import observe


@dataclass(frozen=True)
class EnergyModel:
    """Energy of one operation: ``mac`` and ``ac`` in picojoules, with where the figures come from."""

    name: str
    mac: float
    ac: float
    source: str


#: Energy models by name.
ENERGY_MODELS = {
    m.name: m
    for m in (
        EnergyModel("45nm_fp32", 4.6, 0.9, "Horowitz, ISSCC 2014: 32-bit float multiply 3.7 pJ, add 0.9 pJ"),
        EnergyModel("45nm_int8", 0.23, 0.03, "Horowitz, ISSCC 2014: 8-bit integer multiply 0.2 pJ, add 0.03 pJ"),
        EnergyModel("rolls", 4.6, 0.077, "Qiao et al. 2015: 77 fJ per SyOP on ROLLS (180 nm); MAC as 45nm_fp32"),
        EnergyModel("rolls_int8", 0.23, 0.077, "77 fJ per SyOP as on ROLLS; MAC as 45nm_int8"),
    )
}


def _reach(size: int, out: int, kernel: int, stride: int, padding: int, dilation: int) -> Tensor:
    """How many of ``out`` output positions each of ``size`` input positions reaches, along one axis [size]."""
    hits = torch.zeros(size, dtype=torch.float64)
    for k in range(kernel):
        at = torch.arange(out) * stride - padding + k * dilation
        at = at[(at >= 0) & (at < size)]
        hits[at] += 1
    return hits


def fan_out(module: nn.Module, x: torch.Size, y: torch.Size) -> Tensor:
    """Connections that leave one input element, padding excluded.

    Args:
        module: Conv2d or Linear.
        x: input shape [N, C, H, W] or [N, F].
        y: output shape.

    Returns:
        float64 counts [H, W], the same for every channel, or a scalar tensor for Linear.

    Raises:
        ValueError: for another kind of module.
    """
    check("module", module, isinstance(module, nn.Conv2d | nn.Linear), "a Conv2d or Linear layer")
    if isinstance(module, nn.Linear):
        return torch.tensor(module.out_features, dtype=torch.float64)
    axes = [
        _reach(
            x[2 + i],
            y[2 + i],
            module.kernel_size[i],
            module.stride[i],
            _padding(module, i),
            module.dilation[i],
        )
        for i in range(2)
    ]
    return torch.outer(*axes) * (module.out_channels // module.groups)


def _padding(module: nn.Conv2d, axis: int) -> int:
    """Zeros before the first element along ``axis`` (0: height, 1: width)."""
    if module.padding == "same":
        return module.dilation[axis] * (module.kernel_size[axis] - 1) // 2
    return 0 if module.padding == "valid" else module.padding[axis]


def _spikes(x: Tensor, unit: float, *axes: int) -> Tensor:
    """Spikes of height ``unit`` in ``x``, summed over ``axes``: one pass, and whole numbers again, float64."""
    return (x.sum(axes) / unit).round().double()


class _Counter:
    """Adds up operations per layer and step over batches; its methods are callbacks of ``observe``."""

    def __init__(self) -> None:
        self.samples, self.batch = 0, 0
        self._ops: dict[tuple[str, str, str], Tensor] = {}
        self._fan: dict[str, Tensor] = {}

    def _add(self, layer: str, part: str, kind: str, per_step: Tensor) -> None:
        key, new = (layer, part, kind), per_step.double().cpu()
        known = self._ops.get(key, new.new_zeros(0))
        steps = max(len(known), len(new))  # a pre-run may be shorter or longer than the run that follows
        self._ops[key] = sum(F.pad(x, (0, steps - len(x))) for x in (known, new))

    def _passes(self, x: Tensor) -> int:
        """How often analogue values [T·N, ...] have to pass a layer: once if every step has the same ones, else T."""
        steps = x.unflatten(0, (-1, self.batch))
        return 1 if bool((steps == steps[0]).all()) else len(steps)

    def _per_step(self, x: Tensor) -> Tensor:
        """Sum of ``x`` [T·N, ...] within each step [T]; T is 1 where static input is seen once."""
        return x.reshape(x.shape[0] // self.batch, -1).sum(1, dtype=torch.float64)

    def connection(self, name: str, module: nn.Module, x: Tensor, y: Tensor) -> None:
        """Connections: an AC for each arriving spike and each place it reaches, a MAC for each analogue value."""
        if name not in self._fan:
            self._fan[name] = fan_out(module, x.shape, y.shape).to(x.device)
        unit, fan = getattr(x, "spike_unit", None), self._fan[name]
        if unit is not None:
            arrivals = _spikes(x, unit, 1) if x.ndim == 4 else _spikes(x, unit, *range(1, x.ndim))
            self._add(name, "connection", "ac", self._per_step(arrivals * fan))
        else:
            each = fan.sum() * x.shape[1] if x.ndim == 4 else fan * x[0].numel()
            self._add(name, "connection", "mac", each.repeat(self._passes(x)) * self.batch)

    def neuron(self, name: str, layer: nn.Module, drive: Tensor, output: Tensor) -> None:
        """Neurons: drive and bias into the potential (2 AC a step), soft reset (1 AC a spike), leak (1 MAC a step)."""
        spikes = self._per_step(_spikes(output, layer.emit, *range(1, output.ndim)))
        each = torch.full_like(spikes, drive.numel() / len(spikes))
        self._add(name, "neuron", "ac", 2 * each + (spikes if layer.v_reset is None else 0))
        if layer.dynamics().tau is not None:
            self._add(name, "neuron", "mac", each)

    def junction(self, name: str, module: nn.Module, x: Tensor, y: Tensor) -> None:
        """Pools: an AC for each spike that arrives; residual additions: an AC for each element."""
        if isinstance(module, Residual):
            part, arrivals = "residual", torch.full((len(y),), y[0].numel(), dtype=torch.float64)
        elif (unit := getattr(x, "spike_unit", None)) is not None:
            part, arrivals = "pool", _spikes(x, unit, *range(1, x.ndim))
        else:
            part, arrivals = "pool", torch.full((len(x),), x[0].numel(), dtype=torch.float64)
        self._add(name, part, "ac", self._per_step(arrivals))

    def table(self) -> pd.DataFrame:
        rows = [
            (layer, part, kind, step + 1, ops / self.samples)
            for (layer, part, kind), per_step in self._ops.items()
            for step, ops in enumerate(per_step.tolist())
        ]
        return pd.DataFrame(rows, columns=["layer", "part", "kind", "step", "operations"])


def count_operations(net: nn.Module, batches) -> pd.DataFrame:
    """Mean operations per sample of ``net`` over ``batches`` of (x, y), exactly as they would be carried out.

    Analogue values that are the same at all steps, such as static input, pass a layer once, at step 1, however large
    T is.

    Returns:
        Columns ``layer``, ``part`` (connection, neuron, pool, residual), ``kind`` (mac or ac), ``step`` (from 1),
        ``operations`` (mean per sample).
    """
    counter = _Counter()
    with (
        evaluating(net),
        torch.no_grad(),
        observe(net, neuron=counter.neuron, connection=counter.connection, junction=counter.junction),
    ):
        for x, y in batches:
            counter.batch = len(y)
            counter.samples += len(y)
            net(x)
    return counter.table()


def joules(operations: pd.DataFrame, model: str = "45nm_fp32", parts: tuple[str, ...] | None = None) -> float:
    """Energy per sample in joules of a table from :func:`count_operations`.

    Args:
        operations: the table.
        model: name in ``ENERGY_MODELS``.
        parts: which parts count; ``None`` counts everything, ``("connection",)`` is what the papers count.

    Raises:
        ValueError: for an unknown model.
    """
    check_choice("model", model, ENERGY_MODELS)
    m = ENERGY_MODELS[model]
    rows = operations if parts is None else operations[operations["part"].isin(parts)]
    picojoules = rows["operations"] * rows["kind"].map({"mac": m.mac, "ac": m.ac})
    return float(picojoules.sum()) * 1e-12


def ann_operations(net: nn.Module, shape: tuple[int, int, int]) -> pd.DataFrame:
    """Dense operations of an ANN in the columns of :func:`count_operations`: every MAC of the closed form, once.

    Args:
        net: the network (spiking or not; only its connections count).
        shape: input (C, H, W).
    """
    rows = count(net, shape)[["layer", "macs"]].rename(columns={"macs": "operations"})
    return rows.assign(part="connection", kind="mac", step=1)[["layer", "part", "kind", "step", "operations"]]


def energy_ratio(mac: float, ac: float, ann_mac: float, model: str = "45nm_fp32") -> float:
    """E_SNN / E_ANN = [c·α + (b − c)·β] / (a·α), equation (18) of the RMPE paper.

    Args:
        mac: c, operations of the analogue first layer over all steps.
        ac: b − c, accumulates of the spiking layers over all steps.
        ann_mac: a, MACs of the ANN.
        model: energy model that gives α (MAC) and β (AC).

    Raises:
        ValueError: for an unknown model or ``ann_mac`` that is not positive.
    """
    check_choice("model", model, ENERGY_MODELS)
    check("ann_mac", ann_mac, ann_mac > 0, "a positive number")
    m = ENERGY_MODELS[model]
    return (mac * m.mac + ac * m.ac) / (ann_mac * m.mac)


def summary(snn: pd.DataFrame, ann: pd.DataFrame, model: str = "45nm_fp32") -> pd.DataFrame:
    """Energy per sample "as in the paper" (connections only) beside "everything counted".

    Args:
        snn: operations of the spiking network.
        ann: operations of its ANN, from :func:`ann_operations`.
        model: name in ``ENERGY_MODELS``.

    Returns:
        Two rows; columns ``accounting``, ``mac``, ``ac``, ``snn_joules``, ``ann_joules``, ``ratio``.
    """
    ann_joules = joules(ann, model)
    rows = []
    for accounting, parts in (("as in the paper", ("connection",)), ("everything counted", None)):
        kept = snn if parts is None else snn[snn["part"].isin(parts)]
        by_kind = kept.groupby("kind")["operations"].sum()
        snn_joules = joules(kept, model)
        rows.append(
            (
                accounting,
                by_kind.get("mac", 0.0),
                by_kind.get("ac", 0.0),
                snn_joules,
                ann_joules,
                snn_joules / ann_joules,
            )
        )
    return pd.DataFrame(rows, columns=["accounting", "mac", "ac", "snn_joules", "ann_joules", "ratio"])
