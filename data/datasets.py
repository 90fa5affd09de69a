"""One name in, arrays and loaders out: a data set's images, and the labels given to them."""

import argparse
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from data.cifar import CIFAR, load_cifar
from data.cifar_n import fetch_label_file, noisy_labels
from data.digits import MEAN, STD, load_digits, noisy_digits
from data.images import ImageSet, OwnSource
from data.loader import Loader, PixelTable
from data.own_images.image_set import load_own_images
from data.own_images.judgments import read_features, read_probabilities
from data.splits import (
    check_last_batch,
    check_limit,
    choose_positions,
    fold_positions,
    with_judged,
)
from utils.console import say
from utils.labels import Labels, Positions
from utils.options.own_images import choose_by_count

LARGE = 224  # pixels, the side of images for a backbone
FOLDS = 5  # of the regression on features, where none are asked for
PARTITIONS = 3  # into folds of which that takes the mean
SEEDS = 2**32  # so many there are
INFER_BATCH = {"cpu": 500, "cuda": 2000, "mps": 500}  # images in a batch of an evaluation
FOR_NETWORKS = 4 * 2**30  # bytes of a GPU's memory that the images leave free


def load_images(
    dataset: str, data_dir: Path, own: Mapping[str, Any] | None = None, *, quiet: bool = True
) -> ImageSet:
    """The named data set; CIFAR is downloaded into `data_dir` where missing.

    `own`: for own images the options images, manifest, columns, image_size, no_flip, results_dir;
    `data_dir` keeps what was read of them, with a progress bar unless `quiet`. Raises OSError or
    ValueError, with a hint, for files that are missing or wrong and for a `data_dir` that cannot be
    used.
    """
    if dataset == "folder":
        places = (Path(own[name]) if own.get(name) else None for name in ("images", "manifest"))
        results = [Path(own["results_dir"])] if own.get("results_dir") else []
        how = {"flip": not own.get("no_flip"), "leave_out": results, "columns": own.get("columns")}
        return load_own_images(*places, own.get("image_size"), data_dir, quiet, **how)
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
    own: OwnSource | None = None,
) -> Tensor:
    """The labels [N] that the named label set gives to the training images, in data order.

    `noise_path`: a label file to read in place of the published one. `seed` draws the labels of
    digits; CIFAR's do not depend on it. `own` images bring theirs. Raises OSError or ValueError,
    with a hint, for files that are missing or wrong.
    """
    if own:
        return own.labels
    if dataset == "digits":
        return torch.from_numpy(noisy_digits(noise_type, clean_labels.numpy(), seed))
    if noise_path is None and noise_type in ("clean", "clean100"):
        return clean_labels
    path = noise_path or fetch_label_file(dataset, data_dir)
    return torch.from_numpy(noisy_labels(path, dataset, noise_type, clean_labels.numpy()))


def load_run(args: argparse.Namespace) -> tuple[ImageSet, Labels]:
    """The images of a run with these options of the training script, and their labels.

    For own images it sets the options that their number decides. Raises OSError or ValueError.
    """
    images = load_images(args.dataset, args.data_dir, vars(args), quiet=args.quiet)
    clean, where = images.train.clean_labels, (args.data_dir, args.noise_path)
    given = given_labels(args.dataset, args.noise_type, clean, *where, args.seed, images.own)
    if images.own:
        for line in images.own.facts if not args.fold else ():  # once for all folds
            say(line)
        choose_by_count(args, len(given) - images.own.judged, images.train.images.shape[-1])
    judged = images.own.judged if images.own else 0
    trained = given[: len(given) - judged]
    if args.folds:
        positions = fold_positions(trained, args.folds, args.fold, args.seed)
    else:
        positions = choose_positions(len(trained), args.val_ratio, args.seed, args.limit_train)
    positions = with_judged(positions, len(given), judged)
    test = images.test.clean_labels if images.test else None
    labels = Labels(given, clean, images.class_names, positions, test, judged)
    if args.limit_train:
        check_limit(args.limit_train, labels.train, args.batch_size, images.class_names)
    if args.dataset == "digits":
        check_last_batch(len(positions.train), args.batch_size)
    return images, labels


def judging_probabilities(
    args: argparse.Namespace,
    images: ImageSet,
    backbone: Callable[[str, Tensor], Tensor],
    out_of_fold: Callable[[Tensor, Tensor, list[list[Positions]]], Tensor],
) -> Tensor:
    """Class probabilities [N, C] of own images by what `--method features` is given.

    `backbone`, `out_of_fold`: see models/linear_probe.py. Raises OSError or ValueError.
    """
    own = images.own
    names = own.file_names(np.arange(len(own.labels)))
    if args.probabilities:
        found = read_probabilities(args.probabilities, names, images.class_names)
        return torch.from_numpy(found)
    if args.features:
        features = torch.from_numpy(read_features(args.features, names))
    else:
        large = load_images(args.dataset, args.data_dir, vars(args) | {"image_size": LARGE})
        features = backbone(args.backbone, large.train.images)
    folds, trained = args.folds or FOLDS, own.labels[: len(names) - own.judged]
    last = np.arange(len(trained), len(names))  # test and validation images, in no fold's training
    seeds = ((PARTITIONS * args.seed + again) % SEEDS for again in range(PARTITIONS))
    partitions = [
        [fold_positions(trained, folds, fold, seed) for fold in range(folds)] for seed in seeds
    ]
    for part in partitions:
        part[:] = [each._replace(val=np.append(each.val, last)) for each in part]
    return out_of_fold(features, own.labels, partitions)


class Loaders(NamedTuple):
    """One loader for each use of the images."""

    train: Loader  # shuffled, augmented
    scored: Loader  # in data order, as the two below
    val: Loader
    sample: Loader | None  # training images, see `Labels.sample`
    test: Loader | None  # own images may have none


def make_loaders(
    images: ImageSet,
    labels: Labels,
    batch_size: int,
    generator: torch.Generator,
    augment_scored: bool,
    memory_format: torch.memory_format = torch.contiguous_format,
    before_batch: Callable[[], object] = lambda: None,
) -> Loaders:
    """Loaders for the generator's device; `before_batch`: see `Loader`."""
    table = PixelTable(images.train.images, black=images.own is None)
    places = [torch.from_numpy(part) for part in (*labels.positions, labels.sample)]
    size = images.train.images.nbytes + (images.test.images.nbytes if images.test else 0)
    new = partial(_new_loader(images, generator, memory_format, size), before_batch=before_batch)
    infer_batch = INFER_BATCH[generator.device.type]
    train, scored, val, sample = ((table, labels.given[part], part) for part in places)
    return Loaders(
        new(*train, batch_size=batch_size, shuffle=True, augment=images.augment),
        new(*scored, batch_size=infer_batch, augment=images.augment if augment_scored else None),
        new(*val, batch_size=infer_batch),
        new(*sample, batch_size=infer_batch) if len(labels.sample) else None,
        new(*images.test, batch_size=infer_batch) if images.test else None,
    )


def clean_test_loader(
    images: ImageSet,
    generator: torch.Generator,
    memory_format: torch.memory_format = torch.contiguous_format,
) -> Loader:
    """The test images in data order, for the generator's device; there must be some."""
    size, batch_size = images.test.images.nbytes, INFER_BATCH[generator.device.type]
    new = _new_loader(images, generator, memory_format, size)
    return new(*images.test, batch_size=batch_size)


def _new_loader(
    images: ImageSet, generator: torch.Generator, memory_format: torch.memory_format, size: int
) -> Callable[..., Loader]:
    """Makes loaders of these images, which have `size` bytes together."""
    how = {"mean": images.mean, "std": images.std, "memory_format": memory_format}
    return partial(Loader, generator=generator, on_host=not fits(size, generator.device), **how)


def fits(size: int, device: torch.device) -> bool:
    """Whether images of `size` bytes fit on the device beside the networks."""
    if device.type != "cuda":
        return True
    return size <= torch.cuda.mem_get_info(device)[0] - FOR_NETWORKS
