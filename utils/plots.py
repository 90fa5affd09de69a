"""A run's pictures, into its folder: `python -m utils.plots results/RUN`.

The training script draws them at the tipping point and at the end; what a run has not got, or not
yet, is left out with a line that says why.
"""

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

from utils.curves import draw_tipping_point, draw_training_curves
from utils.figures import LeftOut, RunFigures, as_png
from utils.label_pictures import draw_suspects, draw_transitions
from utils.options import OneLineParser
from utils.runs import read_arrays, read_json, write_whole
from utils.split_pictures import draw_detection_curve, draw_noise_split

PICTURES: dict[str, Callable[[RunFigures], Any]] = {
    "tipping_point.png": draw_tipping_point,
    "noise_split.png": draw_noise_split,
    "training_curves.png": draw_training_curves,
    "suspects.png": draw_suspects,
    "transitions.png": draw_transitions,
    "detection_curve.png": draw_detection_curve,
}


def read_figures(folder: Path) -> RunFigures:
    """What a run folder, finished or not, holds for its pictures.

    Raises FileNotFoundError for no run folder, ValueError naming a file that is not whole.
    """
    if not (folder / "args.json").is_file():
        raise FileNotFoundError(f"{folder}: no run folder (no args.json); train the run first")
    options = read_json(folder / "args.json").get("options", {})
    metrics: dict[str, list[str]] = {}
    if (folder / "metrics.csv").exists():
        with open(folder / "metrics.csv", newline="") as file:
            rows = list(csv.DictReader(file, restval=""))
        metrics = {name: [row[name] for row in rows] for name in (rows[0] if rows else {})}
    arrays = {}
    if (folder / "predictions.npz").exists():
        arrays = read_arrays(folder / "predictions.npz")
    return RunFigures(folder.resolve().name, options.get("method") == "ce", metrics, arrays)


def write_pictures(folder: Path, say: Callable[[str], None] = print) -> list[Path]:
    """Draw what the run folder has the figures for; returns the pictures' paths.

    `say` is told in one line each which picture is left out and why; without matplotlib that is
    one line for all. Raises ValueError or OSError naming a file that cannot be read or written.
    """
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        say(f"{folder}: no pictures: matplotlib is not installed; see requirements.txt")
        return []
    run = read_figures(folder)
    written = []
    for name, draw in PICTURES.items():
        try:
            content = as_png(draw(run))
        except LeftOut as reason:
            say(f"{folder / name} left out: {reason}")
            continue
        write_whole(folder / name, content)
        written.append(folder / name)
    return written


def main() -> None:
    """Draw the pictures of the run folders on the command line."""
    parser = OneLineParser(prog="utils.plots", description=__doc__)
    parser.add_argument("folder", type=Path, nargs="+", help="run folder, such as results/RUN")
    for folder in parser.parse_args().folder:
        try:
            written = write_pictures(folder)
        except (ValueError, OSError) as error:
            parser.error(str(error))
        for path in written:
            print(path)


if __name__ == "__main__":
    main()
