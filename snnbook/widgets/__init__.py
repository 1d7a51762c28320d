"""The explorers of the pages as ipywidgets, for a notebook with a live kernel.

The pages have them in plain JavaScript (``book/_static/explorers``), which needs no kernel. A rendered page shows
nothing of a widget.
"""

from .neuron import NEURONS, NeuronExplorer, drive_of_trains, dynamics, neuron_explorer
from .table import TableExplorer, table_explorer

__all__ = [
    "NEURONS",
    "NeuronExplorer",
    "TableExplorer",
    "drive_of_trains",
    "dynamics",
    "neuron_explorer",
    "table_explorer",
]
