"""Wrong labels found by this project and by cleanlab, on the same probabilities.

    python -m docs.detection.compare_with_cleanlab RUN --json FILE.json \\
      --folds 5 --results_dir FOLDER -- OPTIONS_OF_THE_TRAINING_SCRIPT

needs `pip install cleanlab`, which nothing else here does, and a run whose true labels are known.
--folds N trains N runs of the baseline, each without another part of the images, and gives cleanlab
the out-of-fold probabilities that it recommends. Seconds are of finding, without training.
"""

import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

import blind_knowledge_dist_training as training
from utils.files import check_replaceable, read_json, write_json, write_text
from utils.metrics import detection_metrics, ranking_metrics
from utils.options.parser import OneLineParser
from utils.options.sweep import split_words
from utils.options.training import training_parser
from utils.options.values import add_options, count_or_none, path
from utils.run_folder.folder import RunFolder
from utils.run_folder.predictions import UNKNOWN, Array, Predictions
from utils.summary.markers import replace_marked
from utils.summary.table import as_markdown

FILTERS = ("prune_by_noise_rate", "prune_by_class", "both", "confident_learning")
FILTERS += ("predicted_neq_given", "low_normalized_margin", "low_self_confidence")
SCORES = ("self_confidence", "normalized_margin", "confidence_weighted_entropy")
MARK = '"training_seconds"'  # by which a file of metrics is known
FIRST = 100  # suspects, for the share of wrong labels among them
COLUMNS = {"precision": "precision", "recall": "recall", "f1": "F1"}
COLUMNS |= {"average_precision": "average precision", "roc_auc": "ROC AUC"}
COLUMNS |= {"precision_at_100": f"precision at {FIRST}"}
OPTIONS = {
    ("folds", count_or_none, 0, "NUMBER"): "runs of the baseline for out-of-fold probabilities",
    ("results_dir", path, None, "FOLDER"): "folder of the folds' run folders",
    ("into", path, None, "FILE"): "Markdown file to write the table into, between its markers",
    ("force", bool): "write over a file --json that is no earlier output",
}


def make_parser() -> OneLineParser:
    """The options of the command; options of the folds' training follow "--"."""
    parser = OneLineParser(prog="docs.detection.compare_with_cleanlab", description=__doc__)
    parser.add_argument("run", type=path, help="run folder of bkd or bkd+, or of ce")
    add_options(
        parser, {("json", path, None, "FILE"): "file to write the metrics to"}, required=True
    )
    add_options(parser, OPTIONS)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Train the folds, measure, write and print the table; the exit status."""
    (own, words), parser = split_words(argv), make_parser()
    args = parser.parse_args(own)
    if args.folds == 1 or (args.folds and not args.results_dir):
        parser.error("--folds: needs a number from 2, and --results_dir")
    try:
        check_replaceable(args.json, MARK, args.force)  # before it takes hours
        _predictions(args.run)
        folds = train_folds(args.folds, args.results_dir, words) if args.folds else []
        record = measure(args.run, folds)
        text = as_markdown(table(record))
        write_json(args.json, record)
        if page := args.into:
            write_text(page, replace_marked(page.read_text("utf-8"), args.json.stem, text))
    except (ValueError, OSError, ImportError) as error:
        parser.error(str(error))
    print(text)
    return 0


def train_folds(folds: int, results: Path, words: Sequence[str]) -> list[Path]:
    """Train runs each of which is not shown another fold, or find them finished; their folders.

    `words`: options of the training script.
    """
    own = ["--folds", str(folds), "--results_dir", str(results)]
    args = training_parser().parse_args(["--method", "ce", *words, *own])
    training.main(args)
    folder = RunFolder.of(args)
    return [folder.path, *(folder.fold(k).path for k in range(1, folds))]


def measure(run: Path, folds: Sequence[Path]) -> dict[str, Any]:
    """The metrics of everything that finds wrong labels among those of a run."""
    found, own = _predictions(run), "this run's"
    label, wrong = found.label, found.label != found.true_label
    rows = []
    for name, result in found.detections.items():
        row = {"probabilities": own, "found_by": name, "seconds": 0.0}
        row |= detection_metrics(result.flagged, wrong) | _ranked(result.agreement, wrong)
        rows.append(row)
    both = found.teacher_probabilities, found.student_probabilities
    rows += _cleanlab(own, label, wrong, [each for each in both if each is not None])
    if folds:
        rows += _cleanlab(f"{len(folds)} folds'", label, wrong, [out_of_fold(found, folds)])
    seconds = [read_json(RunFolder(each).timing)["wall_seconds"] for each in (run, *folds)]
    record = {"run": run.resolve().name, "images": len(label), "wrong": int(wrong.sum())}
    record |= {"folds": len(folds), "training_seconds": [seconds[0], sum(seconds[1:])]}
    return record | {"rows": rows}


def _predictions(run: Path) -> Predictions:
    predictions = Predictions.read(RunFolder(run).predictions)
    true = predictions.true_label
    if true is None or (true == UNKNOWN).any() or predictions.teacher_probabilities is None:
        raise ValueError(f"{run}: a finished run whose true labels are all known is needed")
    return predictions


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


def _cleanlab(source: str, label: Array, wrong: Array, networks: Sequence[Array]) -> list[dict]:
    """What cleanlab finds by the mean of the networks' probabilities [N, C], and by several."""
    from cleanlab import filter, rank

    mean, ensemble, rows = np.mean(networks, axis=0), rank.get_label_quality_ensemble_scores, []
    ways = [("filter", k, filter.find_label_issues, mean, {"filter_by": k}) for k in FILTERS]
    ways += [("rank", k, rank.get_label_quality_scores, mean, {"method": k}) for k in SCORES]
    if len(networks) > 1:
        ways += [("rank ensemble", k, ensemble, networks, {"method": k}) for k in SCORES]
    more = {"filter": {"n_jobs": 1}, "rank ensemble": {"verbose": False}}
    for kind, name, find, probabilities, options in ways:
        start = time.perf_counter()
        result = find(label, probabilities, **options, **more.get(kind, {}))
        row = {"probabilities": source, "found_by": f"cleanlab, {kind} {name}"}
        row["seconds"] = time.perf_counter() - start
        rows.append(row | (detection_metrics if kind == "filter" else _ranked)(result, wrong))
    return rows


def _ranked(scores: Array, wrong: Array) -> dict[str, Any]:
    """Metrics of scores [N], low where a label is likely wrong."""
    first = np.argsort(scores, kind="stable")[:FIRST]
    return ranking_metrics(scores, wrong) | {"precision_at_100": float(wrong[first].mean())}


def table(record: dict[str, Any]) -> list[list[str]]:
    """The heading and a line for each row."""
    lines = [["probabilities", "found by", "flagged", *COLUMNS.values(), "seconds"]]
    for row in record["rows"]:
        cells = [f"{row[name]:.3f}" if row.get(name) is not None else "-" for name in COLUMNS]
        start = (row["probabilities"], row["found_by"], str(row.get("flagged", "-")))
        lines.append([*start, *cells, f"{row['seconds']:.2f}"])
    return lines


if __name__ == "__main__":
    sys.exit(main())
