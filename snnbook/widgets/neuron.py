"""One neuron to explore, as widgets."""

from __future__ import annotations

from collections.abc import Iterable

import ipywidgets as w
import numpy as np
import pandas as pd
import torch
from torch import Tensor

from .. import plots
from ..checks import check, check_choice
from ..firing import trace
from ..neurons import Dynamics
from ..residual import ideal_count
from .image import image

#: The neurons to choose from: (leaky, hard reset).
NEURONS = {
    "IF, soft reset": (False, False),
    "IF, hard reset": (False, True),
    "LIF, soft reset": (True, False),
    "LIF, hard reset": (True, True),
}
INPUTS = ("constant drive", "two spike trains")
#: Sums of decimals such as ten times 0.1 fall short by a rounding error; thresholds allow for it.
SLACK = 1e-9


def dynamics(neuron: str, threshold: float, tau: float) -> Dynamics:
    """Constants of the neuron named ``neuron`` (hard reset to 0; the drive is not divided by τ, as in chapter 1).

    Raises:
        ValueError: for an unknown name, a threshold that is not positive, or τ not above 1.
    """
    check_choice("neuron", neuron, NEURONS)
    check("threshold", threshold, threshold > 0, "a positive number")
    check("tau", tau, tau > 1, "a number above 1")
    leaky, hard = NEURONS[neuron]
    return Dynamics(threshold - SLACK, 0.0 if hard else None, tau if leaky else None, decay_input=False)


def drive_of_trains(time_steps: int, plus: Iterable[int], minus: Iterable[int]) -> Tensor:
    """Drive [T] of two inputs with weights +1 and −1 that spike at the given steps, counted from 1."""
    x = torch.zeros(time_steps, dtype=torch.float64)
    for weight, steps in ((1.0, plus), (-1.0, minus)):
        x[[t - 1 for t in steps if 1 <= t <= time_steps]] += weight
    return x


def describe(rows: pd.DataFrame, neuron: str, threshold: float, v0: float) -> str:
    """What the picture says: n, n* where it is defined (IF, soft reset) and the residual potential.

    Args:
        rows: table of :func:`snnbook.firing.trace`.
        neuron: a name of ``NEURONS``.
        threshold, v0: θ and v(0).
    """
    n, residual = int(rows["spike"].sum()), float(rows["v"].iloc[-1])
    text = f"n = {n} output spike{'s' * (n != 1)} in T = {len(rows)} steps. "
    if neuron == "IF, soft reset":
        ideal = int(ideal_count(torch.tensor(rows["drive"].to_numpy()), v0 + SLACK, threshold))
        gap = f"{abs(n - ideal)} too {'many' if n > ideal else 'few'}"
        text += f"Ideal count n* = {ideal}: {'they agree' if n == ideal else gap}. "
    inside = -SLACK <= residual < threshold - SLACK
    return f"{text}Residual potential v(T) = {residual:.2f}, {'inside' if inside else 'outside'} [0, θ)."


def _controls(time_steps: int, plus: Iterable[int], minus: Iterable[int]) -> dict[str, w.Widget]:
    """The explorer's inputs by name."""
    wide = {"style": {"description_width": "9em"}, "layout": {"width": "26em"}}
    steps = tuple(range(1, time_steps + 1))
    return {
        "neuron": w.Dropdown(options=list(NEURONS), description="neuron", **wide),
        "input": w.Dropdown(options=INPUTS, description="input", **wide),
        "threshold": w.FloatSlider(1.0, min=0.1, max=3, step=0.05, description="threshold θ", **wide),
        "time_steps": w.IntSlider(time_steps, min=1, max=20, description="time steps T", **wide),
        "v0": w.FloatSlider(0.0, min=-2, max=2, step=0.05, description="initial v(0)", **wide),
        "drive": w.FloatSlider(0.35, min=-1, max=3, step=0.05, description="drive x", **wide),
        "tau": w.FloatSlider(2.0, min=1.1, max=10, step=0.1, description="time constant τ", **wide),
        "plus": w.SelectMultiple(options=steps, value=tuple(plus), description="spikes, weight +1", **wide),
        "minus": w.SelectMultiple(options=steps, value=tuple(minus), description="spikes, weight −1", **wide),
    }


class NeuronExplorer(w.VBox):
    """Controls, picture and one sentence; ``controls`` maps names to widgets, ``text`` holds the sentence."""

    def __init__(self, time_steps: int, plus: Iterable[int], minus: Iterable[int], seed: int):
        self.controls = _controls(time_steps, *([t for t in s if 1 <= t <= time_steps] for s in (plus, minus)))
        self.text, self.image = w.Label(), w.HTML()
        self.shuffle = w.Button(description="shuffle the spikes")
        self._generator = np.random.default_rng(seed)
        self._holding = False
        self.shuffle.on_click(self._shuffle)
        for control in self.controls.values():
            control.observe(self._update, "value")
        super().__init__([*self.controls.values(), self.shuffle, self.image, self.text])
        self._update()

    def set(self, **values: object) -> None:
        """Give several controls their values and draw once: ``set(input=..., time_steps=5)``."""
        self._holding = True
        try:
            for name, value in values.items():
                self.controls[name].value = value
                self._fit_trains()
        finally:
            self._holding = False
        self._update()

    def _shuffle(self, _button: w.Button) -> None:
        """Move the spikes of both trains to random steps; their numbers stay."""
        trains = {name: self.controls[name] for name in ("plus", "minus")}
        moved = {name: self._generator.permutation(c.options)[: len(c.value)] for name, c in trains.items()}
        self.set(**{name: tuple(sorted(steps.tolist())) for name, steps in moved.items()})

    def _fit_trains(self) -> None:
        """Offer exactly the steps 1 … T; spikes beyond T are dropped."""
        steps = tuple(range(1, self.controls["time_steps"].value + 1))
        for name in ("plus", "minus"):
            control = self.controls[name]
            if control.options != steps:
                kept = tuple(t for t in control.value if t in steps)
                control.options, control.value = steps, kept

    def _show(self, neuron: str, trains: bool) -> None:
        """Hide the controls that have no effect."""
        shown = {"drive": not trains, "plus": trains, "minus": trains, "tau": neuron.startswith("LIF")}
        for name, wanted in shown.items():
            self.controls[name].layout.display = None if wanted else "none"
        self.shuffle.layout.display = None if trains else "none"

    def _update(self, _change: object = None) -> None:
        """Draw again for the controls as they are."""
        if self._holding:
            return
        self._holding = True
        self._fit_trains()
        self._holding = False
        c = {name: control.value for name, control in self.controls.items()}
        trains = c["input"] == INPUTS[1]
        self._show(c["neuron"], trains)
        constant = torch.full((c["time_steps"],), c["drive"], dtype=torch.float64)
        x = drive_of_trains(c["time_steps"], c["plus"], c["minus"]) if trains else constant
        rows = trace(x, dynamics(c["neuron"], c["threshold"], c["tau"]), c["v0"])
        self.text.value = describe(rows, c["neuron"], c["threshold"], c["v0"])
        self.image.value = image(plots.neuron_traces({"": rows}, c["threshold"]), self.text.value)


def neuron_explorer(time_steps: int = 8, plus: Iterable[int] = (1, 2), minus: Iterable[int] = (3, 4, 5), seed: int = 0):
    """One neuron to play with: threshold, T, v(0), leak, reset, and constant drive or two spike trains.

    Args:
        time_steps: T at the start, 1 to 20.
        plus, minus: steps at which the inputs with weight +1 and −1 spike, counted from 1.
        seed: of the shuffling.

    Returns:
        A widget; the last expression of a cell shows it.

    Raises:
        ValueError: if ``time_steps`` is not in 1 to 20.
    """
    check("time_steps", time_steps, 1 <= time_steps <= 20, "1 to 20")
    return NeuronExplorer(time_steps, plus, minus, seed)
