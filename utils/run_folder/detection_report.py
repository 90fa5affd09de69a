"""What the scripts print of a detection result."""

from collections.abc import Mapping, Sequence
from typing import Any

from utils.console import say
from utils.options.parser import DETECTIONS
from utils.run_folder.predictions import Predictions


def report_summary(record: Mapping[str, Any]) -> None:
    """Print what is flagged where no true label is known: the content of detection.json."""
    share = f"{record['estimated_noise_rate']:.1%}"
    say("no true labels are known: there is nothing to compare with")
    say(f"{record['images']} images, {record['flagged']} labels flagged as wrong, {share} of them:")
    say(f"{'given label':>15} images flagged     %")
    for row in record["per_class"]:
        share = 100 * row["flagged"] / max(1, row["images"])
        say(f"{row['label']:>15} {row['images']:6} {row['flagged']:7} {share:5.1f}")
    for row in record.get("most_frequent", ()):
        say(f"{row['images']:7} labeled {row['true']}, suggested {row['predicted']}")


def report(record: Mapping[str, Any]) -> None:
    """Print the metrics of detection.json, the official lines last."""
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


def report_detections(rows: Mapping[str, Mapping[str, Any]], own: str) -> None:
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


def report_cuts(rows: Sequence[Mapping[str, Any]]) -> None:
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


def log_split(predictions: Predictions) -> None:
    """Say where the split is and what it flags, if that is the result or true labels are known."""
    if predictions.detection != "split" and predictions.true_label is None:
        return
    summary, cuts = predictions.split_summary(), predictions.cuts
    sizes, wrongs, true = (summary[k] for k in ("group_sizes", "group_wrong", "true_noise_rate"))
    if cuts:
        say(
            f"split at {', '.join(f'{cut:.3f}' for cut in cuts)}: groups 1 (label most likely "
            f"right) to 4 (most likely wrong) have {sizes} images"
        )
    else:
        say("all scores fall into one bin: no split, no label is flagged")
    correctly = f", {wrongs[3]} of them correctly" if wrongs else ""
    true_rate = "" if true is None else f"; {true:.1%} are wrong by the true labels"
    say(
        f"the split flags {sizes[3]} labels as wrong{correctly}; "
        f"{summary['estimated_noise_rate']:.1%} are below Otsu's threshold{true_rate}"
    )


def log_fallback(predictions: Predictions, epochs: int, planted: int) -> None:
    """Say what the split is when no tipping point came in so many epochs.

    `planted`: the number of labels that were planted, to the last epoch.
    """
    words = "the robust phase has not begun"
    if predictions.detection == "split":
        words = (
            f"the detection result is a fallback, the split at epoch {predictions.split_epoch}, "
        )
        words += "where the student was most confident"
    say(f"no tipping point in {epochs} epochs: {words}")
    if planted:
        say(f"{planted} planted labels were trained on to the end; --planted 0 plants none")
    log_split(predictions)
