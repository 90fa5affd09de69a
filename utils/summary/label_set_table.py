"""The short table: a row for each method, a pair of columns for each label set of CIFAR-10N."""

import statistics
from collections.abc import Mapping, Sequence

from utils.summary.runs import Run, RunKey
from utils.summary.table import ACCURACY, F1, Column, cell, group_runs, measured

LABEL_SETS = ("aggre", "rand1", "worst")
FINAL_F1 = Column("F1 of the final pair", 3, "detection_metrics", "detections.final.f1")


def label_set_table(groups: Mapping[str, Sequence[Run]]) -> list[list[str]]:
    """Heading and rows of named groups of runs.

    Accuracy: on the clean test images after the last epoch, mean ± sample standard deviation over n
    seeds. F1: the mean by the run's own detection, and after / by the final pair where it differs.
    """
    heading = ["networks", "method", "n"]
    rows = [heading + [word for name in LABEL_SETS for word in (f"{name} acc. %", "F1")]]
    for name, runs in groups.items():
        by_row: dict[RunKey, dict[str, list[Run]]] = {}
        for key, members in group_runs(runs).items():
            if key.labels in LABEL_SETS:
                by_row.setdefault(key._replace(labels=""), {})[key.labels] = members
        named = {row: f"{row.method} {_particulars(row, by_row)}".strip() for row in by_row}
        for row in sorted(by_row, key=lambda row: (row.method, len(named[row]), row)):
            columns = [by_row[row].get(label_set, []) for label_set in LABEL_SETS]
            counts = [str(len(members)) for members in columns if members]
            n = counts[0] if len(set(counts)) == 1 else "/".join(counts)
            cells = [text for members in columns for text in _cells(members)]
            rows.append([name.replace("_", " "), named[row], n, *cells])
    return rows


def _particulars(key: RunKey, keys: Mapping[RunKey, object]) -> str:
    """What tells a row from the others of its group beside the method."""
    common = set.intersection(*(set(_words(other)) for other in keys))
    return " ".join(word for word in _words(key) if word not in common)


def _words(key: RunKey) -> list[str]:
    return [key.dataset, *key.setting.split(), key.precision]


def _cells(runs: Sequence[Run]) -> list[str]:
    """Accuracy and F1 of one method on one label set."""
    own, final = measured(F1, runs), measured(FINAL_F1, runs)
    found = [f"{statistics.mean(values):.3f}" for values in (own, final) if values]
    if len(final) != len(own):
        found = found[:1]
    return [cell(ACCURACY, runs, "std"), " / ".join(dict.fromkeys(found)) or "-"]
