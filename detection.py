"""Detection track: how well a run told wrong labels from right ones.

    python detection.py --dataset cifar10 --noise_type aggre --seed 42
    python detection.py --dataset cifar10 --noise_type aggre --prediction other_method.npy

Reads a run folder's detection.npy and writes detection.json and detection.log, or evaluates any
other such file.
"""

from utils.startup import run_script

import argparse
from pathlib import Path
from typing import Any

import numpy as np

from data.datasets import given_labels, load_images
from data.images import UNKNOWN
from utils.console import logged_to, say
from utils.files import read_array, read_arrays, read_json, write_json
from utils.metrics import (
    GROUP_CUTS,
    detection_metrics,
    detection_per_class,
    detection_per_cut,
    flagged_per_class,
    most_confused,
    ranking_metrics,
)
from utils.options.evaluation import detection_parser
from utils.options.parser import DETECTIONS
from utils.run_folder.detections import chosen, detection_name, detections
from utils.run_folder.folder import RunFolder


def read_flags(path: Path, count: int, hint: str) -> np.ndarray:
    """One boolean for each of `count` training images; raises OSError or ValueError otherwise."""
    flags = read_array(path, hint)
    if flags.dtype != bool or flags.shape != (count,):
        raise ValueError(
            f"{path}: has type {flags.dtype} and shape {flags.shape}; needed is one boolean for "
            f"each of the {count} training images"
        )
    return flags


def read_scores(path: Path, labels: np.ndarray) -> dict[str, np.ndarray]:
    """The run's predictions.npz, checked against the given labels [N]; ValueError if amiss."""
    scores = read_arrays(path)
    try:
        same_labels = np.array_equal(scores["label"], labels[scores["index"]])
        arrays = [array for flags in detections(scores).values() for array in flags]
        complete = all(array.shape == scores["index"].shape for array in arrays)
    except (KeyError, IndexError) as error:
        raise ValueError(f"{path}: not written by this training script; train again") from error
    if not same_labels or not complete:
        raise ValueError(
            f"{path}: the run was trained on other labels; give its --noise_type, --seed and "
            "--noise_path"
        )
    return scores


def evaluate(
    flagged: np.ndarray,
    labels: np.ndarray,
    clean_labels: np.ndarray,
    scores: dict[str, np.ndarray],
    class_names: list[str],
) -> dict[str, Any]:
    """The metrics of one detection result, three arrays [N]; more of them with a run's scores.

    Where the true label is unknown an image is left out.
    """
    scored = scores.get("index", np.arange(len(labels)))
    known = clean_labels[scored] != UNKNOWN  # [S]
    scored = scored[known]
    flagged, labels, wrong = flagged[scored], labels[scored], (labels != clean_labels)[scored]
    record = detection_metrics(flagged, wrong)
    if scores:
        record |= ranking_metrics(chosen(scores).agreement[known], wrong)
        record["detection"] = detection_name(scores)
        record["detections"] = {
            name: detection_metrics(flags.flagged[known], wrong)
            | ranking_metrics(flags.agreement[known], wrong)
            for name, flags in detections(scores).items()
        }
    record["per_class"] = detection_per_class(flagged, wrong, labels, class_names)
    if all(name in scores for name in ("group", *(cut.below for cut in GROUP_CUTS))):
        record["cuts"] = [
            row | {"below": float(scores[cut.below])}
            for row, cut in zip(
                detection_per_cut(scores["group"][known], wrong), GROUP_CUTS, strict=True
            )
        ]
    return record


def summarise(
    flagged: np.ndarray, labels: np.ndarray, scores: dict[str, np.ndarray], class_names: list[str]
) -> dict[str, Any]:
    """Print and return what was found, two arrays [N], where no true label is known."""
    scored = scores.get("index", np.arange(len(labels)))
    rows = flagged_per_class(flagged[scored], labels[scored], class_names)
    count = int(flagged[scored].sum())
    record = {"images": len(scored), "flagged": count, "per_class": rows}
    record["estimated_noise_rate"] = count / len(scored)
    say("no true labels are known: there is nothing to compare with")
    say(
        f"{len(scored)} images, {count} labels flagged as wrong, {count / len(scored):.1%} of them:"
    )
    say(f"{'given label':>15} images flagged     %")
    for row in rows:
        share = 100 * row["flagged"] / max(1, row["images"])
        say(f"{row['label']:>15} {row['images']:6} {row['flagged']:7} {share:5.1f}")
    if scores:
        mistakes = np.where(flagged[scored], chosen(scores).prediction, labels[scored])
        record["most_frequent"] = most_confused(mistakes, labels[scored], class_names, 10)
        for row in record["most_frequent"]:
            say(f"{row['images']:7} labelled {row['true']}, suggested {row['predicted']}")
    return record


def report(record: dict[str, Any]) -> None:
    """Print the metrics, the official lines last."""
    say(
        f"{record['images']} images, {record['wrong']} labels wrong, {record['flagged']} flagged, "
        f"{record['flagged_and_wrong']} of them wrong"
    )
    say(f"{'given label':>15} images  wrong flagged precision recall     F1")
    for row in record["per_class"]:
        say(
            f"{row['label']:>15} {row['images']:6} {row['wrong']:6} {row['flagged']:7} "
            f"{row['precision']:9.3f} {row['recall']:6.3f} {row['f1']:6.3f}"
        )
    if "cuts" in record:
        report_cuts(record["cuts"])
    if "detections" in record:
        report_detections(record["detections"], record["detection"])
    say(f"precision is {record['precision']:.4f}")
    say(f"recall is {record['recall']:.4f}")
    say(f"The f-score is {record['f1']:.4f}")


def report_detections(rows: dict[str, dict[str, Any]], own: str) -> None:
    """Print each detection result, how well its score ranks the labels, and which is `own`."""
    say(f"{'detection':>15}  flagged precision recall     F1  average precision  ROC AUC")
    for name, row in rows.items():
        start = f"{name:>15} {row['flagged']:8} {row['precision']:9.3f} {row['recall']:6.3f}"
        ranks = [row["average_precision"], row["roc_auc"]]
        cells = ["-" if rank is None else f"{rank:.4f}" for rank in ranks]
        note = "  the run's result" * (name == own)
        say(f"{start} {row['f1']:6.3f} {cells[0]:>18} {cells[1]:>8}{note}")
    for name in rows:
        say(f"{name}: {DETECTIONS[name]}")


def report_cuts(rows: list[dict[str, Any]]) -> None:
    """Print what each cut of the split flags; one that flags the same as another, in words."""
    say(f"{'flag':>15}  agreement flagged precision recall     F1")
    before = None
    for row, note in zip(rows, ("  as in the paper", "  Otsu's threshold", ""), strict=True):
        start = f"{row['flag']:>15}    < {row['below']:.3f} {row['flagged']:7}"
        if before and before["flagged"] == row["flagged"]:
            say(f"{start} the same images as {before['flag']}")
        else:
            say(f"{start} {row['precision']:9.3f} {row['recall']:6.3f} {row['f1']:6.3f}{note}")
        before = row
    say("groups 3 and 4 are by definition all below Otsu's threshold: the two are one cut")


def main(args: argparse.Namespace) -> dict[str, Any]:
    """Evaluate a detection result; writes (unless --prediction) and returns detection.json."""
    if args.prediction:
        return evaluate_file(args, args.prediction, args.noise_path, None)
    folder = RunFolder.of(args)
    options = folder.options_like(args, ("dataset", "noise_type", "seed", "method"))
    own = options.get("noise_path")
    with logged_to(folder.log("detection")):
        noise_path = args.noise_path or (Path(own) if own else None)
        record = evaluate_file(args, folder.detection, noise_path, folder)
        write_json(folder.detection_metrics, record)
    return record


def evaluate_file(
    args: argparse.Namespace, path: Path, noise_path: Path | None, folder: RunFolder | None
) -> dict[str, Any]:
    """Evaluate the flags in that file, with the scores of `folder` where it has any, and print."""
    options = folder.options() if folder and folder.args.exists() else vars(args)
    images = load_images(args.dataset, args.data_dir, options)
    true, where = images.train.clean_labels, (args.data_dir, noise_path)
    labels = given_labels(args.dataset, args.noise_type, true, *where, args.seed, images.own)
    labels, clean_labels = labels.numpy(), true.numpy()
    hint = "train the run first" if folder else "check --prediction"
    flagged, scores, fallback = read_flags(path, len(labels), hint), {}, False
    if folder and folder.training.exists():
        fallback = bool(read_json(folder.training).get("fallback", False))
    if folder and folder.predictions.exists():
        scores = read_scores(folder.predictions, labels)
        fallback = bool(scores.get("fallback", fallback))
    say(f"{path}" + (f", labels of {noise_path}" if noise_path else ""))
    if fallback:
        say("no tipping point came: this result is a fallback")
    if (clean_labels == UNKNOWN).all():
        return summarise(flagged, labels, scores, images.class_names) | {"fallback": fallback}
    record = evaluate(flagged, labels, clean_labels, scores, images.class_names)
    if record["images"] < len(labels):
        say(f"evaluated on the {record['images']} of {len(labels)} images it scored")
    report(record)
    return record | {"fallback": fallback}


if __name__ == "__main__":
    run_script(main, detection_parser().parse_args())
