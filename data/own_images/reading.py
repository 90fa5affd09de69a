"""Image files of all kinds as small square images; imports no torch, for its processes' sake."""

import hashlib
import io
import itertools
import math
import os
import re
import warnings
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from multiprocessing import get_all_start_methods, get_context
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

CHUNK = 256  # files that a process is given at once
FEW = 2000  # files for which no process is started
RESAMPLING = Image.Resampling.BICUBIC
THUMBNAIL, QUALITY = 96, 85  # pixels; of 100
WHITE = (255, 255, 255, 255)  # behind what is transparent, as a browser shows it
MAX_PIXELS = 2 * Image.MAX_IMAGE_PIXELS  # of an image: Pillow reads none that has more
MAX_BYTES = 4 * MAX_PIXELS  # of a file
DEEP = ("I;16", "I;16B", "I;16L", "I;16N", "I", "F")  # Pillow's modes of more than 8 bits


Values = tuple[float, float, bool]  # lowest or 0, highest, whether all are finite numbers
Scale = tuple[float, float]  # which values are black and white


def scale_of(values: Sequence[Values]) -> Scale:
    """One scale for images of more than 8 bits, integers as well as floats.

    Black is 0, or the lowest value of all if that is negative; white is 1, or the least 2^k - 1
    that no value exceeds.
    """
    lowest, highest, _ = zip(*values, strict=True)
    return min(lowest), float(2 ** math.ceil(max(1.0, *highest)).bit_length() - 1)


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
        if not os.path.isfile(path):  # to read a pipe would be to wait for ever
            return Read(None, "", "not a file" if os.path.exists(path) else "no such file")
        if (length := os.path.getsize(path)) > MAX_BYTES:
            return Read(None, "", f"has {length:,} bytes; at most {MAX_BYTES:,} are read")
        content = path.read_bytes()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of Pillow, at what it reads all the same
            image, values = _decoded(content, size, scale)
            fitted = np.asarray(ImageOps.fit(image, (size, size), RESAMPLING))
        digest = hashlib.blake2b(content, digest_size=8).hexdigest()
        return Read(fitted, digest, values=values, constant=bool((fitted == fitted[0, 0]).all()))
    except Exception as error:  # Pillow meets a broken file with errors of every kind
        passing = isinstance(error, MemoryError) or getattr(error, "errno", None) is not None
        return Read(None, "", _reason(error), passing)


def _reason(error: Exception) -> str:
    """One line of words for what is wrong with a file."""
    if isinstance(error, Image.DecompressionBombError):
        return f"has more than {MAX_PIXELS:,} pixels, the most that are read; make it smaller"
    if isinstance(error, MemoryError):
        return "not enough memory to read it"
    text = getattr(error, "strerror", None) or re.sub(r" ?<[^<>]* at 0x\w+>", "", str(error))
    return " ".join(text.split()) or type(error).__name__


def _decoded(content: bytes, size: int, scale: Scale | None) -> tuple[Image.Image, Values | None]:
    with Image.open(io.BytesIO(content)) as image:
        image.draft(image.mode, (2 * size, 2 * size))  # a large JPEG is decoded smaller
        turned = ImageOps.exif_transpose(image)
        return _grey(turned, scale) if turned.mode in DEEP else (as_rgb(turned), None)


def thumbnail(
    path: Path, scale: Scale | None = None, pixels: NDArray[np.uint8] | None = None
) -> bytes:
    """A JPEG file of the whole image, at most THUMBNAIL pixels wide and high.

    Where the file cannot be read any more: of its `pixels` [size, size, 3] as they were read.
    """
    try:
        image, _ = _decoded(path.read_bytes(), THUMBNAIL, scale)
    except Exception:  # as above
        if pixels is None:
            raise
        image = Image.fromarray(pixels)
    image.thumbnail((THUMBNAIL, THUMBNAIL), RESAMPLING)
    file = io.BytesIO()
    image.save(file, "JPEG", quality=QUALITY, subsampling=0)
    return file.getvalue()


def thumbnails(
    paths: Sequence[Path],
    scale: Scale | None = None,
    pixels: Iterable[NDArray[np.uint8] | None] = itertools.repeat(None),
) -> list[bytes]:
    """JPEG files of several images, made by as many threads as the machine has cores."""
    with warnings.catch_warnings(), ThreadPoolExecutor() as pool:
        warnings.simplefilter("ignore")
        return list(pool.map(thumbnail, paths, itertools.repeat(scale), pixels))


def _grey(image: Image.Image, scale: Scale | None) -> tuple[Image.Image, Values]:
    """An image of more than 8 bits in grey, as RGB; what is no number becomes black."""
    values = np.asarray(image, dtype=np.float64)
    numbers = np.isfinite(values)
    lowest, highest = (float(f(values, initial=0, where=numbers)) for f in (np.min, np.max))
    about = lowest, highest, bool(numbers.all())
    black, white = scale or scale_of([about])
    values = np.where(numbers, values, black).clip(black, white) - black
    grey = (values * (255 / (white - black))).astype(np.uint8)
    return Image.fromarray(grey).convert("RGB"), about


def as_rgb(image: Image.Image) -> Image.Image:
    """An image of 8 bits or fewer in RGB; what is transparent becomes white."""
    if "transparency" in image.info or image.mode in ("RGBA", "LA", "PA", "La", "RGBa"):
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, WHITE), image).convert("RGB")
    return image.convert("RGB")


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
