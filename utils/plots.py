"""A run's pictures, into its folder: `python -m utils.plots results/RUN`.

The training script draws them at the tipping point and at the end; what a run has not got, or not
yet, is left out with a line that says why.
"""

from collections.abc import Callable, Container
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from utils.curves import draw_tipping_point, draw_training_curves
from utils.figures import LeftOut, RunFigures, as_png
from utils.files import read_arrays, read_columns, read_json, write_whole
from utils.label_pictures import draw_suspects, draw_transitions
from utils.options import OneLineParser
from utils.split_pictures import draw_detection_curve, draw_noise_split

PICTURES: dict[str, Callable[[RunFigures], Any]] = {
    "tipping_point.png": draw_tipping_point,
    "noise_split.png": draw_noise_split,
    "training_curves.png": draw_training_curves,
    "suspects.png": draw_suspects,
    "transitions.png": draw_transitions,
    "detection_curve.png": draw_detection_curve,
}
OVER_EPOCHS = {"tipping_point.png", "training_curves.png"}  # the others show but the split
LABELS = {"label", "prediction", "true_label"}
PER_IMAGE = {"index", "agreement", "group", *LABELS}


def read_figures(folder: Path) -> RunFigures:
    """What a run folder, finished or not, holds for its pictures.

    Raises FileNotFoundError for no run folder, ValueError naming a file that is not whole.
    """
    if not (folder / "args.json").is_file():
        raise FileNotFoundError(f"{folder}: no run folder (no args.json); train the run first")
    options = read_json(folder / "args.json").get("options", {})
    metrics, arrays = {}, {}
    if (folder / "metrics.csv").exists():
        metrics = read_columns(folder / "metrics.csv")
    if (folder / "predictions.npz").exists():
        arrays = read_arrays(folder / "predictions.npz")
        check_arrays(folder / "predictions.npz", arrays)
    return RunFigures(folder, options.get("method") == "ce", metrics, arrays)


def check_arrays(path: Path, arrays: dict[str, Any]) -> None:
    """Raise ValueError naming the file where the arrays of predictions.npz do not fit together."""
    names = len(arrays.get("class_names", ()))
    images = arrays["index"].shape if "index" in arrays else None
    for name in PER_IMAGE & arrays.keys():
        array = arrays[name]
        if array.ndim != 1 or array.shape != images:
            raise ValueError(f"{path}: {name} is not one figure for each image")
        if name in LABELS and names and len(array) and not 0 <= array.min() <= array.max() < names:
            raise ValueError(f"{path}: {name} has a class without a name")
    if "group" in arrays and not np.isin(arrays["group"], (1, 2, 3, 4)).all():
        raise ValueError(f"{path}: group has others than 1 to 4")
    if "suspect_index" in arrays and not np.isin(arrays["suspect_index"], arrays["index"]).all():
        raise ValueError(f"{path}: suspect_index has images that were not scored")


def outdated(folder: Path) -> set[str]:
    """The names of the pictures that another epoch changes, and of those that are not there."""
    return OVER_EPOCHS | {name for name in PICTURES if not (folder / name).exists()}


def write_pictures(
    folder: Path, say: Callable[[str], None] = print, names: Container[str] = PICTURES
) -> list[Path]:
    """Draw those of `names` that the run folder has the figures for; returns their paths.

    `say` is told in one line each which picture is left out and why; without matplotlib that is
    one line for all. Raises ValueError or OSError naming a file that cannot be read or written.
    """
    if find_spec("matplotlib") is None:
        say(f"{folder}: no pictures: matplotlib is not installed; see requirements.txt")
        return []
    run = read_figures(folder)
    written = []
    for name in [name for name in PICTURES if name in names]:
        try:
            content = as_png(PICTURES[name](run))
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
