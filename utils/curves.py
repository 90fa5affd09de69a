"""Pictures of a run over its epochs: the tipping point, and what training measured."""

from typing import Any

import numpy as np

from utils.figures import (
    DARK,
    INK,
    MIDDLE,
    SMALL,
    LeftOut,
    RunFigures,
    legend_above,
    new_figure,
    over_epochs,
    plain,
)

MARKED_SINGLY = 40  # epochs; with more, markers would run together
CLASSES_NAMED = 2
RATES_NAMED = 5
ENLARGED_BEFORE, ENLARGED_BELOW = 0.68, 0.7  # shares of the axes: from left, from the foot


def draw_tipping_point(run: RunFigures) -> Any:
    """The student's confidence, and where known what the pair agrees with; raises LeftOut."""
    if run.baseline:
        raise LeftOut("the baseline has no student, and so no tipping point")
    confidence = run.curve("student_confidence")
    if np.isnan(confidence).all():
        raise LeftOut("metrics.csv has no epoch with the student's confidence yet")
    agreed_wrong = run.curve("agreed_wrong")
    both = bool((~np.isnan(agreed_wrong)).any())
    figure = new_figure(7.2, 5.6 if both else 3.4, f"{run.name}: tipping point")
    rows = figure.subplots(1 + both, 1, sharex=True, squeeze=False)[:, 0]
    epochs = run.epochs()

    top = plain(rows[0], "", "student's confidence\n(mean largest probability)")
    top.plot(epochs, confidence, color=INK, label="student's confidence", **_marked(epochs))
    _mark_split(run, rows, epochs)
    legend_above(top, 3)
    if both:
        low = plain(rows[1], "", "wrong labels (%)")
        low.plot(
            epochs,
            agreed_wrong,
            color=INK,
            label="among the labels that the pair agrees with",
            **_marked(epochs),
        )
        if run.wrong is not None:
            low.axhline(
                100 * run.wrong.mean(), color=MIDDLE, ls=(0, (1, 1.5)), label="among all labels"
            )
        low.set_ylim(bottom=0)
        legend_above(low, 2)
    over_epochs(rows[-1], epochs)
    _enlarge_naive_phase(run, top, epochs, confidence)
    return figure


def draw_training_curves(run: RunFigures) -> Any:
    """Losses, accuracies and learning rate over the epochs; raises LeftOut before the first."""
    epochs = run.epochs()
    if not len(epochs):
        raise LeftOut("metrics.csv has no epoch yet")
    figure = new_figure(7.2, 7.2, f"{run.name}: training")
    losses, accuracies, rate = rows = figure.subplots(3, 1, sharex=True, height_ratios=(3, 3, 1.4))
    plain(losses, "", "loss (mean over images)")
    for column, name, style in (
        ("loss", "cross-entropy" if run.baseline else "total", "-"),
        ("naive_loss", "teacher's cross-entropy", "--"),
        ("compensation_loss", "compensation", ":"),
    ):
        if not run.baseline or column == "loss":  # the baseline's loss is all cross-entropy
            losses.plot(epochs, run.curve(column), style, color=INK, label=name)
    losses.set_ylim(bottom=0)
    plain(accuracies, "", "accuracy (%)")
    for column, name, style in (
        ("noisy_val_accuracy", "validation, noisy labels", "s--"),
        ("clean_test_accuracy", "test, clean labels", "o-"),
    ):
        values = run.curve(column)
        known = ~np.isnan(values)  # measured every so many epochs only
        fill = INK if style[0] == "o" else "white"
        marks = {"markersize": 4, "markerfacecolor": fill}
        accuracies.plot(epochs[known], values[known], style, color=INK, label=name, **marks)
    plain(rate, "epoch", "learning rate").plot(epochs, run.curve("lr"), color=INK, ds="steps-mid")
    rate.set_yscale("log")
    rates = np.unique(run.curve("lr"))
    rates = rates[rates > 0]
    if 0 < len(rates) <= RATES_NAMED:
        rate.set_yticks(rates, [f"{value:g}" for value in rates])
        rate.set_yticks([], minor=True)
    _mark_split(run, rows, epochs)
    _mark_vanished(run, accuracies, epochs)
    legend_above(losses, 3)
    legend_above(accuracies, 3)
    over_epochs(rate, epochs)
    return figure


def _enlarge_naive_phase(
    run: RunFigures, axes: Any, epochs: np.ndarray, confidence: np.ndarray
) -> None:
    """The epochs until the tipping point was found once more, on a scale of their own.

    In the robust phase the confidence leaps up, and the peak before it is small beside that. Drawn
    below the leap where there is room for it.
    """
    naive = np.array(run.metrics.get("phase", [])) == "naive"
    if run.split_epoch is None or naive.all() or not naive.any():
        return
    left = np.interp(epochs[naive][-1], axes.get_xlim(), (0, 1)) + 0.15
    behind = np.interp(epochs, axes.get_xlim(), (0, 1)) >= left - 0.05
    if left > ENLARGED_BEFORE or not behind.any():
        return
    room = np.interp(np.nanmin(confidence[behind]), axes.get_ylim(), (0, 1))
    if room < ENLARGED_BELOW:
        return
    inset = axes.inset_axes((left, 0.16, 0.98 - left, room - 0.32))
    plain(inset, "", "").plot(epochs[naive], confidence[naive], color=INK, **_marked(epochs[naive]))
    inset.axvline(run.split_epoch, color=DARK, lw=1.6, ls="--")
    inset.set_title("until the tipping point was found", fontsize=SMALL, loc="left")
    inset.xaxis.get_major_locator().set_params(integer=True)


def _marked(epochs: np.ndarray) -> dict[str, Any]:
    return {"marker": "o", "markersize": 3.5} if len(epochs) <= MARKED_SINGLY else {}


def _mark_split(run: RunFigures, rows: Any, epochs: np.ndarray) -> None:
    """A line through all panels where the split was made, and the robust phase in grey."""
    if run.split_epoch is None:
        return
    name = f"tipping point: epoch {run.split_epoch}"
    if run.guess:
        name = f"never tipped; split is a guess, at epoch {run.split_epoch}"
    robust = epochs[np.array(run.metrics.get("phase", [])) == "robust"]
    for axes in rows:
        axes.axvline(run.split_epoch, color=DARK, lw=1.6, ls=":" if run.guess else "--", label=name)
        if len(robust):
            label = "robust phase" if name else ""
            axes.axvspan(robust[0] - 0.5, epochs[-1] + 0.5, color="0.93", zorder=0, label=label)
        name = ""  # told once


def _mark_vanished(run: RunFigures, axes: Any, epochs: np.ndarray) -> None:
    """A cross at the foot of each epoch in which a class was never predicted."""
    vanished = run.vanished()
    epochs = epochs[[bool(labels) for labels in vanished]] if vanished else epochs[:0]
    if not len(epochs):
        return
    labels = sorted(set().union(*vanished))
    known = run.arrays.get("class_names", ())
    names = [str(known[k]) if k < len(known) else f"class {k}" for k in labels]
    words = ", ".join(names) if len(names) <= CLASSES_NAMED else f"{len(names)} classes"
    axes.margins(y=0.15)  # room for the crosses
    axes.plot(
        epochs,
        np.full(len(epochs), 0.05),
        "X",
        transform=axes.get_xaxis_transform(),
        color=INK,
        markersize=6,
        label=f"vanished: {words}",
    )
