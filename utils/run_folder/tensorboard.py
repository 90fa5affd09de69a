"""Scalars for TensorBoard, where its package is installed."""

from pathlib import Path
from typing import Any

from utils.console import say


class TensorBoard:
    """Writes a run's event files; does nothing where that is not wanted."""

    def __init__(self, folder: Path, wanted: bool):
        """`folder`: of the event files. Says in one line where the package is missing."""
        self.folder, self.open_writer, self.writer = folder, None, None
        if wanted:
            try:
                from torch.utils.tensorboard import SummaryWriter
            except ImportError:
                say("--tensorboard: not installed, continuing without; pip install tensorboard")
            else:
                self.open_writer = SummaryWriter

    def scalars(self, row: dict[str, Any]) -> None:
        """The metrics of an epoch, a row of metrics.csv, each under its name.

        What an earlier process wrote of this epoch and later ones is discarded.
        """
        if self.open_writer and self.writer is None:
            self.writer = self.open_writer(self.folder, purge_step=row["epoch"])
        if self.writer:
            for name, value in row.items():
                if name != "epoch" and isinstance(value, int | float):
                    self.writer.add_scalar(name, value, row["epoch"])
            self.writer.flush()
