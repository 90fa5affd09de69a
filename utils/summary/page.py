"""The results as one page without scripts: tables, warnings, and each run with its plots."""

import base64
import json
import os
import struct
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from utils.methods import METHODS
from utils.plots.draw import CAPTIONS
from utils.plots.style import as_png
from utils.summary.checks import HEADING, run_cells, warnings_of
from utils.summary.overview import TITLES, draw_overview
from utils.summary.published import ACCURACY_STATISTIC, F1_STATISTIC, RERUNS, published_rows
from utils.summary.runs import Run
from utils.summary.table import ACCURACY, F1, Groups, cell, footnote, group_runs, table

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
MADE_WITH = ("device", "precision", "compiled", "versions", "commit")


def page(runs: Sequence[Run], spread: str, place: Path, embed: bool) -> tuple[str, list[str]]:
    """The page, and a line for each plot that is left out because it cannot be read.

    `spread`: one of table.SPREADS. `place`: the file that the page is for; unless `embed`, it loads
    the plots of the runs from their folders, by URLs relative to that file.
    """
    groups = group_runs(runs)
    views = {run.path: _run_view(run) for group in groups.values() for run in group}
    left_out = []
    for view in views.values():
        view["plots"], unreadable = _run_plots(view["path"], None if embed else place)
        left_out += unreadable
    for run, words in warnings_of(runs):
        views[run.path]["warnings"].append(words)
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
    )
    text = environment.get_template("page.html").render(
        image_sources="data:" if embed else "'self' file: data:",
        overview=list(_overview(groups, spread)),
        footnote=footnote(spread),
        label_sets=_label_sets(groups, spread),
        runs=list(views.values()),
        accuracy_statistic=ACCURACY_STATISTIC,
        f1_statistic=F1_STATISTIC,
        reruns=RERUNS,
        methods={name: method.words for name, method in METHODS.items()},
    )
    return text, left_out


def _overview(groups: Groups, spread: str) -> Iterable[dict[str, Any]]:
    for column, title in TITLES.items():
        if figure := draw_overview(groups, column, spread):
            numbers = (
                " ".join(filter(None, (*key._replace(precision=""), cell(column, group, spread))))
                for key, group in groups.items()
            )
            yield _plot(as_png(figure), f"{title}: {'; '.join(numbers)}")


def _label_sets(groups: Groups, spread: str) -> list[dict[str, Any]]:
    """The table of each label set, without the columns of its name, and what others published."""
    parts: dict[tuple[str, str], list[Run]] = {}
    for key, group in groups.items():
        parts.setdefault((key.dataset, key.labels), []).extend(group)
    return [
        {
            "name": ", labels ".join(names),
            "rows": [row[2:] for row in table(members, spread)],
            "published": published_rows(*names),
        }
        for names, members in parts.items()
    ]


def _run_view(run: Run) -> dict[str, Any]:
    """What the page says of one run."""
    args = run.records["args"]
    facts = {"data set, labels": f"{run.key.dataset}, {run.key.labels}", "setting": run.key.setting}
    facts |= dict(zip(HEADING[1:], run_cells(run), strict=True))
    facts |= {name: _text(args.get(name)) for name in MADE_WITH}
    return {
        "name": run.name,
        "path": run.path,
        "trained_here": run.path.is_dir(),
        "accuracy": cell(ACCURACY, [run], "std"),
        "f1": cell(F1, [run], "std"),
        "warnings": [],
        "facts": {name: words for name, words in facts.items() if words not in ("", "-")},
        "options": {name: _text(value) for name, value in args["options"].items()},
    }


def _text(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {each}" for name, each in value.items())
    return value if isinstance(value, str) else json.dumps(value)


def _run_plots(folder: Path, beside: Path | None) -> tuple[list[dict[str, Any]], list[str]]:
    """The plots of a run, loaded from beside that file or embedded, and what is wrong with some."""
    plots, unreadable = [], []
    for path in (folder / name for name in CAPTIONS if (folder / name).is_file()):
        try:
            content, url = path.read_bytes(), ""
            if beside:
                relative = os.path.relpath(path.resolve(), beside.parent.resolve())
                url = quote(os.fsencode(relative))
            plots.append(_plot(content, path.stem.replace("_", " "), CAPTIONS[path.name], url))
        except (ValueError, OSError) as error:
            hint = "draw it again with python -m utils.plots"
            unreadable.append(f"left out: {path}: {error}; {hint}")
    return plots, unreadable


def _plot(content: bytes, alt: str, caption: str = "", url: str = "") -> dict[str, Any]:
    """A plot at that URL, or in the page itself; raises ValueError for what is no PNG."""
    if not content.startswith(PNG_SIGNATURE) or len(content) < 24:
        raise ValueError("not a PNG file")
    source = url or f"data:image/png;base64,{base64.b64encode(content).decode()}"
    width, height = struct.unpack(">II", content[16:24])  # pixels
    return {"source": source, "width": width, "height": height, "alt": alt, "caption": caption}
