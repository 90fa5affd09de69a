"""What every picture is made of: a run's figures, a blank canvas, and a way to say why not.

matplotlib is imported when a canvas is asked for, through its object interface: no display, no
pyplot, nothing global.
"""

import io
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

DOTS_PER_INCH = 150
SMALL, MEDIUM, LARGE = 8, 9, 11  # points
INK, DARK, MIDDLE, LIGHT, PAPER = "black", "0.25", "0.5", "0.78", "white"
WRONG = {"facecolor": "#8c2d19", "edgecolor": "white", "hatch": "////", "linewidth": 0}
RIGHT = {"facecolor": "0.82", "edgecolor": "0.45", "linewidth": 0.5}


class LeftOut(Exception):
    """A picture cannot be drawn; the message says why."""


class RunFigures(NamedTuple):
    """What a run folder holds for its pictures."""

    folder: Path
    baseline: bool
    metrics: dict[str, list[str]]  # the columns of metrics.csv, as they stand there
    arrays: dict[str, NDArray[Any]]  # predictions.npz; empty before the split

    @property
    def name(self) -> str:
        """The folder's name, which tells the run."""
        return self.folder.resolve().name

    def curve(self, column: str) -> NDArray[np.float64]:
        """A column of metrics.csv [epochs]; NaN where it is blank or not there.

        Raises ValueError naming the column whose cells are no numbers.
        """
        cells = self.metrics.get(column) or [""] * len(next(iter(self.metrics.values()), ()))
        try:
            return np.array([float(cell) if cell else np.nan for cell in cells])
        except ValueError as error:
            raise ValueError(f"{self.folder / 'metrics.csv'}: column {column}: {error}") from error

    def epochs(self) -> NDArray[np.float64]:
        """The epochs that metrics.csv has a row for; raises ValueError for a row of none."""
        epochs = self.curve("epoch")
        if np.isnan(epochs).any():
            raise ValueError(f"{self.folder / 'metrics.csv'}: a row has no epoch")
        return epochs

    def vanished(self) -> list[set[int]]:
        """The classes that no image was given in each epoch; empty where that is not recorded.

        Raises ValueError for cells that are no class numbers separated by spaces.
        """
        cells = self.metrics.get("vanished_classes", [])
        try:
            return [set(map(int, cell.split())) for cell in cells]
        except ValueError as error:
            raise ValueError(
                f"{self.folder / 'metrics.csv'}: column vanished_classes: {error}"
            ) from error

    def need(self, *names: str) -> list[NDArray[Any]]:
        """The named arrays of predictions.npz; raises LeftOut where one is missing."""
        if not self.arrays:
            raise LeftOut("nothing is split yet: there is no predictions.npz")
        missing = [name for name in names if name not in self.arrays]
        if missing:
            raise LeftOut(f"predictions.npz of this run does not hold {', '.join(missing)}")
        return [self.arrays[name] for name in names]

    @property
    def judge(self) -> str:
        """What looks at the images, in a word."""
        return "network" if self.baseline else "pair"

    @property
    def split_epoch(self) -> int | None:
        """The epoch of the split; None while there is none, and for the baseline."""
        return int(self.arrays["split_epoch"]) if "split_epoch" in self.arrays else None

    @property
    def guess(self) -> bool:
        """Whether the split is a guess, because no tipping point came."""
        return bool(self.arrays.get("guess", False))

    @property
    def wrong(self) -> NDArray[np.bool_] | None:
        """Which given labels [scored images] are wrong; None where the truth is not known."""
        if "true_label" not in self.arrays:
            return None
        return self.arrays["label"] != self.arrays["true_label"]


def new_figure(width: float, height: float, title: str) -> Any:
    """A blank figure of so many inches that spaces its contents by itself."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=DOTS_PER_INCH, layout="constrained")
    figure.suptitle(title, fontsize=LARGE, parse_math=False)
    return figure


def plain(axes: Any, x: str, y: str, title: str = "") -> Any:
    """The axes with named units, a faint grid and no box."""
    axes.set_xlabel(x, fontsize=MEDIUM)
    axes.set_ylabel(y, fontsize=MEDIUM)
    if title:
        axes.set_title(title, fontsize=MEDIUM, loc="left")
    axes.tick_params(labelsize=SMALL)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(color="0.9", linewidth=0.6)
    axes.set_axisbelow(True)
    return axes


def legend_above(axes: Any, columns: int) -> None:
    """The legend in rows over the axes, where it covers nothing."""
    axes.legend(
        fontsize=SMALL, frameon=False, ncols=columns, loc="lower left", bbox_to_anchor=(-0.01, 1)
    )


def over_epochs(axes: Any, epochs: NDArray[np.float64]) -> None:
    """A horizontal axis of epochs: all of them and no more, ticks at whole numbers."""
    from matplotlib.ticker import MaxNLocator

    axes.set_xlabel("epoch", fontsize=MEDIUM)
    axes.set_xlim(epochs[0] - 0.5, epochs[-1] + 0.5)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))


def as_png(figure: Any) -> bytes:
    """The figure as a PNG file; the same figure, the same bytes."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()
