"""The table over seeds: `python -m utils.summary results/`; as a page; and into Markdown files.

RESULTS is a folder of run folders, or a group kept by --keep; with --into a folder of such groups.
Exit status 1 where a check finds a run that looks wrong, 2 for wrong input and where a run had to
be skipped.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from utils.console import discard
from utils.files import check_replaceable, write_text, write_whole
from utils.options.parser import OneLineParser
from utils.options.values import path
from utils.summary.checks import checks_table, label_warnings, warnings_of
from utils.summary.kept import keep
from utils.summary.label_set_table import label_set_table
from utils.summary.markers import marked_texts, replace_marked
from utils.summary.published import published_table
from utils.summary.runs import RUNS, Run, read_runs
from utils.summary.table import SPREADS, as_markdown, as_text, footnote, table

PAGE_MARK = "<title>Blind Knowledge Distillation: results</title>"


def make_parser() -> OneLineParser:
    """The options of the command."""
    parser = OneLineParser(prog="utils.summary", description=__doc__)
    add, spreads = parser.add_argument, "; ".join(f"{k}: {v}" for k, v in SPREADS.items())
    add("results", type=path, nargs="?", default=Path("results"), help="folder of runs")
    keep_help = "merge the finished runs into this group (metrics, no images, no networks), use it"
    add("--keep", type=path, metavar="GROUP", help=keep_help)
    add("--markdown", action="store_true", help="as a Markdown table")
    add("--spread", choices=tuple(SPREADS), default="std", help=spreads.replace("%", "%%"))
    into_help = (
        "rewrite every table between <!-- results NAME begin --> and <!-- results NAME end --> in "
        "these Markdown files; NAME is a group, several joined by commas, or published"
    )
    add("--into", type=path, nargs="+", metavar="FILE", help=into_help)
    html_help = "write one page: tables, published results, and each run with its plots"
    add("--html", type=path, metavar="FILE", help=html_help)
    add("--embed", action="store_true", help="put the plots into the page, which can then be moved")
    add("--force", action="store_true", help="write over a file that is no earlier output")
    add("--checks", action="store_true", help="a row for each run, and warnings on stderr")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Print the table of a results folder, or write it where the options say; the exit status."""
    parser = make_parser()
    args = parser.parse_args(argv)
    if bool(args.checks) + bool(args.into) + bool(args.keep or args.html) > 1:
        parser.error("give one of --checks, --into, and --keep or --html")
    if args.embed and not args.html:
        parser.error("--embed is for the page; give --html FILE too")
    try:
        return _rewrite(args.into, args.results) if args.into else _show(args)
    except BrokenPipeError:
        discard(sys.stdout)
        return 141
    except (ValueError, OSError) as error:
        parser.error(error)


def marked_table(groups: Path, name: str) -> str:
    """The Markdown table that belongs between the markers of that name.

    Raises ValueError where a group is not there or holds a run that cannot be read.
    """
    if name == "published":
        return as_markdown(published_table())
    runs = {}
    for group in name.split(","):
        runs[group], skipped = _read(groups / group)
        if skipped:
            raise ValueError(skipped[0])
    return as_markdown(label_set_table(runs) if len(runs) > 1 else table(runs[name]))


def _rewrite(files: Sequence[Path], groups: Path) -> int:
    texts = {}
    for file in files:
        try:
            texts[file] = file.read_bytes().decode()  # with its line ends
            if not (names := marked_texts(texts[file])):
                raise ValueError("needs lines <!-- results NAME begin --> and … end -->")
            for name in names:
                texts[file] = replace_marked(texts[file], name, marked_table(groups, name))
        except ValueError as error:
            raise ValueError(f"{file}: {error}") from error
    for file, text in texts.items():
        write_text(file, text)
        print(file)
    return 0


def _show(args: argparse.Namespace) -> int:
    if args.html:
        check_replaceable(args.html, PAGE_MARK, args.force)
    runs, problems = _read(args.results)
    if args.keep:
        keep(runs, args.keep, args.force)
        runs, more_problems = _read(args.keep)
        problems += more_problems
        print(args.keep)
    warnings = warnings_of(runs) if args.checks else label_warnings(runs)
    show = as_markdown if args.markdown else as_text
    if args.html:
        from utils.summary.page import page  # jinja2 and matplotlib are for the page alone

        text, left_out = page(runs, args.spread, args.html, args.embed)
        problems += left_out
        write_whole(args.html, text.encode(errors="backslashreplace"))
        print(args.html)
    elif args.checks:
        print(show(checks_table(runs)))
    elif not args.keep:
        print(f"{show(table(runs, args.spread))}\n\n{footnote(args.spread)}")
    for line in (*problems, *(f"{run.path}: {words}" for run, words in warnings)):
        print(line, file=sys.stderr)
    return 2 if problems else int(bool(args.checks and warnings))


def _read(results: Path) -> tuple[list[Run], list[str]]:
    """The runs, and a line for each one skipped; raises ValueError where there are none."""
    if not results.is_dir():
        raise ValueError(f"{results}: no such folder of runs; name the one given to --results_dir")
    runs, skipped = read_runs(results)
    if not runs:
        groups = ", ".join(sorted(path.parent.name for path in results.glob(f"*/{RUNS}")))
        hint = f"name one of its groups: {groups}" if groups else "train one first"
        raise ValueError("; ".join([*skipped, f"{results}: holds no finished run; {hint}"]))
    return runs, skipped


if __name__ == "__main__":
    sys.exit(main())
