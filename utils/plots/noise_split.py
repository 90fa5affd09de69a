"""Plots of the split and of what is detected: agreements, cuts, and what a score is worth."""

from collections.abc import Sequence

import numpy as np

from utils.metrics import GROUP_CUTS, detection_metrics, ranking_metrics
from utils.plots import style
from utils.plots.run_data import DoesNotApply, RunData
from utils.plots.style import Axes, Figure, legend_above, new_figure, plain
from utils.run_folder.predictions import Array

BINS = 60
CUT_STYLES = (("mean below", ":"), ("Otsu's threshold", "-"), ("mean above", "--"))
GROUP_NAMES = ("1 most trusted", "2", "3", "4 flagged as wrong")
RESULTS = {  # when it was found, its line; what its prediction flags, the marker
    "split": ("at the split", "-"),
    "final": ("at the end", "--", "predicted another class", "X"),
    "ensemble": ("over the epochs", "-.", "another on the mean over the epochs", "P"),
    "posterior": ("out of fold", (0, (5, 1)), "more likely wrong than right", "*"),
}
SCORE_BINS = 10
GROUP_MARKERS = (("o", style.INK), ("s", "white"), ("D", "white"))
FALLBACK = " (fallback: no tipping point)"


def draw_noise_split(run: RunData) -> Figure:
    """Histogram of the agreements with the cuts, and the four groups; raises DoesNotApply."""
    if run.baseline:
        raise DoesNotApply("the baseline has neither groups nor cuts")
    predictions = run.predicted()
    title = f"{run.name}: split at epoch {run.split_epoch}" + FALLBACK * run.fallback
    figure = new_figure(7.2, 5.6, title)
    above, below = figure.subplots(2, 1, height_ratios=(3, 1.6))
    _draw_histogram(above, predictions.split_agreement, run.wrong)
    cuts = predictions.cuts or ()
    for cut, (words, line) in zip(cuts, CUT_STYLES, strict=False):
        above.axvline(cut, color=style.INK, ls=line, lw=1.5, label=f"{words}: {cut:.3f}")
    above.set(yscale="log", xlim=(0, 1))
    above.set_ylim(0.7, 3 * above.get_ylim()[1])  # room for the names of the groups
    legend_above(above, 3)
    if cuts:
        _name_groups(above, (0, *cuts, 1))
    _draw_groups(below, predictions.split_group, run.wrong)
    return figure


def _draw_histogram(axes: Axes, agreement: Array, wrong: Array | None) -> None:
    """Histogram of the agreements [N], those of right and wrong labels apart where known."""
    plain(axes, "agreement of the pair with the given label", "images")
    edges = np.linspace(0, 1, BINS + 1)
    if wrong is None:
        axes.hist(agreement, edges, label="all labels", **style.RIGHT_LABELS)
        return
    axes.hist(agreement[~wrong], edges, label="label right", **style.RIGHT_LABELS)
    axes.hist(agreement[wrong], edges, histtype="step", color=style.RED, lw=1.3, hatch="////")
    axes.fill_between([], [], label="label wrong", fc="none", ec=style.RED, hatch="////")


def _name_groups(axes: Axes, edges: Sequence[float]) -> None:
    """Each group's number at the top of its range of agreements, where there is room."""
    box = {"facecolor": "white", "edgecolor": "none", "pad": 1, "alpha": 0.8}
    place = {"transform": axes.get_xaxis_transform(), "ha": "center", "va": "top", "bbox": box}
    for group, low, high in zip((4, 3, 2, 1), edges, edges[1:], strict=False):
        if high - low > 0.02:
            words = f"group {group}" if high - low > 0.1 else f"{group}"
            axes.text((low + high) / 2, 0.97, words, fontsize=style.SMALL, **place)


def _draw_groups(axes: Axes, group: Array, wrong: Array | None) -> None:
    """A bar for each group, 1 at the top, its wrong labels apart where they are known."""
    plain(axes, "images", "group").grid(axis="y", visible=False)
    sizes = np.bincount(group, minlength=5)[1:]
    bad = np.zeros(4, int) if wrong is None else np.bincount(group[wrong], minlength=5)[1:]
    places = np.arange(4)
    axes.barh(places, sizes - bad, **style.RIGHT_LABELS)
    axes.barh(places, bad, left=sizes - bad, **style.WRONG_LABELS)
    for place, size, share in zip(places, sizes, bad / np.maximum(sizes, 1), strict=True):
        words = f" {size:,}"
        if wrong is not None and size:
            words += f", {100 * share:.1f} % wrong"
        axes.text(size, place, words, va="center", fontsize=style.SMALL)
    axes.set_yticks(places, GROUP_NAMES)
    axes.invert_yaxis()
    axes.set_xlim(0, sizes.max() * 1.3)


def draw_detection_curve(run: RunData) -> Figure:
    """Precision over recall of low agreement, and the group cuts on it; raises DoesNotApply."""
    from sklearn.metrics import precision_recall_curve

    results, wrong = run.predicted().detections, run.wrong
    if wrong is None:
        raise DoesNotApply("the true labels are not known")
    if not wrong.any():
        raise DoesNotApply("no given label is wrong, so there is nothing to detect")
    figure = new_figure(6.4, 5.2, f"{run.name}: wrong labels found" + FALLBACK * run.fallback)
    axes = plain(
        figure.subplots(),
        "recall (share of the wrong labels that are flagged)",
        "precision (share of the flagged labels that are wrong)",
    )
    for name, (_, agreement, _) in results.items():
        precision, recall, _ = precision_recall_curve(wrong, -agreement)
        average = ranking_metrics(agreement, wrong)["average_precision"]
        when, line = RESULTS[name][:2] if len(results) > 1 else ("", "-")
        words = "lowest agreement first" + f", {when}" * bool(when)
        words += f" (average precision {average:.3f})" if average else ""
        axes.plot(recall[:-1], precision[:-1], ls=line, color=style.INK, lw=1.3, label=words)
    chance = f"flagged at random: {wrong.mean():.3f}"
    axes.axhline(wrong.mean(), color=style.MIDDLE, ls=style.DOTTED, label=chance)
    _mark_cuts(run, axes)
    axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02))
    axes.legend(fontsize=style.SMALL, framealpha=0.9, edgecolor="none", loc="lower left")
    return figure


def _mark_cuts(run: RunData, axes: Axes) -> None:
    """A point at precision and recall of each cut of the groups, and of the predictions."""
    predictions = run.predicted()
    points = [
        (*RESULTS[name][2:], style.INK, result.flagged)
        for name, result in predictions.detections.items()
        if name != "split"
    ]
    if predictions.split_group is not None:
        points += [
            (words, *marker, predictions.split_group >= lowest)
            for (words, lowest), marker in zip(GROUP_CUTS.items(), GROUP_MARKERS, strict=True)
        ]
    for words, marker, fill, flagged in points:
        found = detection_metrics(flagged, run.wrong)
        marks = {"color": style.DARK, "markerfacecolor": fill, "markersize": 8}
        label = f"{words}: F1 {found['f1']:.3f}"
        axes.plot(found["recall"], found["precision"], marker, label=label, **marks)


def draw_reliability(run: RunData) -> Figure:
    """How many of the labels with such a score are right; raises DoesNotApply."""
    score, wrong = run.predictions and run.predictions.posterior_agreement, run.wrong
    if score is None or wrong is None:
        raise DoesNotApply("no score is a probability, or the true labels are not known")
    edges = np.linspace(0, 1, SCORE_BINS + 1)
    place = np.digitize(score, edges[1:-1])  # [S]
    counts, right = (np.bincount(place, w, SCORE_BINS) for w in (None, ~wrong))
    figure = new_figure(5.6, 5.4, f"{run.name}: right labels by score")
    axes = plain(figure.subplots(), "score (probability that the label is right)", "share right")
    axes.plot([0, 1], [0, 1], color=style.MIDDLE, ls=style.DOTTED, label="as it should be")
    there = counts > 0
    means = np.bincount(place, score, SCORE_BINS)[there] / counts[there]
    shares = right[there] / counts[there]
    errors = np.abs(_interval(shares, counts[there]) - shares)
    axes.errorbar(means, shares, errors, fmt="o-", color=style.INK, label="labels, 95 % interval")
    for x, y, count in zip(means, shares, counts[there], strict=True):
        axes.annotate(
            f"{count:,}", (x, y), (6, -9), textcoords="offset points", fontsize=style.SMALL
        )
    axes.set(xlim=(-0.02, 1.05), ylim=(-0.05, 1.05))
    axes.legend(fontsize=style.SMALL, framealpha=0.9, edgecolor="none", loc="upper left")
    return figure


def _interval(shares: Array, counts: Array) -> Array:
    """Wilson's interval [2, K] of shares among so many: wide for a few, also at 0 and 1."""
    z2 = 4 / counts  # two standard errors
    middle, half = shares + z2 / 2, np.sqrt(z2 * shares * (1 - shares) + z2**2 / 4)
    return np.stack([middle - half, middle + half]) / (1 + z2)
