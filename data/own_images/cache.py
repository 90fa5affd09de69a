"""Own images read once: their pixels in one file of --data_dir, mapped into memory."""

import hashlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from data.download import naming_folder, one_at_a_time
from data.own_images.reading import Read, read_images
from utils.cpus import usable_cpus
from utils.files import PARTIAL, read_json, remove_partial_files, write_json

FOLDER = "own_images"  # in --data_dir
HASHED = 2**24  # bytes at a time


class CachedImages(NamedTuple):
    """Those of the files that could be read, in their order."""

    pixels: NDArray[np.uint8]  # [read, size, size, 3], mapped from the disk
    read: list[int]  # positions among the files
    content: list[str]  # digest of each file read
    broken: dict[int, str]  # position -> why it could not be read
    sha256: str  # of the pixels


def cached_images(
    paths: Sequence[Path], names: Sequence[str], size: int, data_dir: Path, quiet: bool
) -> CachedImages:
    """The images at the paths, read by the machine's cores where they are not in the cache.

    It is found again by the files' names, sizes and times. Raises OSError or ValueError naming the
    folder or file, with a hint.
    """
    folder = data_dir / FOLDER
    with naming_folder(folder), one_at_a_time(folder):
        key = _key(paths, names, size)
        pixels, record = folder / f"{key}.pixels", folder / f"{key}.json"
        if not record.exists():
            _read_into(pixels, record, paths, size, quiet)
    return _mapped(pixels, record, size)


def _key(paths: Sequence[Path], names: Sequence[str], size: int) -> str:
    digest = hashlib.blake2b(str(size).encode(), digest_size=12)
    for path, name in zip(paths, names, strict=True):
        try:
            status = os.stat(path)
            state = f"{status.st_size} {status.st_mtime_ns}"
        except OSError:
            state = "missing"
        line = f"{len(name)} {name} {path.parent} {state}\n"
        digest.update(line.encode("utf-8", "surrogateescape"))
    return digest.hexdigest()


def _read_into(pixels: Path, record: Path, paths: Sequence[Path], size: int, quiet: bool) -> None:
    """Write the pixels of all files that can be read, and behind them the record of these."""
    remove_partial_files(pixels.parent)
    partial = pixels.with_name(f".{pixels.name}.{os.getpid()}{PARTIAL}")
    sha256 = hashlib.sha256()
    read: list[int] = []
    content: list[str] = []
    broken: dict[str, str] = {}
    try:
        with open(partial, "wb") as file:
            for place, image in enumerate(_with_bar(paths, size, quiet)):
                if image.pixels is None:
                    broken[str(place)] = image.broken
                    continue
                data = image.pixels.tobytes()
                file.write(data)
                sha256.update(data)
                read.append(place)
                content.append(image.content)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(pixels)
    finally:
        partial.unlink(missing_ok=True)
    digest = sha256.hexdigest()
    write_json(record, {"read": read, "content": content, "broken": broken, "sha256": digest})


def _with_bar(paths: Sequence[Path], size: int, quiet: bool) -> Iterator[Read]:
    images = read_images(paths, size, usable_cpus())
    disable = True if quiet else None
    yield from tqdm(images, "reading images", len(paths), unit="image", disable=disable)


def _mapped(pixels: Path, path: Path, size: int) -> CachedImages:
    """The cache's files, compared with the checksum; raises ValueError for damaged ones."""
    record: dict[str, Any] = read_json(path)
    hint = f"remove {pixels.stem}.* from {path.parent}: the images are then read again"
    try:
        read, broken = list(record["read"]), {int(k): v for k, v in record["broken"].items()}
        content, expected = list(record["content"]), str(record["sha256"])
        if not read:  # an empty file cannot be mapped
            return CachedImages(np.zeros((0, size, size, 3), np.uint8), [], [], broken, expected)
        # Copied on write, which nobody does: torch wants memory that it could write to.
        mapped = np.memmap(pixels, np.uint8, "c", shape=(len(read), size, size, 3))
        if pixels.stat().st_size != mapped.nbytes:
            raise ValueError(f"has {pixels.stat().st_size} bytes, not {mapped.nbytes}")
        sha256 = hashlib.sha256()
        flat = mapped.reshape(-1)
        for start in range(0, len(flat), HASHED):
            sha256.update(flat[start : start + HASHED])
        if sha256.hexdigest() != expected:
            raise ValueError("its checksum does not match")
    except (KeyError, TypeError, AttributeError, ValueError, OSError) as error:
        raise ValueError(f"{pixels}: damaged ({error}); {hint}") from error
    return CachedImages(mapped, read, content, broken, expected)
