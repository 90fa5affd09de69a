"""The plots at the top of the page: accuracy and F1 by label set and method."""

import statistics
import textwrap
from collections.abc import Iterable, Mapping, Sequence

from utils.plots.style import DARK, INK, MIDDLE, Axes, Figure, new_figure, plain
from utils.summary.runs import Run, RunKey
from utils.summary.table import ACCURACY, F1, Column, group_runs, half_width, measured

TITLES = {ACCURACY: "Clean test accuracy, last epoch (%)", F1: "F1 of finding the wrong labels"}
WIDTH, ROW_HEIGHT, AROUND = 4.3, 0.8, 1.1  # inches
FONT_SIZE = 10.5  # points: the page shows an inch on 80 pixels at least
HEIGHTS = {"bkd": -0.2, "bkd+": 0.08, "ce": 0.36}  # in rows: of the methods' marks
SEEDS_ABOVE = 0.13  # a method's mark
MARKS = {
    "bkd": {"label": "bkd", "marker": "o", "color": INK, "markerfacecolor": INK},
    "bkd+": {"label": "bkd+", "marker": "D", "color": INK, "markerfacecolor": "white"},
    "ce": {"label": "ce (baseline)", "marker": "s", "color": MIDDLE, "markerfacecolor": "white"},
}
SETTING_WIDTH, SETTING_LINES = 24, 2  # letters and lines of a row's label


def draw_overview(runs: Iterable[Run], column: Column, spread: str) -> Figure | None:
    """Mean ± `spread` of each label set (a row) and method (a mark), single seeds as dots.

    `column`: one of TITLES. Returns None where nothing was measured.
    """
    groups = {key: measured(column, group) for key, group in group_runs(runs).items()}
    groups = {key: values for key, values in groups.items() if values}
    if not groups:
        return None
    rows = list(dict.fromkeys(key._replace(method="") for key in groups))
    figure = new_figure(WIDTH, AROUND + ROW_HEIGHT * len(rows), TITLES[column])
    axes = plain(figure.subplots(), "", "")
    for method, height in HEIGHTS.items():
        of_method = {
            row + height: groups[key._replace(method=method)]
            for row, key in enumerate(rows)
            if key._replace(method=method) in groups
        }
        if of_method:
            _draw_method(axes, of_method, MARKS[method], spread)
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.set_yticks(range(len(rows)), _row_labels(rows), parse_math=False)
    axes.tick_params(labelsize=FONT_SIZE)
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="y", visible=False)
    axes.legend(
        fontsize=FONT_SIZE,
        frameon=False,
        ncols=3,
        columnspacing=1,
        loc="lower right",
        bbox_to_anchor=(1, 1),
    )
    return figure


def _draw_method(
    axes: Axes, rows: Mapping[float, Sequence[float]], style: Mapping[str, str], spread: str
) -> None:
    """`rows`: the values of the seeds by height."""
    means = [statistics.mean(values) for values in rows.values()]
    widths = [half_width(values, spread) or 0 for values in rows.values()]
    axes.errorbar(means, list(rows), xerr=widths, fmt="none", ecolor=style["color"], capsize=4)
    axes.plot(means, list(rows), linestyle="none", markersize=7, **style)
    for height, values in rows.items():
        if len(values) > 1:
            axes.plot(values, [height - SEEDS_ABOVE] * len(values), ".", color=DARK, markersize=4)


def _row_labels(rows: Sequence[RunKey]) -> list[str]:
    """Data set and label set; setting and precision where they differ."""
    settings, precisions = {row.setting for row in rows}, {row.precision for row in rows}
    labels = []
    for row in rows:
        words = [row.setting or "default"] * (len(settings) > 1)
        words += [row.precision] * (len(precisions) > 1)
        lines = textwrap.wrap(
            " ".join(words), SETTING_WIDTH, max_lines=SETTING_LINES, placeholder=" …"
        )
        labels.append("\n".join([f"{row.dataset} {row.labels}", *lines]))
    return labels
