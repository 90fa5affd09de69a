"""What a run folder, finished or not, holds for its plots."""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from utils.files import read_arrays, read_columns
from utils.run_folder.folder import RunFolder

INTEGERS, FLOATS = "iu", "f"  # kinds of numpy's types
AGREEMENTS = ("agreement", "final_agreement", "ensemble_agreement")
PREDICTIONS = ("prediction", "final_prediction", "ensemble_prediction")
LABELS = dict.fromkeys(("label", "true_label", *PREDICTIONS), INTEGERS)
FLOATING = dict.fromkeys(AGREEMENTS, FLOATS)
PER_IMAGE = {"index": INTEGERS, "group": INTEGERS, **FLOATING, **LABELS}
SINGLE = ("detection", "split_epoch", "fallback", "low_mean", "threshold", "high_mean")


class LeftOut(Exception):
    """A plot cannot be drawn from this run; the message says why."""


class RunData(NamedTuple):
    """What a run folder holds for its plots; read it with `read_run`."""

    folder: RunFolder
    baseline: bool
    metrics: dict[str, list[str]]  # columns of metrics.csv, as text
    arrays: dict[str, NDArray[Any]]  # predictions.npz; empty before the split

    @property
    def name(self) -> str:
        """The folder's name, which says which run it is."""
        return self.folder.path.resolve().name

    def cells(self, column: str) -> list[str]:
        """A column of metrics.csv [epochs]; blank where it is not there."""
        return self.metrics.get(column) or [""] * len(next(iter(self.metrics.values()), ()))

    def curve(self, column: str) -> NDArray[np.float64]:
        """A column of metrics.csv as numbers [epochs]; NaN where it is blank or not there.

        Raises ValueError naming the column if a cell is no number.
        """
        try:
            return np.array([float(cell) if cell else np.nan for cell in self.cells(column)])
        except ValueError as error:
            raise ValueError(f"{self.folder.metrics}: column {column}: {error}") from error

    def epochs(self) -> NDArray[np.float64]:
        """The epochs that metrics.csv has a row for; raises ValueError if one is blank."""
        epochs = self.curve("epoch")
        if np.isnan(epochs).any():
            raise ValueError(f"{self.folder.metrics}: a row has no epoch")
        return epochs

    def in_phase(self, name: str) -> NDArray[np.bool_]:
        """Which epochs belong to the "naive" or "robust" phase [epochs]."""
        return np.array([cell == name for cell in self.cells("phase")], dtype=bool)

    def vanished(self) -> list[set[int]]:
        """The classes that were never predicted in each epoch; empty where not recorded.

        Raises ValueError if a cell is not class numbers separated by spaces.
        """
        column = "vanished_classes"
        try:
            return [set(map(int, cell.split())) for cell in self.cells(column)]
        except ValueError as error:
            raise ValueError(f"{self.folder.metrics}: column {column}: {error}") from error

    def need(self, *names: str) -> list[NDArray[Any]]:
        """The named arrays of predictions.npz; raises LeftOut if one is missing."""
        file = self.folder.predictions.name
        if not self.arrays:
            raise LeftOut(f"nothing is split yet: there is no {file}")
        missing = [name for name in names if name not in self.arrays]
        if missing:
            raise LeftOut(f"{file} of this run does not hold {', '.join(missing)}")
        return [self.arrays[name] for name in names]

    @property
    def split_epoch(self) -> int | None:
        """The epoch of the split; None before it, and for the baseline."""
        return int(self.arrays["split_epoch"]) if "split_epoch" in self.arrays else None

    @property
    def fallback(self) -> bool:
        """Whether the split is the fallback, made because no tipping point was found."""
        return bool(self.arrays.get("fallback", False))

    @property
    def wrong(self) -> NDArray[np.bool_] | None:
        """Which given labels [scored images] are wrong; None if the true ones are not known."""
        if "true_label" not in self.arrays:
            return None
        return self.arrays["label"] != self.arrays["true_label"]


def read_run(folder: Path) -> RunData:
    """Read and check what a run folder, finished or not, holds for its plots.

    Raises FileNotFoundError if it is no run folder, ValueError naming a file that is damaged.
    """
    run = RunFolder(folder)
    if not run.args.is_file():
        raise FileNotFoundError(f"{run}: no run folder (no {run.args.name}); train the run first")
    baseline = run.options().get("method") == "ce"
    metrics = read_columns(run.metrics) if run.metrics.exists() else {}
    arrays = read_arrays(run.predictions) if run.predictions.exists() else {}
    _check(run.predictions, arrays)
    return RunData(run, baseline, metrics, arrays)


def _check(path: Path, arrays: dict[str, NDArray[Any]]) -> None:
    """Raise ValueError naming the file if the arrays of predictions.npz do not fit together."""
    images = arrays["index"].shape if "index" in arrays else None
    for name in PER_IMAGE.keys() & arrays.keys():
        array = arrays[name]
        if array.ndim != 1 or array.shape != images or array.dtype.kind not in PER_IMAGE[name]:
            raise ValueError(f"{path}: {name} is not one number for each image")
    classes = len(arrays.get("class_names", ()))
    for name in LABELS.keys() & arrays.keys():
        if classes and not np.isin(arrays[name], range(classes)).all():
            raise ValueError(f"{path}: {name} has a class without a name")
    for name in arrays.keys() & set(SINGLE):
        if arrays[name].ndim:
            raise ValueError(f"{path}: {name} is not a single value")
    if "group" in arrays and not np.isin(arrays["group"], (1, 2, 3, 4)).all():
        raise ValueError(f"{path}: group has values other than 1 to 4")
    if "suspect_index" in arrays and not np.isin(arrays["suspect_index"], arrays["index"]).all():
        raise ValueError(f"{path}: suspect_index has images that were not scored")
