"""How every plot looks: colors, a blank figure, plain axes, and the figure as PNG.

matplotlib is imported when a figure is asked for, through its object interface: no display, no
pyplot, nothing global.
"""

import io
import logging
from typing import Any

import numpy as np
from numpy.typing import NDArray

Axes = Any  # matplotlib's, which is imported only to draw
Figure = Any

DOTS_PER_INCH = 150
SMALL, MEDIUM, LARGE = 8, 9, 11  # points
INK, DARK, MIDDLE, RED = "black", "0.25", "0.5", "#8c2d19"
WRONG_LABELS = {"facecolor": RED, "edgecolor": "white", "hatch": "////", "linewidth": 0}
RIGHT_LABELS = {"facecolor": "0.82", "edgecolor": "0.45", "linewidth": 0.5}
DOTTED = (0, (1, 1.5))  # reference lines


def new_figure(width: float, height: float, title: str) -> Figure:
    """A blank figure, `width` by `height` inches, with automatic layout."""
    logging.getLogger("matplotlib").setLevel(logging.ERROR)  # of a cache that it cannot write
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=DOTS_PER_INCH, layout="constrained")
    figure.suptitle(title, fontsize=LARGE, parse_math=False)
    return figure


def plain(axes: Axes, x: str, y: str, title: str = "") -> Axes:
    """The axes with labels, a faint grid and no box."""
    axes.set_xlabel(x, fontsize=MEDIUM)
    axes.set_ylabel(y, fontsize=MEDIUM)
    if title:
        axes.set_title(title, fontsize=MEDIUM, loc="left")
    axes.tick_params(labelsize=SMALL)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(color="0.9", linewidth=0.6)
    axes.set_axisbelow(True)
    return axes


def legend_above(axes: Axes, columns: int) -> None:
    """Put the legend above the axes, where it covers nothing."""
    if not axes.get_legend_handles_labels()[0]:
        return
    axes.legend(
        fontsize=SMALL, frameon=False, ncols=columns, loc="lower left", bbox_to_anchor=(-0.01, 1)
    )


def over_epochs(axes: Axes, epochs: NDArray[np.float64]) -> None:
    """Make the horizontal axis span exactly these epochs [E], with ticks at whole numbers."""
    from matplotlib.ticker import MaxNLocator

    axes.set_xlabel("epoch", fontsize=MEDIUM)
    axes.set_xlim(epochs[0] - 0.5, epochs[-1] + 0.5)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))


def as_png(figure: Figure) -> bytes:
    """The figure as a PNG file; the same figure gives the same bytes."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()
