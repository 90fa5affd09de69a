"""The table over seeds: `python -m utils.summary results/`; for the README, and as a page."""

import argparse
import statistics
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

from utils.files import read_json, write_whole
from utils.markers import replace_marked
from utils.options import OneLineParser, parse_options, training_parser
from utils.report import LabelSet, page
from utils.runs import NOT_PART_OF_A_RUN, keep_run

IDENTITY = ("dataset", "noise_type", "method", "seed")  # options that have columns of their own
NOT_SHOWN = {*IDENTITY, *NOT_PART_OF_A_RUN, "clean_test_freq", "precision"}
FOOTNOTE = (
    "mean ± sample standard deviation over n seeds; accuracies on the clean test set; best val:\n"
    "by accuracy on noisy held-out labels, on the training labels where val_ratio is 0 (digits)"
)
LABEL_SET_ORDER = ("clean", "clean100", "aggre", "rand1", "rand2", "rand3", "worst", "noisy100")


class Column(NamedTuple):
    """A measured column: heading, decimals, and where the figure stands in a run's files."""

    heading: str
    decimals: int
    file: str
    keys: tuple[str, ...]
    none_means: str = ""  # what to call it when the file is there and its figure is null


COLUMNS = (
    Column("test acc. last %", 2, "learning.json", ("last", "accuracy")),
    Column("test acc. best val %", 2, "learning.json", ("best_val", "accuracy")),
    Column("precision", 3, "detection.json", ("precision",)),
    Column("recall", 3, "detection.json", ("recall",)),
    Column("F1", 3, "detection.json", ("f1",)),
    Column("tipping epoch", 1, "training.json", ("tipping_point",), "never"),
    Column("wall s", 0, "timing.json", ("wall_seconds",)),
)


def read_runs(folder: Path) -> list[dict[str, Any]]:
    """The records of every finished run in a results folder, by file name, and its "folder".

    Raises ValueError naming a file that is none of this project's.
    """
    runs = []
    for run in sorted(folder.iterdir()):
        if (run / "args.json").is_file() and (run / "training.json").is_file():
            records = {file.name: read_json(file) for file in sorted(run.glob("*.json"))}
            options = records["args.json"].get("options", {})
            if not all(name in options for name in IDENTITY):
                raise ValueError(f"{run / 'args.json'}: does not name a run; remove that folder")
            runs.append({"folder": run, **records})
    return runs


def setting(description: dict[str, Any]) -> str:
    """In what a run departs from its data set's defaults and from fp32, in words."""
    options, precision = description["options"], description.get("precision", "fp32")
    named = ["--dataset", options["dataset"], "--noise_type", options["noise_type"]]
    defaults = vars(parse_options(training_parser(), named))
    departures = [
        f"{name}={options[name]}"
        for name, default in defaults.items()
        if name not in NOT_SHOWN and options.get(name, default) != default
    ]
    return " ".join(departures + [precision] * (precision != "fp32"))


def group_runs(runs: Iterable[dict[str, Any]]) -> dict[tuple[str, ...], list[dict[str, Any]]]:
    """Runs that differ in nothing but the seed, together: (data set, labels, setting, method).

    Raises ValueError naming two folders with the same run.
    """
    groups: dict[tuple[str, ...], list[dict[str, Any]]] = {}
    for run in runs:
        options = run["args.json"]["options"]
        key = (
            options["dataset"],
            options["noise_type"],
            setting(run["args.json"]),
            options["method"],
        )
        for other in groups.setdefault(key, []):
            if other["args.json"]["options"]["seed"] == options["seed"]:
                raise ValueError(
                    f"{run['folder']} and {other['folder']} are the same run; move one away"
                )
        groups[key].append(run)
    return dict(
        sorted(groups.items(), key=lambda g: (g[0][0], LABEL_SET_ORDER.index(g[0][1]), *g[0][2:]))
    )


def figure(column: Column, runs: list[dict[str, Any]]) -> str:
    """Mean ± sample standard deviation of one column over runs; "-" where nothing was measured."""
    values, nulls = [], 0
    for run in runs:
        value: Any = run.get(column.file)
        for key in column.keys:
            value = value.get(key) if value else None
        if value is not None:
            values.append(value)
        elif column.none_means and run["args.json"]["options"]["method"] == "bkd":
            nulls += 1
    parts = []
    if values:
        parts.append(f"{statistics.mean(values):.{column.decimals}f}")
    if len(values) > 1:
        parts.append(f"± {statistics.stdev(values):.{column.decimals}f}")
    if nulls:
        parts.append(f"({nulls} {column.none_means})" if values else column.none_means)
    return " ".join(parts) or "-"


def table(runs: Iterable[dict[str, Any]]) -> list[list[str]]:
    """Heading and one row for each data set, label set, setting and method."""
    rows = [["data set", "labels", "setting", "method", "n", *(c.heading for c in COLUMNS)]]
    for (dataset, noise_type, options, method), group in group_runs(runs).items():
        figures = [figure(column, group) for column in COLUMNS]
        rows.append([dataset, noise_type, options or "default", method, str(len(group)), *figures])
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
    """Rows as a Markdown table."""
    lines = [f"| {' | '.join(row)} |" for row in rows]
    return "\n".join([lines[0], "|" + "---|" * len(rows[0]), *lines[1:]])


def label_sets(runs: list[dict[str, Any]]) -> list[LabelSet]:
    """The runs by label set, each with its table, for the page."""
    parts: dict[tuple[str, ...], list[dict[str, Any]]] = {}
    for (dataset, noise_type, options, _), group in group_runs(runs).items():
        named = [run | {"setting": options} for run in group]
        parts.setdefault((dataset, noise_type), []).extend(named)
    return [
        LabelSet(*names, [row[2:] for row in table(members)], members)
        for names, members in parts.items()
    ]


def write_into(path: Path, name: str, content: str) -> None:
    """Put `content` between a file's markers of that name; raises ValueError naming the file."""
    try:
        text = replace_marked(path.read_text(encoding="utf-8"), name, content)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    write_whole(path, text.encode())


def _parser() -> OneLineParser:
    parser = OneLineParser(prog="utils.summary", description=__doc__)
    parser.add_argument(
        "results", type=Path, nargs="?", default=Path("results"), help="folder of run folders"
    )
    parser.add_argument(
        "--keep",
        type=Path,
        metavar="FOLDER",
        help="first copy the finished runs' small files there (options, figures, no images, no "
        "networks), and go on with these",
    )
    parser.add_argument("--markdown", action="store_true", help="as a Markdown table")
    parser.add_argument(
        "--into",
        type=Path,
        metavar="FILE",
        help="write the Markdown table into this file, between the lines <!-- results NAME begin "
        "--> and <!-- results NAME end -->; NAME is the results folder's",
    )
    parser.add_argument(
        "--html",
        type=Path,
        metavar="FILE",
        help="write one page with the tables, published figures, and each run with its pictures",
    )
    return parser


def main() -> None:
    """Print the table of a results folder, or write it where the options say."""
    parser = _parser()
    args: argparse.Namespace = parser.parse_args()
    if not args.results.is_dir():
        parser.error(f"{args.results}: no such results folder; name the one given to --results_dir")
    try:
        runs = read_runs(args.results)
        if not runs:
            raise ValueError(f"{args.results}: holds no finished run; train one first")
        if args.keep:
            for run in runs:
                keep_run(run["folder"], args.keep / run["folder"].name)
            args.results, runs = args.keep, read_runs(args.keep)
            print(args.keep)
        rows = table(runs)
        if args.html:
            write_whole(args.html, page(label_sets(runs), FOOTNOTE).encode())
            print(args.html)
        if args.into:
            write_into(args.into, args.results.resolve().name, as_markdown(rows))
            print(args.into)
    except (ValueError, OSError) as error:
        parser.error(str(error))
    if not (args.html or args.into or args.keep):
        print((as_markdown if args.markdown else as_text)(rows))
        print(f"\n{FOOTNOTE}")


if __name__ == "__main__":
    main()
