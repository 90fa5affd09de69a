"""Scalars and pictures for TensorBoard, where its package is installed."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from utils.progress import say


class Tracker:
    """Writes a run folder's `tensorboard/`; does nothing where that is not wanted."""

    def __init__(self, folder: Path, wanted: bool):
        """Says in one line where it is wanted and the package is missing."""
        self.folder, self.open_writer, self.writer = folder, None, None
        if wanted:
            try:
                from torch.utils.tensorboard import SummaryWriter
            except ImportError:
                say("--tensorboard: not installed, going on without; pip install tensorboard")
            else:
                self.open_writer = SummaryWriter

    def scalars(self, row: dict[str, Any]) -> None:
        """The figures of an epoch, a row of metrics.csv, each under its name.

        What an earlier process wrote of this epoch and later ones is discarded.
        """
        if self.open_writer and self.writer is None:
            self.writer = self.open_writer(self.folder / "tensorboard", purge_step=row["epoch"])
        if self.writer:
            for name, value in row.items():
                if name != "epoch" and isinstance(value, int | float):
                    self.writer.add_scalar(name, value, row["epoch"])
            self.writer.flush()

    def pictures(self, paths: Iterable[Path], epoch: int) -> None:
        """PNG files as they are at this epoch."""
        if self.writer:
            from PIL import Image

            for path in paths:
                pixels = np.asarray(Image.open(path).convert("RGB"))
                self.writer.add_image(path.stem, pixels, epoch, dataformats="HWC")
            self.writer.flush()
