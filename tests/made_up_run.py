"""Run folders as training leaves them, with values that a test chooses; no network is trained."""

import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from utils.manifest import csv_text
from utils.options.training import training_parser
from utils.run_folder.description import Description
from utils.run_folder.folder import RunFolder
from utils.run_folder.predictions import Predictions
from utils.run_folder.predictions_writer import write_predictions

DEFAULTS = Description.of(training_parser().parse_args([])).options


class MadeUpRun(NamedTuple):
    """A run folder and what was put into it."""

    folder: Path
    predictions: Predictions


def made_up_run(
    results: Path,
    *words: object,
    name: str | None = None,
    images: int = 300,
    classes: int = 10,
    epochs: int = 12,
    curves: dict[str, list[str]] | None = None,
    **records: dict[str, Any] | None,
) -> MadeUpRun:
    """Write a finished run: a third of the labels wrong, a tipping point at epoch 5.

    `words`: options of DEFAULTS as "--name", value. `name`: of the folder, else run_0, run_1, ...
    `curves`: further columns of metrics.csv. `records`: other values of "training", "timing" and
    so on, None to leave that file out.
    """
    given = {
        str(option).removeprefix("--"): str(value) if isinstance(value, Path) else value
        for option, value in zip(words[::2], words[1::2], strict=True)
    }
    assert given.keys() <= DEFAULTS.keys()
    options = DEFAULTS | given
    method = options["method"] == "bkd"
    results.mkdir(parents=True, exist_ok=True)
    folder = RunFolder(results / (name or f"run_{len(list(results.iterdir()))}"))
    folder.path.mkdir()
    args = {
        "options": options,
        "non_default_options": {k: v for k, v in given.items() if v != DEFAULTS[k]},
        "versions": {"python": "3.11", "torch": "2.11"},
        "device": "cpu",
        "precision": "fp32" if options["precision"] == "auto" else options["precision"],
        "compiled": False,
        "commit": "abc",
    }
    training = {"epochs": epochs, "best_val_epoch": 5, "clean_test_accuracy": 71.0}
    training |= {"tipping_point": 5, "fallback": False} if method else {"tipping_point": None}
    contents = {
        "args": args,
        "training": training,
        "timing": {"wall_seconds": 83.2, "peak_memory_gib": 1.25},
        "learning": {"last": {"accuracy": 91.25}, "best_val": {"accuracy": 90.5}},
        "detection_metrics": {"precision": 0.75, "recall": 0.5, "f1": 0.6},
    }
    assert records.keys() <= contents.keys()
    for record, content in contents.items():
        if (changes := records.get(record, {})) is not None:
            getattr(folder, record).write_text(json.dumps(content | changes))
    _write_metrics(folder.metrics, epochs, method, curves or {})
    predictions = write_detection(folder.path, _predictions(images, classes, split=method))
    return MadeUpRun(folder.path, predictions)


def edit_json(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def write_detection(folder: Path, predictions: Predictions) -> Predictions:
    count = predictions.index.max() + 1
    pixels = np.random.default_rng(1).integers(0, 256, (count, 3, 32, 32), np.uint8)
    return write_predictions(RunFolder(folder), predictions, pixels)


def _predictions(images: int, classes: int, *, split: bool) -> Predictions:
    """The scores of every second image of a set; agreement is low where the label is wrong."""
    generator = np.random.default_rng(0)
    true_label = generator.integers(0, classes, images)
    wrong = generator.random(images) < 1 / 3
    other = (true_label + generator.integers(1, classes, images)) % classes
    label = np.where(wrong, other, true_label)
    spread = generator.random(images)
    agreement = np.where(wrong, 0.6 * spread, 1 - 0.6 * spread).astype(np.float32)
    prediction = np.where(agreement < 0.5, true_label, label)
    agreement = agreement.round(2)  # with ties
    index, names = np.arange(0, 2 * images, 2), np.array([f"class {k}" for k in range(classes)])
    predictions = Predictions(index, label, names, true_label=true_label)
    if not split:
        return predictions._replace(final_agreement=agreement, final_prediction=prediction)
    cuts = {"low_mean": 0.2, "threshold": 0.5, "high_mean": 0.8}
    return predictions._replace(
        split_agreement=agreement,
        split_prediction=prediction,
        split_group=np.array([1 + sum(a < cut for cut in cuts.values()) for a in agreement]),
        split_epoch=5,
        **cuts,
    )


def _write_metrics(path: Path, epochs: int, method: bool, curves: dict[str, list[str]]) -> None:
    rows = [
        {
            "epoch": epoch,
            "phase": "ce" if not method else "naive" if epoch < 8 else "robust",
            "lr": 0.02 if epoch < 6 else 0.002,
            "loss": 2 / (1 + epoch),
            "naive_loss": 1.5 / (1 + epoch),
            "compensation_loss": 0.5 / (1 + epoch) if method else "",
            "student_confidence": 0.5 - 0.01 * (epoch - 5) ** 2 if method else "",
            "noisy_val_accuracy": 50 + epoch if epoch % 2 else "",
            "clean_test_accuracy": 60 + epoch if epoch % 3 == 2 else "",
            **{column: cells[epoch] for column, cells in curves.items()},
        }
        for epoch in range(epochs)
    ]
    path.write_text(csv_text([[*rows[0]], *([*row.values()] for row in rows)]))
