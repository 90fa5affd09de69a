"""Image files of all kinds, decoded with Pillow, and small pictures of them; imports no torch."""

import io
import itertools
import math
import os
import re
import warnings
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

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


def content_of(path: Path) -> bytes:
    """The file's bytes; raises OSError or ValueError where it is none, or too large a one."""
    if not os.path.isfile(path):  # to read a pipe would be to wait for ever
        raise ValueError("not a file" if os.path.exists(path) else "no such file")
    if (length := os.path.getsize(path)) > MAX_BYTES:
        raise ValueError(f"has {length:,} bytes; at most {MAX_BYTES:,} are read")
    return path.read_bytes()


def reason_of(error: Exception) -> str:
    """One line of words for what is wrong with a file."""
    if isinstance(error, Image.DecompressionBombError):
        return f"has more than {MAX_PIXELS:,} pixels, the most that are read; make it smaller"
    if isinstance(error, MemoryError):
        return "not enough memory to read it"
    text = getattr(error, "strerror", None) or re.sub(r" ?<[^<>]* at 0x\w+>", "", str(error))
    return " ".join(text.split()) or type(error).__name__


def decoded(content: bytes, size: int, scale: Scale | None) -> tuple[Image.Image, Values | None]:
    """The image in RGB, and the values of one of more than 8 bits; `size`: pixels that suffice."""
    with Image.open(io.BytesIO(content)) as image:
        image.draft(image.mode, (2 * size, 2 * size))  # a large JPEG is decoded smaller
        turned = ImageOps.exif_transpose(image)
        return _grey(turned, scale) if turned.mode in DEEP else (as_rgb(turned), None)


def thumbnail(
    path: Path, scale: Scale | None = None, pixels: NDArray[np.uint8] | None = None
) -> bytes | str:
    """A JPEG file of the whole image, at most THUMBNAIL pixels wide and high.

    Where the file cannot be read any more: of its `pixels` [size, size, 3] as they were read, or
    without them why it cannot.
    """
    try:
        image, _ = decoded(content_of(path), THUMBNAIL, scale)
    except Exception as error:  # Pillow meets a broken file with errors of every kind
        if pixels is None:
            return reason_of(error)
        image = Image.fromarray(pixels)
    image.thumbnail((THUMBNAIL, THUMBNAIL), RESAMPLING)
    file = io.BytesIO()
    image.save(file, "JPEG", quality=QUALITY, subsampling=0)
    return file.getvalue()


def thumbnails(
    paths: Sequence[Path],
    scale: Scale | None = None,
    pixels: Iterable[NDArray[np.uint8] | None] = itertools.repeat(None),
) -> list[bytes | str]:
    """`thumbnail` of several images, by as many threads as the machine has cores."""
    with warnings.catch_warnings(), ThreadPoolExecutor() as pool:
        warnings.simplefilter("ignore")  # of Pillow, at what it reads all the same
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
