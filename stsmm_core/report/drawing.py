"""What all figures of the reports share: colours, lettering and the way into a page."""

import base64
import io
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import matplotlib
from matplotlib.figure import Figure

PALETTE = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00")
"""Okabe and Ito's colours, which colour-blind readers can tell apart."""

MARKERS = ("o", "s", "^", "P", "v", "X")

INK = "#222222"
GREY = "#8a8a8a"
WIDTH = 7.2
"""Inches; the width of the text on a page."""

_STYLE: dict[Any, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": 8,
    "axes.titlesize": 8.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.labelsize": 8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": INK,
    "axes.linewidth": 0.7,
    "xtick.major.width": 0.7,
    "ytick.major.width": 0.7,
    "legend.frameon": False,
    "legend.fontsize": 8,
    "svg.hashsalt": "stsmm",
}


@contextmanager
def figure_style() -> Iterator[None]:
    """Draw in the reports' style; matplotlib's own settings come back afterwards."""
    with matplotlib.rc_context(_STYLE):
        yield


def data_uri(figure: Figure) -> str:
    """The figure as an SVG image that lives inside the page's own text."""
    buffer = io.BytesIO()
    with figure_style():
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    return "data:image/svg+xml;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")
