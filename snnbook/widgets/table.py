"""A table to explore as widgets: the same controls, lines and sentence as in the page."""

from __future__ import annotations

from html import escape

import ipywidgets as w

from .. import plots
from ..explorers import Explorer
from .image import image


class TableExplorer(w.VBox):
    """Controls, picture and one sentence; ``controls`` maps columns of keys to widgets, ``text`` holds the sentence."""

    def __init__(self, explorer: Explorer):
        self.explorer, self._holding = explorer, False
        wide = {"style": {"description_width": "14em"}, "layout": {"width": "36em"}}
        kinds = {"choice": w.Dropdown, "slider": w.SelectionSlider}
        self.controls, self.text, self.image = {}, w.HTML(), w.HTML()
        start = explorer.settle({})
        for key in explorer.controls():
            options = self._options(start, key.column)
            control = kinds[key.control](options=options, value=start[key.column], description=key.text, **wide)
            control.observe(self._update, "value")
            self.controls[key.column] = control
        super().__init__([*self.controls.values(), self.image, self.text])
        self._update()

    def set(self, **values: object) -> None:
        """Give several controls their values and draw once; what is not offered becomes the nearest that is."""
        self._choose(self.chosen() | values)

    def chosen(self) -> dict[str, object]:
        """Column → value of every control."""
        return {column: control.value for column, control in self.controls.items()}

    def _options(self, chosen: dict[str, object], column: str) -> list[tuple[str, object]]:
        return [(self.explorer.label(column, v), v) for v in self.explorer.offered(chosen, column)]

    def _choose(self, wanted: dict[str, object]) -> None:
        """Bring the controls to what exists nearest to ``wanted``, and draw."""
        self._holding, settled = True, self.explorer.settle(wanted)
        try:
            for column, control in self.controls.items():
                options = self._options(settled, column)
                if list(control.options) != options:
                    control.options = options
                control.value = settled[column]
        finally:
            self._holding = False
        self._draw(settled)

    def _update(self, _change: object = None) -> None:
        if not self._holding:
            self._choose(self.chosen())

    def _draw(self, chosen: dict[str, object]) -> None:
        e, said = self.explorer, self.explorer.sentence(chosen)
        names = {value: e.label(e.series, value) for value in e.values(e.series)}
        series = {} if e.series not in chosen else {e.series: chosen[e.series]}
        panels = [(p.column, p.text, p.log, (p.low, p.high)) for p in e.panels]
        lines = {p.column: [(r.text, r.value) for r in e.lines(chosen, p.column)] for p in e.panels}
        axis = (e.x, e.key(e.x).text, chosen[e.x])
        fig = plots.explored(e.drawn(chosen), axis, e.series, names, series.get(e.series), panels, lines)
        self.text.value, self.image.value = escape(said), image(fig, said)


def table_explorer(explorer: Explorer) -> TableExplorer:
    """The widgets of an explorer that a page shows: ``table_explorer(explorer)``.

    Args:
        explorer: from :mod:`snnbook.explorers`.

    Returns:
        A widget; the last expression of a cell shows it.
    """
    return TableExplorer(explorer)
