"""Which images are trained on, scored and validated on."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from utils.labels import Positions


def split_indices(
    count: int, val_ratio: float, seed: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Positions of the training and of the validation images, `(train, val)`.

    Of 0..count-1, shuffled by numpy's legacy generator, the first `int(count * val_ratio)` are for
    validation: for the same seed this is the authors' split.
    """
    order = np.arange(count)
    np.random.RandomState(seed).shuffle(order)
    val_count = int(count * val_ratio)
    return order[val_count:], order[:val_count]


def choose_positions(count: int, val_ratio: float, seed: int, limit: int | None) -> Positions:
    """The split for that seed; scored are all images, or with a limit the training images.

    Raises ValueError for a limit above the number of training images, and for a `val_ratio` above 0
    of which nothing is held out.
    """
    train, val = split_indices(count, val_ratio, seed)
    if val_ratio and not len(val):
        hint = "choose a larger share, or 0 to validate on the training images"
        raise ValueError(f"--val_ratio {val_ratio}: is none of {count} images; {hint}")
    if limit is not None and limit > len(train):
        raise ValueError(f"--limit_train {limit}: there are {len(train)} training images")
    train = train[:limit]
    scored = np.arange(count) if limit is None else np.sort(train)
    # As the authors do, validate on the training images where none are held out.
    return Positions(train, scored, val if len(val) else train)


def fold_positions(labels: Tensor, folds: int, fold: int, seed: int) -> Positions:
    """Holds out one of so many folds, which have their share of every class of the labels [N].

    Raises ValueError for more folds than images.
    """
    if folds > len(labels):
        raise ValueError(f"--folds {folds}: there are {len(labels)} images")
    order, _ = split_indices(len(labels), 0, seed)
    by_class = order[np.argsort(labels.numpy()[order], kind="stable")]
    val = by_class[fold::folds]
    return Positions(order[~np.isin(order, val)], np.arange(len(labels)), val)


def with_judged(positions: Positions, count: int, judged: int) -> Positions:
    """The positions, where the last `judged` of `count` images are scored and never trained on."""
    last = np.arange(count - judged, count)
    return positions._replace(scored=np.append(positions.scored, last))


def check_limit(limit: int, labels: Tensor, batch_size: int, class_names: Sequence[str]) -> None:
    """Raises ValueError where the first `limit` training images are too few to train on.

    `labels` [limit]: their given labels, among which each class must occur.
    """
    if limit < batch_size:
        raise ValueError(
            f"--limit_train {limit}: does not fill one batch of {batch_size}; choose a larger "
            "--limit_train or a smaller --batch_size"
        )
    counts = torch.bincount(labels, minlength=len(class_names))
    if not counts.all():
        missing = class_names[int((counts == 0).nonzero()[0])]
        raise ValueError(
            f"--limit_train {limit}: none of these images is labeled {missing!r}; choose a larger "
            "--limit_train or another --seed"
        )


def check_last_batch(images: int, batch_size: int) -> None:
    """Raises ValueError where a batch of `images` small images is one alone.

    Batch norm cannot be trained on one image of 8x8, of which the last stage leaves one pixel.
    """
    if 1 in (batch_size, images % batch_size):
        raise ValueError(
            f"--batch_size {batch_size}: gives a batch of one of the {images} training images, too "
            "few for batch norm on 8x8 images; choose another, or another --limit_train"
        )
