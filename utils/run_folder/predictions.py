"""predictions.npz: what a run predicts of each scored image, and which labels that flags."""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from utils.files import read_arrays, write_arrays

Array = NDArray[Any]
UNKNOWN = -1  # a true label
FLAGGED_GROUP = 4
EARLIER_NAMES = {  # keys of earlier versions; {} is "split", for the baseline "final"
    "agreement": "{}_agreement",
    "prediction": "{}_prediction",
    "group": "split_group",
    "ensemble_agreement": "mean_agreement",
    "ensemble_prediction": "mean_prediction",
}
CLASSES = ("label", "true_label", "split_prediction", "final_prediction", "mean_prediction")
CLASSES += ("posterior_prediction",)
MOST_FLAGGED = 0.5  # share of a class's labels; where more are, the class is lost, not its labels
PER_IMAGE = {  # kinds of numpy's types
    **dict.fromkeys(("index", "split_group", *CLASSES), "iu"),
    **dict.fromkeys(("split_agreement", "final_agreement", "mean_agreement"), "f"),
    **dict.fromkeys(("posterior_agreement", "posterior_suggested"), "f"),
    **dict.fromkeys(("held_out", "tested", "posterior_flagged"), "b"),
}
CUTS = ("low_mean", "threshold", "high_mean")  # between groups 4, 3, 2 and 1
SINGLE = ("detection", "split_epoch", "fallback", *CUTS)


class Detection(NamedTuple):
    """A detection result and what it rests on, for S scored images."""

    flagged: NDArray[np.bool_]  # label most likely wrong
    agreement: NDArray[np.floating]  # at the label
    prediction: NDArray[np.integer]


class Predictions(NamedTuple):
    """The arrays of predictions.npz by their keys, for S scored images and C classes.

    None is what is not known, or not yet. The three results: `split` at the tipping point, `final`
    by the last epoch's networks, `mean` by the pair's mean prediction over the epochs.
    """

    index: Array  # [S], positions in the full training set, rising
    label: Array  # [S], given
    class_names: Array  # [C]
    true_label: Array | None = None  # [S], -1 where unknown
    held_out: Array | None = None  # [S], whether not trained on
    tested: Array | None = None  # [S], whether of own test and validation images; None: none is
    detection: str | None = None  # name of the result that was chosen by --detection
    split_agreement: Array | None = None  # [S], of the pair at the label
    split_prediction: Array | None = None  # [S]
    split_group: Array | None = None  # [S], 1 (label most likely right) to 4 (most likely wrong)
    split_epoch: int | None = None
    fallback: bool = False  # no tipping point came: the split is the most confident epoch's
    low_mean: float | None = None
    threshold: float | None = None  # Otsu's
    high_mean: float | None = None
    final_agreement: Array | None = None  # [S]
    final_prediction: Array | None = None  # [S]
    mean_agreement: Array | None = None  # [S], of held-out images the final one
    mean_prediction: Array | None = None  # [S]
    posterior_agreement: Array | None = None  # [S], probability that the label is right
    posterior_prediction: Array | None = None  # [S], the most probable class
    posterior_suggested: Array | None = None  # [S], its probability
    posterior_flagged: Array | None = None  # [S]
    teacher_probabilities: Array | None = None  # [S, C], of the last epoch
    student_probabilities: Array | None = None  # [S, C]
    suspect_index: Array | None = None  # [K], the most suspect images, the first most of all
    suspect_images: Array | None = None  # [K, height, width, channels], bytes

    @classmethod
    def read(cls, path: Path) -> "Predictions":
        """Read what this or an earlier version wrote; raises OSError or ValueError naming it."""
        arrays = read_arrays(path)
        first = "split" if "group" in arrays else "final"
        arrays = {EARLIER_NAMES.get(key, key).format(first): arrays[key] for key in arrays}
        fields = {key: arrays[key] for key in cls._fields if key in arrays}
        if missing := cls._fields[:3] - fields.keys():
            raise ValueError(f"{path}: has no {', '.join(sorted(missing))}; train the run again")
        for key in fields.keys() & set(SINGLE):
            if fields[key].ndim:
                raise ValueError(f"{path}: {key} is not a single value")
            fields[key] = fields[key].item()
        predictions = cls(**fields)
        predictions._check(path)
        return predictions

    def write(self, path: Path) -> None:
        """Write the file whole or not at all; raises OSError naming it."""
        write_arrays(path, **{k: v for k, v in self._asdict().items() if v is not None})

    def _check(self, path: Path) -> None:
        """Raise ValueError naming the file if the arrays do not fit together."""
        arrays = {key: value for key, value in self._asdict().items() if value is not None}
        for key in arrays.keys() & PER_IMAGE.keys():
            shape, kind = arrays[key].shape, arrays[key].dtype.kind
            if shape != (self.index.size,) or kind not in PER_IMAGE[key]:
                raise ValueError(f"{path}: {key} is not one number for each image")
        for key in arrays.keys() & set(CLASSES):
            lowest = UNKNOWN if key == "true_label" else 0
            if not np.isin(arrays[key], range(lowest, len(self.class_names))).all():
                raise ValueError(f"{path}: {key} has a class without a name")
        for result in ("split_", "final_", "mean_", "posterior_"):
            there = {key in arrays for key in self._fields if key.startswith(result)}
            if len(there) > 1:
                raise ValueError(f"{path}: holds only a part of the arrays {result}*")
        if not self.detections:
            raise ValueError(f"{path}: holds no detection result")
        if self.split_group is not None and not np.isin(self.split_group, (1, 2, 3, 4)).all():
            raise ValueError(f"{path}: split_group has values other than 1 to 4")
        if self.suspect_index is not None and not np.isin(self.suspect_index, self.index).all():
            raise ValueError(f"{path}: suspect_index has images that were not scored")

    @property
    def detections(self) -> dict[str, Detection]:
        """The detection results that are there, by the names that `--detection` has for them."""
        found = {}
        if self.split_group is not None:
            flagged = self.split_group == FLAGGED_GROUP
            found["split"] = Detection(flagged, self.split_agreement, self.split_prediction)
        for name, agreement, prediction in (
            ("final", self.final_agreement, self.final_prediction),
            ("ensemble", self.mean_agreement, self.mean_prediction),
        ):
            if prediction is not None:
                found[name] = Detection(prediction != self.label, agreement, prediction)
        if self.posterior_flagged is not None:
            scores = self.posterior_agreement, self.posterior_prediction
            found["posterior"] = Detection(self.posterior_flagged, *scores)
        return found

    @property
    def chosen_name(self) -> str:
        """The name of the result that `--detection` chose; the first while it is not there."""
        found = self.detections
        return self.detection if self.detection in found else next(iter(found))

    @property
    def chosen(self) -> Detection:
        """The result of that name."""
        return self.detections[self.chosen_name]

    def out_of_sample(self) -> tuple[NDArray[np.bool_], Array]:
        """Which images were not trained on [S], and their probabilities by the networks' mean."""
        networks = self.teacher_probabilities, self.student_probabilities
        there = [each[self.held_out] for each in networks if each is not None]
        return self.held_out, sum(there) / len(there)

    def lost_classes(self) -> list[int]:
        """Classes of which the posterior contradicts most labels, or that it never predicts.

        What judged them has not learned them, unless most of their labels are wrong.
        """
        own = [self.label == k for k in range(len(self.class_names))]
        contradicted = self.posterior_prediction != self.label
        return [
            k
            for k, rows in enumerate(own)
            if rows.any()
            and (
                contradicted[rows].mean() > MOST_FLAGGED
                or not (self.posterior_prediction == k).any()
            )
        ]

    def with_posterior(
        self, posterior: NDArray[np.floating], mostly_wrong: NDArray[np.bool_], *, flag: bool
    ) -> "Predictions":
        """With the labels judged by the probability [S, C] of each class to be the true one.

        Flagged are labels that are less probable than another class, but for those of lost classes
        that are not `mostly_wrong` [C]; with `flag` false none are.
        """
        rows, prediction = np.arange(len(self.label)), posterior.argmax(1)
        judged = self._replace(
            posterior_agreement=posterior[rows, self.label],
            posterior_prediction=prediction,
            posterior_suggested=posterior[rows, prediction],
        )
        lost = np.isin(self.label, [k for k in judged.lost_classes() if not mostly_wrong[k]])
        return judged._replace(posterior_flagged=(prediction != self.label) & ~lost & flag)

    @property
    def cuts(self) -> tuple[float, float, float] | None:
        """The cuts between groups 4, 3, 2 and 1; None where all scores fall into one bin."""
        cuts = tuple(getattr(self, name) for name in CUTS)
        return None if None in cuts else cuts

    def rows(self, which: NDArray[np.bool_]) -> "Predictions":
        """The predictions of the images in `which` [S] alone."""
        arrays = {key: value for key in PER_IMAGE if (value := getattr(self, key)) is not None}
        return self._replace(**{key: value[which] for key, value in arrays.items()})

    def suspect_rows(self) -> NDArray[np.int64]:
        """Rows [S] by rising agreement of the chosen result; ties keep data order."""
        return np.argsort(self.chosen.agreement, kind="stable")

    def split_summary(self) -> dict[str, Any]:
        """What training.json holds of the split."""
        known = self.label < 0 if self.true_label is None else self.true_label != UNKNOWN  # [S]
        wrong = known & (self.label != self.true_label)
        groups = self.split_group, self.split_group[wrong]
        sizes, wrongs = (np.bincount(group, minlength=5)[1:].tolist() for group in groups)
        cuts = {name: getattr(self, name) for name in CUTS if self.cuts}
        return {
            "split_epoch": self.split_epoch,
            "fallback": self.fallback,
            **cuts,
            "group_sizes": sizes,
            "group_wrong": wrongs if known.any() else None,
            "estimated_noise_rate": sum(sizes[2:]) / len(self.label),
            "true_noise_rate": float(wrong.sum() / known.sum()) if known.any() else None,
        }
