"""Detection track: how well a run told wrong labels from right ones.

    python detection.py --dataset cifar10 --noise_type aggre --seed 42
    python detection.py --dataset cifar10 --noise_type aggre --prediction other_method.npy

Reads a run folder's detection.npy and writes detection.json, or scores any other such file.
"""

import argparse
from pathlib import Path
from typing import Any

from utils.options import detection_parser, parse_options, run_script

if __name__ == "__main__":  # --help and wrong options are answered before torch is imported
    options = parse_options(detection_parser())

import numpy as np

from data.datasets import given_labels, load_images
from utils import runs
from utils.files import read_array, read_arrays, write_json
from utils.metrics import (
    GROUP_CUTS,
    detection_figures,
    detection_per_class,
    detection_per_cut,
    ranking_figures,
)


def read_flags(path: Path, count: int) -> np.ndarray:
    """One boolean for each of `count` training images; raises OSError or ValueError otherwise."""
    flags = read_array(path)
    if flags.dtype != bool or flags.shape != (count,):
        raise ValueError(
            f"{path}: has type {flags.dtype} and shape {flags.shape}; "
            f"needed is one boolean for each of the {count} training images"
        )
    return flags


def read_scores(path: Path, labels: np.ndarray) -> dict[str, np.ndarray]:
    """The run's predictions.npz, checked against the given labels [N]; ValueError if amiss."""
    scores = read_arrays(path)
    try:
        fitting = np.array_equal(scores["label"], labels[scores["index"]])
        names = ("agreement", "group") if "group" in scores else ("agreement",)
        measured = all(scores[name].shape == scores["index"].shape for name in names)
    except (KeyError, IndexError) as error:
        raise ValueError(f"{path}: not written by this training script; train again") from error
    if not fitting or not measured:
        raise ValueError(
            f"{path}: the run was trained on other labels; give its --noise_type, --seed and "
            "--noise_path"
        )
    return scores


def main(args: argparse.Namespace) -> dict[str, Any]:
    """Evaluate the detection result; returns detection.json."""
    folder = runs.run_folder(args)
    noise_path = args.noise_path
    if args.prediction is None:
        options = runs.read_options(folder, args, ("dataset", "noise_type", "seed", "method"))
        if noise_path is None and options.get("noise_path"):
            noise_path = Path(options["noise_path"])
    images = load_images(args.dataset, args.data_dir)
    clean_labels = images.train.clean_labels
    labels = given_labels(
        args.dataset, args.noise_type, clean_labels, args.data_dir, noise_path, args.seed
    )
    labels, wrong = labels.numpy(), (labels != clean_labels).numpy()

    path = args.prediction or folder / "detection.npy"
    flagged = read_flags(path, len(labels))
    scores: dict[str, np.ndarray] = {}
    if args.prediction is None and (folder / "predictions.npz").exists():
        scores = read_scores(folder / "predictions.npz", labels)
    scored = scores.get("index", np.arange(len(labels)))
    flagged, labels, wrong = flagged[scored], labels[scored], wrong[scored]

    record = detection_figures(flagged, wrong)
    record["guess"] = bool(scores.get("guess", False))
    record |= ranking_figures(scores["agreement"], wrong) if scores else {}
    record["per_class"] = detection_per_class(flagged, wrong, labels, images.class_names)
    if all(name in scores for name in ("group", *(cut.below for cut in GROUP_CUTS))):
        record["cuts"] = [
            row | {"below": float(scores[cut.below])}
            for row, cut in zip(detection_per_cut(scores["group"], wrong), GROUP_CUTS, strict=True)
        ]
    print(f"{path}" + (f", labels of {noise_path}" if noise_path else ""))
    if len(scored) < len(images.train.images):
        print(f"evaluated on the {len(scored)} of {len(images.train.images)} images it scored")
    if record["guess"]:
        print("no tipping point came: this result is a guess")
    report(record)
    if args.prediction is None:
        write_json(folder / "detection.json", record)
    return record


def report(record: dict[str, Any]) -> None:
    """Print the figures, the official lines last."""
    print(
        f"{record['images']} images, {record['wrong']} labels wrong, {record['flagged']} flagged, "
        f"{record['flagged_and_wrong']} of them wrong"
    )
    print(f"{'given label':>15} images  wrong flagged precision recall     F1")
    for row in record["per_class"]:
        print(
            f"{row['label']:>15} {row['images']:6} {row['wrong']:6} {row['flagged']:7} "
            f"{row['precision']:9.3f} {row['recall']:6.3f} {row['f1']:6.3f}"
        )
    if "cuts" in record:
        report_cuts(record["cuts"])
    if record.get("roc_auc") is not None:
        print(
            f"agreement as a score: average precision {record['average_precision']:.4f}, "
            f"ROC AUC {record['roc_auc']:.4f}"
        )
    print(f"precision is {record['precision']:.4f}")
    print(f"recall is {record['recall']:.4f}")
    print(f"The f-score is {record['f1']:.4f}")


def report_cuts(rows: list[dict[str, Any]]) -> None:
    """Print what each cut of the split would flag; one that flags the same as another, in words."""
    print(f"{'flag':>15}  agreement flagged precision recall     F1")
    before = None
    for row, note in zip(rows, ("  the run's result", "  Otsu's threshold", ""), strict=True):
        figures = f"{row['flag']:>15}    < {row['below']:.3f}"
        if before and before["flagged"] == row["flagged"]:
            print(f"{figures} {row['flagged']:7} the same images as {before['flag']}")
        else:
            print(
                f"{figures} {row['flagged']:7} {row['precision']:9.3f} {row['recall']:6.3f} "
                f"{row['f1']:6.3f}{note}"
            )
        before = row
    print("groups 3 and 4 are by definition all below Otsu's threshold: the two are one cut")


if __name__ == "__main__":
    run_script(main, options)
