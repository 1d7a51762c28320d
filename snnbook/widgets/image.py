"""A figure within a widget."""

from __future__ import annotations

import base64
import io
from html import escape

import matplotlib.pyplot as plt
from matplotlib.figure import Figure


def image(fig: Figure, alt: str) -> str:
    """The figure as an HTML image with alternative text; no file and no open figure stays behind."""
    png = io.BytesIO()
    fig.savefig(png, format="png")
    plt.close(fig)
    data = base64.b64encode(png.getvalue()).decode()
    return f'<img alt="{escape(alt)}" style="max-width: 100%" src="data:image/png;base64,{data}">'
