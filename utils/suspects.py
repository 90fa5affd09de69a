"""The list that someone cleaning a data set works with: every scored image, most suspect first."""

import csv
import io
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

SUSPECTS_SHOWN = 64  # images that a run folder keeps for its picture
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


def suspect_order(agreement: NDArray[np.floating]) -> NDArray[np.int64]:
    """Rows [N] by rising agreement at the label [N]; of equals the one that stands first."""
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
