"""CIFAR-10 and CIFAR-100 through torchvision.datasets, as arrays of bytes."""

from pathlib import Path
from typing import Any, NamedTuple

import torch

from data.augmentation import Augmentation, augment_cifar10, augment_cifar100
from data.download import digest, fetch, naming_folder, one_at_a_time
from data.images import Split


class Cifar(NamedTuple):
    """What differs between the two data sets."""

    source: str  # its class in torchvision.datasets
    sha256: str  # of the archive
    mean: tuple[float, ...]
    std: tuple[float, ...]
    augment: Augmentation


CIFAR = {
    "cifar10": Cifar(
        "CIFAR10",
        "6d958be074577803d12ecdefd02955f39262c83c16fe9348329d7fe0b5c001ce",
        (0.4914, 0.4822, 0.4465),
        (0.2023, 0.1994, 0.2010),
        augment_cifar10,
    ),
    "cifar100": Cifar(
        "CIFAR100",
        "85cd44d02ba6437773c5bbd22e183051d648de2e7d6b014e1ef29b855ba677a7",
        (0.5071, 0.4867, 0.4408),
        (0.2675, 0.2565, 0.2761),
        augment_cifar100,
    ),
}


def load_cifar(dataset: str, data_dir: Path) -> tuple[Split, Split, list[str]]:
    """Training split, test split and class names; downloaded into `data_dir` where missing.

    torchvision checks every file's MD5 before reading it. Raises OSError where the archive cannot
    be downloaded (naming URL, file, checksum and folder) or the folder cannot be used, ValueError
    when another file stands in the archive's place.
    """
    from torchvision import datasets  # takes seconds, which the digits do not need

    source, sha256 = getattr(datasets, CIFAR[dataset].source), CIFAR[dataset].sha256
    with naming_folder(data_dir):
        train = _intact(source, data_dir)
        if train is None:
            with one_at_a_time(data_dir):
                # Another process may have fetched it meanwhile.
                train = _intact(source, data_dir) or _unpacked(source, data_dir, sha256)
        test = source(data_dir, train=False)
    return _split(train), _split(test), list(train.classes)


def _intact(source: Any, data_dir: Path) -> Any:
    """The training split, None where any of the data set's files is missing or damaged."""
    try:
        return source(data_dir, train=True)
    except RuntimeError:
        return None


def _unpacked(source: Any, data_dir: Path, sha256: str) -> Any:
    """The training split from the archive, which is downloaded where missing."""
    archive = data_dir / source.filename
    if not archive.exists():
        fetch(source.url, archive, sha256)
    elif digest(archive) != sha256:
        raise ValueError(
            f"{archive}: damaged, its SHA-256 is not that of the published file ({sha256}); remove "
            "it to download it again"
        )
    return source(data_dir, train=True, download=True)


def _split(source: Any) -> Split:
    images = torch.from_numpy(source.data).permute(0, 3, 1, 2).contiguous()  # [N, 3, 32, 32]
    return Split(images, torch.tensor(source.targets))
