"""Suspect labels, the most suspect first: suspects.csv, and what the review page shows."""

import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
from numpy.typing import NDArray

from utils.manifest import csv_text
from utils.review.page import Suspect
from utils.run_folder.predictions import Predictions
from utils.split_names import TRAIN

SUSPECTS_REVIEWED = 5000  # on the page on which own labels are reviewed
EXAMPLES = 2  # of each class on that page
OWN_COLUMNS = {  # heading and column of the list for own images
    "file_name": "file_name",
    "given_label": "given_name",
    "suggested_label": "suggested_name",
    "score": "agreement",
    "suggested_score": "suggested_score",
    "flagged": "flagged",
    "group": "group",
    "split": "split",
    "true_label": "true_name",
    "index": "index",
}


def suspects_csv(predictions: Predictions, own: Any = None) -> str:
    """The file's text, a row for each of S scored images.

    The chosen result gives order, suggestion, agreement and flag (1 or 0); `index` is the position
    in the full set. Unknown true labels and the baseline's groups are blank. For `own` images (see
    data/images.py) the columns are others.
    """
    rows, class_names = predictions.suspect_rows(), predictions.class_names.tolist()
    flagged, agreement, suggested = predictions.chosen

    def cells(array: NDArray[Any] | None, words: Iterable[str] | None = None) -> list[Any]:
        numbers = [-1] * len(rows) if array is None else array[rows].tolist()
        return [(words[k] if words else k) if k >= 0 else "" for k in numbers]

    columns = {
        "index": cells(predictions.index),
        "given_label": cells(predictions.label),
        "given_name": cells(predictions.label, class_names),
        "suggested_label": cells(suggested),
        "suggested_name": cells(suggested, class_names),
        "agreement": [f"{each:.6g}" for each in agreement[rows].tolist()],
        "group": cells(predictions.split_group),
        "flagged": cells(flagged.astype(int)),
        "true_label": cells(predictions.true_label),
        "true_name": cells(predictions.true_label, class_names),
    }
    if own:
        columns["file_name"] = own.file_names(predictions.index[rows])
        columns["split"] = own.splits(predictions.index[rows])
        columns["suggested_score"] = [""] * len(rows)
        if predictions.chosen_name == "posterior":
            scores = predictions.posterior_suggested[rows].tolist()
            columns["suggested_score"] = [f"{each:.6g}" for each in scores]
        columns = {heading: columns[name] for heading, name in OWN_COLUMNS.items()}
    return csv_text([list(columns), *zip(*columns.values(), strict=True)])


def most_suspect(predictions: Predictions, own: Any, folder: Path) -> list[Suspect]:
    """The most suspect images for the review page in that folder; `own`: see data/images.py."""
    rows, names = predictions.suspect_rows()[:SUSPECTS_REVIEWED], predictions.class_names.tolist()
    given, (flagged, agreement, suggested) = predictions.label, predictions.chosen
    positions = predictions.index[rows]
    return [
        Suspect(
            file_name,
            names[given[row]],
            names[suggested[row]],
            float(agreement[row]),
            bool(flagged[row]),
            thumbnail,
            link,
            "" if split == TRAIN else split,
        )
        for row, file_name, thumbnail, link, split in zip(
            rows,
            own.file_names(positions),
            own.thumbnails(positions),
            links(own.paths(positions), folder),
            own.splits(positions),
            strict=True,
        )
    ]


def links(paths: Iterable[Path], folder: Path) -> list[str]:
    """URIs of files for a page in that folder.

    Relative ones, unless the folder is reached by a symbolic link or the file is on another drive.
    """
    start = os.path.abspath(folder)
    direct = start == os.path.realpath(folder)
    uris = []
    for path in map(os.path.abspath, paths):
        uris.append(Path(path).as_uri())
        if direct:
            with suppress(ValueError):
                uris[-1] = quote(os.fsencode(Path(os.path.relpath(path, start)).as_posix()))
    return uris


def class_examples(predictions: Predictions, own: Any) -> dict[str, list[bytes]]:
    """Thumbnails of the least suspect images of each class, none of which is flagged."""
    rows = predictions.suspect_rows()[::-1]
    rows = rows[~predictions.chosen.flagged[rows]]
    labels, names = predictions.label[rows], predictions.class_names.tolist()
    found = [rows[labels == number][:EXAMPLES] for number in range(len(names))]
    thumbnails = iter(own.thumbnails(predictions.index[np.concatenate(found)]))
    return {name: [next(thumbnails) for _ in some] for name, some in zip(names, found, strict=True)}
