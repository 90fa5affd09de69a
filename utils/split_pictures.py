"""Pictures of the split: how agreements are spread and cut, and what each cut would find."""

from typing import Any

import numpy as np

from utils.figures import (
    DARK,
    INK,
    MIDDLE,
    RIGHT,
    SMALL,
    WRONG,
    LeftOut,
    RunFigures,
    legend_above,
    new_figure,
    plain,
)
from utils.metrics import GROUP_CUTS, detection_figures, ranking_figures

BINS = 60
CUT_STYLES = (("low_mean", "mean below", ":"), ("threshold", "Otsu's threshold", "-"))
CUT_STYLES += (("high_mean", "mean above", "--"),)
GROUP_NAMES = ("1 most trusted", "2", "3", "4 judged wrong")
GUESS = "(a guess: no tipping point came)"


def draw_noise_split(run: RunFigures) -> Any:
    """Histogram of the agreements with the cuts, and the four groups; raises LeftOut."""
    if run.baseline:
        raise LeftOut("the baseline has neither groups nor cuts")
    agreement, group = run.need("agreement", "group")
    wrong = run.wrong
    known = wrong is not None
    title = f"{run.name}: split at epoch {run.split_epoch} " + (GUESS if run.guess else "")
    figure = new_figure(7.2, 5.6, title.rstrip())
    above, below = figure.subplots(2, 1, height_ratios=(3, 1.6))
    plain(above, "agreement of the pair with the given label", "images")
    edges = np.linspace(0, 1, BINS + 1)
    above.hist(
        agreement[~wrong] if known else agreement,
        edges,
        label="label right" if known else "all labels",
        **RIGHT,
    )
    if known:
        above.hist(
            agreement[wrong], edges, histtype="step", color=WRONG["facecolor"], lw=1.3, hatch="////"
        )
        above.fill_between(
            [], [], label="label wrong", fc="none", ec=WRONG["facecolor"], hatch="////"
        )
    for name, words, style in CUT_STYLES:
        if name in run.arrays:
            cut = float(run.arrays[name])
            above.axvline(cut, color=INK, ls=style, lw=1.5, label=f"{words}: {cut:.3f}")
    above.set_yscale("log")
    above.set_xlim(0, 1)
    above.set_ylim(0.7, 3 * above.get_ylim()[1])  # room for the names of the groups
    legend_above(above, 3)
    _name_ranges(above, run)
    _draw_groups(below, group, wrong)
    return figure


def _name_ranges(axes: Any, run: RunFigures) -> None:
    """The group's number at the top of its range of agreements, where it has room."""
    if "threshold" not in run.arrays:
        return
    edges = [0.0, *(float(run.arrays[name]) for name, _, _ in CUT_STYLES), 1.0]
    for group, low, high in zip((4, 3, 2, 1), edges, edges[1:], strict=False):
        words = f"group {group}" if high - low > 0.1 else f"{group}"
        if high - low > 0.02:
            axes.text(
                (low + high) / 2,
                0.97,
                words,
                transform=axes.get_xaxis_transform(),
                ha="center",
                va="top",
                fontsize=SMALL,
                bbox={"facecolor": "white", "edgecolor": "none", "pad": 1, "alpha": 0.8},
            )


def _draw_groups(axes: Any, group: np.ndarray, wrong: np.ndarray | None) -> None:
    """A bar for each group, from 1 at the top, its wrong labels apart where they are known."""
    plain(axes, "images", "group").grid(axis="y", visible=False)
    sizes = np.bincount(group, minlength=5)[1:]
    bad = np.bincount(group[wrong], minlength=5)[1:] if wrong is not None else np.zeros(4, int)
    places = np.arange(4)
    axes.barh(places, sizes - bad, **RIGHT)
    axes.barh(places, bad, left=sizes - bad, **WRONG)
    for place, size, share in zip(places, sizes, bad / np.maximum(sizes, 1), strict=True):
        words = f" {size:,}" + (
            f", {100 * share:.1f} % wrong" if wrong is not None and size else ""
        )
        axes.text(size, place, words, va="center", fontsize=SMALL)
    axes.set_yticks(places, GROUP_NAMES)
    axes.invert_yaxis()
    axes.set_xlim(0, sizes.max() * 1.3)


def draw_detection_curve(run: RunFigures) -> Any:
    """Precision over recall of low agreement, and the group cuts on it; raises LeftOut."""
    from sklearn.metrics import precision_recall_curve

    agreement, prediction, label, _ = run.need("agreement", "prediction", "label", "true_label")
    wrong = run.wrong
    if not wrong.any():
        raise LeftOut("no given label is wrong, so there is nothing to detect")
    title = f"{run.name}: wrong labels found " + (GUESS if run.guess else "")
    figure = new_figure(6.4, 5.2, title.rstrip())
    axes = plain(
        figure.subplots(),
        "recall (share of the wrong labels that are flagged)",
        "precision (share of the flagged labels that are wrong)",
    )
    precision, recall, _ = precision_recall_curve(wrong, -agreement)
    average = ranking_figures(agreement, wrong)["average_precision"]
    name = "lowest agreement first" + (f" (average precision {average:.3f})" if average else "")
    axes.plot(recall[:-1], precision[:-1], color=INK, lw=1.3, label=name)
    axes.axhline(
        wrong.mean(), color=MIDDLE, ls=(0, (1, 1.5)), label=f"flagged at random: {wrong.mean():.3f}"
    )
    if run.baseline:
        points = [("predicted another class", "X", prediction != label)]
    else:
        (group,) = run.need("group")
        points = [
            (cut.words, marker, group >= cut.lowest_group)
            for cut, marker in zip(GROUP_CUTS, "osD", strict=True)
        ]
    for words, marker, flagged in points:
        found = detection_figures(flagged, wrong)
        axes.plot(
            found["recall"],
            found["precision"],
            marker,
            color=DARK,
            markerfacecolor=INK if marker in "oX" else "white",
            markersize=8,
            label=f"{words}: F1 {found['f1']:.3f}",
        )
    axes.set_xlim(-0.02, 1.02)
    axes.set_ylim(-0.02, 1.02)
    axes.legend(fontsize=SMALL, framealpha=0.9, edgecolor="none", loc="lower left")
    return figure
