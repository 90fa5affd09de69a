"""Own images: which files there are, by class folders or by a manifest, and what is wrong there."""

import os
from collections.abc import Container, Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from data.own_images.folders import SPLITS, TEST, TRAIN, in_folders
from utils.manifest import FILE_NAME, LABEL, SPLIT, Manifest, nfc, of_files, read_manifest


class ImageFiles(NamedTuple):
    """Images by their rows in a manifest, and a line for each thing that is amiss."""

    root: Path  # the manifest's file names are relative to it
    manifest: Manifest
    train: list[int]  # rows
    test: list[int]
    warnings: list[str]
    on_disk: dict[str, Path]  # where a file is whose name is written there in another Unicode form

    def name(self, row: int) -> str:
        """The file name in that row."""
        return self.manifest.rows[row][self.manifest.columns.index(FILE_NAME)]

    def path(self, row: int) -> Path:
        """Where the image of that row is."""
        return self.on_disk.get(self.name(row), self.root / self.name(row))


def find_images(
    images: Path | None, manifest: Path | None, leave_out: Iterable[Path] = ()
) -> ImageFiles:
    """The images of a folder, or of a manifest whose file names are relative to it or to itself.

    `leave_out`: folders that no image of `images` is taken from; run folders never count. Raises
    OSError or ValueError, naming folder or file and what to do, where there are none.
    """
    if not (images or manifest):
        raise ValueError("own images are needed; give --images or --manifest")
    if images and not images.is_dir():
        raise FileNotFoundError(f"--images {images}: no such folder")
    outputs = {os.path.realpath(folder) for folder in leave_out}
    found = _listed(images, manifest) if manifest else _in_folders(images, outputs)
    if not found.train:
        about = f"; {found.warnings[0]}" if found.warnings else ""
        raise ValueError(
            f"{manifest or images}: has no image to train on; needed is a folder for each class "
            f"(DIR/CLASS/… or DIR/train/CLASS/…), or a manifest with file_name,label{about}"
        )
    return found


def _in_folders(images: Path, outputs: Container[str]) -> ImageFiles:
    """The images in the folders of classes, of which a manifest is made."""
    names, warnings = in_folders(images, outputs)
    train, test = ([k for k, name in enumerate(names) if name[2] == each] for each in (TRAIN, TEST))
    return ImageFiles(images, of_files(names), train, test, warnings, {})


def _listed(images: Path | None, path: Path) -> ImageFiles:
    """The whole rows of a manifest with a label and a file that is there."""
    manifest = read_manifest(path)
    root = images or path.parent
    rows: dict[str, list[int]] = {TRAIN: [], TEST: []}
    splits = SPLITS | {"": TRAIN}
    warnings, seen = [], set()
    columns = (manifest.cells(column) for column in (FILE_NAME, LABEL, SPLIT))
    on_disk: dict[str, Path] = {}
    folders: dict[Path, dict[str, list[str]]] = {}
    for row, (name, label, split) in enumerate(zip(*columns, strict=True)):
        there = f"{path}: row {row + 1} ({name!r})"
        if not name.isascii() and not os.path.exists(root / name):
            on_disk[name] = next(_by_unicode(root, Path(name).parts, folders), root / name)
        place = os.path.normpath(on_disk.get(name, root / name))
        gone = not os.path.exists(place)
        asked = (label, split, name if gone else "") if manifest.whole(row) else manifest.rows[row]
        if lines := sum(max(map(cell.count, "\n\r")) for cell in asked if "," in cell):
            raise ValueError(f"{there} spans {lines + 1} lines; is a quotation mark never closed?")
        reason = (
            f"has {len(manifest.rows[row])} cells, not {len(manifest.columns)}"
            if not manifest.whole(row)
            else "has no file name"
            if not name.strip()
            else "has no label"
            if not label.strip()
            else f"has the split {split!r}; known are train, test, val"
            if split.strip().casefold() not in splits
            else "is listed before; the first row counts"
            if place in seen
            else "has backslashes; write / between folders"
            if gone and "\\" in name
            else None
        )
        if reason:
            warnings.append(f"{there} {reason}")
            continue
        seen.add(place)
        rows[splits[split.strip().casefold()]].append(row)
    return ImageFiles(root, manifest, rows[TRAIN], rows[TEST], warnings, on_disk)


def _by_unicode(
    place: Path, parts: Sequence[str], folders: dict[Path, dict[str, list[str]]]
) -> Iterator[Path]:
    """Where a file may be, the parts of its name compared in NFC; `folders`: lists made before."""
    if not parts:
        yield place
        return
    if place not in folders:
        listed = folders[place] = {}
        with suppress(OSError):
            for name in os.listdir(place):
                listed.setdefault(nfc(name), []).append(name)
    for name in folders[place].get(nfc(parts[0]), ()):
        yield from _by_unicode(place / name, parts[1:], folders)
