"""What each epoch measured: a line on stdout for people, a row of metrics.csv for programs."""

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from utils.console import duration, say
from utils.files import write_text


class EpochLog:
    """One line and one row an epoch, both out before the next epoch begins."""

    def __init__(self, path: Path):
        self.path = path
        self.rows: list[dict[str, Any]] = []

    def add(self, seconds: float, left: float, **row: Any) -> None:
        """Add an epoch: each time the same columns, None where nothing was measured.

        epoch, phase, lr, loss, naive_loss, compensation_loss, student_confidence, and in percent
        noisy_val_accuracy, clean_test_accuracy, agreed_wrong; vanished_classes as text. The
        baseline has no student. On the line alone: `seconds` of the epoch, and how many are `left`.
        """
        self.rows.append(row)
        self._write()
        line = "epoch {epoch:3d} {phase:6s} lr {lr:.4g} loss {loss:.4f}"
        if row["student_confidence"] is not None:
            line += (
                " (teacher {naive_loss:.4f}, compensation {compensation_loss:.4f}) "
                "student's confidence {student_confidence:.4f}"
            )
        if row["noisy_val_accuracy"] is not None:
            line += " noisy val {noisy_val_accuracy:.2f} %"
        if row["clean_test_accuracy"] is not None:
            line += " clean test {clean_test_accuracy:.2f} %"
        say(line.format(**row) + f" {seconds:.1f} s, {duration(left)} left")

    def _write(self) -> None:
        text = io.StringIO(newline="")
        if self.rows:
            writer = csv.DictWriter(text, fieldnames=list(self.rows[0]), lineterminator="\n")
            writer.writeheader()
            writer.writerows(self.rows)
        write_text(self.path, text.getvalue())

    def state_dict(self) -> dict[str, Any]:
        """All rows."""
        return {"rows": self.rows}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned: rows that were added later are dropped."""
        self.rows = [dict(row) for row in state["rows"]]
        if [row["epoch"] for row in self.rows] != list(range(len(self.rows))):
            raise ValueError("epochs are missing")
        self._write()


def absent_classes(predictions: Sequence[Any], num_classes: int) -> list[int]:
    """The classes that one of several sets of predictions, tensors [N], does not contain."""
    every = set(range(num_classes))
    return sorted(set().union(*(every - set(each.unique().tolist()) for each in predictions)))


def newly_vanished(rows: Sequence[dict[str, Any]]) -> list[int]:
    """The last row's vanished classes that no earlier row has, so that each is warned of once."""
    *earlier, last = [{int(k) for k in row["vanished_classes"].split()} for row in rows]
    return sorted(last - set().union(*earlier))
