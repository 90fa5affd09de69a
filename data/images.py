"""What a data set is: images as bytes, and their true classes."""

from typing import NamedTuple

from torch import Tensor

from data.augmentation import Augmentation


class Split(NamedTuple):
    """Images as bytes, [N, channels, height, width], and their true classes, [N]."""

    images: Tensor
    clean_labels: Tensor


class ImageSet(NamedTuple):
    """A training and a test split, and how to prepare their images."""

    train: Split
    test: Split
    class_names: list[str]
    mean: tuple[float, ...]  # per channel, as fractions of 255
    std: tuple[float, ...]
    augment: Augmentation | None
