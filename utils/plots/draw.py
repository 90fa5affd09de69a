"""The plots of a run, and drawing them into its folder.

The training script draws them at the split and at the end. A plot whose data the run does not have,
or not yet, is left out with a line that says why.
"""

from collections.abc import Callable, Container
from importlib.util import find_spec
from pathlib import Path

from utils.files import write_whole
from utils.plots.curves import draw_tipping_point, draw_training_curves
from utils.plots.labels import draw_suspects, draw_transitions
from utils.plots.noise_split import draw_detection_curve, draw_noise_split
from utils.plots.run_data import LeftOut, RunData, read_run
from utils.plots.style import Figure, as_png

PLOTS: dict[str, Callable[[RunData], Figure]] = {
    "tipping_point.png": draw_tipping_point,
    "noise_split.png": draw_noise_split,
    "training_curves.png": draw_training_curves,
    "suspects.png": draw_suspects,
    "transitions.png": draw_transitions,
    "detection_curve.png": draw_detection_curve,
}


def write_plots(
    folder: Path, say: Callable[[str], None] = print, names: Container[str] = PLOTS
) -> list[Path]:
    """Draw those of `names` that the run folder has the data for; returns their paths.

    `say` gets one line for each plot left out, with the reason; a single line for all of them if
    matplotlib is missing. Raises ValueError or OSError naming a file that cannot be read or
    written.
    """
    if find_spec("matplotlib") is None:
        say(f"{folder}: no plots: matplotlib is not installed; see requirements.txt")
        return []
    run = read_run(folder)
    written = []
    for name, draw in PLOTS.items():
        if name not in names:
            continue
        try:
            content = as_png(draw(run))
        except LeftOut as reason:
            say(f"{folder / name} left out: {reason}")
            continue
        write_whole(folder / name, content)
        written.append(folder / name)
    return written
