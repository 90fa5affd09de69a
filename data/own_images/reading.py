"""Image files of all kinds as small square images; imports no torch, for its processes' sake."""

import hashlib
import io
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
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
SIXTEEN_BITS = ("I;16", "I;16B", "I;16L", "I;16N")


class Read(NamedTuple):
    """One file: its pixels [size, size, 3] and a digest of its content, or why there are none."""

    pixels: NDArray[np.uint8] | None
    content: str
    broken: str = ""


def read_image(path: Path, size: int) -> Read:
    """The image in RGB, turned as its EXIF data say; short side resized, then cut at the centre.

    Of several frames the first. An unreadable file is told of, not raised.
    """
    try:
        if not path.is_file():  # to read a pipe would be to wait for ever
            return Read(None, "", "not a file" if path.exists() else "no such file")
        content = path.read_bytes()
        fitted = ImageOps.fit(_decoded(content, size), (size, size), RESAMPLING)
        return Read(np.asarray(fitted), hashlib.blake2b(content, digest_size=8).hexdigest())
    except Exception as error:  # Pillow meets a broken file with errors of every kind
        return Read(None, "", " ".join(str(error).split()) or type(error).__name__)


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
    with ThreadPoolExecutor() as pool:
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
    """The images in order, read by that many processes unless they are few."""
    if len(paths) < FEW or processes < 2:
        yield from (read_image(path, size) for path in paths)
        return
    chunks = [paths[start : start + CHUNK] for start in range(0, len(paths), CHUNK)]
    with ProcessPoolExecutor(processes, get_context("forkserver")) as pool:
        for chunk in pool.map(_read_chunk, chunks, [size] * len(chunks)):
            yield from chunk


def _read_chunk(paths: Sequence[Path], size: int) -> list[Read]:
    return [read_image(path, size) for path in paths]
