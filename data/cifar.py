"""CIFAR-10 and CIFAR-100 through torchvision.datasets, as arrays of bytes."""

from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor
from torchvision import datasets

from data.loader import Augmentation, Window, flip, random_crop


class Split(NamedTuple):
    """Images as bytes, [N, channels, height, width], and their true classes, [N]."""

    images: Tensor
    clean_labels: Tensor


def augment_cifar10(window: Window, generator: torch.Generator) -> Window:
    """Flip, then crop out of the image continued by reflection, as the authors do for CIFAR-10."""
    return random_crop(flip(window, generator), generator, padding=4, mode="reflect")


def augment_cifar100(window: Window, generator: torch.Generator) -> Window:
    """Crop out of the image in a black frame, then flip, as the authors do for CIFAR-100."""
    return flip(random_crop(window, generator, padding=4, mode="zeros"), generator)


class Cifar(NamedTuple):
    """What differs between the two data sets."""

    source: type[datasets.CIFAR10]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    augment: Augmentation


CIFAR = {
    "cifar10": Cifar(
        datasets.CIFAR10, (0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010), augment_cifar10
    ),
    "cifar100": Cifar(
        datasets.CIFAR100, (0.5071, 0.4867, 0.4408), (0.2675, 0.2565, 0.2761), augment_cifar100
    ),
}


def load_cifar(dataset: str, data_dir: Path) -> tuple[Split, Split, list[str]]:
    """Training split, test split and class names; downloaded into `data_dir` where missing.

    torchvision checks every file's MD5 before reading it.
    Raises OSError, naming address and folder, when a file is neither there nor to be had.
    """
    source = CIFAR[dataset].source
    try:
        train, test = (source(data_dir, train=train, download=True) for train in (True, False))
    except (OSError, RuntimeError) as error:
        raise OSError(
            f"cannot read {dataset} in {data_dir} nor download it ({error}); put {source.url}, "
            f"MD5 {source.tgz_md5}, there by hand"
        ) from error
    return _split(train), _split(test), list(train.classes)


def _split(source: datasets.CIFAR10) -> Split:
    images = torch.from_numpy(source.data).permute(0, 3, 1, 2).contiguous()  # [N, 3, 32, 32]
    return Split(images, torch.tensor(source.targets))
