"""The table of results: runs that differ in nothing but the seed, averaged in one row."""

import html
import re
import statistics
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from utils.summary.runs import LABELS, Run, RunKey

Groups = dict[RunKey, list[Run]]  # runs that differ in nothing but the seed
SPREADS = {
    "std": "mean ± sample standard deviation over n seeds",
    "ci95": "mean ± half width of its 95 % confidence interval (Student's t) over n seeds",
}
FOOTNOTE = (
    "{}; accuracies on the clean test set; best val:\n"
    "by accuracy on noisy held-out labels, on the training labels where val_ratio is 0 (digits)"
)


class Column(NamedTuple):
    """A measured column: heading, decimals, and where the value is among a run's records."""

    heading: str
    decimals: int
    file: str  # attribute of RunFolder
    key: str
    none_means: str = ""  # the word for a run of the method that has no such value


ACCURACY = Column("test acc. last %", 2, "learning", "last.accuracy")
F1 = Column("F1", 3, "detection_metrics", "f1")
COLUMNS = (
    ACCURACY,
    Column("test acc. best val %", 2, "learning", "best_val.accuracy"),
    Column("precision", 3, "detection_metrics", "precision"),
    Column("recall", 3, "detection_metrics", "recall"),
    F1,
    Column("tipping epoch", 1, "training", "tipping_point", "never"),
    Column("wall s", 0, "timing", "wall_seconds"),
)
MEMORIZED = Column("memorized %", 1, "training", "memorized_share")  # where a run has it


def footnote(spread: str) -> str:
    """What the numbers of a table are; `spread`: one of SPREADS."""
    return FOOTNOTE.format(SPREADS[spread])


def group_runs(runs: Iterable[Run]) -> Groups:
    """Runs that differ in nothing but the seed, together; both sorted.

    Those that have other labels, though no seed draws them, go apart; the setting names the labels.
    """
    runs = sorted(runs, key=lambda run: (run.key, run.seed))
    labels: dict[RunKey, set[str]] = {}
    for run in runs:
        labels.setdefault(run.key, set()).add(run.labels)
    groups: Groups = {}
    for run in runs:
        apart = run.labels and len(labels[run.key] - {""}) > 1
        setting = f"{run.key.setting} {LABELS}={run.labels}".strip() if apart else run.key.setting
        groups.setdefault(run.key._replace(setting=setting), []).append(run)
    return groups


def half_width(values: Sequence[float], spread: str) -> float | None:
    """The number after ±: one of SPREADS of values [n]; None for fewer than two."""
    if len(values) < 2:
        return None
    if spread == "ci95":
        from scipy import stats  # takes long to import

        return float(stats.sem(values) * stats.t.ppf(0.975, df=len(values) - 1))
    return statistics.stdev(values)


def measured(column: Column, runs: Iterable[Run]) -> list[float]:
    """The values of a column, of the runs that have one."""
    values = (run.value(column.file, column.key) for run in runs)
    return [value for value in values if value is not None]


def cell(column: Column, runs: Sequence[Run], spread: str) -> str:
    """Mean ± spread of one column over runs; "-" where nothing was measured."""
    values = measured(column, runs)
    parts = []
    if values:
        parts.append(f"{statistics.mean(values):.{column.decimals}f}")
    if (width := half_width(values, spread)) is not None:
        parts.append(f"± {width:.{column.decimals}f}")
    missing = len(runs) - len(values)
    if column.none_means and missing and runs[0].key.has_student:
        parts.append(f"({missing} {column.none_means})" if values else column.none_means)
    return " ".join(parts) or "-"


def identity(keys: Iterable[RunKey]) -> list[list[str]]:
    """Heading and a row for each key. The precision has a column only where it differs."""
    keys = list(keys)
    differ = len({key.precision for key in keys}) > 1
    rows = [["data set", "labels", "setting", *["compute precision"] * differ, "method"]]
    for key in keys:
        setting = key.setting or "default"
        rows.append([key.dataset, key.labels, setting, *[key.precision] * differ, key.method])
    return rows


def table(runs: Iterable[Run], spread: str = "std") -> list[list[str]]:
    """Heading and one row for each data set, label set, setting, precision and method."""
    groups = group_runs(runs)
    heading, *names = identity(groups)
    runs = [run for group in groups.values() for run in group]
    columns = [*COLUMNS, MEMORIZED] if measured(MEMORIZED, runs) else COLUMNS
    rows = [[*heading, "n", *(column.heading for column in columns)]]
    for name, group in zip(names, groups.values(), strict=True):
        cells = [cell(column, group, spread) for column in columns]
        rows.append([*name, str(len(group)), *cells])
    return rows


def as_text(rows: list[list[str]]) -> str:
    """Rows in aligned columns."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]
    return "\n".join(lines)


def as_markdown(rows: list[list[str]]) -> str:
    """Rows as a Markdown table in which every cell is plain text."""
    lines = [f"| {' | '.join(map(_escape, row))} |" for row in rows]
    return "\n".join([lines[0], "|" + "---|" * len(rows[0]), *lines[1:]])


def _escape(text: Any) -> str:
    return re.sub(r"([\\`*|\[\]])", r"\\\1", html.escape(" ".join(text.split()), quote=False))
