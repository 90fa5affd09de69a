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

    def add(
        self,
        epoch: int,
        phase: str,
        lr: float,
        loss: float,
        parts: tuple[float, float, float] | None,
        noisy_val: float | None,
        clean_test: float | None,
    ) -> None:
        """Take in an epoch; accuracies in percent, None where not measured.

        `parts`: the teacher's loss, the compensation loss and the student's confidence; None for
        the baseline, which has but one network.
        """
        naive, compensation, confidence = parts or (None, None, None)
        row = {
            "epoch": epoch,
            "phase": phase,
            "lr": lr,
            "loss": loss,
            "naive_loss": naive,
            "compensation_loss": compensation,
            "student_confidence": confidence,
            "noisy_val_accuracy": noisy_val,
            "clean_test_accuracy": clean_test,
        }
        self.rows.append(row)
        text = io.StringIO(newline="")
        writer = csv.DictWriter(text, fieldnames=list(row), lineterminator="\n")
        writer.writeheader()
        writer.writerows(self.rows)
        write_whole(self.path, text.getvalue().encode())

        line = f"epoch {epoch:3d} {phase:6s} lr {lr:.4g} loss {loss:.4f}"
        if parts:
            line += (
                f" (teacher {naive:.4f}, compensation {compensation:.4f}) "
                f"student's confidence {confidence:.4f}"
            )
        line += "" if noisy_val is None else f" noisy val {noisy_val:.2f} %"
        line += "" if clean_test is None else f" clean test {clean_test:.2f} %"
        print(line, flush=True)
