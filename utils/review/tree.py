"""Class folders with the labels of a manifest."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from utils.files import PARTIAL
from utils.manifest import FILE_NAME, LABEL, Manifest, file_at, nfc
from utils.split_names import splits_of


def check_tree(out: Path, manifest: Manifest, class_folders: Path | None) -> None:
    """Raise OSError or ValueError where the class folders cannot be made at `out`.

    `class_folders`: what the images were read from, if their folders are their labels.
    """
    place = out.resolve()
    if class_folders and class_folders.resolve() in (place, *place.parents):
        raise ValueError(
            f"--tree {out}: is in {class_folders}, where it would be read as more images; choose "
            "another"
        )
    if out.exists() and not (out.is_dir() and not any(out.iterdir())):
        raise OSError(f"--tree {out}: exists and is no empty folder; choose another")
    if not out.resolve().parent.is_dir():
        raise FileNotFoundError(f"--tree {out}: there is no folder {out.parent}; make it first")
    for label in sorted(set(manifest.cells(LABEL)) - {""}):
        too_long = len(os.fsencode(nfc(label))) > 255
        if label.startswith(".") or {*"/\\"} & {*label} or not label.isprintable() or too_long:
            raise ValueError(
                f"--tree {out}: the label {label[:40]!r} cannot be a folder's name; rename it in "
                "the manifest, or take --out alone"
            )


def write_tree(out: Path, manifest: Manifest, root: Path) -> str:
    """Write CLASS/… into `out`, or with several splits SPLIT/CLASS/…; returns what to say.

    Each image is a hard link, or a copy where that cannot be. `root`: what file names are relative
    to. Raises OSError naming `out`, and then nothing is there.
    """
    images = list(_images(manifest, root))
    if not images:
        raise FileNotFoundError(f"--tree {out}: none of the images is in {root} any more")
    several = len({split for split, _, _ in images}) > 1
    place = out.resolve()
    partial = place.with_name(f".{place.name}.{os.getpid()}{PARTIAL}")
    taken: dict[Path, set[str]] = {}  # class folder -> names in it in lower case
    linked = 0
    try:
        partial.mkdir()
        for split, label, source in images:
            folder = partial / split / label if several else partial / label
            if folder not in taken:
                folder.parent.mkdir(exist_ok=True)
                folder.mkdir()  # fails where names that differ in case are one
            linked += _link(source, folder / _free(source.name, taken.setdefault(folder, set())))
        if place.exists():
            place.rmdir()  # is empty
        partial.rename(place)
    except OSError as error:
        name = Path(error.filename or "").name
        raise OSError(f"--tree {out}: cannot be made ({error.strerror}: {name!r})") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    left_out = len(manifest.rows) - len(images)
    more = f"; {left_out} rows without file, label or split, or listed before" if left_out else ""
    return (
        f"{out}: {len(images)} images in {len(taken)} class folders, {linked} hard links and "
        f"{len(images) - linked} copies{more}"
    )


def _images(manifest: Manifest, root: Path) -> Iterator[tuple[str, str, Path]]:
    """Split, label and file of each row that has them, each file once."""
    columns = manifest.cells(FILE_NAME), manifest.cells(LABEL), splits_of(manifest)
    seen = set()
    for name, label, split in zip(*columns, strict=True):
        source = Path(os.path.normpath(file_at(root, name)))
        if label.strip() and split and source not in seen and source.is_file():
            seen.add(source)
            yield split, nfc(label), source


def _free(name: str, taken: set[str]) -> str:
    """The name, with a number where another file has it."""
    path, number, free = Path(name), 1, name
    while nfc(free).casefold() in taken:
        number += 1
        free = f"{path.stem}_{number}{path.suffix}"
    taken.add(nfc(free).casefold())
    return free


def _link(source: Path, target: Path) -> bool:
    """Whether the file could be linked; else it is copied."""
    try:
        os.link(source.resolve(), target)
    except OSError:  # another file system, or one without links
        shutil.copy2(source, target)
        return False
    return True
