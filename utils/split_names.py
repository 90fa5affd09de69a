"""Which split an own image is of: to train on, to test or to validate."""

from utils.manifest import FILE_NAME, SPLIT, Manifest

TRAIN, TEST, VAL = "train", "test", "val"
SPLITS = {"train": TRAIN, "training": TRAIN}  # as Hugging Face names them, in any case
SPLITS |= dict.fromkeys(("test", "testing", "eval", "evaluation"), TEST)
SPLITS |= dict.fromkeys(("val", "valid", "validation", "dev"), VAL)


def splits_of(manifest: Manifest) -> list[str | None]:
    """The split of each row; None for a name that is none.

    Without the column, as in Hugging Face `datasets`, by the folder that names begin with, if all
    of these are splits.
    """
    cells = [cell.strip().casefold() for cell in manifest.cells(SPLIT)]
    if SPLIT not in manifest.columns:
        first = [name.split("/")[0].casefold() for name in manifest.cells(FILE_NAME)]
        cells = first if SPLITS.keys() | {""} >= {*first} else cells
    return [SPLITS.get(cell) if cell else TRAIN for cell in cells]
