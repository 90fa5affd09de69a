"""Plots over the epochs: the tipping point, and what training measured."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from utils.plots.run_data import LeftOut, RunData
from utils.plots.style import (
    DARK,
    DOTTED,
    INK,
    MIDDLE,
    SMALL,
    Axes,
    Figure,
    legend_above,
    new_figure,
    over_epochs,
    plain,
)

MAX_MARKERS = 40  # epochs; with more, the markers would run together
MAX_CLASSES_NAMED = 2
MAX_RATES_NAMED = 5
INSET_LEFT_MAX, INSET_TOP_MIN = 0.68, 0.7  # shares of the axes' width and height


def draw_tipping_point(run: RunData) -> Figure:
    """The student's confidence, and the wrong labels that the pair agrees with where known.

    Raises LeftOut for the baseline, and before the first epoch.
    """
    if run.baseline:
        raise LeftOut("the baseline has no student, and so no tipping point")
    confidence = run.curve("student_confidence")
    if np.isnan(confidence).all():
        raise LeftOut("metrics.csv has no epoch with the student's confidence yet")
    agreed_wrong = run.curve("agreed_wrong")
    both = not np.isnan(agreed_wrong).all()
    epochs = run.epochs()
    figure = new_figure(7.2, 5.6 if both else 3.4, f"{run.name}: tipping point")
    rows = figure.subplots(1 + both, 1, sharex=True, squeeze=False)[:, 0]
    top = plain(rows[0], "", "student's confidence\n(mean largest probability)")
    top.plot(epochs, confidence, color=INK, label="student's confidence", **_markers(epochs))
    _mark_split(run, rows, epochs)
    legend_above(top, 3)
    if both:
        _draw_agreed_wrong(run, rows[1], epochs, agreed_wrong)
    over_epochs(rows[-1], epochs)
    _enlarge_naive_phase(run, top, epochs, confidence)
    return figure


def _draw_agreed_wrong(
    run: RunData, axes: Axes, epochs: NDArray[np.float64], agreed_wrong: NDArray[np.float64]
) -> None:
    """The share of wrong labels among those that the pair agrees with, over the epochs [E]."""
    label = "among the labels that the pair agrees with"
    plain(axes, "", "wrong labels (%)")
    axes.plot(epochs, agreed_wrong, color=INK, label=label, **_markers(epochs))
    if run.wrong is not None:
        axes.axhline(100 * run.wrong.mean(), color=MIDDLE, ls=DOTTED, label="among all labels")
    axes.set_ylim(bottom=0)
    legend_above(axes, 2)


def _enlarge_naive_phase(
    run: RunData, axes: Axes, epochs: NDArray[np.float64], confidence: NDArray[np.float64]
) -> None:
    """An inset with the epochs until the tipping point was found, on a scale of their own.

    In the robust phase the confidence leaps up, and the peak before it is small beside that. The
    inset is drawn below the leap, and only where there is room for it.
    """
    naive = run.in_phase("naive")
    if run.split_epoch is None or naive.all() or not naive.any():
        return
    left = np.interp(epochs[naive][-1], axes.get_xlim(), (0, 1)) + 0.15
    above = np.interp(epochs, axes.get_xlim(), (0, 1)) >= left - 0.05
    if left > INSET_LEFT_MAX or not above.any():
        return
    room = np.interp(np.nanmin(confidence[above]), axes.get_ylim(), (0, 1))
    if room < INSET_TOP_MIN:
        return
    inset = plain(axes.inset_axes((left, 0.16, 0.98 - left, room - 0.32)), "", "")
    inset.plot(epochs[naive], confidence[naive], color=INK, **_markers(epochs[naive]))
    inset.axvline(run.split_epoch, color=DARK, lw=1.6, ls="--")
    inset.set_title("until the tipping point was found", fontsize=SMALL, loc="left")
    inset.xaxis.get_major_locator().set_params(integer=True)


def draw_training_curves(run: RunData) -> Figure:
    """Losses, accuracies and learning rate; raises LeftOut before the first epoch."""
    epochs = run.epochs()
    if not len(epochs):
        raise LeftOut("metrics.csv has no epoch yet")
    figure = new_figure(7.2, 7.2, f"{run.name}: training")
    losses, accuracies, rate = rows = figure.subplots(3, 1, sharex=True, height_ratios=(3, 3, 1.4))
    _draw_losses(run, losses, epochs)
    _draw_accuracies(run, accuracies, epochs)
    _draw_learning_rate(run, rate, epochs)
    _mark_split(run, rows, epochs)
    _mark_vanished(run, accuracies, epochs)
    legend_above(losses, 3)
    legend_above(accuracies, 3)
    over_epochs(rate, epochs)
    return figure


def _draw_losses(run: RunData, axes: Axes, epochs: NDArray[np.float64]) -> None:
    plain(axes, "", "loss (mean over images)")
    if run.baseline:
        curves = [("loss", "cross-entropy", "-")]
    else:
        curves = [
            ("loss", "total", "-"),
            ("naive_loss", "teacher's cross-entropy", "--"),
            ("compensation_loss", "compensation", ":"),
        ]
    for column, name, style in curves:
        axes.plot(epochs, run.curve(column), style, color=INK, label=name)
    axes.set_ylim(bottom=0)


def _draw_accuracies(run: RunData, axes: Axes, epochs: NDArray[np.float64]) -> None:
    plain(axes, "", "accuracy (%)")
    for column, name, style, fill in (
        ("noisy_val_accuracy", "validation, noisy labels", "s--", "white"),
        ("clean_test_accuracy", "test, clean labels", "o-", INK),
    ):
        values = run.curve(column)
        known = ~np.isnan(values)  # measured only every so many epochs
        marks = {"markersize": 4, "markerfacecolor": fill}
        axes.plot(epochs[known], values[known], style, color=INK, label=name, **marks)


def _draw_learning_rate(run: RunData, axes: Axes, epochs: NDArray[np.float64]) -> None:
    curve = run.curve("lr")
    plain(axes, "epoch", "learning rate").plot(epochs, curve, color=INK, ds="steps-mid")
    axes.set_yscale("log")
    rates = np.unique(curve[np.isfinite(curve) & (curve > 0)])
    if 0 < len(rates) <= MAX_RATES_NAMED:
        axes.set_yticks(rates, [f"{value:g}" for value in rates])
        axes.set_yticks([], minor=True)


def _markers(epochs: NDArray[np.float64]) -> dict[str, Any]:
    return {"marker": "o", "markersize": 3.5} if len(epochs) <= MAX_MARKERS else {}


def _mark_split(run: RunData, rows: Any, epochs: NDArray[np.float64]) -> None:
    """A line through all panels at the epoch of the split, and the robust phase in grey."""
    if run.split_epoch is None:
        return
    name = f"tipping point: epoch {run.split_epoch}"
    if run.fallback:
        name = f"no tipping point; fallback split at epoch {run.split_epoch}"
    style = "-." if run.fallback else "--"
    robust = epochs[run.in_phase("robust")]
    for axes in rows:
        axes.axvline(run.split_epoch, color=DARK, lw=1.6, ls=style, label=name)
        if len(robust):
            label = "robust phase" if name else ""
            axes.axvspan(robust[0] - 0.5, epochs[-1] + 0.5, color="0.93", zorder=0, label=label)
        name = ""  # in the first legend only


def _mark_vanished(run: RunData, axes: Axes, epochs: NDArray[np.float64]) -> None:
    """A cross at the foot of each epoch in which a class was never predicted."""
    vanished = run.vanished()
    marked = epochs[np.array([bool(labels) for labels in vanished], dtype=bool)]
    if not len(marked):
        return
    labels = sorted(set().union(*vanished))
    known = run.arrays.get("class_names", ())
    names = [str(known[k]) if k < len(known) else f"class {k}" for k in labels]
    words = ", ".join(names) if len(names) <= MAX_CLASSES_NAMED else f"{len(names)} classes"
    axes.margins(y=0.15)  # room for the crosses
    axes.plot(
        marked,
        np.full(len(marked), 0.05),
        "X",
        transform=axes.get_xaxis_transform(),
        color=INK,
        markersize=6,
        label=f"vanished: {words}",
    )
