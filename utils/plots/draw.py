"""The plots of a run, and drawing them into its folder.

The training script draws them at the split and at the end. A plot whose data the run does not have
yet is left out with a line that says why; one that does not apply to such a run, without.
"""

from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

from utils import console
from utils.files import write_whole
from utils.plots.curves import draw_tipping_point, draw_training_curves
from utils.plots.labels import draw_suspects, draw_transitions
from utils.plots.noise_split import draw_detection_curve, draw_noise_split, draw_reliability
from utils.plots.run_data import DoesNotApply, LeftOut, RunData, read_run
from utils.plots.style import Figure, as_png


class Plot(NamedTuple):
    """How a plot is drawn (raises LeftOut where the run lacks the data), and its caption."""

    draw: Callable[[RunData], Figure]
    caption: str


PLOTS = {  # by the name of the file
    "tipping_point.png": Plot(
        draw_tipping_point,
        "The student's confidence; at its peak learning turns into memorization. Below it the "
        "naive phase alone, and how many of the labels that the pair agrees with are wrong.",
    ),
    "noise_split.png": Plot(
        draw_noise_split,
        "The pair's agreement with each given label, the three cuts, and the four groups.",
    ),
    "training_curves.png": Plot(draw_training_curves, "Losses, accuracies and learning rate."),
    "detection_curve.png": Plot(
        draw_detection_curve,
        "Precision over recall when labels are flagged from the lowest agreement on, and where "
        "each cut stands.",
    ),
    "reliability.png": Plot(
        draw_reliability,
        "Of the labels with a score, the share that is right, and their number; dotted: the score.",
    ),
    "suspects.png": Plot(
        draw_suspects,
        "The most suspect labels. The whole list is suspects.csv in the run folder.",
    ),
    "transitions.png": Plot(
        draw_transitions, "Which class is given for which, in % of the images given a label."
    ),
}
CAPTIONS = {file: plot.caption for file, plot in PLOTS.items()}


def write_plots(folder: Path, say: Callable[[str], None] = console.say) -> list[Path]:
    """Draw the plots that the run folder has the data for; returns their paths.

    `say` gets one line for each plot left out, with the reason, but for those that do not apply; a
    single line for all of them if matplotlib is missing. Raises ValueError or OSError naming a file
    that cannot be read or written.
    """
    if find_spec("matplotlib") is None:
        say(f"{folder}: no plots: matplotlib is not installed; see requirements.txt")
        return []
    run = read_run(folder)
    written = []
    for file, plot in PLOTS.items():
        try:
            content = as_png(plot.draw(run))
        except DoesNotApply:
            continue
        except LeftOut as reason:
            say(f"{folder / file} left out: {reason}")
        except Exception as error:  # of numpy, matplotlib, scikit-learn: no plot may cost a run
            say(f"{folder / file} left out: {type(error).__name__}: {' '.join(str(error).split())}")
        else:
            write_whole(folder / file, content)
            written.append(folder / file)
    return written


def try_plots(folder: Path) -> None:
    """`write_plots`, of which an error is a line: it is no reason to end a run."""
    try:
        write_plots(folder)
    except (ValueError, OSError) as error:
        console.say(f"warning: not all plots are drawn: {error}")
