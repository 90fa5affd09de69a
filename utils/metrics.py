"""What is measured: accuracy, and how well wrong labels were found."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import (
    average_precision_score,
    precision_recall_fscore_support,
    roc_auc_score,
)


class GroupCut(NamedTuple):
    """One way to make a detection result of the trust groups: flag those from a group on."""

    words: str
    lowest_group: int
    below: str  # the cut of the split that says the same


# Flagging groups 3 and 4 is flagging all below Otsu's threshold, by the groups' definition.
GROUP_CUTS = (
    GroupCut("group 4", 4, "low_mean"),
    GroupCut("groups 3 and 4", 3, "threshold"),
    GroupCut("groups 2 to 4", 2, "high_mean"),
)


def accuracy(predictions: Any, labels: Any) -> float:
    """Share of equal entries of two arrays or tensors [N], in percent."""
    return 100.0 * (predictions == labels).sum().item() / len(labels)


def accuracy_per_class(
    predictions: NDArray[np.integer], labels: NDArray[np.integer], class_names: Sequence[str]
) -> list[dict[str, Any]]:
    """Images and accuracy in percent (None without images) of each true class; both arrays [N]."""
    rows = []
    for k, name in enumerate(class_names):
        own = predictions[labels == k]
        figure = accuracy(own, np.full_like(own, k)) if len(own) else None
        rows.append({"label": name, "images": len(own), "accuracy": figure})
    return rows


def most_confused(
    predictions: NDArray[np.integer],
    labels: NDArray[np.integer],
    class_names: Sequence[str],
    count: int = 2,
) -> list[dict[str, Any]]:
    """The most frequent mistakes, (true, predicted, images, of how many); fewer where none is."""
    counts = np.zeros((len(class_names),) * 2, dtype=int)  # [C, C], true by predicted
    np.add.at(counts, (labels, predictions), 1)
    totals = counts.sum(1)
    np.fill_diagonal(counts, 0)
    order = np.argsort(-counts, axis=None, kind="stable")[:count]
    pairs = zip(*np.unravel_index(order, counts.shape), strict=True)
    return [
        {
            "true": class_names[true],
            "predicted": class_names[predicted],
            "images": int(counts[true, predicted]),
            "of": int(totals[true]),
        }
        for true, predicted in pairs
        if counts[true, predicted]
    ]


def detection_figures(flagged: NDArray[np.bool_], wrong: NDArray[np.bool_]) -> dict[str, Any]:
    """Counts, precision, recall and F1 of `flagged` [N] against `wrong` [N]; 0 where undefined."""
    precision = recall = f1 = 0.0
    if len(wrong):  # scikit-learn refuses none
        precision, recall, f1, _ = precision_recall_fscore_support(
            wrong, flagged, average="binary", zero_division=0.0
        )
    return {
        "images": len(wrong),
        "wrong": int(wrong.sum()),
        "flagged": int(flagged.sum()),
        "flagged_and_wrong": int((flagged & wrong).sum()),
        "precision": float(precision),
        "recall": float(recall),
        "f1": float(f1),
    }


def detection_per_class(
    flagged: NDArray[np.bool_],
    wrong: NDArray[np.bool_],
    labels: NDArray[np.integer],
    class_names: Sequence[str],
) -> list[dict[str, Any]]:
    """The figures of `detection_figures` for the images of each given label [N]."""
    return [
        {"label": name, **detection_figures(flagged[labels == k], wrong[labels == k])}
        for k, name in enumerate(class_names)
    ]


def detection_per_cut(
    groups: NDArray[np.integer], wrong: NDArray[np.bool_]
) -> list[dict[str, Any]]:
    """The figures of `detection_figures` for each of GROUP_CUTS, from trust groups [N]."""
    return [
        {"flag": cut.words, **detection_figures(groups >= cut.lowest_group, wrong)}
        for cut in GROUP_CUTS
    ]


def ranking_figures(
    agreement: NDArray[np.floating], wrong: NDArray[np.bool_]
) -> dict[str, float | None]:
    """Average precision and ROC AUC of low agreement [N] as a sign of a wrong label [N].

    None where all labels are right or all are wrong.
    """
    if wrong.all() or not wrong.any():
        return {"average_precision": None, "roc_auc": None}
    return {
        "average_precision": float(average_precision_score(wrong, -agreement)),
        "roc_auc": float(roc_auc_score(wrong, -agreement)),
    }
