"""Wrong labels found by this project and by cleanlab, on the same probabilities.

    python -m docs.detection.compare_with_cleanlab RUN --folds FOLD_0 FOLD_1 … --json FILE.json

needs `pip install cleanlab`, which nothing else here does, and a run whose true labels are known.
The folds, runs of --method ce with --val_fold 0, 1, …, give cleanlab the out-of-fold probabilities
that it recommends. Seconds are those of finding, without those of training.
"""

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from utils.files import read_json, write_json
from utils.metrics import detection_metrics, ranking_metrics
from utils.options.parser import OneLineParser
from utils.options.values import path
from utils.run_folder.folder import RunFolder
from utils.run_folder.predictions import UNKNOWN, Predictions
from utils.summary.markers import write_into
from utils.summary.table import as_markdown

FILTERS = (
    "prune_by_noise_rate",
    "prune_by_class",
    "both",
    "confident_learning",
    "predicted_neq_given",
    "low_normalized_margin",
    "low_self_confidence",
)
SCORES = ("self_confidence", "normalized_margin", "confidence_weighted_entropy")
FIRST = 100  # suspects, of which the share of wrong labels is told
COLUMNS = ("precision", "recall", "f1", "average_precision", "roc_auc", "precision_at_100")
HEADINGS = ("probabilities", "found by", "flagged", "precision", "recall", "F1")
HEADINGS += ("average precision", "ROC AUC", f"precision at {FIRST}", "seconds")


class Labels(NamedTuple):
    """The given labels of N images, and which of them are wrong."""

    given: NDArray[np.int64]
    wrong: NDArray[np.bool_]


def make_parser() -> OneLineParser:
    """The options of the command."""
    parser = OneLineParser(prog="docs.detection.compare_with_cleanlab", description=__doc__)
    parser.add_argument("run", type=path, help="run folder of bkd or bkd+, or of ce")
    parser.add_argument(
        "--folds", type=path, nargs="+", default=[], metavar="FOLDER", help="runs of the baseline"
    )
    parser.add_argument(
        "--json", type=path, required=True, metavar="FILE", help="file to write the metrics to"
    )
    parser.add_argument(
        "--into",
        type=path,
        metavar="FILE",
        help="write the table into this file, between the lines <!-- results NAME begin --> and "
        "<!-- results NAME end -->; NAME is the JSON file's",
    )
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, write and print the table; the exit status."""
    parser = make_parser()
    args = parser.parse_args(argv)
    try:
        record = measure(args.run, args.folds)
        write_json(args.json, record)
        if args.into:
            write_into(args.into, args.json.stem, as_markdown(table(record)))
    except (ValueError, OSError, ImportError) as error:
        parser.error(str(error))
    print(as_markdown(table(record)))
    return 0


def measure(run: Path, folds: Sequence[Path]) -> dict[str, Any]:
    """The metrics of everything that finds wrong labels among those of a run."""
    predictions = _predictions(run)
    labels = Labels(predictions.label, predictions.label != predictions.true_label)
    rows = []
    for name, result in predictions.detections.items():
        rows.append(_row("this run's", name, labels, 0.0, result.flagged, result.agreement))
    networks = predictions.teacher_probabilities, predictions.student_probabilities
    networks = [each for each in networks if each is not None]
    rows += _cleanlab("this run's", labels, np.mean(networks, axis=0))
    if len(networks) > 1:
        rows += _cleanlab_ensemble("this run's", labels, networks)
    if folds:
        rows += _cleanlab(f"{len(folds)} folds'", labels, out_of_fold(predictions, folds))
    return {
        "run": run.resolve().name,
        "images": len(labels.given),
        "wrong": int(labels.wrong.sum()),
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


def out_of_fold(predictions: Predictions, folds: Sequence[Path]) -> NDArray[np.float64]:
    """Probabilities [N, C] by networks that were not trained on the image.

    Raises ValueError where an image is held out in no fold, or in two.
    """
    result = np.zeros(predictions.teacher_probabilities.shape)
    held_out = np.zeros(len(result), dtype=int)
    for fold in folds:
        of_fold = _predictions(fold)
        if not np.array_equal(of_fold.index, predictions.index):
            raise ValueError(f"{fold}: has scored other images than the run; train it on the same")
        mine = of_fold.held_out
        result[mine] = of_fold.teacher_probabilities[mine]
        held_out += mine
    if (held_out != 1).any():
        raise ValueError(
            f"{(held_out != 1).sum()} of {len(held_out)} images are held out in no fold or in two; "
            "give the folds 0 to N - 1 of --val_ratio 1/N"
        )
    return result


def _cleanlab(
    source: str, labels: Labels, probabilities: NDArray[np.floating]
) -> Iterator[dict[str, Any]]:
    from cleanlab.filter import find_label_issues
    from cleanlab.rank import get_label_quality_scores

    given = labels.given
    for name in FILTERS:
        options = {"filter_by": name, "n_jobs": 1}
        flagged, seconds = _timed(find_label_issues, given, probabilities, **options)
        yield _row(source, f"cleanlab, filter {name}", labels, seconds, flagged)
    for name in SCORES:
        scores, seconds = _timed(get_label_quality_scores, given, probabilities, method=name)
        yield _row(source, f"cleanlab, rank {name}", labels, seconds, scores=scores)


def _cleanlab_ensemble(
    source: str, labels: Labels, networks: Sequence[NDArray[np.floating]]
) -> Iterator[dict[str, Any]]:
    from cleanlab.rank import get_label_quality_ensemble_scores

    for name in SCORES:
        options = {"method": name, "verbose": False}
        arguments = labels.given, list(networks)
        scores, seconds = _timed(get_label_quality_ensemble_scores, *arguments, **options)
        yield _row(source, f"cleanlab, rank ensemble {name}", labels, seconds, scores=scores)


def _timed(compute: Callable[..., Any], *arguments: Any, **options: Any) -> tuple[Any, float]:
    start = time.perf_counter()
    return compute(*arguments, **options), time.perf_counter() - start


def _row(
    source: str,
    name: str,
    labels: Labels,
    seconds: float,
    flagged: NDArray[np.bool_] | None = None,
    scores: NDArray[np.floating] | None = None,
) -> dict[str, Any]:
    """`flagged` [N] and `scores` [N], low where a label is likely wrong, where there are any."""
    row: dict[str, Any] = {"probabilities": source, "found_by": name, "seconds": seconds}
    if flagged is not None:
        row |= detection_metrics(flagged, labels.wrong)
    if scores is not None:
        first = np.argsort(scores, kind="stable")[:FIRST]
        row |= ranking_metrics(scores, labels.wrong)
        row["precision_at_100"] = float(labels.wrong[first].mean())
    return row


def table(record: dict[str, Any]) -> list[list[str]]:
    """The heading and a line for each row."""
    lines = [list(HEADINGS)]
    for row in record["rows"]:
        cells = [f"{row[name]:.3f}" if row.get(name) is not None else "-" for name in COLUMNS]
        flagged = str(row.get("flagged", "-"))
        start = (row["probabilities"], row["found_by"], flagged)
        lines.append([*start, *cells, f"{row['seconds']:.2f}"])
    return lines


if __name__ == "__main__":
    sys.exit(main())
