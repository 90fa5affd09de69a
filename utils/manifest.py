"""A manifest: a CSV table of images and their labels, as it was read and as it is corrected."""

import codecs
import csv
import io
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import NamedTuple

FILE_NAME, LABEL = "file_name", "label"  # the columns that must be there
SPLIT, TRUE_LABEL = "split", "true_label"  # understood where they are there
CHANGED_FROM = "changed_from"  # added by a correction: the label that was there before
BYTE_ORDER_MARK = "\ufeff"


def nfc(text: str) -> str:
    """The text in the Unicode form in which names are compared: macOS writes another one."""
    return unicodedata.normalize("NFC", text)


class Manifest(NamedTuple):
    """The table, and how its file is written, so that a corrected one has the same form."""

    columns: list[str]
    rows: list[list[str]]  # cells; a broken row may have fewer or more of them
    line_end: str = "\n"
    mark: str = ""  # the byte-order mark where the file begins with one

    def whole(self, row: int) -> bool:
        """Whether the row has a cell for each column."""
        return len(self.rows[row]) == len(self.columns)

    def cells(self, column: str) -> list[str]:
        """A column's cells; "" where the column is not there or the row is broken."""
        if column not in self.columns:
            return [""] * len(self.rows)
        place = self.columns.index(column)
        return [cells[place] if self.whole(row) else "" for row, cells in enumerate(self.rows)]


def of_files(names: Iterable[tuple[str, str, str]]) -> Manifest:
    """The manifest of a folder, from each image's file name, label and split.

    Without the column `split` where all are of one.
    """
    rows = [list(each) for each in names]
    if len({split for _, _, split in rows}) > 1:
        return Manifest([FILE_NAME, LABEL, SPLIT], rows)
    return Manifest([FILE_NAME, LABEL], [row[:2] for row in rows])


def read_manifest(path: Path, needed: Sequence[str] = (FILE_NAME, LABEL)) -> Manifest:
    """Read a manifest, or another table with the `needed` columns.

    Bytes that are no UTF-8 are kept as they are. Broken rows are the caller's to tell of. Raises
    OSError or ValueError naming the file and what to do.
    """
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
    text = content.decode("utf-8", "surrogateescape")
    mark = BYTE_ORDER_MARK if text.startswith(BYTE_ORDER_MARK) else ""
    text = text.removeprefix(mark)
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    rows, start = [], 1
    try:
        for cells in reader:
            start = reader.line_num + 1
            rows += [cells] if cells else []
    except csv.Error as error:
        raise ValueError(
            f"{path}: line {start}: {error}; is a quotation mark never closed?"
        ) from error
    columns = rows.pop(0) if rows else []
    for name in needed:
        if name not in columns:
            first = ",".join(columns)[:200]
            other = next((mark for mark in ";\t|" if mark in first), "")
            hint = f"; save it with commas, not {other!r}, between the cells" if other else ""
            raise ValueError(
                f"{path}: has no column {name!r}; its first line should be a heading with "
                f"{', '.join(needed)}, and is {first!r}{hint}"
            )
    twice = [name for name in columns if columns.count(name) > 1]
    if twice:
        raise ValueError(f"{path}: has two columns {twice[0]!r}; give one of them another name")
    line_end = "\r\n" if text.split("\n", 1)[0].endswith("\r") else "\n"
    return Manifest(columns, rows, line_end, mark)


def corrected(manifest: Manifest, decisions: Mapping[str, str | None]) -> Manifest:
    """The manifest with other labels, and a last column that tells which label was there before.

    `decisions`: file name -> label, or None for an image to drop, whose row is left out. Broken
    rows stay as they are.
    """
    added = CHANGED_FROM not in manifest.columns
    columns = [*manifest.columns, CHANGED_FROM] if added else manifest.columns
    name, label, changed = (columns.index(each) for each in (FILE_NAME, LABEL, CHANGED_FROM))
    rows = []
    for number, cells in enumerate(manifest.rows):
        if manifest.whole(number):
            cells = [*cells, ""] if added else list(cells)
            decision = decisions.get(cells[name], cells[label])
            if decision is None:
                continue
            if nfc(decision) != nfc(cells[label]):
                cells[label], cells[changed] = decision, cells[label]
        rows.append(cells)
    return manifest._replace(columns=columns, rows=rows)


def as_csv(manifest: Manifest) -> bytes:
    """The file's content."""
    lines = [manifest.columns, *manifest.rows]
    return (manifest.mark + csv_text(lines, manifest.line_end)).encode("utf-8", "surrogateescape")


def csv_text(lines: Iterable[Sequence[object]], line_end: str = "\n") -> str:
    """Rows of cells as CSV; quoted are the cells that need it."""
    written: list[str] = []
    # Before Python 3.13 a lone \r is quoted only where it is in the writer's own line end.
    csv.writer(SimpleNamespace(write=written.append), lineterminator="\r\n").writerows(lines)
    return "".join(line.removesuffix("\r\n") + line_end for line in written)
