"""Draw the plots of runs into their folders: `python -m utils.plots results/RUN ...`.

A plot whose data a run does not have yet is left out with a line that says why.
"""

from collections.abc import Sequence

from utils.console import say
from utils.options.parser import OneLineParser
from utils.options.values import path
from utils.plots.draw import write_plots


def make_parser() -> OneLineParser:
    """The options of the command."""
    parser = OneLineParser(prog="utils.plots", description=__doc__)
    parser.add_argument("folder", type=path, nargs="+", help="run folder, such as results/RUN")
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    """Draw the plots of the run folders on the command line, and print their paths."""
    parser = make_parser()
    for folder in parser.parse_args(argv).folder:
        try:
            for file in write_plots(folder):
                say(str(file))
        except (ValueError, OSError) as error:
            parser.error(error)


if __name__ == "__main__":
    main()
