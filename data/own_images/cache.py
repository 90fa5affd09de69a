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
from utils.cpus import usable_cpus
from utils.files import PARTIAL, read_json, remove_partial_files, write_json
from utils.pictures import Scale, scale_of

FOLDER = "own_images"  # in --data_dir


class CachedImages(NamedTuple):
    """The images of the files that could be read, in the files' order."""

    pixels: NDArray[np.uint8]  # [read, size, size, 3], mapped from the disk
    read: list[int]  # positions among the files
    content: list[str]  # digest of each file read
    broken: dict[int, str]  # position -> why it could not be read
    sha256: str  # of the pixels
    scale: Scale | None  # of images of more than 8 bits
    deep: int  # how many these are
    not_finite: int  # how many of these have NaN or infinite values
    constant: list[int]  # which of the read are of a single colour


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
    key = hashlib.blake2b(str(size).encode(), digest_size=12)
    for path, name in zip(paths, names, strict=True):
        try:
            status = os.stat(path)
            times = f"{status.st_mtime_ns} {status.st_ctime_ns}"
            state = f"{status.st_size} {times} {status.st_ino}"
        except OSError:
            state = "missing"
        line = f"{len(name)} {name} {path.parent} {state}\n"
        key.update(line.encode("utf-8", "surrogateescape"))
    return key.hexdigest()


def _read_into(
    pixels: Path, path: Path, paths: Sequence[Path], size: int, quiet: bool
) -> dict[str, Any]:
    """Write the pixels of all files that can be read, and after them the record of these."""
    remove_partial_files(pixels.parent)
    partial = pixels.with_name(f".{pixels.name}.{os.getpid()}{PARTIAL}")
    images: list[Read] = []  # without their pixels
    try:
        with open(partial, "wb") as file:
            for image in _with_bar(paths, size, quiet):
                file.write(b"" if image.pixels is None else image.pixels.tobytes())
                images.append(image._replace(pixels=None))
            read = [place for place, image in enumerate(images) if not image.broken]
            values = {k: images[place].values for k, place in enumerate(read)}
            deep = {k: each for k, each in values.items() if each}
            scale = scale_of([*deep.values()]) if deep else None
            again = {k: read[k] for k, each in deep.items() if scale_of([each]) != scale}
            anew = _with_bar([paths[place] for place in again.values()], size, quiet, scale)
            for (k, place), image in zip(again.items(), anew, strict=True):
                if image.content != images[place].content:
                    raise ValueError(f"{paths[place]}: changed while it was read; start again")
                file.seek(k * image.pixels.nbytes)
                file.write(image.pixels.tobytes())
                images[place] = image._replace(pixels=None)
            file.flush()
            os.fsync(file.fileno())
        record = {
            "read": read,
            "content": [images[place].content for place in read],
            "broken": {str(k): image.broken for k, image in enumerate(images) if image.broken},
            "sha256": digest(partial),
            "scale": scale,
            "deep": len(deep),
            "not_finite": sum(not finite for _, _, finite in deep.values()),
            "constant": [k for k, place in enumerate(read) if images[place].constant],
        }
        partial.replace(pixels)
    finally:
        partial.unlink(missing_ok=True)
    if not any(image.passing for image in images):
        write_json(path, record | {"checksum": _checksum(record)})
    return record


def _checksum(record: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()


def _with_bar(
    paths: Sequence[Path], size: int, quiet: bool, scale: Scale | None = None
) -> Iterator[Read]:
    if not paths:
        return
    images = read_images(paths, size, usable_cpus(), scale)
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
        record["broken"] = {int(place): words for place, words in record["broken"].items()}
        record["scale"] = record["scale"] and tuple(record["scale"])
        return CachedImages(mapped, **record)
    except (ValueError, OSError, KeyError, TypeError) as error:
        hint = f"remove {pixels.stem}.* from {path.parent}: the images are then read again"
        raise ValueError(f"{pixels}: damaged ({error}); {hint}") from error
