"""One name in, arrays and loaders out: a data set's images, and the labels given to them."""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from data.cifar import CIFAR, Split, load_cifar
from data.cifar_n import fetch_label_file, noisy_labels, split_indices
from data.digits import MEAN, STD, load_digits, noisy_digits
from data.loader import Augmentation, Loader

INFER_BATCH = {"cpu": 500, "cuda": 2000}  # images at a time where nothing is learnt
FOR_NETWORKS = 4 * 2**30  # bytes of a GPU's memory that images leave free


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

    Raises OSError, with the cure, for files that are missing or wrong.
    """
    if dataset == "digits":
        return ImageSet(*load_digits(), MEAN, STD, augment=None)
    _, _, mean, std, augment = CIFAR[dataset]
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


class Positions(NamedTuple):
    """Which images of the full set are trained on, scored and validated on."""

    train: NDArray[np.int64]
    scored: NDArray[np.int64]
    val: NDArray[np.int64]


def check_limit(limit: int, labels: Tensor, batch_size: int, class_names: Sequence[str]) -> None:
    """Raises ValueError where the given labels [limit] cannot be learnt from."""
    if limit < batch_size:
        raise ValueError(
            f"--limit_train {limit}: does not fill one batch of {batch_size}; give more, or a "
            "smaller --batch_size"
        )
    counts = torch.bincount(labels, minlength=len(class_names))
    if not counts.all():
        missing = class_names[int((counts == 0).nonzero()[0])]
        raise ValueError(
            f"--limit_train {limit}: none of these images is labelled {missing!r}; give more, or "
            "another --seed"
        )


def choose_positions(count: int, val_ratio: float, seed: int, limit: int | None) -> Positions:
    """The split for that seed; scored are all images, or with a limit those trained on.

    Raises ValueError for a limit above the number of training images.
    """
    train, val = split_indices(count, val_ratio, seed)
    if limit is not None and limit > len(train):
        raise ValueError(f"--limit_train {limit}: there are {len(train)} training images")
    train = train[:limit]
    scored = np.arange(count) if limit is None else np.sort(train)
    # As the authors do, validate on the training images where none are held out.
    return Positions(train, scored, val if len(val) else train)


class Loaders(NamedTuple):
    """The four ways in which images are looked at."""

    train: Loader  # shuffled, augmented
    scored: Loader  # in the order of the data
    val: Loader
    test: Loader


def make_loaders(
    images: ImageSet,
    labels: Tensor,
    positions: Positions,
    batch_size: int,
    generator: torch.Generator,
    augment_scored: bool,
    memory_format: torch.memory_format = torch.contiguous_format,
    before_batch: Callable[[], object] = lambda: None,
) -> Loaders:
    """Loaders for the generator's device; `labels` [N] are the given ones.

    `before_batch`: see `Loader`.
    """
    parts = [(images.train.images[place], labels[place]) for place in positions]
    size = sum(part[0].nbytes for part in parts) + images.test.images.nbytes
    new = partial(
        Loader,
        mean=images.mean,
        std=images.std,
        generator=generator,
        memory_format=memory_format,
        on_host=not fits(size, generator.device),
        before_batch=before_batch,
    )
    infer_batch = INFER_BATCH[generator.device.type]
    train, scored, val = parts
    return Loaders(
        new(*train, batch_size=batch_size, shuffle=True, augment=images.augment),
        new(*scored, batch_size=infer_batch, augment=images.augment if augment_scored else None),
        new(*val, batch_size=infer_batch),
        new(*images.test, batch_size=infer_batch),
    )


def clean_test_loader(
    images: ImageSet,
    generator: torch.Generator,
    memory_format: torch.memory_format = torch.contiguous_format,
) -> Loader:
    """The clean test images in order, for the generator's device."""
    return Loader(
        *images.test,
        mean=images.mean,
        std=images.std,
        batch_size=INFER_BATCH[generator.device.type],
        generator=generator,
        memory_format=memory_format,
        on_host=not fits(images.test.images.nbytes, generator.device),
    )


def fits(size: int, device: torch.device) -> bool:
    """Whether images of `size` bytes have room on the device beside the networks."""
    if device.type != "cuda":
        return True
    return size <= torch.cuda.mem_get_info(device)[0] - FOR_NETWORKS
