"""One name in, arrays out: the images of a data set, and the labels given to them."""

from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from data.cifar import CIFAR, Split, load_cifar
from data.cifar_n import fetch_label_file, noisy_labels
from data.digits import MEAN, STD, load_digits, noisy_digits
from data.loader import Augmentation


class ImageSet(NamedTuple):
    """Images with their true classes, and how to prepare them."""

    train: Split
    test: Split
    class_names: list[str]
    mean: tuple[float, ...]  # per channel, as shares of 255
    std: tuple[float, ...]
    augment: Augmentation | None


def load_images(dataset: str, data_dir: Path) -> ImageSet:
    """The named data set; CIFAR is downloaded into `data_dir` where missing.

    Raises OSError, RuntimeError or ValueError for files that are missing or wrong.
    """
    if dataset == "digits":
        return ImageSet(*load_digits(), MEAN, STD, augment=None)
    _, mean, std, augment = CIFAR[dataset]
    return ImageSet(*load_cifar(dataset, data_dir), mean, std, augment)


def given_labels(
    dataset: str,
    noise_type: str,
    clean_labels: Tensor,
    data_dir: Path,
    noise_path: Path | None,
    seed: int,
) -> Tensor:
    """The labels [N] that the named label set gives to the training images, in their order.

    `noise_path`: a label file to read in place of the published one. `seed` draws the labels of
    digits; CIFAR's do not depend on it. Raises OSError or ValueError, with the cure, for files
    that are missing or wrong.
    """
    if dataset == "digits":
        return torch.from_numpy(noisy_digits(noise_type, clean_labels.numpy(), seed))
    if noise_path is None and noise_type in ("clean", "clean100"):
        return clean_labels
    path = noise_path or fetch_label_file(dataset, data_dir)
    return torch.from_numpy(noisy_labels(path, dataset, noise_type, clean_labels.numpy()))
