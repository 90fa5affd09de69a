"""The metrics against slow loops."""

import numpy as np
import pytest
import torch

from models.noise_split import otsu, trust_groups
from utils.metrics import (
    accuracy_per_class,
    detection_metrics,
    detection_per_class,
    detection_per_cut,
    most_confused,
    ranking_metrics,
)

NAMES = ["cat", "dog", "frog", "ship"]


def predictions_and_labels() -> tuple[np.ndarray, np.ndarray]:
    """Predictions and labels [200] of three of the four classes, some of them different."""
    generator = np.random.default_rng(3)
    labels = generator.integers(0, 3, 200)
    return np.where(generator.random(200) < 0.3, generator.integers(0, 4, 200), labels), labels


def test_accuracy_per_class_against_a_slow_loop():
    predictions, labels = predictions_and_labels()
    pairs = list(zip(predictions.tolist(), labels.tolist(), strict=True))
    rows = accuracy_per_class(predictions, labels, NAMES)
    for k, row in enumerate(rows[:3]):
        own = [p for p, label in pairs if label == k]
        assert row["label"] == NAMES[k] and row["images"] == len(own)
        assert row["accuracy"] == pytest.approx(100 * own.count(k) / len(own))
    assert rows[3] == {"label": "ship", "images": 0, "accuracy": None}


def test_the_most_confused_pairs_come_first():
    predictions, labels = predictions_and_labels()
    pairs = list(zip(labels.tolist(), predictions.tolist(), strict=True))
    counts = {pair: pairs.count(pair) for pair in pairs if pair[0] != pair[1]}
    rows = most_confused(predictions, labels, NAMES, count=3)
    assert [row["images"] for row in rows] == sorted(counts.values(), reverse=True)[:3]
    for row in rows:
        pair = NAMES.index(row["true"]), NAMES.index(row["predicted"])
        assert counts[pair] == row["images"]
        assert row["of"] == labels.tolist().count(pair[0])
    assert len(most_confused(predictions, labels, NAMES)) == 2
    labels = np.array([0, 1, 1])  # of which no more pairs than mistakes are listed
    assert most_confused(labels, labels, NAMES) == []
    assert most_confused(np.array([0, 1, 0]), labels, NAMES) == [
        {"true": "dog", "predicted": "cat", "images": 1, "of": 2}
    ]


def test_each_cut_of_the_groups_is_one_threshold_on_the_agreement():
    generator = np.random.default_rng(0)
    wrong = generator.random(400) < 0.4
    agreement = np.where(wrong, generator.beta(1, 4, 400), generator.beta(4, 1, 400))
    split = otsu(torch.from_numpy(agreement))
    rows = detection_per_cut(trust_groups(torch.from_numpy(agreement), split).numpy(), wrong)
    assert [row["flag"] for row in rows] == ["group 4", "groups 3 and 4", "groups 2 to 4"]
    for row, cut in zip(rows, split, strict=True):
        below = [score < cut for score in agreement]
        hits = sum(b and w for b, w in zip(below, wrong, strict=True))
        precision, recall = hits / sum(below), hits / wrong.sum()
        assert row["flagged"] == sum(below) and row["flagged_and_wrong"] == hits
        assert row["precision"] == pytest.approx(precision)
        assert row["recall"] == pytest.approx(recall)
        assert row["f1"] == pytest.approx(2 * precision * recall / (precision + recall))


def test_detection_per_class_sees_the_images_of_that_given_label_only():
    flagged, wrong = np.array([True, True, False]), np.array([True, False, True])
    rows = detection_per_class(flagged, wrong, np.array([0, 0, 2]), NAMES[:3])
    counts = [[row[key] for key in ("label", "images", "wrong", "flagged")] for row in rows]
    assert counts == [["cat", 2, 1, 2], ["dog", 0, 0, 0], ["frog", 1, 1, 0]]
    assert [row["precision"] for row in rows] == [0.5, 0, 0]


def test_undefined_metrics_are_0_or_none():
    nothing = np.zeros(3, dtype=bool)
    record = detection_metrics(nothing, nothing)
    assert record["precision"] == record["recall"] == record["f1"] == 0
    agreement = np.array([0.1, 0.5, 0.9])
    for wrong in (nothing, ~nothing):
        assert ranking_metrics(agreement, wrong) == {"average_precision": None, "roc_auc": None}
    ranked = ranking_metrics(agreement, np.array([True, False, False]))
    assert ranked == {"average_precision": 1, "roc_auc": 1}
