"""Run folders as training leaves them, with figures that a test chooses; no network is trained."""

import csv
import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from tests.conftest import training_options
from utils.runs import DetectionWriter


class MadeUpRun(NamedTuple):
    """A run folder and what was put into it."""

    folder: Path
    arrays: dict[str, np.ndarray]
    names: list[str]


def made_up_run(
    results: Path,
    *words: object,
    name: str = "run",
    images: int = 300,
    classes: int = 10,
    epochs: int = 12,
    extra: dict[str, list[str]] | None = None,
    class_names: list[str] | None = None,
) -> MadeUpRun:
    """Write a finished run: a third of the labels wrong, a tipping point at epoch 5.

    `words`: of the training's command line. `extra`: further columns of metrics.csv.
    """
    options = vars(training_options(*words))
    options = {key: str(v) if isinstance(v, Path) else v for key, v in options.items()}
    blind = options["method"] == "bkd"
    folder = results / name
    folder.mkdir(parents=True)
    versions = {"python": "3.11", "torch": "2.11"}
    write = {"options": options, "versions": versions, "device": "cpu", "precision": "fp32"}
    _json(folder / "args.json", write | {"compiled": False, "commit": "abc"})
    _json(folder / "training.json", {"tipping_point": 5 if blind else None, "guess": False})
    _json(folder / "timing.json", {"wall_seconds": 83.2})
    _json(folder / "learning.json", {"last": {"accuracy": 91.25}, "best_val": {"accuracy": 90.5}})
    _json(folder / "detection.json", {"precision": 0.75, "recall": 0.5, "f1": 0.6})
    _metrics(folder / "metrics.csv", epochs, blind, extra or {})
    names = class_names or [f"class {k}" for k in range(classes)]
    arrays = _scores(images, classes)
    figures: dict[str, Any] = {}
    if blind:
        figures = {"low_mean": 0.2, "threshold": 0.5, "high_mean": 0.8}
        cuts = list(figures.values())
        arrays["group"] = np.array([1 + sum(a < cut for cut in cuts) for a in arrays["agreement"]])
        figures |= {"split_epoch": 5, "guess": False}
    write_detection(folder, arrays, names, **figures)
    return MadeUpRun(folder, arrays, names)


def write_detection(
    folder: Path, arrays: dict[str, np.ndarray], names: list[str], **figures: Any
) -> None:
    """Write a detection result as training does; without groups as the baseline does."""
    kept = dict(arrays)
    index, label, true_label = (kept.pop(key) for key in ("index", "label", "true_label"))
    pictures = np.random.default_rng(1).integers(0, 256, (index.max() + 1, 3, 32, 32), np.uint8)
    writer = DetectionWriter(folder, index, label, true_label, names, pictures)
    flagged = kept["group"] == 4 if "group" in kept else kept["prediction"] != label
    writer.write(flagged, **kept, **figures)


def _scores(images: int, classes: int) -> dict[str, np.ndarray]:
    """Scores of every second image of a set; agreement is low where the label is wrong."""
    generator = np.random.default_rng(0)
    true_label = generator.integers(0, classes, images)
    wrong = generator.random(images) < 1 / 3
    label = np.where(wrong, (true_label + generator.integers(1, classes, images)) % classes, 0)
    label = np.where(wrong, label, true_label)
    spread = generator.random(images)
    agreement = np.where(wrong, 0.6 * spread, 1 - 0.6 * spread).astype(np.float32)
    return {
        "index": np.arange(0, 2 * images, 2),
        "label": label,
        "true_label": true_label,
        "agreement": agreement.round(2),  # with ties
        "prediction": np.where(agreement < 0.5, true_label, label),
    }


def _metrics(path: Path, epochs: int, blind: bool, extra: dict[str, list[str]]) -> None:
    rows = [
        {
            "epoch": epoch,
            "phase": "ce" if not blind else "naive" if epoch < 8 else "robust",
            "lr": 0.02 if epoch < 6 else 0.002,
            "loss": 2 / (1 + epoch),
            "naive_loss": 1.5 / (1 + epoch),
            "compensation_loss": 0.5 / (1 + epoch) if blind else "",
            "student_confidence": 0.5 - 0.01 * (epoch - 5) ** 2 if blind else "",
            "noisy_val_accuracy": 50 + epoch if epoch % 2 else "",
            "clean_test_accuracy": 60 + epoch if epoch % 3 == 2 else "",
            **{column: cells[epoch] for column, cells in extra.items()},
        }
        for epoch in range(epochs)
    ]
    with open(path, "w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def _json(path: Path, record: dict[str, Any]) -> None:
    path.write_text(json.dumps(record))
