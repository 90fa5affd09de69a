"""What each epoch showed: a line on stdout for people, a row of metrics.csv for programs."""

import csv
import io
from pathlib import Path
from typing import Any

from utils.runs import write_whole


class EpochLog:
    """One line and one row an epoch, both out before the next epoch begins."""

    def __init__(self, folder: Path):
        self.path = folder / "metrics.csv"
        self.rows: list[dict[str, Any]] = []

    def add(self, **row: Any) -> None:
        """Take in an epoch: each time the same columns, None where nothing was measured.

        epoch, phase, lr, loss, naive_loss, compensation_loss, student_confidence, and in percent
        noisy_val_accuracy, clean_test_accuracy. The baseline has no student.
        """
        self.rows.append(row)
        text = io.StringIO(newline="")
        writer = csv.DictWriter(text, fieldnames=list(row), lineterminator="\n")
        writer.writeheader()
        writer.writerows(self.rows)
        write_whole(self.path, text.getvalue().encode())

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
        print(line.format(**row), flush=True)
