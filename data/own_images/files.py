"""Own images: which files there are, by class folders or by a manifest, and what is wrong there."""

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from data.own_images.folders import in_folders
from utils.manifest import (
    FILE_NAME,
    LABEL,
    METADATA,
    SPLIT,
    TRUE_LABEL,
    Manifest,
    MissingColumn,
    below,
    file_at,
    of_files,
    read_manifest,
)
from utils.split_names import SPLITS, TEST, TRAIN, VAL, splits_of

ROWS = (TRAIN, TEST, VAL)  # the splits in the order in which their rows are kept


class ImageFiles(NamedTuple):
    """Images by their rows in a manifest, and a line for each thing that is amiss."""

    root: Path  # the manifest's file names are relative to it
    manifest: Manifest
    train: list[int]  # rows
    test: list[int]
    val: list[int]
    warnings: list[str]
    on_disk: dict[str, Path]  # where a file is whose name is written there in another Unicode form
    same: Sequence[Sequence[int]] = ()  # groups of rows with identical files
    about: str = ""  # what is to be said of where the labels come from

    def name(self, row: int) -> str:
        """The file name in that row."""
        return self.manifest.cell(row, FILE_NAME)

    def path(self, row: int) -> Path:
        """Where the image of that row is."""
        return self.on_disk.get(self.name(row), self.root / self.name(row))


def find_images(
    images: Path | None,
    manifest: Path | None,
    leave_out: Iterable[Path] = (),
    columns: str | None = None,
) -> ImageFiles:
    """The images of a folder, or of a manifest whose file names are relative to it or to itself.

    A manifest called METADATA is used where it lies in the folder or, one each, in those of splits.
    `leave_out`: folders that no image of `images` is taken from; run folders never count.
    `columns`: see `read_manifest`. Raises OSError or ValueError, naming folder or file and what to
    do, where there are none.
    """
    if not (images or manifest):
        raise ValueError("own images are needed; give --images or --manifest")
    if images and not images.is_dir():
        raise FileNotFoundError(f"--images {images}: no such folder; name where the images are")
    if manifest:
        table, about = read_manifest(manifest, columns=columns), ""
    else:
        table, manifest, about = _metadata(images, columns)
    if table:
        found = _listed(images or manifest.parent, manifest, table)
    else:
        names, warnings = in_folders(images, {os.path.realpath(folder) for folder in leave_out})
        splits = ([k for k, name in enumerate(names) if name[2] == each] for each in ROWS)
        found = ImageFiles(images, of_files(names), *splits, warnings, {})
    if not found.train:
        about = f"; {found.warnings[0]}" if found.warnings else ""
        raise ValueError(
            f"{manifest or images}: has no image to train on; needed is a folder for each class "
            f"(DIR/CLASS/… or DIR/train/CLASS/…), or a manifest with file_name,label{about}"
        )
    return found._replace(about=about)


def _metadata(images: Path, columns: str | None) -> tuple[Manifest | None, Path | None, str]:
    """The manifest in the folder, if it has labels, its place, and a line that tells of it.

    Those in the folders of splits are read as one, whose place is the folder.
    """
    splits = sorted(path for path in images.iterdir() if path.name.casefold() in SPLITS)
    places = [folder / name for folder in (images, *splits) for name in METADATA]
    there = [path for path in places if path.is_file()]
    if any(path.parent == images for path in there):
        there = [path for path in there if path.parent == images]
    elif TRAIN not in {SPLITS[path.parent.name.casefold()] for path in there}:
        there = []
    names = " and ".join(path.relative_to(images).as_posix() for path in there)
    if len(there) > len({path.parent for path in there}):
        raise ValueError(f"{images}: has {names}; name one of them by --manifest")
    if not there and columns:
        raise ValueError(
            f"--columns {columns}: is for a manifest; there is no {' or '.join(METADATA)} in "
            f"{images}, so give --manifest"
        )
    if not there:
        return None, None, ""
    try:
        tables = [read_manifest(path, columns=columns) for path in there]
    except MissingColumn as error:
        if columns:
            raise
        return None, None, f"not used as --manifest: {error}"
    if len({(*table.columns, table.json_lines) for table in tables}) > 1:
        raise ValueError(f"{images}: {names} have different columns; make one --manifest of them")
    folders = [path.parent.relative_to(images) for path in there]
    rows = [
        row for table, folder in zip(tables, folders, strict=True) for row in below(table, folder)
    ]
    place, named = (there[0], there[0]) if len(there) == 1 else (images, f"{images}: {names}")
    about = f"{named}: used as --manifest; names of folders are no labels then"
    return tables[0]._replace(rows=rows), place, about


def _listed(root: Path, path: Path, manifest: Manifest) -> ImageFiles:
    """The whole rows of the manifest at that path with a label and a file that is there."""
    rows: dict[str, list[int]] = {split: [] for split in ROWS}
    splits = splits_of(manifest)
    warnings, seen = _unused(path, manifest), set()
    columns = (manifest.cells(column) for column in (FILE_NAME, LABEL, SPLIT))
    on_disk: dict[str, Path] = {}
    for row, (name, label, split) in enumerate(zip(*columns, strict=True)):
        there = f"{path}: row {row + 1} ({name!r})"
        if (found := file_at(root, name)) != root / name:
            on_disk[name] = found
        place = os.path.normpath(found)
        gone, whole = not os.path.exists(place), manifest.whole(row)
        asked = (label, split, name if gone else "") if whole else manifest.rows[row]
        asked = [cell for cell in asked if manifest.separator in cell]
        asked += [cell for cell in manifest.rows[row] if _holds_a_row(cell, manifest, root)]
        if lines := max((max(map(cell.count, "\n\r")) for cell in asked), default=0):
            raise ValueError(f"{there} spans {lines + 1} lines; is a quotation mark never closed?")
        wrong = {
            f"has {len(manifest.rows[row])} cells, not {len(manifest.columns)}": not whole,
            "has no file name": not name.strip(),
            "has no label": not label.strip(),
            f"has the split {split!r}; known are train, test, val": not splits[row],
            "is listed before; the first row counts": place in seen,
            "has backslashes; write / between folders": gone and "\\" in name,
        }
        if reason := next(filter(wrong.get, wrong), None):
            warnings.append(f"{there} {reason}")
            continue
        seen.add(place)
        rows[splits[row]].append(row)
    return ImageFiles(root, manifest, *rows.values(), warnings, on_disk)


def _holds_a_row(cell: str, manifest: Manifest, root: Path) -> bool:
    """Whether a line within the cell names a file, as where a quotation mark is closed too late."""
    lines = (line.split(manifest.separator) for line in cell.splitlines()[1:])
    place = manifest.place(FILE_NAME)
    named = (line[place] for line in lines if len(line) > max(place, 1))
    return any(name and os.path.isfile(root / name) for name in named)


def _unused(path: Path, manifest: Manifest) -> list[str]:
    """A line for each column whose heading is almost one that would count."""
    known = [each for each in (SPLIT, TRUE_LABEL) if each not in manifest.columns]
    pairs = ((column, column.strip().casefold()) for column in manifest.columns)
    return [
        f"{path}: the column {column!r} does not count; is it {name!r}? Then call it so"
        for column, name in pairs
        if name in known
    ]
