"""A manifest: a table of images and their labels, as it was read and as it is corrected.

Its file is CSV, also with semicolons or tabs, or JSON lines.
"""

import codecs
import csv
import io
import os
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import NamedTuple

from utils import json_lines

FILE_NAME, LABEL = "file_name", "label"  # the columns that must be there, by whatever heading
SPLIT, TRUE_LABEL = "split", "true_label"  # understood where they are there
METADATA = ("metadata.csv", "metadata.jsonl")  # manifests by their names, in a folder of images
CHANGED_FROM = "changed_from"  # added by a correction: the label that was there before
BYTE_ORDER_MARK = "\ufeff"
SEPARATORS = ",;\t"


def nfc(text: str) -> str:
    """The text in the Unicode form in which names are compared: macOS writes another one."""
    return unicodedata.normalize("NFC", text)


def file_at(root: Path, name: str) -> Path:
    """Where the file of that name is, which may be written on the disk in another Unicode form."""
    place = root / name
    if name.isascii() or os.path.exists(place):
        return place
    forms = (root / unicodedata.normalize(form, name) for form in ("NFC", "NFD"))
    return next(filter(os.path.exists, forms), place)


class Manifest(NamedTuple):
    """The table, and how its file is written, so that a corrected one has the same form."""

    columns: list[str]  # headings
    rows: list[list[str]]  # cells; a broken row may have fewer or more of them
    line_end: str = "\n"
    mark: str = ""  # the byte-order mark where the file begins with one
    separator: str = ","
    json_lines: bool = False  # cells are then values as written, see utils/json_lines.py
    file_name: str = FILE_NAME  # heading of the names
    label: str = LABEL  # heading of the labels

    def whole(self, row: int) -> bool:
        """Whether the row has a cell for each column."""
        return len(self.rows[row]) == len(self.columns)

    def place(self, column: str) -> int | None:
        """Where the column is, whatever its heading; None where it is not."""
        heading = {FILE_NAME: self.file_name, LABEL: self.label}.get(column, column)
        return self.columns.index(heading) if heading in self.columns else None

    def cell(self, row: int, column: str) -> str:
        """The column's text in that row, which must be whole."""
        cell = self.rows[row][self.place(column)]
        return json_lines.text_of(cell) if self.json_lines else cell

    def cells(self, column: str) -> list[str]:
        """A column's texts; "" where the column is not there or the row is broken."""
        if (place := self.place(column)) is None:
            return [""] * len(self.rows)
        found = [cells[place] if self.whole(row) else "" for row, cells in enumerate(self.rows)]
        return [json_lines.text_of(cell) for cell in found] if self.json_lines else found


def of_files(names: Iterable[tuple[str, str, str]]) -> Manifest:
    """The manifest of a folder, from each image's file name, label and split.

    Without the column `split` where all are of one.
    """
    rows = [list(each) for each in names]
    if len({split for _, _, split in rows}) > 1:
        return Manifest([FILE_NAME, LABEL, SPLIT], rows)
    return Manifest([FILE_NAME, LABEL], [row[:2] for row in rows])


def below(manifest: Manifest, folder: Path) -> list[list[str]]:
    """The rows, their file names relative to what the manifest's `folder` is relative to."""
    rows, place = [list(cells) for cells in manifest.rows], manifest.place(FILE_NAME)
    for cells, name in zip(rows, manifest.cells(FILE_NAME), strict=True):
        if name.strip() and folder.parts:
            joined = (folder / name).as_posix()
            cells[place] = json_lines.cell_of(joined) if manifest.json_lines else joined
    return rows


class MissingColumn(ValueError):
    """A table is no manifest."""


def read_manifest(
    path: Path, needed: Sequence[str] = (FILE_NAME, LABEL), columns: str | None = None
) -> Manifest:
    """Read a manifest, or another table with the `needed` columns.

    `columns`: "IMAGE=LABEL", the headings of names and labels where they are others. Bytes that are
    no UTF-8 are kept as they are. Broken rows are the caller's to tell of. Raises OSError or
    ValueError (MissingColumn) naming the file and what to do.
    """
    text = _text(path, needed)
    mark = BYTE_ORDER_MARK if text.startswith(BYTE_ORDER_MARK) else ""
    text = text.removeprefix(mark)
    headings = dict(zip((FILE_NAME, LABEL), columns.split("="), strict=True)) if columns else {}
    wanted = [headings.get(name, name) for name in needed]
    form = {"mark": mark, **headings}
    form["line_end"] = "\r\n" if text.split("\n", 1)[0].endswith("\r") else "\n"
    form["json_lines"] = path.suffix.lower() in json_lines.ENDINGS or text.startswith("{")
    if form["json_lines"]:
        there, rows = json_lines.read_lines(path, text, wanted)
        form["separator"] = json_lines.separator_of(text) if rows else ","
    else:
        form["separator"] = _separator(text, wanted)
        there, *rows = _csv_rows(path, text, form["separator"]) or [[]]
    if missing := [name for name in wanted if name not in there]:
        named = ", ".join(map(repr, there))[:200] or "none"
        own = {*needed} == {FILE_NAME, LABEL}
        hint = "; name those of images and labels by --columns" if own else ""
        raise MissingColumn(f"{path}: has no column {missing[0]!r}; there are {named}{hint}")
    if twice := [name for name in there if there.count(name) > 1]:
        raise ValueError(f"{path}: has two columns {twice[0]!r}; give one of them another name")
    return Manifest(there, rows, **form)


def _text(path: Path, needed: Sequence[str]) -> str:
    """What is in the file; raises OSError or ValueError where it is no text."""
    if not path.is_file():
        raise FileNotFoundError(
            f"{path}: no such file; a CSV file with {', '.join(needed)} is needed"
        )
    content = path.read_bytes()
    if b"\0" in content:
        line = content[: content.index(b"\0")].count(b"\n") + 1
        utf16 = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
        what = "is UTF-16" if utf16 else f"has a NUL character in line {line}; is it UTF-16?"
        raise ValueError(f"{path}: {what}; save it as CSV in UTF-8")
    return content.decode("utf-8", "surrogateescape")


def _separator(text: str, wanted: Sequence[str]) -> str:
    """The first by which the heading has all columns that are wanted, or else the most columns."""
    found: dict[str, list[str]] = {}
    for each in SEPARATORS:
        with suppress(csv.Error):  # told of when the rows are read
            rows = csv.reader(io.StringIO(text, newline=""), delimiter=each)
            found[each] = next(filter(None, rows), [])
    whole = (each for each in found if {*wanted} <= {*found[each]})
    return next(whole, max(found, key=lambda each: len(found[each]), default=","))


def _csv_rows(path: Path, text: str, separator: str) -> list[list[str]]:
    """The rows, blank ones left out; raises ValueError naming the line of one that never ends."""
    reader = csv.reader(io.StringIO(text, newline=""), strict=True, delimiter=separator)
    rows, start = [], 1
    try:
        for cells in reader:
            start = reader.line_num + 1
            rows += [cells] if cells else []
    except csv.Error as error:
        raise ValueError(
            f"{path}: line {start}: {error}; is a quotation mark never closed?"
        ) from error
    return rows


def corrected(manifest: Manifest, decisions: Mapping[str, str | None]) -> Manifest:
    """The manifest with other labels, and a last column that tells which label was there before.

    `decisions`: file name -> label, or None for an image to drop, whose row is left out. Broken
    rows stay as they are.
    """
    added = CHANGED_FROM not in manifest.columns
    columns = [*manifest.columns, CHANGED_FROM] if added else manifest.columns
    names, labels = manifest.cells(FILE_NAME), manifest.cells(LABEL)
    place, changed = manifest.place(LABEL), columns.index(CHANGED_FROM)
    cell_of, blank = str, ""
    if manifest.json_lines:  # a label as it is written elsewhere
        cells_of = {nfc(text): row[place] for text, row in zip(labels, manifest.rows, strict=True)}
        cell_of, blank = (lambda text: cells_of.get(nfc(text)) or json_lines.cell_of(text)), "null"
    rows = []
    for number, cells in enumerate(manifest.rows):
        if manifest.whole(number):
            cells = [*cells, blank] if added else list(cells)
            decision = decisions.get(names[number], labels[number])
            if decision is None:
                continue
            if nfc(decision) != nfc(labels[number]):
                cells[place], cells[changed] = cell_of(decision), cells[place]
        rows.append(cells)
    return manifest._replace(columns=columns, rows=rows)


def as_file(manifest: Manifest) -> bytes:
    """The file's content."""
    columns, rows, line_end, mark, separator, *_ = manifest
    if manifest.json_lines:
        lines = (json_lines.line_text(columns, cells, separator) for cells in rows)
        text = "".join(line + line_end for line in lines)
    else:
        text = csv_text([columns, *rows], line_end, separator)
    return (mark + text).encode("utf-8", "surrogateescape")


def csv_text(lines: Iterable[Sequence[object]], line_end: str = "\n", separator: str = ",") -> str:
    """Rows of cells as CSV; quoted are the cells that need it."""
    written: list[str] = []
    # Before Python 3.13 a lone \r is quoted only where it is in the writer's own line end.
    file, how = SimpleNamespace(write=written.append), {"lineterminator": "\r\n"}
    csv.writer(file, delimiter=separator, **how).writerows(lines)
    return "".join(line.removesuffix("\r\n") + line_end for line in written)
