"""What predictions.npz holds of each image: the scores of a pass over all of them, as arrays."""

from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from models.noise_split import EpochRecord, Scores, otsu, score, trust_groups
from models.teacher_student import Images, TeacherStudent, infer_logits


class Labelled(Images, Protocol):
    """Batches of images, and the labels [N] of all of them."""

    labels: Tensor


def split_arrays(record: EpochRecord, fallback: bool) -> dict[str, Any]:
    """The images' groups by their scores of that epoch.

    `fallback`: no tipping point came.
    """
    cuts = otsu(record.scores.agreement)
    groups = trust_groups(record.scores.agreement, cuts)  # [scored images]
    split = {"split_epoch": record.epoch, "fallback": fallback, **(cuts._asdict() if cuts else {})}
    return {"group": groups.cpu().numpy(), **as_arrays(record.scores), **split}


def final_arrays(pair: TeacherStudent, loader: Labelled) -> dict[str, Any]:
    """The scores of a loader's N images, and of each trained network its probabilities [N, C]."""
    logits = infer_logits(pair, loader, len(loader.labels))
    arrays = as_arrays(score(*logits, loader.labels))
    for name, of_network in zip(pair.trained_networks(), logits, strict=False):
        arrays[f"{name}_probabilities"] = of_network.softmax(1).cpu().numpy()
    return arrays


def ensemble_arrays(
    predicted: Tensor, labels: Tensor, rows: NDArray[np.int64], final: Mapping[str, Any]
) -> dict[str, Any]:
    """Agreements at the labels and predictions by the N trained images' mean predictions.

    `predicted` [N, C]: over the epochs, at the given labels [N]; image n has the row `rows[n]` of
    the scored images. Other rows are as in `final`: agreement and prediction, each [S].
    """
    agreement, prediction = final["agreement"].copy(), final["prediction"].copy()
    agreement[rows] = predicted.gather(1, labels[:, None]).squeeze(1).cpu().numpy()
    prediction[rows] = predicted.argmax(1).cpu().numpy()
    return {"ensemble_agreement": agreement, "ensemble_prediction": prediction}


def as_arrays(scores: Scores) -> dict[str, Any]:
    """The scores by their names."""
    return {name: each.cpu().numpy() for name, each in scores._asdict().items()}
