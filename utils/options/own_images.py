"""The options of `--dataset folder`: the user's own images."""

import argparse
from typing import Any

from utils.console import say
from utils.manifest import METADATA
from utils.methods import METHODS
from utils.options.values import add_options, column_names, count_or_none, resolved_path

OWN_IMAGES = "folder"  # the data set
RUNS_OF_OWN_IMAGES = {"net": "compact", "method": "bkd+"}  # the defaults
IMAGE_SIZES = (32, 64, 96)
BY_COUNT = {"image_size", "n_epoch", "batch_size", "width", "folds", "detection", "val_ratio"}
VAL_RATIO = 0.1
MANY = 20_000  # images, of which networks memorize few; they are judged by the last networks
OWN_OPTIONS = {
    ("images", resolved_path, None, "FOLDER"): "folder with a folder of images for each class, "
    "directly or in train/ and test/",
    ("manifest", resolved_path, None, "FILE"): "CSV or JSON lines file with the columns file_name "
    "and label, perhaps split and true_label; file names are relative to --images, or to the "
    f"file's own folder. Without it {' or '.join(METADATA)} in --images counts, if it has labels",
    ("columns", column_names, None, "IMAGE=LABEL"): "columns of the manifest that hold file names "
    "and labels; without it file_name=label",
}
JUDGES = {
    ("features", resolved_path, None, "FILE"): "features of all images, an .npz of file_name [N] "
    "and features [N, D]",
    ("backbone", str, None, "NAME"): "torchvision network of which the features are taken; its "
    "weights are downloaded",
    ("probabilities", resolved_path, None, "FILE"): "class probabilities by another program, each "
    "image's by a model that was trained without it; an .npz of file_name [N], probabilities "
    "[N, C] and class_names [C]",
}
FOLDS = {
    ("folds", count_or_none, 0, "NUMBER"): "parts of the images, each judged by networks that were "
    "trained on the others: so many runs, without --val_ratio; 0: the last networks judge what "
    f"they were trained on (default for own images: 5 below {MANY:,} images, without --limit_train)"
}


def add_judges(parser: argparse.ArgumentParser) -> None:
    """What judges the labels."""
    group = parser.add_argument_group("judging labels", "all but --folds: of --method features")
    add_options(group, FOLDS | JUDGES)


def given_judges(options: argparse.Namespace) -> list[str]:
    """The options by which something other than the run's networks judges the labels."""
    return [name for name, *_ in JUDGES if getattr(options, name, None)]


def add_own_images(parser: argparse.ArgumentParser) -> None:
    """Where the images are."""
    defaults = " ".join(f"--{name} {value}" for name, value in RUNS_OF_OWN_IMAGES.items())
    group = parser.add_argument_group(
        "own images", f"of --dataset {OWN_IMAGES}, whose defaults are {defaults}"
    )
    add_options(group, OWN_OPTIONS)


def wrong_own_images(options: argparse.Namespace) -> str | None:
    """What is wrong: own images must be named, and belong to no other data set."""
    judges = given_judges(options)
    if judges and options.method != "features":
        return f"--{judges[0]} is for --method features"
    if options.method == "features" and hasattr(options, "features") and len(judges) != 1:
        return "--method features needs one of --features, --backbone and --probabilities"
    for name in ("limit_train", "measure_steps"):
        if options.method == "features" and getattr(options, name, None):
            return f"--{name} is for methods that train a network"
    if options.dataset == OWN_IMAGES:
        folds = getattr(options, "folds", None)
        if judges and folds is not None and (folds == 0 or options.probabilities):
            takes = "none" if options.probabilities else "2 or more"
            return f"--folds {folds}: --{judges[0]} takes {takes}"
        if judges and (
            options.val_ratio is not None or options.detection not in (None, "posterior")
        ):
            name = "val_ratio" if options.val_ratio is not None else "detection"
            return f"--{name} {getattr(options, name)} is for methods that train a network"
        if options.noise_path:
            return "--noise_path is for CIFAR; own labels are in --images or --manifest"
        if not (options.images or options.manifest or getattr(options, "run_dir", None)):
            return (
                f"--dataset {OWN_IMAGES} needs --images FOLDER, with a folder for each class in "
                "it, or --manifest FILE, with the columns file_name and label"
            )
        return None
    if options.method == "features":
        return f"--method features is for --dataset {OWN_IMAGES}, not {options.dataset}"
    for name in ("images", "manifest", "columns", "image_size", "no_flip"):
        if getattr(options, name, None):
            return f"--{name} is for --dataset {OWN_IMAGES}, not {options.dataset}"
    return None


def choose_by_count(options: argparse.Namespace, images: int, side: int) -> None:
    """Set the options of BY_COUNT, which the images decide, where not given, and tell.

    `images`: their number; `side`: theirs, as they were read. Raises ValueError for a --val_ratio
    that folds leave no use for.
    """
    defaults = defaults_by_count(options.method, images, side)
    if not METHODS[options.method].has_networks:
        vars(options).update(defaults | {"folds": options.folds or defaults["folds"]})
        options.val_ratio = VAL_RATIO
        return
    if options.limit_train:
        defaults["folds"] = 0
    if options.folds == 0 or (defaults["folds"] == 0 and not options.folds):
        defaults["detection"] = "final"
    chosen = {name: value for name, value in defaults.items() if getattr(options, name) is None}
    vars(options).update(chosen)
    if options.val_ratio is None:
        options.val_ratio = VAL_RATIO
    elif options.folds and options.val_ratio != VAL_RATIO:
        raise ValueError(
            f"--val_ratio {options.val_ratio}: each of --folds {options.folds} holds out its part "
            "of the images; leave it out, or choose --folds 0"
        )
    if chosen:
        words = " ".join(f"--{name} {value}" for name, value in chosen.items())
        say(f"{images} images: {words} unless you choose others")


def defaults_by_count(method: str, images: int, side: int = IMAGE_SIZES[0]) -> dict[str, Any]:
    """Epochs, batch size, width, folds and what flags for so many images; `side`: theirs."""
    few = images < 2_000
    epochs = 60 if few else 30 if images < MANY else 40
    return {
        "image_size": side,
        "n_epoch": epochs if METHODS[method].has_student else epochs // 4,  # one soon memorizes
        "batch_size": 32 if few else 64 if images < MANY else 128,
        "width": 32,
        "folds": 5 if images < MANY else 0,
        "detection": "posterior" if images < MANY else "final",
    }
