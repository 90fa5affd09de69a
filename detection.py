"""Detection track: how well a run told wrong labels from right ones.

    python detection.py --dataset cifar10 --noise_type aggre --seed 42
    python detection.py --dataset cifar10 --noise_type aggre --prediction other_method.npy

The paper's networks, 300 epochs, one seed: F1 0.667 / 0.788 / 0.760 on aggre / rand1 / worst, by
the labels that the final pair contradicts 0.787 / 0.860 / 0.882. Reads a run folder's detection.npy
and writes detection.json and detection.log, or evaluates any other such file.
"""

from utils.startup import run_script

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from data.datasets import given_labels, load_images
from data.images import UNKNOWN
from utils.console import logged_to, say
from utils.files import read_array, read_json, write_json
from utils.labels import labels_sha256
from utils.metrics import (
    detection_metrics,
    detection_per_class,
    detection_per_cut,
    flagged_per_class,
    most_confused,
    ranking_metrics,
)
from utils.options.evaluation import detection_parser
from utils.run_folder.detection_report import report, report_summary
from utils.run_folder.folder import RunFolder
from utils.run_folder.predictions import Array, Predictions
from utils.run_folder.predictions_writer import posterior_lines


def read_flags(path: Path, count: int, hint: str) -> Array:
    """One boolean for each of `count` training images; raises OSError or ValueError otherwise."""
    flags = read_array(path, hint)
    if flags.dtype != bool or flags.shape != (count,):
        raise ValueError(
            f"{path}: has type {flags.dtype} and shape {flags.shape}; needed is one boolean for "
            f"each of the {count} images that have labels"
        )
    return flags


def read_predictions(path: Path, labels: Array) -> Predictions:
    """The run's predictions; raises ValueError unless they are for these given labels [N]."""
    predictions = Predictions.read(path)
    index, label = predictions.index, predictions.label
    if (index >= len(labels)).any() or not np.array_equal(label, labels[index]):
        raise ValueError(
            f"{path}: the run was trained on other labels; give its --noise_type, --seed and "
            "--noise_path"
        )
    return predictions


def evaluate(
    flagged: Array,
    labels: Array,
    wrong: Array,
    names: Sequence[str],
    predictions: Predictions | None,
) -> dict[str, Any]:
    """The metrics of a detection result, three arrays [N]; more of them with predictions."""
    record = detection_metrics(flagged, wrong)
    if predictions:
        record |= ranking_metrics(predictions.chosen.agreement, wrong)
        record["detection"] = predictions.chosen_name
        record["detections"] = {
            name: detection_metrics(each.flagged, wrong) | ranking_metrics(each.agreement, wrong)
            for name, each in predictions.detections.items()
        }
    record["per_class"] = detection_per_class(flagged, wrong, labels, names)
    if predictions and predictions.cuts:
        rows = zip(detection_per_cut(predictions.split_group, wrong), predictions.cuts, strict=True)
        record["cuts"] = [row | {"below": cut} for row, cut in rows]
    return record


def summarize(
    flagged: Array, labels: Array, names: Sequence[str], predictions: Predictions | None
) -> dict[str, Any]:
    """What was found, two arrays [N], where no true label is known."""
    record = {
        "images": len(labels),
        "flagged": int(flagged.sum()),
        "per_class": flagged_per_class(flagged, labels, names),
        "estimated_noise_rate": float(flagged.mean()),
    }
    if predictions:
        suggested = np.where(flagged, predictions.chosen.prediction, labels)
        record["most_frequent"] = most_confused(suggested, labels, names, 10)
    return record


def main(args: argparse.Namespace) -> dict[str, Any]:
    """Evaluate a detection result; writes (unless --prediction) and returns detection.json."""
    if args.prediction:
        return evaluate_file(args, args.prediction, args.noise_path, None)
    folder = RunFolder.of(args)
    options = folder.options_like(args, ("dataset", "noise_type", "seed", "method"))
    folder.check_finished()
    own = options.get("noise_path")
    with logged_to(folder.log("detection")):
        noise_path = args.noise_path or (Path(own) if own else None)
        record = evaluate_file(args, folder.detection, noise_path, folder)
        write_json(folder.detection_metrics, record)
    return record


def evaluate_file(
    args: argparse.Namespace, path: Path, noise_path: Path | None, folder: RunFolder | None
) -> dict[str, Any]:
    """Evaluate and print the flags in a file, with the predictions of `folder` where it has any."""
    options = (folder and folder.options_like(args, ())) or vars(args)
    images = load_images(args.dataset, args.data_dir, options)
    true, names, where = images.train.clean_labels, images.class_names, (args.data_dir, noise_path)
    labels = given_labels(args.dataset, args.noise_type, true, *where, args.seed, images.own)
    labels, true = labels.numpy(), true.numpy()  # [N]
    hint = "train the run first" if folder else "check --prediction"
    flagged, predictions, fallback = read_flags(path, len(labels), hint), None, False
    if folder:
        folder.check_data(names, labels_sha256(labels, images.digest()))
    if folder and folder.predictions.exists():
        predictions = read_predictions(folder.predictions, labels)
        fallback = predictions.fallback
        folder.check_split(predictions)
        if not np.array_equal(flagged[predictions.index], predictions.chosen.flagged):
            raise ValueError(f"{path}: not of this run; its flags are not those of predictions.npz")
    elif folder and folder.training.exists():
        fallback = bool(read_json(folder.training).get("fallback", False))
    for line in posterior_lines(predictions) if predictions else ():
        say(line)
    say(f"{path}" + (f", labels of {noise_path}" if noise_path else ""))
    if fallback:
        by_split = not predictions or predictions.chosen_name == "split"
        words = "this result is a fallback" if by_split else "the robust phase has not begun"
        say(f"no tipping point came: {words}")
    index, known = predictions.index if predictions else np.arange(len(labels)), true != UNKNOWN
    if known.any():  # images whose true label is unknown are left out
        predictions = predictions and predictions.rows(known[index])
        index = index[known[index]]
        wrong = (labels != true)[index]
        record = evaluate(flagged[index], labels[index], wrong, names, predictions)
        if len(index) < len(labels):
            say(f"evaluated on the {len(index)} of {len(labels)} images it scored")
        report(record)
    else:
        record = summarize(flagged[index], labels[index], names, predictions)
        report_summary(record)
    return record | {"fallback": fallback}


if __name__ == "__main__":
    run_script(main, detection_parser().parse_args())
