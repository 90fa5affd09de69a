"""Which labels a run's scores flag as wrong."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray


class Flags(NamedTuple):
    """A detection result and what it rests on, for S scored images."""

    flagged: NDArray[np.bool_]  # label most likely wrong
    agreement: NDArray[np.floating]  # at the label
    prediction: NDArray[np.int64]


def detections(arrays: Mapping[str, NDArray]) -> dict[str, Flags]:
    """The detection results that arrays of predictions.npz hold, by their names.

    split: group 4 at the tipping point, as in the paper; final: what the networks of the last epoch
    predict as another class; ensemble: what their mean prediction over the epochs says is another.
    """
    found = {}
    if "group" in arrays:
        split = arrays["group"] == 4, arrays["agreement"], arrays["prediction"]
        found["split"] = Flags(*split)
    final = "final_" if "final_prediction" in arrays else ""
    if final or "group" not in arrays:  # the baseline has no other
        found["final"] = _contradicted(arrays, final)
    if "ensemble_prediction" in arrays:  # not in runs from before it was there
        found["ensemble"] = _contradicted(arrays, "ensemble_")
    return found


def _contradicted(arrays: Mapping[str, NDArray], prefix: str) -> Flags:
    """Flags the labels that the prediction of that name contradicts."""
    prediction = arrays[f"{prefix}prediction"]
    return Flags(prediction != arrays["label"], arrays[f"{prefix}agreement"], prediction)


def detection_name(arrays: Mapping[str, NDArray]) -> str:
    """That of the detection result which `--detection` chose; the first while it is not there."""
    found, name = detections(arrays), str(arrays.get("detection"))
    return name if name in found else next(iter(found))


def chosen(arrays: Mapping[str, NDArray]) -> Flags:
    """The detection result of that name."""
    return detections(arrays)[detection_name(arrays)]
