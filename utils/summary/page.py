"""The results as one page without scripts: tables, warnings, and each run with its plots."""

import base64
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from utils.methods import METHODS
from utils.plots.style import DOTS_PER_INCH, as_png
from utils.summary.checks import duration, memory, warnings_of
from utils.summary.overview import TITLES, draw_overview
from utils.summary.published import ACCURACY_STATISTIC, F1_STATISTIC, RERUNS, published_rows
from utils.summary.runs import Run
from utils.summary.table import ACCURACY, F1, cell, footnote, group_runs, table

CAPTIONS = {
    "tipping_point.png": "The student's confidence; at its peak learning turns into memorising. "
    "Below it, how many of the labels that the pair agrees with in training are wrong.",
    "noise_split.png": "How far the pair agrees with each given label, the three cuts, and the "
    "four groups.",
    "training_curves.png": "Losses, accuracies and learning rate.",
    "detection_curve.png": "Precision over recall when labels are flagged from the lowest "
    "agreement on, and where each cut stands.",
    "suspects.png": "The most suspect labels. The whole list is suspects.csv in the run folder.",
    "transitions.png": "Which class is given for which, in % of the images given a label.",
}
PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
PNG_HEADER = 24  # bytes up to and with the size
LEGIBLE, COMFORTABLE, WIDE = 80, 110, 8  # CSS pixels an inch at least and at most; inches


class Plot(NamedTuple):
    """A PNG on the page."""

    source: str  # URL
    width: int  # pixels of the file
    height: int
    alt: str
    caption: str = ""

    @property
    def inches(self) -> float:
        """Its width when it was drawn."""
        return self.width / DOTS_PER_INCH

    @property
    def smallest(self) -> int:
        """CSS pixels below which its text could not be read."""
        return round(self.inches * LEGIBLE)

    @property
    def largest(self) -> int:
        """CSS pixels above which it would be needlessly large."""
        return round(self.inches * COMFORTABLE)

    @property
    def wide(self) -> bool:
        """Whether it needs a row of its own."""
        return self.inches > WIDE


def page(runs: Sequence[Run], spread: str, place: Path, embed: bool) -> tuple[str, list[str]]:
    """The page, and a line for each plot that is left out because it cannot be read.

    `spread`: one of table.SPREADS. `place`: the file that the page is for; unless `embed`, it loads
    the plots of the runs from their folders, by URLs relative to that file.
    """
    runs = [run for group in group_runs(runs).values() for run in group]
    warnings = [(runs.index(run), words) for run, words in warnings_of(runs)]
    shown, left_out = [], []
    for number, run in enumerate(runs):
        plots, unreadable = _run_plots(run, None if embed else place)
        left_out += unreadable
        own_warnings = [words for place, words in warnings if place == number]
        shown.append(_run_view(run, plots, own_warnings))
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
    )
    label_sets = _label_sets(runs, spread)
    text = environment.get_template("page.html").render(
        image_sources="data:" if embed else "'self' file: data:",
        overview=list(_overview(runs, spread)),
        several_seeds=any(len(group) > 1 for group in group_runs(runs).values()),
        footnote=footnote(spread),
        warnings=warnings,
        label_sets=label_sets,
        any_published=any(part["published"] for part in label_sets),
        runs=shown,
        accuracy_statistic=ACCURACY_STATISTIC,
        f1_statistic=F1_STATISTIC,
        reruns=RERUNS,
        methods={name: method.words for name, method in METHODS.items()},
    )
    return text, left_out


def _overview(runs: Sequence[Run], spread: str) -> Iterable[Plot]:
    for column, title in TITLES.items():
        figure = draw_overview(runs, column, spread)
        if figure is None:
            continue
        numbers = "; ".join(
            f"{' '.join(filter(None, key._replace(precision='')))}: {cell(column, group, spread)}"
            for key, group in group_runs(runs).items()
        )
        yield _plot(as_png(figure), alt=f"{title}. {numbers}")


def _label_sets(runs: Iterable[Run], spread: str) -> list[dict[str, Any]]:
    """The table of each label set, without the columns of its name, and what others published."""
    parts: dict[tuple[str, str], list[Run]] = {}
    for run in runs:
        parts.setdefault((run.key.dataset, run.key.labels), []).append(run)
    return [
        {
            "dataset": dataset,
            "labels": labels,
            "rows": [row[2:] for row in table(members, spread)],
            "published": published_rows(dataset, labels),
        }
        for (dataset, labels), members in parts.items()
    ]


def _run_view(run: Run, plots: Sequence[Plot], warnings: Sequence[str]) -> dict[str, Any]:
    """What the page says of one run."""
    options = run.records["args"]["options"]
    accuracy = cell(ACCURACY, [run], "std")
    return {
        "name": run.name,
        "folder": str(run.folder),
        "accuracy": accuracy if accuracy == "-" else f"{accuracy} %",
        "f1": cell(F1, [run], "std"),
        "warnings": warnings,
        "facts": _facts(run),
        "plots": plots,
        "options": {
            name: value if isinstance(value, str) else json.dumps(value)
            for name, value in options.items()
        },
    }


def _facts(run: Run) -> dict[str, str]:
    """What a run was made with, and how its labels were split."""
    args, training = run.records["args"], run.records["training"]
    tipping, key = training.get("tipping_point"), run.key
    facts = {
        "data set, labels": f"{key.dataset}, {key.labels}",
        "setting": key.setting or "default",
    }
    if key.method != "ce":
        none = "none; the split is a fallback" if training.get("fallback") else "none"
        facts["tipping point"] = none if tipping is None else f"epoch {tipping}"
        facts["noise rate"] = _noise_rate(training)
    return facts | {
        "wall time": duration(run.value("timing", "wall_seconds")),
        "peak memory": memory(run.value("timing", "peak_memory_gib")),
        "device": args.get("device") or "-",
        "compute precision": key.precision,
        "compiled": {True: "yes", False: "no"}.get(args.get("compiled"), "-"),
        "versions": _words(args.get("versions") or {}),
        "commit": args.get("commit") or "-",
    }


def _noise_rate(training: Mapping[str, Any]) -> str:
    estimated, true = training.get("estimated_noise_rate"), training.get("true_noise_rate")
    if estimated is None or true is None:
        return "-"
    return f"{estimated:.1%} as the share below the threshold, {true:.1%} by the true labels"


def _words(versions: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {number}" for name, number in versions.items()) or "-"


def _run_plots(run: Run, beside: Path | None) -> tuple[list[Plot], list[str]]:
    """The plots of a run, loaded from beside that file or embedded, and what is wrong with some."""
    plots, unreadable = [], []
    for name, caption in CAPTIONS.items():
        path = run.folder.path / name
        if not path.is_file():
            continue
        try:
            content = path.read_bytes()
            url = None
            if beside:
                relative = os.path.relpath(path.resolve(), beside.parent.resolve())
                url = quote(os.fsencode(relative))
            plots.append(_plot(content, f"{path.stem.replace('_', ' ')}", caption, url))
        except (ValueError, OSError) as error:
            unreadable.append(
                f"left out: {path}: {error}; draw it again with python -m utils.plots"
            )
    return plots, unreadable


def _plot(content: bytes, alt: str, caption: str = "", url: str | None = None) -> Plot:
    """A plot at that URL, or in the page itself; raises ValueError for what is no PNG."""
    if not content.startswith(PNG_SIGNATURE) or len(content) < PNG_HEADER:
        raise ValueError("not a PNG file")
    width, height = (int.from_bytes(content[at : at + 4], "big") for at in (16, 20))
    source = url or f"data:image/png;base64,{base64.b64encode(content).decode()}"
    return Plot(source, width, height, alt, caption)
