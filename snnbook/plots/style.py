"""The look of every figure: opaque background, colour-blind-safe colours, readable in light and dark pages."""

from __future__ import annotations

import matplotlib.pyplot as plt

#: Okabe and Ito's colour-blind-safe palette, in the order in which figures use it.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#6B6B6B")

#: One marker per colour, so that no figure depends on colour alone.
MARKERS = ("o", "s", "^", "D", "v", "P", "X")

RC = {
    "figure.facecolor": "white",
    "savefig.facecolor": "white",
    "axes.facecolor": "white",
    "figure.dpi": 110,
    "figure.constrained_layout.use": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#E3E3E3",
    "axes.prop_cycle": plt.cycler(color=COLOURS),
    "font.size": 10,
    "legend.frameon": False,
    "svg.hashsalt": "snnbook",
}


def figure(width: float = 7.0, height: float = 3.2, **subplots):
    """A figure of ``width`` × ``height`` inches in the book's style; ``subplots`` goes to ``plt.subplots``.

    Returns:
        ``(figure, axes)`` as from ``plt.subplots``.
    """
    with plt.rc_context(RC):
        return plt.subplots(figsize=(width, height), **subplots)
