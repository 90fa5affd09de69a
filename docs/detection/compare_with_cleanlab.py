"""Wrong labels found by this project and by cleanlab, on the same probabilities.

    python -m docs.detection.compare_with_cleanlab RUN --json FILE.json \\
      --folds 5 --results_dir FOLDER -- OPTIONS_OF_THE_TRAINING_SCRIPT

needs `pip install cleanlab`, which nothing else here does, and a run whose true labels are known.
--folds N trains N runs of the baseline, each without another part of the images, and gives cleanlab
the out-of-fold probabilities that it recommends. Seconds are of finding, without training.
"""

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np

import blind_knowledge_dist_training as training
from data.splits import Positions, split_indices
from utils.files import read_json, write_json
from utils.metrics import detection_metrics, ranking_metrics
from utils.options.parser import OneLineParser
from utils.options.sweep import split_words
from utils.options.training import training_parser
from utils.options.values import count_or_none, path
from utils.run_folder.folder import RunFolder
from utils.run_folder.predictions import UNKNOWN, Array, Predictions
from utils.summary.markers import write_into
from utils.summary.table import as_markdown

FILTERS = ("prune_by_noise_rate", "prune_by_class", "both", "confident_learning")
FILTERS += ("predicted_neq_given", "low_normalized_margin", "low_self_confidence")
SCORES = ("self_confidence", "normalized_margin", "confidence_weighted_entropy")
FIRST = 100  # suspects, for the share of wrong labels among them
COLUMNS = ("precision", "recall", "f1", "average_precision", "roc_auc", "precision_at_100")
HEADINGS = ("probabilities", "found by", "flagged", "precision", "recall", "F1")
HEADINGS += ("average precision", "ROC AUC", f"precision at {FIRST}", "seconds")


def make_parser() -> OneLineParser:
    """The options of the command; options of the folds' training follow "--"."""
    parser = OneLineParser(prog="docs.detection.compare_with_cleanlab", description=__doc__)
    parser.add_argument("run", type=path, help="run folder of bkd or bkd+, or of ce")
    for name, kind, unit, words in (
        ("folds", count_or_none, "NUMBER", "runs of the baseline for out-of-fold probabilities"),
        ("results_dir", path, "FOLDER", "folder of the folds' run folders"),
        ("json", path, "FILE", "file to write the metrics to"),
        ("into", path, "FILE", "Markdown file to write the table into, between its markers"),
    ):
        needed = {"required": name == "json", "default": 0 if name == "folds" else None}
        parser.add_argument(f"--{name}", type=kind, metavar=unit, help=words, **needed)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Train the folds, measure, write and print the table; the exit status."""
    own, words = split_words(argv)
    parser = make_parser()
    args = parser.parse_args(own)
    if args.folds == 1 or (args.folds and not args.results_dir):
        parser.error("--folds: needs a number from 2, and --results_dir")
    try:
        _predictions(args.run)  # before it takes hours
        folds = [train_fold(k, args.folds, args.results_dir, words) for k in range(args.folds)]
        record = measure(args.run, folds)
        write_json(args.json, record)
        if args.into:
            write_into(args.into, args.json.stem, as_markdown(table(record)))
    except (ValueError, OSError, ImportError) as error:
        parser.error(str(error))
    print(as_markdown(table(record)))
    return 0


def train_fold(fold: int, folds: int, results: Path, words: Sequence[str]) -> Path:
    """Train a run that is not shown the images of that fold, or find it finished; its folder.

    `words`: options of the training script.
    """

    def positions(count: int, val_ratio: float, seed: int, limit: int | None) -> Positions:
        """Positions of all images, of which those of the fold are held out."""
        if limit is not None:
            raise ValueError("--limit_train with --folds: all images are used; leave it out")
        parts = np.array_split(split_indices(count, 0, seed)[0], folds)
        held_out = parts.pop(fold)
        return Positions(np.concatenate(parts), np.arange(count), held_out)

    own = ["--val_ratio", str(1 / folds), "--results_dir", str(results / f"fold_{fold}_of_{folds}")]
    args = training_parser().parse_args(["--method", "ce", *words, *own])
    with patch.object(training, "choose_positions", positions):
        training.main(args)
    return RunFolder.of(args).path


def measure(run: Path, folds: Sequence[Path]) -> dict[str, Any]:
    """The metrics of everything that finds wrong labels among those of a run."""
    predictions = _predictions(run)
    given, wrong = predictions.label, predictions.label != predictions.true_label
    rows = []
    for name, result in predictions.detections.items():
        rows.append(_row("this run's", name, wrong, 0.0, result.flagged, result.agreement))
    networks = predictions.teacher_probabilities, predictions.student_probabilities
    networks = [each for each in networks if each is not None]
    both = networks if len(networks) > 1 else ()
    rows += _cleanlab("this run's", given, wrong, np.mean(networks, axis=0), both)
    if folds:
        probabilities = out_of_fold(predictions, folds)
        rows += _cleanlab(f"{len(folds)} folds'", given, wrong, probabilities)
    return {
        "run": run.resolve().name,
        "images": len(given),
        "wrong": int(wrong.sum()),
        "folds": len(folds),
        "training_seconds": [_seconds(run), sum(map(_seconds, folds))],
        "rows": rows,
    }


def _predictions(run: Path) -> Predictions:
    file = RunFolder(run).predictions
    if not file.exists():
        raise FileNotFoundError(f"{run}: no run folder with a predictions.npz; train it first")
    predictions = Predictions.read(file)
    if predictions.true_label is None or predictions.teacher_probabilities is None:
        raise ValueError(f"{file}: a finished run with true labels is needed")
    if (predictions.true_label == UNKNOWN).any():
        raise ValueError(f"{file}: has images whose true labels are unknown; leave them out")
    return predictions


def _seconds(run: Path) -> float:
    timing = RunFolder(run).timing
    return float(read_json(timing)["wall_seconds"]) if timing.exists() else 0.0


def out_of_fold(predictions: Predictions, folds: Sequence[Path]) -> Array:
    """Probabilities [N, C] by networks that were not trained on the image.

    Raises ValueError for folds of other images than the run's.
    """
    result = np.zeros(predictions.teacher_probabilities.shape)
    for fold in folds:
        of_fold = _predictions(fold)
        if not np.array_equal(of_fold.index, predictions.index):
            raise ValueError(f"{fold}: has scored other images than the run; train it on the same")
        held_out = of_fold.held_out
        result[held_out] = of_fold.teacher_probabilities[held_out]
    return result


def _cleanlab(
    source: str,
    given: Array,
    wrong: Array,
    probabilities: Array,
    networks: Sequence[Array] = (),
) -> Iterator[dict[str, Any]]:
    from cleanlab.filter import find_label_issues
    from cleanlab.rank import get_label_quality_ensemble_scores, get_label_quality_scores

    for name in FILTERS:
        options = {"filter_by": name, "n_jobs": 1}
        flagged, seconds = _timed(find_label_issues, given, probabilities, **options)
        yield _row(source, f"cleanlab, filter {name}", wrong, seconds, flagged)
    for name in SCORES:
        arguments = given, probabilities
        scores, seconds = _timed(get_label_quality_scores, *arguments, method=name)
        yield _row(source, f"cleanlab, rank {name}", wrong, seconds, scores=scores)
    for name in SCORES if networks else ():
        arguments, options = (given, networks), {"method": name, "verbose": False}
        scores, seconds = _timed(get_label_quality_ensemble_scores, *arguments, **options)
        yield _row(source, f"cleanlab, rank ensemble {name}", wrong, seconds, scores=scores)


def _timed(compute: Callable[..., Any], *arguments: Any, **options: Any) -> tuple[Any, float]:
    start = time.perf_counter()
    return compute(*arguments, **options), time.perf_counter() - start


def _row(
    source: str,
    name: str,
    wrong: Array,
    seconds: float,
    flagged: Array | None = None,
    scores: Array | None = None,
) -> dict[str, Any]:
    """`wrong`, `flagged` and `scores`, low where a label is likely wrong: each [N]."""
    row: dict[str, Any] = {"probabilities": source, "found_by": name, "seconds": seconds}
    if flagged is not None:
        row |= detection_metrics(flagged, wrong)
    if scores is not None:
        first = np.argsort(scores, kind="stable")[:FIRST]
        row |= ranking_metrics(scores, wrong)
        row["precision_at_100"] = float(wrong[first].mean())
    return row


def table(record: dict[str, Any]) -> list[list[str]]:
    """The heading and a line for each row."""
    lines = [list(HEADINGS)]
    for row in record["rows"]:
        cells = [f"{row[name]:.3f}" if row.get(name) is not None else "-" for name in COLUMNS]
        start = (row["probabilities"], row["found_by"], str(row.get("flagged", "-")))
        lines.append([*start, *cells, f"{row['seconds']:.2f}"])
    return lines


if __name__ == "__main__":
    sys.exit(main())
