"""Image files of all kinds as small square images; imports no torch, for its processes' sake."""

import hashlib
import io
import os
import re
import warnings
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
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
SIXTEEN_BITS = ("I;16", "I;16B", "I;16L", "I;16N")


class Read(NamedTuple):
    """One file: its pixels [size, size, 3] and a digest of its content, or why there are none."""

    pixels: NDArray[np.uint8] | None
    content: str
    broken: str = ""
    passing: bool = False  # the system failed, so that another attempt may succeed


def read_image(path: Path, size: int) -> Read:
    """The image in RGB, turned as its EXIF data say; short side resized, then cut at the centre.

    Of several frames the first. An unreadable file is told of, not raised.
    """
    try:
        if not os.path.isfile(path):  # to read a pipe would be to wait for ever
            return Read(None, "", "not a file" if os.path.exists(path) else "no such file")
        if (length := os.path.getsize(path)) > MAX_BYTES:
            return Read(None, "", f"has {length:,} bytes; at most {MAX_BYTES:,} are read")
        content = path.read_bytes()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of Pillow, at what it reads all the same
            fitted = ImageOps.fit(_decoded(content, size), (size, size), RESAMPLING)
        return Read(np.asarray(fitted), hashlib.blake2b(content, digest_size=8).hexdigest())
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


def _decoded(content: bytes, size: int) -> Image.Image:
    with Image.open(io.BytesIO(content)) as image:
        image.draft(image.mode, (2 * size, 2 * size))  # a large JPEG is decoded smaller
        return as_rgb(ImageOps.exif_transpose(image))


def thumbnail(path: Path) -> bytes:
    """A JPEG file of the whole image, at most THUMBNAIL pixels wide and high."""
    image = _decoded(path.read_bytes(), THUMBNAIL)
    image.thumbnail((THUMBNAIL, THUMBNAIL), RESAMPLING)
    file = io.BytesIO()
    image.save(file, "JPEG", quality=QUALITY, subsampling=0)
    return file.getvalue()


def thumbnails(paths: Sequence[Path]) -> list[bytes]:
    """Those of several images, by as many threads as the machine has cores."""
    with warnings.catch_warnings(), ThreadPoolExecutor() as pool:
        warnings.simplefilter("ignore")
        return list(pool.map(thumbnail, paths))


def as_rgb(image: Image.Image) -> Image.Image:
    """Any of Pillow's kinds of images in RGB; what is transparent becomes white."""
    if image.mode in SIXTEEN_BITS or image.mode in ("I", "F"):
        values = np.asarray(image, dtype=np.float64)
        largest = 65535 if image.mode != "F" and values.max(initial=0) > 255 else 255
        grey = (values.clip(0, largest) * (255 / largest)).astype(np.uint8)
        return Image.fromarray(grey).convert("RGB")
    if "transparency" in image.info or image.mode in ("RGBA", "LA", "PA", "La", "RGBa"):
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, WHITE), image).convert("RGB")
    return image.convert("RGB")


def read_images(paths: Sequence[Path], size: int, processes: int) -> Iterator[Read]:
    """The images in order, read by that many processes unless they are few.

    Raises OSError where the system kills one of the processes.
    """
    if len(paths) < FEW or processes < 2:
        yield from (read_image(path, size) for path in paths)
        return
    chunks = [paths[start : start + CHUNK] for start in range(0, len(paths), CHUNK)]
    try:
        with ProcessPoolExecutor(processes, get_context("forkserver")) as pool:
            for chunk in pool.map(_read_chunk, chunks, [size] * len(chunks)):
                yield from chunk
    except BrokenProcessPool as error:
        raise OSError(
            f"one of {processes} processes that read images was killed, most likely for want of "
            "memory; use fewer cores (taskset) or more memory, or make the largest images smaller"
        ) from error


def _read_chunk(paths: Sequence[Path], size: int) -> list[Read]:
    return [read_image(path, size) for path in paths]
