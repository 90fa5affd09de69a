"""A run's detection result: detection.npy, what it rests on, and the list of suspect labels."""

import csv
import io
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from utils.console import say
from utils.files import write_array, write_arrays, write_text
from utils.run_folder.folder import RunFolder

SUSPECTS_SHOWN = 64  # images that a run folder keeps for its plot
CUTS = ("low_mean", "threshold", "high_mean")  # between groups 4, 3, 2 and 1
COLUMNS = (
    "index",
    "given_label",
    "given_name",
    "suggested_label",
    "suggested_name",
    "agreement",
    "group",
    "flagged",
    "true_label",
    "true_name",
)


class PredictionsWriter:
    """Writes predictions.npz and suspects.csv, and behind them detection.npy."""

    def __init__(
        self,
        folder: RunFolder,
        scored: NDArray[np.int64],
        labels: NDArray[np.int64],
        clean_labels: NDArray[np.int64],
        class_names: Sequence[str],
        images: NDArray[np.uint8],
    ):
        """`scored`: positions [S] in the full training set; labels of these [S], given and clean.

        `images`: bytes of the full set, [N, channels, height, width].
        """
        self.folder, self.scored, self.class_names = folder, scored, class_names
        self.labels, self.clean_labels, self.images = labels, clean_labels, images

    def write(self, arrays: Mapping[str, Any]) -> None:
        """Flag labels by the arrays, see `chosen`; images that are not scored are not flagged.

        `arrays`: at least agreement and prediction, each [S]. The most suspect images themselves
        go into predictions.npz too, so that the folder explains itself.
        """
        own = {"index": self.scored, "label": self.labels, "true_label": self.clean_labels}
        arrays = {**arrays, **own}
        detection = np.zeros(len(self.images), dtype=bool)
        detection[self.scored] = chosen(arrays).flagged
        suspects = self.scored[suspect_order(chosen(arrays).agreement)[:SUSPECTS_SHOWN]]
        write_arrays(
            self.folder.predictions,
            class_names=np.array(self.class_names),
            suspect_index=suspects,
            suspect_images=self.images[suspects].transpose(0, 2, 3, 1),
            **arrays,
        )
        write_text(self.folder.suspects, suspects_csv(arrays, self.class_names))
        write_array(self.folder.detection, detection)

    def tell_split(self, split: Mapping[str, Any]) -> dict[str, Any]:
        """Print and return what training.json has of a split.

        `split`: group [S], split_epoch, fallback, and unless all scores fall into one bin the cuts.
        """
        group, wrong = split["group"], self.labels != self.clean_labels
        sizes, wrongs = (np.bincount(g, minlength=5)[1:] for g in (group, group[wrong]))
        estimated, true = float(sizes[2:].sum() / sizes.sum()), float(wrong.mean())
        cuts = {name: split[name] for name in CUTS if name in split}
        if cuts:
            say(
                f"split at {', '.join(f'{cut:.3f}' for cut in cuts.values())}: groups 1 (label "
                f"most likely right) to 4 (most likely wrong) have {sizes.tolist()} images"
            )
        else:
            say("all scores fall into one bin: no split, no label is flagged")
        say(
            f"the split flags {sizes[3]} labels as wrong, {wrongs[3]} of them correctly; noise "
            f"rate {estimated:.1%} as the share below the threshold, {true:.1%} by the true labels"
        )
        return {
            "split_epoch": split["split_epoch"],
            "fallback": split["fallback"],
            **cuts,
            "group_sizes": sizes.tolist(),
            "group_wrong": wrongs.tolist(),
            "estimated_noise_rate": estimated,
            "true_noise_rate": true,
        }


class Flags(NamedTuple):
    """A detection result and what it rests on, for S scored images."""

    flagged: NDArray[np.bool_]  # label most likely wrong
    agreement: NDArray[np.floating]  # at the label
    prediction: NDArray[np.int64]


def detections(arrays: Mapping[str, NDArray]) -> dict[str, Flags]:
    """The detection results that arrays of predictions.npz hold, by their names.

    split: group 4 at the tipping point, as in the paper; final: what the networks of the last epoch
    predict as another class.
    """
    found = {}
    if "group" in arrays:
        split = arrays["group"] == 4, arrays["agreement"], arrays["prediction"]
        found["split"] = Flags(*split)
    final = "final_" if "final_prediction" in arrays else ""
    if final or "group" not in arrays:  # the baseline has no other
        prediction = arrays[f"{final}prediction"]
        flagged = prediction != arrays["label"]
        found["final"] = Flags(flagged, arrays[f"{final}agreement"], prediction)
    return found


def detection_name(arrays: Mapping[str, NDArray]) -> str:
    """That of the detection result which `--detection` chose; the first while it is not there."""
    found, name = detections(arrays), str(arrays.get("detection"))
    return name if name in found else next(iter(found))


def chosen(arrays: Mapping[str, NDArray]) -> Flags:
    """The detection result of that name."""
    return detections(arrays)[detection_name(arrays)]


def suspect_order(agreement: NDArray[np.floating]) -> NDArray[np.int64]:
    """Rows [N] by rising agreement at the label [N]; ties keep data order."""
    return np.argsort(agreement, kind="stable")


def suspects_csv(arrays: Mapping[str, NDArray], class_names: Sequence[str]) -> str:
    """suspects.csv, a row for each of N scored images.

    `arrays`: index, label, prediction and agreement, each [N], true_label where it is known, group
    where there are groups (not for the baseline; its cells are blank). The result that was chosen
    gives order, suggestion, agreement and flag (1 or 0); `index` is the position in the full set.
    """
    flagged, agreements, predictions = chosen(arrays)
    order = suspect_order(agreements)

    def cells(name: str) -> list:
        return arrays[name][order].tolist() if name in arrays else [""] * len(order)

    def names(labels: list) -> list[str]:
        return [class_names[label] if label != "" else "" for label in labels]

    given, suggested, true = cells("label"), predictions[order].tolist(), cells("true_label")
    columns = (
        cells("index"),
        given,
        names(given),
        suggested,
        names(suggested),
        [f"{agreement:.6g}" for agreement in agreements[order].tolist()],
        cells("group"),
        flagged[order].astype(int).tolist(),
        true,
        names(true),
    )
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    writer.writerows(zip(*columns, strict=True))
    return text.getvalue()
