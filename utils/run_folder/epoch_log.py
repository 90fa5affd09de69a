"""What each epoch measured: a line on stdout for people, a row of metrics.csv for programs."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from utils.console import say
from utils.files import write_text
from utils.labels import Labels
from utils.manifest import csv_text
from utils.methods import METHODS
from utils.metrics import accuracy


class EpochLog:
    """One line and one row an epoch, both out before the next epoch begins."""

    def __init__(self, path: Path, labels: Labels, method: str, *, warn: bool = True):
        """`path`: of metrics.csv; `warn`: of classes that vanish."""
        self.path, self.labels, self.method, self.warn = path, labels, method, warn
        self.rows: list[dict[str, Any]] = []

    def add(
        self,
        epoch: int,
        stats: Any,
        predicted: Mapping[str, Any],
        seen: tuple[float | None, bool],
        *,
        naive: bool,
        lr: float,
        times: str,
    ) -> None:
        """Add an epoch, and perhaps warn of classes that vanished.

        `stats`: see models/epoch_statistics.py. `predicted`: the predictions that were made, of
        val, test [N], and sample (see `Labels.sample`), all in eval mode without augmentation.
        `naive`: before the tipping point. `times`: for the line alone. `seen`: see _seen_percent.

        The memorized share is the percentage of the sample's labels that the pair agrees with, less
        that of the held-out labels.
        """
        labels, has_student = self.labels, METHODS[self.method].has_student
        predicted = {name: each.cpu() for name, each in predicted.items()}
        prediction = stats.prediction.cpu()
        given = {"val": labels.val, "sample": labels.given[labels.sample], "test": labels.test}
        accuracies = {name: accuracy(each, given[name]) for name, each in predicted.items()}
        val, sample, test = (accuracies.get(name) for name in given)
        # Before the robust phase a class may simply not have been learned yet.
        robust = [prediction, *predicted.values()] if has_student and not naive else []
        vanished = absent_classes(robust, len(labels.class_names))
        row = {
            "epoch": epoch,
            "phase": ("naive" if naive else "robust") if has_student else self.method,
            "lr": lr,
            "loss": stats.loss,
            "naive_loss": stats.naive_loss,
            "compensation_loss": stats.compensation_loss if has_student else None,
            "student_confidence": stats.confidence if has_student else None,
            "noisy_val_accuracy": val,
            "memorized_share": None if sample is None else sample - val,
            **_seen_percent(*seen, naive),
            "clean_test_accuracy": test,
            "agreed_wrong": labels.agreed_wrong(prediction),
            "vanished_classes": " ".join(map(str, vanished)),
        }
        self.rows.append(row)
        self._write()
        say(f"{_line(row)} {times}")
        for k in newly_vanished(self.rows) if self.warn else ():
            name = labels.class_names[k]
            say(f"warning: epoch {epoch}: no image is predicted as {name!r} any more")

    def _write(self) -> None:
        columns = list(self.rows[-1]) if self.rows else []  # an older checkpoint's may have fewer
        lines = [columns] * bool(self.rows)
        lines += [[row.get(column) for column in columns] for row in self.rows]
        write_text(self.path, csv_text(lines))

    def state_dict(self) -> dict[str, Any]:
        """All rows."""
        return {"rows": self.rows}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned: rows that were added later are dropped."""
        self.rows = [dict(row) for row in state["rows"]]
        if [row["epoch"] for row in self.rows] != list(range(len(self.rows))):
            raise ValueError("epochs are missing")
        self._write()


def _line(row: Mapping[str, Any]) -> str:
    line = "epoch {epoch:3d} {phase:6s} lr {lr:.4g} loss {loss:.4f}"
    if row["student_confidence"] is not None:
        line += (
            " (teacher {naive_loss:.4f}, compensation {compensation_loss:.4f}) "
            "student's confidence {student_confidence:.4f}"
        )
    if row["noisy_val_accuracy"] is not None:
        line += " noisy val {noisy_val_accuracy:.2f} %"
    if row["memorized_share"] is not None:
        line += " memorized {memorized_share:.1f} %"
    if row["planted_memorized"] is not None:
        line += " planted {planted_memorized:.1f} %"
    if row["visibility"] is not None:
        line += " visibility {visibility:.0f} %"
    if row["clean_test_accuracy"] is not None:
        line += " clean test {clean_test_accuracy:.2f} %"
    return line.format(**row)


def _seen_percent(memorized: float | None, visibility: bool, naive: bool) -> dict[str, Any]:
    """Planted labels memorized (None: none are planted); whether the student sees labels."""
    planted = memorized is not None
    return {
        "planted_memorized": 100 * memorized if planted else None,
        "visibility": 100.0 * visibility if planted and not naive else None,
    }


def absent_classes(predictions: Sequence[Any], num_classes: int) -> list[int]:
    """The classes that one of several sets of predictions, tensors [N], does not contain.

    -1 is no prediction; a set of these alone counts as none.
    """
    every = set(range(num_classes))
    seen = (set(each.unique().tolist()) & every for each in predictions)
    return sorted(set().union(*(every - each for each in seen if each)))


def newly_vanished(rows: Sequence[dict[str, Any]]) -> list[int]:
    """The last row's vanished classes that no earlier row has, so that each is warned of once."""
    *earlier, last = [{int(k) for k in row["vanished_classes"].split()} for row in rows]
    return sorted(last - set().union(*earlier))
