"""What other programs know of own images: their features, or class probabilities."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from utils.files import read_arrays
from utils.manifest import nfc

LARGEST = float(np.finfo(np.float32).max)


def read_features(path: Path, file_names: Sequence[str]) -> NDArray[np.float32]:
    """The features [N, D] of the images with these names [N].

    The file holds file_name [M] and features [M, D]. Raises OSError or ValueError naming it.
    """
    features = _rows_of(path, _read(path), "features", file_names)
    return features.reshape(len(file_names), -1).astype(np.float32)


def read_probabilities(
    path: Path, file_names: Sequence[str], class_names: Sequence[str]
) -> NDArray[np.float64]:
    """The probabilities [N, C] of these classes [C] for the images with these names [N], sum 1.

    The file holds file_name [M], probabilities [M, C] and class_names [C], both in any order.
    Raises OSError or ValueError naming it.
    """
    arrays = _read(path)
    found = _rows_of(path, arrays, "probabilities", file_names).astype(np.float64)
    names = [nfc(str(name)) for name in np.atleast_1d(arrays.get("class_names", ()))]
    if sorted(names) != sorted(class_names) or found.shape[1:] != (len(names),):
        others = sorted({*names} ^ {*class_names})[:3]
        about = f"; not in both are {', '.join(map(repr, others))}" if others else ""
        raise ValueError(f"{path}: class_names must be those of the images, a column each{about}")
    found = found[:, [names.index(name) for name in class_names]]
    if (found < 0).any() or not np.allclose(found.sum(1), 1, atol=0.01):
        raise ValueError(f"{path}: a row of probabilities is negative somewhere or not of sum 1")
    if np.isin(found, (0, 1)).all():
        raise ValueError(
            f"{path}: all probabilities are 0 or 1, so that nothing tells errors of the model from "
            "wrong labels; give those before the decision"
        )
    return found / found.sum(1, keepdims=True)


def _read(path: Path) -> dict[str, NDArray]:
    return read_arrays(path, "name an .npz file")


def _rows_of(
    path: Path, arrays: dict[str, NDArray], key: str, file_names: Sequence[str]
) -> NDArray:
    """The rows of an array for the images with these names."""
    if missing := {"file_name", key} - arrays.keys():
        raise ValueError(f"{path}: has no {', '.join(sorted(missing))}; it has {', '.join(arrays)}")
    names, values = arrays["file_name"], arrays[key]
    if names.ndim != 1 or len(values) != len(names) or values.dtype.kind not in "fiu":
        raise ValueError(f"{path}: {key} is not a row of numbers for each file_name")
    places = {nfc(str(name)): place for place, name in enumerate(names)}
    if absent := [name for name in file_names if nfc(name) not in places]:
        raise ValueError(
            f"{path}: has no row for {absent[0]!r} and {len(absent) - 1} other images; its names "
            f"are such as {next(iter(places), '')!r}"
        )
    for name, row in zip(names, values, strict=True):
        last = places[nfc(str(name))]
        if not np.array_equal(row, values[last], equal_nan=True):
            raise ValueError(f"{path}: has two rows for {str(name)!r} that differ; give it one")
    rows = values[[places[nfc(name)] for name in file_names]]
    if rows.ndim < 2 or not rows.size or not (np.abs(rows) <= LARGEST).all():  # NaN neither
        raise ValueError(
            f"{path}: {key} has values that are not finite or too large, one dimension alone, or "
            "no columns"
        )
    return rows
