"""Suspect labels, the most suspect first: suspects.csv, and what the review page shows."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from utils.manifest import csv_text
from utils.review.page import Suspect
from utils.run_folder.predictions import Predictions

SUSPECTS_REVIEWED = 5000  # on the page on which own labels are reviewed
OWN_COLUMNS = {  # heading and column of the list for own images
    "file_name": "file_name",
    "given_label": "given_name",
    "suggested_label": "suggested_name",
    "score": "agreement",
    "suggested_score": "suggested_score",
    "flagged": "flagged",
    "group": "group",
    "true_label": "true_name",
    "index": "index",
}


def suspects_csv(predictions: Predictions, file_names: Sequence[str] | None = None) -> str:
    """The file's text, a row for each of S scored images.

    The chosen result gives order, suggestion, agreement and flag (1 or 0); `index` is the position
    in the full set. Unknown true labels and the baseline's groups are blank. With `file_names` [S]
    the columns are those for own images.
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
        "suggested_score": [""] * len(rows),
        "group": cells(predictions.split_group),
        "flagged": cells(flagged.astype(int)),
        "true_label": cells(predictions.true_label),
        "true_name": cells(predictions.true_label, class_names),
    }
    if predictions.chosen_name == "posterior":
        scores = predictions.posterior_suggested[rows].tolist()
        columns["suggested_score"] = [f"{each:.6g}" for each in scores]
    if file_names is not None:
        columns["file_name"] = cells(np.arange(len(rows)), file_names)
        columns = {heading: columns[name] for heading, name in OWN_COLUMNS.items()}
    else:
        del columns["suggested_score"]
    return csv_text([list(columns), *zip(*columns.values(), strict=True)])


def most_suspect(
    predictions: Predictions,
    file_names: Sequence[str],
    thumbnails: Callable[[NDArray[np.int64]], list[bytes]],
) -> list[Suspect]:
    """The most suspect images for the review page.

    `file_names`: of the scored images [S]. `thumbnails`: gives them for positions in the full set.
    """
    rows, names = predictions.suspect_rows()[:SUSPECTS_REVIEWED], predictions.class_names.tolist()
    given, chosen = predictions.label, predictions.chosen
    return [
        Suspect(
            file_names[row],
            names[given[row]],
            names[chosen.prediction[row]],
            float(chosen.agreement[row]),
            bool(chosen.flagged[row]),
            thumbnail,
        )
        for row, thumbnail in zip(rows, thumbnails(predictions.index[rows]), strict=True)
    ]
