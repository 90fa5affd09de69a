"""What a run folder, finished or not, holds for its plots."""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from utils.files import read_columns
from utils.methods import METHODS
from utils.run_folder.folder import RunFolder
from utils.run_folder.predictions import UNKNOWN, Predictions

PHASE, VANISHED = "phase", "vanished_classes"  # the columns of metrics.csv that are no numbers


class LeftOut(Exception):
    """A plot cannot be drawn from this run; the message says why."""


class DoesNotApply(LeftOut):
    """Nor from any other such run, so that nobody misses it."""


class RunData(NamedTuple):
    """What a run folder holds for its plots, E epochs; read it with `read_run`."""

    name: str
    baseline: bool
    predictions: Predictions | None  # None before the split
    curves: dict[str, NDArray[np.float64]]  # columns of metrics.csv [E], NaN where blank
    phases: NDArray[np.str_]  # [E], "naive", "robust" or "ce"
    vanished: list[set[int]]  # [E], the classes that were never predicted

    def curve(self, column: str) -> NDArray[np.float64]:
        """A column of metrics.csv [E]; NaN where it is not there."""
        return self.curves.get(column, np.full(len(self.phases), np.nan))

    @property
    def epochs(self) -> NDArray[np.float64]:
        """The epochs that metrics.csv has a row for [E]."""
        return self.curves["epoch"]

    def predicted(self) -> Predictions:
        """The run's predictions; raises LeftOut before there are any."""
        if self.predictions is None:
            raise LeftOut("nothing is split yet: there is no predictions.npz")
        return self.predictions

    @property
    def split_epoch(self) -> int | None:
        """The epoch of the split; None before it, and for the baseline."""
        return self.predictions and self.predictions.split_epoch

    @property
    def fallback(self) -> bool:
        """Whether the split is the fallback, made because no tipping point was found."""
        return bool(self.predictions and self.predictions.fallback)

    @property
    def wrong(self) -> NDArray[np.bool_] | None:
        """Which given labels [scored images] are wrong; None if the true ones are not known."""
        if self.predictions is None or self.predictions.true_label is None:
            return None
        return self.predictions.label != self.predictions.true_label


def read_run(folder: Path) -> RunData:
    """Read and check what a run folder, finished or not, holds for its plots.

    True labels count only where all are known. Raises FileNotFoundError if it is no run folder,
    ValueError naming a file that is damaged.
    """
    run = RunFolder(folder)
    if not run.args.is_file():
        raise FileNotFoundError(f"{run}: no run folder (no {run.args.name}); train the run first")
    method = METHODS.get(run.options().get("method"))
    baseline = method is not None and not method.has_student
    predictions = Predictions.read(run.predictions) if run.predictions.exists() else None
    if predictions:
        run.check_split(predictions)
        names = [_printable(name) for name in predictions.class_names.tolist()]
        predictions = predictions._replace(class_names=np.array(names))
        if predictions.true_label is not None and (predictions.true_label == UNKNOWN).any():
            predictions = predictions._replace(true_label=None)
    name = _printable(folder.resolve().name)
    return RunData(name, baseline, predictions, *_read_metrics(run.metrics))


def _read_metrics(path: Path) -> tuple[dict[str, NDArray[Any]], NDArray[np.str_], list[set[int]]]:
    """The numbers, phases and vanished classes of metrics.csv, none of them before it is there."""
    columns = read_columns(path) if path.exists() else {}
    blank = [""] * len(next(iter(columns.values()), ()))
    phases, column = np.array(columns.pop(PHASE, blank), dtype=str), VANISHED
    try:
        vanished = [set(map(int, cell.split())) for cell in columns.pop(VANISHED, blank)]
        curves = {"epoch": np.full(len(blank), np.nan)}
        for column, cells in columns.items():
            curves[column] = np.array([float(cell or "nan") for cell in cells])
    except ValueError as error:
        raise ValueError(f"{path}: column {column}: {error}") from error
    if np.isnan(curves["epoch"]).any():
        raise ValueError(f"{path}: a row has no epoch")
    return curves, phases, vanished


def _printable(name: str) -> str:
    """A name with its bytes that are no UTF-8 as escapes: fonts do not have them."""
    return name.encode(errors="backslashreplace").decode()
