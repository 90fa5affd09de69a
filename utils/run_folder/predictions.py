"""A run's detection result: detection.npy, what it rests on, and the list of suspect labels."""

import csv
import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from utils.console import say
from utils.files import write_array, write_arrays, write_text
from utils.run_folder.folder import RunFolder

SUSPECTS_SHOWN = 64  # images that a run folder keeps for its plot
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

    def write(self, flagged: NDArray[np.bool_], **arrays: Any) -> None:
        """`flagged` [S]: label most likely wrong; images that are not scored are not flagged.

        `arrays`: at least agreement and prediction, each [S]. The most suspect images themselves
        go into predictions.npz too, so that the folder explains itself.
        """
        detection = np.zeros(len(self.images), dtype=bool)
        detection[self.scored] = flagged
        arrays |= {"index": self.scored, "label": self.labels, "true_label": self.clean_labels}
        suspects = self.scored[suspect_order(arrays["agreement"])[:SUSPECTS_SHOWN]]
        write_arrays(
            self.folder.predictions,
            class_names=np.array(self.class_names),
            suspect_index=suspects,
            suspect_images=self.images[suspects].transpose(0, 2, 3, 1),
            **arrays,
        )
        write_text(self.folder.suspects, suspects_csv(arrays, flagged, self.class_names))
        write_array(self.folder.detection, detection)

    def write_split(
        self, arrays: dict[str, NDArray], cuts: dict[str, float], epoch: int, fallback: bool
    ) -> dict[str, Any]:
        """Flag group 4; print and return the metrics of the split, as training.json has them.

        `arrays`: group, agreement and prediction, each [S], and whatever else is to be kept.
        `cuts`: between the groups; none where all scores fall into one bin.
        """
        group, wrong = arrays["group"], self.labels != self.clean_labels
        sizes, wrongs = (np.bincount(g, minlength=5)[1:] for g in (group, group[wrong]))
        split = {"split_epoch": epoch, "fallback": fallback, **cuts}
        estimated, true = float(sizes[2:].sum() / sizes.sum()), float(wrong.mean())
        if cuts:
            say(
                f"split at {cuts['low_mean']:.3f}, {cuts['threshold']:.3f}, "
                f"{cuts['high_mean']:.3f}: groups 1 (label most likely right) to 4 (most likely "
                f"wrong) have {sizes.tolist()} images"
            )
        else:
            say("all scores fall into one bin: no split, no label is flagged")
        say(
            f"{sizes[3]} labels are flagged as wrong, {wrongs[3]} of them correctly; noise rate "
            f"{estimated:.1%} as the share below the threshold, {true:.1%} by the true labels"
        )
        self.write(group == 4, **arrays, **split)
        return {
            **split,
            "group_sizes": sizes.tolist(),
            "group_wrong": wrongs.tolist(),
            "estimated_noise_rate": estimated,
            "true_noise_rate": true,
        }


def suspect_order(agreement: NDArray[np.floating]) -> NDArray[np.int64]:
    """Rows [N] by rising agreement at the label [N]; ties keep data order."""
    return np.argsort(agreement, kind="stable")


def suspects_csv(
    arrays: Mapping[str, NDArray], flagged: NDArray[np.bool_], class_names: Sequence[str]
) -> str:
    """suspects.csv, a row for each of N scored images.

    `arrays`: index, label, prediction and agreement, each [N], true_label where it is known, group
    where there are groups (not for the baseline; its cells are blank). `flagged` [N] becomes 1 or
    0. `index` is the position in the full training set.
    """
    order = suspect_order(arrays["agreement"])

    def cells(name: str) -> list:
        return arrays[name][order].tolist() if name in arrays else [""] * len(order)

    def names(labels: list) -> list[str]:
        return [class_names[label] if label != "" else "" for label in labels]

    given, suggested, true = cells("label"), cells("prediction"), cells("true_label")
    columns = (
        cells("index"),
        given,
        names(given),
        suggested,
        names(suggested),
        [f"{agreement:.6g}" for agreement in cells("agreement")],
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
