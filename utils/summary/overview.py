"""The plots at the top of the page: accuracy and F1 by label set and method."""

import statistics
import textwrap
from collections.abc import Sequence

from utils.methods import METHODS
from utils.plots.style import DARK, INK, MIDDLE, Figure, new_figure, plain
from utils.summary.runs import RunKey
from utils.summary.table import ACCURACY, F1, Column, Groups, half_width, measured

TITLES = {ACCURACY: "Clean test accuracy, last epoch (%)", F1: "F1 of finding the wrong labels"}
WIDTH, ROW_HEIGHT, AROUND = 4.3, 0.8, 1.1  # inches
FONT_SIZE = 10.5  # points: the page shows an inch on 80 pixels at least
MARKERS = "oDs^vPX"  # of the methods, in their order
LOWEST, HIGHEST = -0.2, 0.36  # heights of the methods' marks, in rows
SEEDS_ABOVE = 0.13  # a method's mark
SETTING = {"width": 24, "max_lines": 2, "placeholder": " …"}  # letters and lines of a row's label


def draw_overview(runs: Groups, column: Column, spread: str) -> Figure | None:
    """Mean ± `spread` of each label set (a row) and method (a mark), single seeds as dots.

    `column`: one of TITLES. Returns None where nothing was measured.
    """
    groups = {key: measured(column, group) for key, group in runs.items()}
    groups = {key: values for key, values in groups.items() if values}
    if not groups:
        return None
    rows = list(dict.fromkeys(key._replace(method="") for key in groups))
    figure = new_figure(WIDTH, AROUND + ROW_HEIGHT * len(rows), TITLES[column])
    axes = plain(figure.subplots(), "", "")
    for number, method in enumerate(METHODS):
        height = LOWEST + (HIGHEST - LOWEST) * number / (len(METHODS) - 1)
        style = {"label": method, "marker": MARKERS[number % len(MARKERS)]}
        style |= {"color": INK if METHODS[method].has_student else MIDDLE}
        for key in (key for key in groups if key.method == method):
            values, y = groups[key], rows.index(key._replace(method="")) + height
            mean, width = statistics.mean(values), half_width(values, spread) or 0
            axes.errorbar(mean, y, xerr=width, capsize=4, linestyle="none", markersize=7, **style)
            style = style | {"label": "_"}  # one entry of the legend is enough
            if len(values) > 1:
                axes.plot(values, [y - SEEDS_ABOVE] * len(values), ".", color=DARK, markersize=4)
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.set_yticks(range(len(rows)), _row_labels(rows), parse_math=False)
    axes.tick_params(labelsize=FONT_SIZE)
    axes.locator_params(axis="x", nbins=5)
    axes.grid(axis="y", visible=False)
    place = {"loc": "lower right", "bbox_to_anchor": (1, 1)}
    axes.legend(fontsize=FONT_SIZE, frameon=False, ncols=3, columnspacing=1, **place)
    return figure


def _row_labels(rows: Sequence[RunKey]) -> list[str]:
    """Data set and label set; setting and precision where they differ."""
    settings, precisions = {row.setting for row in rows}, {row.precision for row in rows}
    labels = []
    for row in rows:
        words = [row.setting or "default"] * (len(settings) > 1)
        words += [row.precision] * (len(precisions) > 1)
        lines = textwrap.wrap(" ".join(words), **SETTING)
        labels.append("\n".join([f"{row.dataset} {row.labels}", *lines]))
    return labels
