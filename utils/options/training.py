"""The options of `blind_knowledge_dist_training.py`. The defaults are the authors' for CIFAR-10."""

from collections.abc import Mapping
from typing import Any

from utils.options.departures import add_departures
from utils.options.own_images import IMAGE_SIZES
from utils.options.parser import (
    DETECTIONS,
    LabelSets,
    OwnDefaults,
    RunParser,
    add_batch_size,
    add_device_options,
)
from utils.options.values import count, count_or_none, fraction, not_negative, positive, ratio

OWN_DEFAULTS = (
    OwnDefaults({"method": "ce"}, {"detection": "final"}),
    OwnDefaults(
        {"method": "bkd+"},
        {
            "class_balance": 1.0,
            "marginal_momentum": 0.9,
            "target": "posterior",
            "target_for": "both",
            "compensation": "naive",
            "ema_decay": 0.99,
            "detection": "final",
        },
    ),
    OwnDefaults(
        {"net": "compact"},
        {
            "width": 32,
            "n_epoch": 18,
            "lr": 0.1,
            "lr_schedule": "after_tipping",
            "warm_up": 1.0,
            "augmentation": "after_tipping",
            "checkpoint_freq": 1,
            "clean_test_freq": 2,
            "noisy_val_freq": 2,
        },
    ),
    OwnDefaults(
        {"net": "compact", "method": "ce"},
        {
            "n_epoch": 12,
            "lr": 0.2,
            "lr_schedule": "linear",
            "warm_up": 2.0,
            "augmentation": "always",
        },
    ),
    OwnDefaults({"net": "compact", "method": "bkd+"}, {"n_epoch": 40}),
    OwnDefaults(
        {"dataset": "digits"},
        {"width": 16, "batch_size": 64, "n_epoch": 30, "lr_step": 15, "val_ratio": 0.0},
    ),
    OwnDefaults({"dataset": "digits", "net": "compact"}, {"lr": 0.2}),
    OwnDefaults(
        {"dataset": "folder"},
        {"class_prior": "labels", "image_size": 32},
    ),
    OwnDefaults(
        {"dataset": "digits", "method": "bkd+"},
        {
            "target": "student",
            "target_for": "teacher",
            "compensation": "always",
            "alpha1": 0.5,
            "alpha2": 0.7,
            "alpha3": 0.8,
            "alpha4": 1.0,
            "ema_decay": 0.0,
            "lr": 0.04,
            "lr_step": 20,
        },
    ),
)


def training_parser(label_sets: Mapping[str, LabelSets]) -> RunParser:
    """The parser; `label_sets`: those of each data set."""
    parser = RunParser(
        label_sets,
        OWN_DEFAULTS,
        description="Train teacher and student on noisy labels and write a run folder.",
        epilog="Own defaults: "
        + "; ".join(f"{_words(own.runs)}: {_words(own.defaults)}" for own in OWN_DEFAULTS),
    )
    add_device_options(parser)
    _add_data_and_length(parser)
    _add_network_and_optimiser(parser)
    _add_method(parser)
    add_departures(parser)
    _add_resuming(parser)
    _add_reporting(parser)
    return parser


def _words(options: Mapping[str, Any]) -> str:
    return " ".join(f"--{name} {value}" for name, value in options.items())


def _add_data_and_length(parser: RunParser) -> None:
    group = parser.add_argument_group("data and length")
    group.add_argument(
        "--image_size",
        type=int,
        choices=IMAGE_SIZES,
        help="side in pixels to which own images are brought: the short side is resized, then the "
        "centre cut out",
    )
    group.add_argument(
        "--no_flip",
        action="store_true",
        help="own images: do not mirror them at random, for letters and all else that mirroring "
        "makes another class of",
    )
    group.add_argument(
        "--val_ratio",
        type=ratio,
        default=0.1,
        metavar="SHARE",
        help="share of the training images held out for noisy validation, 0 to below 1",
    )
    group.add_argument(
        "--n_epoch", type=count, default=300, metavar="EPOCHS", help="number of epochs"
    )
    add_batch_size(group)
    group.add_argument(
        "--augmentation",
        choices=("always", "after_tipping"),
        default="always",
        help="flips and crops of the training images; always, or after_tipping: not before the "
        "tipping point is found, so that memorising begins earlier",
    )
    group.add_argument(
        "--limit_train",
        type=count,
        metavar="IMAGES",
        help="number of training images to use, chosen by the seed; only these are scored",
    )


def _add_network_and_optimiser(parser: RunParser) -> None:
    group = parser.add_argument_group("network and optimiser (SGD)")
    group.add_argument(
        "--width",
        type=count,
        default=64,
        metavar="CHANNELS",
        help="channels of the first stage; preact18's others have 2, 4 and 8 times as many, "
        "compact's 4 times",
    )
    group.add_argument(
        "--lr_schedule",
        choices=("step", "linear", "after_tipping"),
        default="step",
        help="learning-rate schedule; step: decays by --lr_gamma every --lr_step epochs; linear: "
        "falls to 0 from the end of the warm-up on; after_tipping: from the tipping point on",
    )
    for name, kind, default, unit, words in (
        ("lr", positive, 0.02, "RATE", "initial learning rate"),
        ("lr_step", count, 150, "EPOCHS", "epochs between learning-rate decays"),
        ("lr_gamma", positive, 0.1, "FACTOR", "learning-rate decay factor (StepLR gamma)"),
        ("warm_up", not_negative, 0.0, "EPOCHS", "epochs in which the rate rises from 0"),
        ("momentum", ratio, 0.9, "FACTOR", "momentum, 0 to below 1"),
        ("weight_decay", not_negative, 0.0005, "FACTOR", "weight decay (L2 penalty)"),
    ):
        group.add_argument(f"--{name}", type=kind, default=default, metavar=unit, help=words)


def _add_method(parser: RunParser) -> None:
    method = parser.add_argument_group("method")
    for group, default in enumerate((0.30, 0.45, 0.55, 0.70), start=1):
        method.add_argument(
            f"--alpha{group}",
            type=fraction,
            default=default,
            metavar="WEIGHT",
            help=f"weight of the student's prediction in the robust target of group {group}, 0 to 1"
            + {1: " (label most likely right)", 4: " (label most likely wrong)"}.get(group, ""),
        )
    method.add_argument(
        "--detection",
        choices=list(DETECTIONS),
        default="split",
        help="which labels are flagged as wrong; "
        + "; ".join(f"{name}: {words}" for name, words in DETECTIONS.items()),
    )


def _add_resuming(parser: RunParser) -> None:
    group = parser.add_argument_group("resuming and restarting")
    group.add_argument(
        "--checkpoint_freq",
        type=count,
        default=5,
        metavar="EPOCHS",
        help="epochs between checkpoints; SIGINT, SIGTERM and SIGHUP write one too",
    )
    group.add_argument(
        "--restart",
        action="store_true",
        help="restart from the first epoch; the old run folder is moved to replaced/, not deleted",
    )
    group.add_argument(
        "--deterministic",
        action="store_true",
        help="deterministic algorithms on CUDA, slower; not needed on a CPU",
    )


def _add_reporting(parser: RunParser) -> None:
    group = parser.add_argument_group("reporting")
    for name, default, unit, words in (
        ("print_freq", 100, "STEPS", "steps between updates of the progress bar"),
        ("clean_test_freq", 10, "EPOCHS", "epochs between clean tests; the last is always tested"),
        ("noisy_val_freq", 10, "EPOCHS", "epochs between noisy validations; the last always is"),
    ):
        group.add_argument(f"--{name}", type=count, default=default, metavar=unit, help=words)
    group.add_argument("--quiet", action="store_true", help="no progress bars")
    group.add_argument(
        "--no_plots",
        action="store_true",
        help="no plots; python -m utils.plots FOLDER draws them at any time",
    )
    group.add_argument(
        "--tensorboard",
        action="store_true",
        help="scalars for TensorBoard too, where its package is installed",
    )
    group.add_argument(
        "--measure_steps",
        type=count,
        metavar="STEPS",
        help="number of training steps to time, and no training; nothing is written",
    )
    group.add_argument(
        "--num_workers",
        type=count_or_none,
        default=4,
        metavar="NUMBER",
        help="accepted for existing commands, without effect: images need no loading workers",
    )
