"""Metrics: accuracy, and how well wrong labels are detected."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

# scikit-learn, which takes a second to import, is imported where it is needed.


# The ways to turn the trust groups into a detection result: flag all from a group on. By the
# groups' definition their agreements are below the low mean, Otsu's threshold, or the high mean.
GROUP_CUTS = {"group 4": 4, "groups 3 and 4": 3, "groups 2 to 4": 2}


def accuracy(predictions: Any, labels: Any) -> float:
    """Percentage of equal entries in two arrays or tensors [N]."""
    return 100.0 * (predictions == labels).sum().item() / len(labels)


def accuracy_per_class(
    predictions: NDArray[np.integer], labels: NDArray[np.integer], class_names: Sequence[str]
) -> list[dict[str, Any]]:
    """Number of images and accuracy in percent (None without images) of each true class.

    `predictions` and `labels`: [N], both below the number of names.
    """
    from sklearn.metrics import confusion_matrix

    counts = confusion_matrix(labels, predictions, labels=range(len(class_names)))  # [C, C]
    rows = zip(class_names, counts.sum(1).tolist(), counts.diagonal().tolist(), strict=True)
    return [
        {"label": name, "images": images, "accuracy": 100.0 * right / images if images else None}
        for name, images, right in rows
    ]


def most_confused(
    predictions: NDArray[np.integer],
    labels: NDArray[np.integer],
    class_names: Sequence[str],
    count: int = 2,
) -> list[dict[str, Any]]:
    """The most frequent mistakes, at most `count`: true and predicted class, images, of how many.

    `predictions` and `labels`: [N], both below the number of names.
    """
    from sklearn.metrics import confusion_matrix

    counts = confusion_matrix(labels, predictions, labels=range(len(class_names)))  # [C, C]
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


def detection_metrics(flagged: NDArray[np.bool_], wrong: NDArray[np.bool_]) -> dict[str, Any]:
    """Counts, precision, recall and F1 of `flagged` [N] against `wrong` [N]; 0 where undefined."""
    precision = recall = f1 = 0.0
    if len(wrong):  # scikit-learn refuses empty arrays
        from sklearn.metrics import precision_recall_fscore_support

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
    """`detection_metrics` for the images of each given label [N]."""
    return [
        {"label": name, **detection_metrics(flagged[labels == k], wrong[labels == k])}
        for k, name in enumerate(class_names)
    ]


def flagged_per_class(
    flagged: NDArray[np.bool_], labels: NDArray[np.integer], class_names: Sequence[str]
) -> list[dict[str, Any]]:
    """Images and flagged ones among those of each given label [N]."""
    images, found = (np.bincount(x, minlength=len(class_names)) for x in (labels, labels[flagged]))
    rows = zip(class_names, images.tolist(), found.tolist(), strict=True)
    return [{"label": name, "images": count, "flagged": many} for name, count, many in rows]


def detection_per_cut(
    groups: NDArray[np.integer], wrong: NDArray[np.bool_]
) -> list[dict[str, Any]]:
    """`detection_metrics` of each of GROUP_CUTS, from trust groups [N]."""
    return [
        {"flag": words, **detection_metrics(groups >= lowest, wrong)}
        for words, lowest in GROUP_CUTS.items()
    ]


def ranking_metrics(
    agreement: NDArray[np.floating], wrong: NDArray[np.bool_]
) -> dict[str, float | None]:
    """Average precision and ROC AUC of low agreement [N] as a sign of a wrong label [N].

    None if all labels are right or all are wrong.
    """
    if wrong.all() or not wrong.any():
        return {"average_precision": None, "roc_auc": None}
    from sklearn.metrics import average_precision_score, roc_auc_score

    return {
        "average_precision": float(average_precision_score(wrong, -agreement)),
        "roc_auc": float(roc_auc_score(wrong, -agreement)),
    }
