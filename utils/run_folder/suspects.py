"""suspects.csv: every scored image, the most suspect label first."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from utils.manifest import csv_text
from utils.run_folder.detections import chosen


def suspect_order(agreement: NDArray[np.floating]) -> NDArray[np.int64]:
    """Rows [N] by rising agreement at the label [N]; ties keep data order."""
    return np.argsort(agreement, kind="stable")


def suspects_csv(
    arrays: Mapping[str, NDArray],
    class_names: Sequence[str],
    file_names: Sequence[str] | None = None,
) -> str:
    """The file's text, a row for each of N scored images.

    `arrays`: index, label, prediction and agreement, each [N], true_label where it is known, group
    where there are groups (not for the baseline; its cells are blank). The result that was chosen
    gives order, suggestion, agreement and flag (1 or 0); `index` is the position in the full set.
    With `file_names` [N] the columns are those for own images.
    """
    flagged, agreements, predictions = chosen(arrays)
    order = suspect_order(agreements)

    def cells(name: str) -> list[Any]:
        return arrays[name][order].tolist() if name in arrays else [-1] * len(order)

    def names(labels: list[int]) -> list[str]:
        return [class_names[label] if label >= 0 else "" for label in labels]

    def numbers(labels: list[int]) -> list[int | str]:
        return [label if label >= 0 else "" for label in labels]

    given, suggested, true = cells("label"), predictions[order].tolist(), cells("true_label")
    scores = [f"{agreement:.6g}" for agreement in agreements[order].tolist()]
    flags, groups = flagged[order].astype(int).tolist(), numbers(cells("group"))
    if file_names is None:
        columns = {
            "index": cells("index"),
            "given_label": given,
            "given_name": names(given),
            "suggested_label": suggested,
            "suggested_name": names(suggested),
            "agreement": scores,
            "group": groups,
            "flagged": flags,
            "true_label": numbers(true),
            "true_name": names(true),
        }
    else:
        columns = {
            "file_name": [file_names[row] for row in order.tolist()],
            "given_label": names(given),
            "suggested_label": names(suggested),
            "score": scores,
            "flagged": flags,
            "group": groups,
            "true_label": names(true),
            "index": cells("index"),
        }
    return csv_text([list(columns), *zip(*columns.values(), strict=True)])
