"""Image files of all kinds as small square images; imports no torch, for its processes' sake."""

import hashlib
import random
import warnings
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from functools import partial
from multiprocessing import get_all_start_methods, get_context
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from utils.pictures import RESAMPLING, Scale, Values, content_of, decoded, reason_of

CHUNK = 256  # files that a process is given at once
MEASURED = 100  # files of which the usual size is taken
FEW = 2000  # files for which no process is started


class Read(NamedTuple):
    """One file: its pixels [size, size, 3] and a digest of its content, or why there are none."""

    pixels: NDArray[np.uint8] | None
    content: str
    broken: str = ""
    passing: bool = False  # the system failed, so that another attempt may succeed
    values: Values | None = None  # of an image of more than 8 bits
    constant: bool = False  # all pixels are of one colour


def read_image(path: Path, size: int, scale: Scale | None = None) -> Read:
    """The image in RGB, turned as its EXIF data say; short side resized, then cut at the centre.

    Of several frames the first. `scale`: of images of more than 8 bits, the file's own if None.
    An unreadable file is told of, not raised.
    """
    try:
        content = content_of(path)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of Pillow, at what it reads all the same
            image, values = decoded(content, size, scale)
            fitted = np.asarray(ImageOps.fit(image, (size, size), RESAMPLING))
        digest = hashlib.blake2b(content, digest_size=8).hexdigest()
        return Read(fitted, digest, values=values, constant=bool((fitted == fitted[0, 0]).all()))
    except Exception as error:  # Pillow meets a broken file with errors of every kind
        passing = isinstance(error, MemoryError) or getattr(error, "errno", None) is not None
        return Read(None, "", reason_of(error), passing)


def usual_side(paths: Sequence[Path]) -> int:
    """Median of the short sides, in pixels, of at most MEASURED files; 0 if none can be read."""
    sides = [0]
    for path in random.Random(0).sample(paths, min(len(paths), MEASURED)):
        with warnings.catch_warnings(), suppress(Exception):  # broken files are told of later
            warnings.simplefilter("ignore")
            if path.is_file():  # to read a pipe would be to wait for ever
                with Image.open(path) as image:
                    sides.append(min(image.size))
    return sorted(sides)[len(sides) // 2]


def read_images(
    paths: Sequence[Path], size: int, processes: int, scale: Scale | None = None
) -> Iterator[Read]:
    """The images in order, read by that many processes unless they are few.

    Raises OSError where the system kills one of the processes.
    """
    if len(paths) < FEW or processes < 2:
        yield from (read_image(path, size, scale) for path in paths)
        return
    chunks = [paths[start : start + CHUNK] for start in range(0, len(paths), CHUNK)]
    method = "forkserver" if "forkserver" in get_all_start_methods() else "spawn"
    try:
        with ProcessPoolExecutor(processes, get_context(method)) as pool:
            for chunk in pool.map(partial(_read_chunk, size=size, scale=scale), chunks):
                yield from chunk
    except BrokenProcessPool as error:
        raise OSError(
            f"one of {processes} processes that read images was killed, most likely for want of "
            "memory; use fewer cores (taskset) or more memory, or make the largest images smaller"
        ) from error


def _read_chunk(paths: Sequence[Path], size: int, scale: Scale | None) -> list[Read]:
    return [read_image(path, size, scale) for path in paths]
