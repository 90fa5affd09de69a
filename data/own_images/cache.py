"""Own images read once: their pixels in one file of --data_dir, mapped into memory."""

import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from data.download import digest, naming_folder, one_at_a_time
from data.own_images.reading import Read, read_images
from utils.files import PARTIAL, read_json, remove_partial_files, write_json

FOLDER = "own_images"  # in --data_dir


class CachedImages(NamedTuple):
    """The images of the files that could be read, in the files' order."""

    pixels: NDArray[np.uint8]  # [read, size, size, 3], mapped from the disk
    read: list[int]  # positions among the files
    content: list[str]  # digest of each file read
    broken: dict[int, str]  # position -> why it could not be read
    sha256: str  # of the pixels


def cached_images(
    paths: Sequence[Path], names: Sequence[str], size: int, data_dir: Path, quiet: bool
) -> CachedImages:
    """The images at the paths, read by the machine's cores where they are not in the cache.

    They are found again by the files' names, sizes, times and inodes, unless the system failed at
    one of them. Raises OSError or ValueError naming the folder or file, with a hint.
    """
    folder = data_dir / FOLDER
    with naming_folder(folder), one_at_a_time(folder):
        key = _key(paths, names, size)
        pixels, path = folder / f"{key}.pixels", folder / f"{key}.json"
        record = None if path.exists() else _read_into(pixels, path, paths, size, quiet)
        return _mapped(pixels, path, record, size)


def _key(paths: Sequence[Path], names: Sequence[str], size: int) -> str:
    digest = hashlib.blake2b(str(size).encode(), digest_size=12)
    for path, name in zip(paths, names, strict=True):
        try:
            status = os.stat(path)
            times = f"{status.st_mtime_ns} {status.st_ctime_ns}"
            state = f"{status.st_size} {times} {status.st_ino}"
        except OSError:
            state = "missing"
        line = f"{len(name)} {name} {path.parent} {state}\n"
        digest.update(line.encode("utf-8", "surrogateescape"))
    return digest.hexdigest()


def _read_into(
    pixels: Path, path: Path, paths: Sequence[Path], size: int, quiet: bool
) -> dict[str, Any]:
    """Write the pixels of all files that can be read, and after them the record of these."""
    remove_partial_files(pixels.parent)
    partial = pixels.with_name(f".{pixels.name}.{os.getpid()}{PARTIAL}")
    read: list[int] = []
    content: list[str] = []
    broken: dict[str, str] = {}
    passing = False
    try:
        with open(partial, "wb") as file:
            for place, image in enumerate(_with_bar(paths, size, quiet)):
                if image.pixels is None:
                    broken[str(place)] = image.broken
                    passing |= image.passing
                    continue
                file.write(image.pixels.tobytes())
                read.append(place)
                content.append(image.content)
            file.flush()
            os.fsync(file.fileno())
        record = {"read": read, "content": content, "broken": broken, "sha256": digest(partial)}
        partial.replace(pixels)
    finally:
        partial.unlink(missing_ok=True)
    if not passing:
        write_json(path, record | {"checksum": _checksum(record)})
    return record


def _checksum(record: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()


def _with_bar(paths: Sequence[Path], size: int, quiet: bool) -> Iterator[Read]:
    processes = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    images = read_images(paths, size, processes or 1)
    disable = True if quiet else None
    yield from tqdm(images, "reading images", len(paths), unit="image", disable=disable)


def _mapped(pixels: Path, path: Path, record: dict[str, Any] | None, size: int) -> CachedImages:
    """The cache's files, compared with their checksums; raises ValueError for damaged ones."""
    try:
        if record is None:
            record = read_json(path)
            if record.pop("checksum", None) != _checksum(record):
                raise ValueError("the checksum of its record does not match")
        if digest(pixels) != record["sha256"]:
            raise ValueError("its checksum does not match")
        shape = len(record["read"]), size, size, 3
        # Copied on write, which nobody does: torch wants memory that it could write to. An empty
        # file cannot be mapped.
        mapped = np.memmap(pixels, np.uint8, "c", shape=shape) if shape[0] else np.zeros(shape, "B")
    except (ValueError, OSError) as error:
        hint = f"remove {pixels.stem}.* from {path.parent}: the images are then read again"
        raise ValueError(f"{pixels}: damaged ({error}); {hint}") from error
    broken = {int(place): words for place, words in record["broken"].items()}
    return CachedImages(mapped, record["read"], record["content"], broken, record["sha256"])
