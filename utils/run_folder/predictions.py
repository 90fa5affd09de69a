"""A run's detection result: detection.npy, what it rests on, and the list of suspect labels."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from utils.console import say
from utils.files import write_array, write_arrays, write_text, write_whole
from utils.labels import Labels
from utils.manifest import Manifest, as_csv
from utils.review.page import Suspect, review_page
from utils.run_folder.detections import chosen, detections
from utils.run_folder.folder import RunFolder
from utils.run_folder.suspects import suspect_order, suspects_csv

SUSPECTS_SHOWN = 64  # images that a run folder keeps for its plot
SUSPECTS_REVIEWED = 5000  # on the page on which own labels are reviewed
CUTS = ("low_mean", "threshold", "high_mean")  # between groups 4, 3, 2 and 1


class OwnImages(Protocol):
    """Where a run's images come from, if they are the user's own."""

    @property
    def manifest(self) -> Manifest: ...

    def file_names(self, positions: NDArray[np.int64]) -> list[str]: ...

    def thumbnails(self, positions: NDArray[np.int64]) -> list[bytes]: ...


class PredictionsWriter:
    """Writes predictions.npz and suspects.csv, and behind them detection.npy.

    For own images also manifest.csv, and at the end review.html.
    """

    def __init__(
        self,
        folder: RunFolder,
        labels: Labels,
        images: NDArray[np.uint8],
        own: OwnImages | None = None,
    ):
        """`images`: bytes of the full set, [N, channels, height, width]."""
        self.folder, self.images, self.own = folder, images, own
        self.class_names = labels.class_names
        self.scored = labels.positions.scored  # [S], in data order; all trained ones are among them
        self.labels, self.clean_labels = (
            each.numpy()[self.scored] for each in (labels.given, labels.clean)
        )  # [S]
        self.known = self.clean_labels >= 0  # [S]
        trained = labels.positions.train
        self.held_out = ~np.isin(self.scored, trained)  # [S]
        self.trained_rows = np.searchsorted(self.scored, trained)  # [N], among the scored

    def write(self, arrays: Mapping[str, Any]) -> None:
        """Flag labels by the arrays, see `chosen`; images that are not scored are not flagged.

        `arrays`: at least agreement and prediction, each [S]. The most suspect images themselves
        go into predictions.npz too, so that the folder explains itself.
        """
        own = {"index": self.scored, "label": self.labels, "held_out": self.held_out}
        arrays = {**arrays, **own}
        if self.known.any():
            arrays["true_label"] = self.clean_labels
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
        names = self.own.file_names(self.scored) if self.own else None
        write_text(self.folder.suspects, suspects_csv(arrays, self.class_names, names))
        if self.own:
            write_whole(self.folder.manifest, as_csv(self.own.manifest))
            if "final" in detections(arrays):  # the run is over
                self._write_review(arrays, names)
        write_array(self.folder.detection, detection)

    def _write_review(self, arrays: Mapping[str, NDArray], names: Sequence[str]) -> None:
        """review.html, with the most suspect images."""
        flagged, agreement, prediction = chosen(arrays)
        rows = suspect_order(agreement)[:SUSPECTS_REVIEWED]
        thumbnails = self.own.thumbnails(self.scored[rows])
        suspects = [
            Suspect(
                names[row],
                self.class_names[self.labels[row]],
                self.class_names[prediction[row]],
                float(agreement[row]),
                bool(flagged[row]),
                thumbnail,
            )
            for row, thumbnail in zip(rows, thumbnails, strict=True)
        ]
        name = self.folder.path.name
        page = review_page(name, self.own.manifest, suspects, self.class_names, str(self.folder))
        write_text(self.folder.review, page)
        say(f"{self.folder.review}: the {len(suspects)} most suspect labels, to be reviewed")

    def tell_split(self, split: Mapping[str, Any]) -> dict[str, Any]:
        """Print and return what training.json has of a split.

        `split`: group [S], split_epoch, fallback, and unless all scores fall into one bin the cuts.
        """
        group, known = split["group"], bool(self.known.any())
        wrong = self.known & (self.labels != self.clean_labels)
        sizes, wrongs = (np.bincount(g, minlength=5)[1:] for g in (group, group[wrong]))
        estimated, true = (
            float(sizes[2:].sum() / sizes.sum()),
            float(wrong.sum() / max(1, self.known.sum())),
        )
        cuts = {name: split[name] for name in CUTS if name in split}
        if cuts:
            say(
                f"split at {', '.join(f'{cut:.3f}' for cut in cuts.values())}: groups 1 (label "
                f"most likely right) to 4 (most likely wrong) have {sizes.tolist()} images"
            )
        else:
            say("all scores fall into one bin: no split, no label is flagged")
        correctly = f", {wrongs[3]} of them correctly" if known else ""
        true_rate = f", {true:.1%} by the true labels" if known else ""
        say(
            f"the split flags {sizes[3]} labels as wrong{correctly}; noise rate {estimated:.1%} as "
            f"the share below the threshold{true_rate}"
        )
        return {
            "split_epoch": split["split_epoch"],
            "fallback": split["fallback"],
            **cuts,
            "group_sizes": sizes.tolist(),
            "group_wrong": wrongs.tolist() if known else None,
            "estimated_noise_rate": estimated,
            "true_noise_rate": true if known else None,
        }
