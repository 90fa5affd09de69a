"""Files that are written whole or not at all, and files from outside that are read with care."""

import csv
import io
import json
import os
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from zipfile import ZipFile, is_zipfile

import numpy as np

# torch is imported where it is needed: the summary does without it.
HEAD = 4096  # bytes
CHECK = "check that path and its permissions"
PARTIAL = ".partial"  # how the name of a file ends while it is written


def write_whole(path: Path, content: bytes | memoryview) -> None:
    """Write a file that has its name only once it is whole and on the disk.

    Raises OSError, naming the file and the cause, and leaves what has stood there as it was, which
    must be a regular file if anything.
    """
    partial = path.with_name(f".{path.name}.{os.getpid()}{PARTIAL}")
    try:
        if path.exists() and not path.is_file():
            raise OSError("not a regular file")
        try:
            with open(partial, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)
    except OSError as error:
        raise OSError(
            f"{path}: cannot be written ({error.strerror or error}); what was there before is kept"
        ) from error


def check_replaceable(
    path: Path, mark: str, force: bool, hint: str = "choose another, or --force"
) -> None:
    """Raise OSError, with the hint, where something is there that is no earlier output of the kind.

    `mark`: what such an output has in its first HEAD bytes. `force`: any regular file may be there.
    """
    if not path.exists():
        return
    if not path.is_file():  # to read a pipe would be to wait for ever
        raise OSError(f"{path}: not a regular file; choose another")
    with open(path, "rb") as file:
        if not force and mark.encode() not in file.read(HEAD):
            raise OSError(f"{path}: exists and is no earlier output; {hint}")


def in_words(error: Exception) -> str:
    """The kind of an error and how what it says begins."""
    said = str(error).splitlines()[:1]
    return ": ".join([type(error).__name__, *(line.split(". ")[0][:100] for line in said)])


def remove_partial_files(folder: Path, prefix: str = ".") -> None:
    """Remove what writers that were killed have left in a folder that nobody else writes to.

    `prefix`: how the names of partial files begin; the default is that of `write_whole`.
    """
    for path in folder.glob(f"{prefix}*{PARTIAL}"):
        path.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write text as UTF-8; bytes of file names that are none stay what they are."""
    write_whole(path, text.encode(errors="surrogateescape"))


def write_json(path: Path, record: dict[str, Any]) -> None:
    """Write a record as indented JSON."""
    write_text(path, json.dumps(record, indent=2) + "\n")


def read_json(path: Path) -> dict[str, Any]:
    """Read a record; raises ValueError naming the file if it is none."""
    content = read_content(path, "record", CHECK)
    try:
        record = json.loads(content)
    except (ValueError, RecursionError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"{path}: not JSON ({reason}); remove it or its run folder") from error
    if not isinstance(record, dict):
        raise ValueError(f"{path}: holds no JSON object; remove it or its run folder")
    return record


def read_columns(path: Path) -> dict[str, list[str]]:
    """The cells of a CSV file by heading, missing ones blank; raises ValueError naming the file."""
    content = read_content(path, "table", CHECK)
    try:
        text = content.decode("utf-8")
        reader = csv.DictReader(io.StringIO(text, newline=""), restval="")
        rows, names = list(reader), reader.fieldnames or ()
    except (csv.Error, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: no table of text ({error})") from error
    return {name: [row[name] for row in rows] for name in names} if rows else {}


def write_arrays(path: Path, **arrays: Any) -> None:
    """Write named arrays as .npz."""
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)  # before numpy 2 allow_pickle would be an array
    write_whole(path, buffer.getbuffer())


def write_array(path: Path, array: np.ndarray) -> None:
    """Write one array as .npy."""
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    write_whole(path, buffer.getbuffer())


def read_content(path: Path, what: str, hint: str) -> bytes:
    """The bytes of a file, read before they are understood: an error below is not of the disk.

    Raises OSError or ValueError naming the file, `what` it should be, and a `hint` at what to do.
    """
    try:
        if path.exists() and not path.is_file():  # to read a pipe would be to wait for ever
            raise ValueError(f"{path}: not a {what}; {hint}")
        return path.read_bytes()
    except OSError as error:
        gone = isinstance(error, FileNotFoundError)
        reason = f"no such {what}" if gone else f"cannot be read ({error.strerror})"
        raise type(error)(f"{path}: {reason}; {hint}") from error


def read_array(path: Path, hint: str) -> np.ndarray:
    """Read one array from .npy, never unpickling; raises OSError or ValueError naming the file.

    `hint`: what to do where there is none.
    """
    content = io.BytesIO(read_content(path, "file", hint))
    try:
        array = np.load(content, allow_pickle=False)
    except Exception as error:  # numpy meets a foreign file with errors of every kind
        raise ValueError(
            f"{path}: not a whole .npy file of plain numbers ({in_words(error)})"
        ) from error
    if not isinstance(array, np.ndarray):
        array.close()
        raise ValueError(f"{path}: is an .npz archive; an .npy file is needed")
    return array


def read_arrays(path: Path, hint: str = CHECK) -> dict[str, np.ndarray]:
    """Read named arrays from .npz, never unpickling; raises OSError or ValueError naming it.

    `hint`: what to do where there is none.
    """
    content = io.BytesIO(read_content(path, "file", hint))
    try:
        if not isinstance(archive := np.load(content, allow_pickle=False), np.lib.npyio.NpzFile):
            raise TypeError("a single array")
        with archive:
            return dict(archive)
    except Exception as error:  # as above
        raise ValueError(
            f"{path}: not a whole .npz file of plain numbers ({in_words(error)})"
        ) from error


def write_tensors(path: Path, content: dict[str, Any]) -> None:
    """Write tensors in plain containers with torch.save."""
    import torch

    buffer = io.BytesIO()  # a full disk while torch writes would be an error that hides its cause
    torch.save(content, buffer)
    write_whole(path, buffer.getbuffer())


def read_tensors(
    path: Path,
    what: str,
    hint: str,
    allowed_types: Sequence[Any] = (),
    kinds: type | tuple[type, ...] = dict,
) -> Any:
    """Read a dictionary of plain containers and tensors onto the CPU, never running foreign code.

    `allowed_types`: types beyond torch's own that may be rebuilt; `kinds`: what may be read, a
    dictionary unless others are named. The checksums inside of the file are compared, which torch
    leaves out. Raises OSError or ValueError, naming the file, `what` it should be, and a `hint` at
    what to do.
    """
    import torch

    content = read_content(path, what, hint)
    allowed = torch.serialization.safe_globals(list(allowed_types))
    try:
        damaged = is_zipfile(io.BytesIO(content)) and ZipFile(io.BytesIO(content)).testzip()
        if not damaged:
            with allowed, warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of a strange pickle's format: refused below
                tensors = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except Exception as error:  # the unpickler meets a foreign file with errors of every kind
        raise ValueError(f"{path}: not a readable {what} ({in_words(error)}); {hint}") from error
    if damaged:
        raise ValueError(f"{path}: damaged, a checksum inside it does not match; {hint}")
    if not isinstance(tensors, kinds):
        raise ValueError(f"{path}: not a {what} of this project's format; {hint}")
    return tensors
