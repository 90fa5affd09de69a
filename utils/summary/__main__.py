"""The table over seeds: `python -m utils.summary results/`; for the README, and as a page.

Exit status 1 where a check finds a run that looks wrong, 2 for wrong input and where a run folder
had to be skipped.
"""

import argparse
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from utils.files import write_whole
from utils.options.parser import OneLineParser
from utils.options.values import path
from utils.run_folder.folder import RunFolder
from utils.summary.checks import checks_table, warnings_of
from utils.summary.markers import write_into
from utils.summary.runs import Run, read_runs
from utils.summary.table import SPREADS, as_markdown, as_text, footnote, table


def make_parser() -> OneLineParser:
    """The options of the command."""
    parser = OneLineParser(prog="utils.summary", description=__doc__)
    parser.add_argument(
        "results", type=path, nargs="?", default=Path("results"), help="folder of run folders"
    )
    parser.add_argument(
        "--keep",
        type=path,
        metavar="FOLDER",
        help="first copy the finished runs' small files there (options, metrics, no images, no "
        "networks), and use these",
    )
    parser.add_argument("--markdown", action="store_true", help="as a Markdown table")
    parser.add_argument(
        "--spread",
        choices=tuple(SPREADS),
        default="std",
        help="number behind ±; "
        + "; ".join(f"{name}: {words.replace('%', '%%')}" for name, words in SPREADS.items()),
    )
    parser.add_argument(
        "--into",
        type=path,
        metavar="FILE",
        help="write the Markdown table into this file, between the lines <!-- results NAME begin "
        "--> and <!-- results NAME end -->; NAME is the results folder's",
    )
    parser.add_argument(
        "--html",
        type=path,
        metavar="FILE",
        help="write one page with the tables, published results, and each run with its plots, "
        "which it loads from the run folders",
    )
    parser.add_argument(
        "--embed", action="store_true", help="put the plots into the page, which can then be moved"
    )
    parser.add_argument(
        "--checks",
        action="store_true",
        help="a row for each run instead, and warnings on stderr about those that look wrong",
    )
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Print the table of a results folder, or write it where the options say; the exit status."""
    parser = make_parser()
    args = parser.parse_args(argv)
    writes = bool(args.keep or args.html or args.into)
    if args.checks and writes:
        parser.error("--checks only prints; give --keep, --html and --into without it")
    if args.embed and not args.html:
        parser.error("--embed is for the page; give --html FILE too")
    try:
        runs, problems = _read(args.results)
        if args.keep:
            for run in runs:
                run.folder.keep_in(RunFolder(args.keep / run.name))
            args.results = args.keep
            runs, more_problems = _read(args.keep)
            problems += more_problems
        problems += _write(args, runs)
    except (ValueError, OSError) as error:
        parser.error(str(error))
    warnings = warnings_of(runs) if args.checks else []
    show = as_markdown if args.markdown else as_text
    if args.checks:
        print(show(checks_table(runs)))
        _warn(f"{run.folder}: {words}" for run, words in warnings)
    elif not writes:
        print(f"{show(table(runs, args.spread))}\n\n{footnote(args.spread)}")
    return 2 if problems else int(bool(warnings))


def _read(results: Path) -> tuple[list[Run], list[str]]:
    """The runs, and what was said of those skipped; raises ValueError where there are none."""
    if not results.is_dir():
        raise ValueError(f"{results}: no such results folder; name the one given to --results_dir")
    runs, skipped = read_runs(results)
    _warn(skipped)
    if not runs:
        raise ValueError(f"{results}: holds no finished run; train one first")
    return runs, skipped


def _write(args: argparse.Namespace, runs: Sequence[Run]) -> list[str]:
    """Write what the options ask for and print where it is; what was said of plots left out."""
    left_out: list[str] = []
    if args.keep:
        print(args.keep)
    if args.html:
        from utils.summary.page import page  # jinja2 and matplotlib are for the page alone

        text, left_out = page(runs, args.spread, args.html, args.embed)
        _warn(left_out)
        write_whole(args.html, text.encode(errors="backslashreplace"))
        print(args.html)
    if args.into:
        name = args.results.resolve().name
        write_into(args.into, name, as_markdown(table(runs, args.spread)))
        print(args.into)
    return left_out


def _warn(lines: Iterable[str]) -> None:
    for line in lines:
        print(line, file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
