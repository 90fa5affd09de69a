"""What a data set is: images as bytes, and their true classes."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from data.augmentation import Augmentation
from data.own_images.files import ImageFiles
from utils.labels import labels_sha256
from utils.manifest import Manifest
from utils.pictures import Scale, thumbnails
from utils.split_names import TEST, TRAIN, VAL

UNKNOWN = -1  # in the place of a true class


class Split(NamedTuple):
    """Images as bytes, [N, channels, height, width], and their true classes, [N]."""

    images: Tensor
    clean_labels: Tensor


class OwnSource(NamedTuple):
    """Where own images come from: their pixels are mapped from the disk, not held in memory.

    N images: those to train on, and after them test and validation images, which are judged alone.
    """

    files: ImageFiles
    rows: list[int]  # of the manifest, one for each of N images
    judged: int  # how many of the last are test and validation images
    labels: Tensor  # [N], given
    warnings: list[str]  # a line for each thing that is amiss
    sha256: str  # of all pixels
    facts: list[str]  # a line for each thing that is to be said at the start
    scale: Scale | None  # of images of more than 8 bits
    pixels: NDArray[np.uint8]  # [N or more, size, size, 3], as read for training

    def labels_sha256(self) -> str:
        """Digest of labels and images, as in a run's args.json."""
        return labels_sha256(self.labels.numpy(), self.sha256.encode())

    @property
    def manifest(self) -> Manifest:
        """The table that the images are listed in."""
        return self.files.manifest

    def splits(self, positions: NDArray[np.int64]) -> list[str]:
        """Of which split the images at the positions are."""
        of_row = dict.fromkeys(self.files.test, TEST) | dict.fromkeys(self.files.val, VAL)
        return [of_row.get(self.rows[position], TRAIN) for position in positions.tolist()]

    def paths(self, positions: NDArray[np.int64]) -> list[Path]:
        """Where the images at the positions are."""
        return [self.files.path(self.rows[position]) for position in positions.tolist()]

    def file_names(self, positions: NDArray[np.int64]) -> list[str]:
        """File names of the images at the positions."""
        return [self.files.name(self.rows[position]) for position in positions.tolist()]

    def thumbnails(self, positions: NDArray[np.int64]) -> list[bytes]:
        """Small pictures of the images at the positions, by their files if there."""
        paths = [self.files.path(self.rows[k]) for k in positions.tolist()]
        return thumbnails(paths, self.scale, (self.pixels[k] for k in positions))


class ImageSet(NamedTuple):
    """A training and a test split, and how to prepare their images."""

    train: Split  # of own images also those that are judged alone, see OwnSource
    test: Split | None  # of own images its classes are given ones
    class_names: list[str]
    mean: tuple[float, ...]  # per channel, as fractions of 255
    std: tuple[float, ...]
    augment: Augmentation | None
    own: OwnSource | None = None

    def digest(self) -> bytes:
        """What tells own images from others; nothing for the data sets that never change."""
        return self.own.sha256.encode() if self.own else b""
