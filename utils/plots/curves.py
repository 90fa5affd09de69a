"""Plots over the epochs: the tipping point, and what training measured."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from utils.plots import style
from utils.plots.run_data import DoesNotApply, LeftOut, RunData
from utils.plots.style import Axes, Figure, legend_above, new_figure, over_epochs, plain

MAX_MARKERS = 40  # epochs; with more, the markers would run together
MAX_CLASSES_NAMED = 2
MAX_RATES_NAMED = 5
Curve = tuple[str, str, str, str]  # column of metrics.csv, words, line, fill of the markers
CROSS_ENTROPY = (("loss", "cross-entropy", "-", style.INK),)
LOSSES = (
    ("loss", "total", "-", style.INK),
    ("naive_loss", "teacher's cross-entropy", "--", style.INK),
    ("compensation_loss", "compensation", ":", style.INK),
)
ACCURACIES = (
    ("noisy_val_accuracy", "validation, noisy labels", "s--", "white"),
    ("clean_test_accuracy", "test, clean labels", "o-", style.INK),
    ("memorized_share", "memorized: training less validation", "^:", "white"),
    ("planted_memorized", "planted labels memorized", "v:", style.INK),
    ("visibility", "visibility", "-.", style.INK),
)


def draw_tipping_point(run: RunData) -> Figure:
    """The student's confidence over all epochs and, once the robust phase has begun, before it.

    Where true labels are known also how many of the labels that the pair agrees with are wrong.
    Raises LeftOut for the baseline, and before the first epoch.
    """
    if run.baseline:
        raise DoesNotApply("the baseline has no student, and so no tipping point")
    confidence, agreed_wrong = run.curve("student_confidence"), run.curve("agreed_wrong")
    if np.isnan(confidence).all():
        raise LeftOut("metrics.csv has no epoch with the student's confidence yet")
    naive, label = run.phases == "naive", "student's confidence"
    panels = [(run.epochs, confidence, f"{label}\n(mean largest probability)", label)]
    if run.split_epoch is not None and naive.any() and not naive.all():
        # In the robust phase the confidence leaps up, and the peak before it is small beside that.
        panels.append((run.epochs[naive], confidence[naive], f"{label},\nnaive phase alone", label))
    if not np.isnan(agreed_wrong).all():
        label = "among the labels that the pair agrees with"
        panels.append((run.epochs, agreed_wrong, "wrong labels (%)", label))
    height = 1.2 + 2.2 * len(panels)
    figure = new_figure(7.2, height, f"{run.name}: tipping point")
    rows = figure.subplots(len(panels), 1, squeeze=False)[:, 0]
    for axes, (epochs, values, title, label) in zip(rows, panels, strict=True):
        marks = {"marker": "o", "markersize": 3.5} if len(epochs) <= MAX_MARKERS else {}
        plain(axes, "", title).plot(epochs, values, color=style.INK, label=label, **marks)
    _mark_split(run, rows)
    for axes, (epochs, *_) in zip(rows, panels, strict=True):
        over_epochs(axes, epochs)
    legend_above(rows[0], 3)
    if not np.isnan(agreed_wrong).all():
        if run.wrong is not None:
            share = 100 * run.wrong.mean()
            rows[-1].axhline(share, color=style.MIDDLE, ls=style.DOTTED, label="among all labels")
        rows[-1].set_ylim(bottom=0)
        legend_above(rows[-1], 2)
    return figure


def draw_training_curves(run: RunData) -> Figure:
    """Losses, accuracies and learning rate; raises LeftOut before the first epoch."""
    epochs = run.epochs
    if not len(epochs):
        kind = DoesNotApply if run.predictions else LeftOut  # what is given judges own labels
        raise kind("metrics.csv has no epoch yet")
    figure = new_figure(7.2, 7.2, f"{run.name}: training")
    losses, accuracies, rate = rows = figure.subplots(3, 1, sharex=True, height_ratios=(3, 3, 1.4))
    shown = CROSS_ENTROPY if run.baseline else LOSSES
    _draw_curves(run, losses, "loss (mean over images)", shown)
    losses.set_ylim(bottom=0)
    _draw_curves(run, accuracies, "accuracy (%)", ACCURACIES)
    _draw_learning_rate(run, rate)
    _mark_split(run, rows)
    _mark_vanished(run, accuracies)
    legend_above(losses, 3)
    legend_above(accuracies, 3)
    over_epochs(rate, epochs)
    return figure


def _draw_curves(run: RunData, axes: Axes, title: str, curves: Sequence[Curve]) -> None:
    plain(axes, "", title)
    for column, name, line, fill in curves:
        values = run.curve(column)
        known = ~np.isnan(values)  # some are measured only every so many epochs, or never
        if not known.any():
            continue
        marks = {"markersize": 4, "markerfacecolor": fill, "color": style.INK, "label": name}
        axes.plot(run.epochs[known], values[known], line, **marks)


def _draw_learning_rate(run: RunData, axes: Axes) -> None:
    curve = run.curve("lr")
    plain(axes, "epoch", "learning rate").plot(run.epochs, curve, color=style.INK, ds="steps-mid")
    axes.set_yscale("log")
    rates = np.unique(curve[np.isfinite(curve) & (curve > 0)])
    if 0 < len(rates) <= MAX_RATES_NAMED:
        axes.set_yticks(rates, [f"{value:g}" for value in rates])
        axes.set_yticks([], minor=True)


def _mark_split(run: RunData, rows: Any) -> None:
    """A line through all panels at the epoch of the split, and the robust phase in gray."""
    if run.split_epoch is None:
        return
    name = f"tipping point: epoch {run.split_epoch}"
    if run.fallback:
        name = f"no tipping point; fallback split at epoch {run.split_epoch}"
    line = "-." if run.fallback else "--"
    robust = run.epochs[run.phases == "robust"]
    for axes in rows:
        axes.axvline(run.split_epoch, color=style.DARK, lw=1.6, ls=line, label=name)
        if len(robust):
            label = "robust phase" if name else ""
            axes.axvspan(robust[0] - 0.5, robust[-1] + 0.5, color="0.93", zorder=0, label=label)
        name = ""  # in the first legend only


def _mark_vanished(run: RunData, axes: Axes) -> None:
    """A cross at the foot of each epoch in which a class was never predicted."""
    marked = [epoch for epoch, labels in zip(run.epochs, run.vanished, strict=True) if labels]
    if not marked:
        return
    labels = sorted(set().union(*run.vanished))
    known = run.predictions.class_names if run.predictions else ()
    names = [known[k] if k < len(known) else f"class {k}" for k in labels]
    words = ", ".join(names) if len(names) <= MAX_CLASSES_NAMED else f"{len(names)} classes"
    axes.margins(y=0.15)  # room for the crosses
    marks = {"color": style.INK, "markersize": 6, "label": f"vanished: {words}"}
    foot = np.full(len(marked), 0.05)
    axes.plot(marked, foot, "X", transform=axes.get_xaxis_transform(), **marks)
