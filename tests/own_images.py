"""Made-up images of a user: a folder for each class, files of many kinds, planted wrong labels."""

import os
import signal
from pathlib import Path

import numpy as np
from PIL import Image

COLOURS = {"cat, small": (200, 40, 40), 'dog "big"': (40, 200, 40), "Mäuse": (40, 40, 200)}
NAMES = sorted(COLOURS)  # by which classes are numbered


def picture(generator: np.random.Generator, colour: tuple, size: tuple = (40, 32)) -> Image.Image:
    """Noise around a colour, `size` pixels wide and high."""
    noise = generator.normal(0, 30, (*size[::-1], 3))
    return Image.fromarray((np.array(colour) + noise).clip(0, 255).astype(np.uint8))


def write_folder(folder: Path, count: int = 40, wrong: float = 0.2, test: int = 5) -> list[tuple]:
    """`count` images of each class below train/, `test` below test/.

    Returns file name, label, true label of each training image.
    """
    generator = np.random.default_rng(0)
    rows = []
    for split, number in (("train", count), ("test", test)):
        for true in NAMES:
            for k in range(number):
                label = true
                if split == "train" and generator.random() < wrong:
                    label = generator.choice([name for name in NAMES if name != true])
                path = folder / split / label / f"{true[:3]}_{k}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                picture(generator, COLOURS[true]).save(path)
                if split == "train":
                    rows.append((path.relative_to(folder).as_posix(), str(label), true))
    return rows


def mislabel(folder: Path) -> list[tuple]:
    """Give one test image a wrong label; the test images as rows, see `write_folder`."""
    image = folder / "test" / NAMES[0] / f"{NAMES[0][:3]}_0.png"
    image.rename(folder / "test" / NAMES[1] / image.name)
    of_start = {name[:3]: name for name in NAMES}
    paths = sorted((folder / "test").glob("*/*"))
    return [
        (path.relative_to(folder).as_posix(), path.parent.name, of_start[path.name[:3]])
        for path in paths
    ]


def kill_itself(*_: object, **__: object) -> None:
    """In the place of reading, as the system does when memory runs out."""
    os.kill(os.getpid(), signal.SIGKILL)
