"""What predictions.npz holds of each image: the scores of a pass over all of them, as arrays."""

from typing import Any, Protocol

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


def as_arrays(scores: Scores) -> dict[str, Any]:
    """The scores by their names."""
    return {name: each.cpu().numpy() for name, each in scores._asdict().items()}
