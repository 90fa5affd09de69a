"""The options of `blind_knowledge_dist_training.py`. The defaults are the authors' for CIFAR-10."""

import argparse

from utils.options.departures import add_departures
from utils.options.own_images import IMAGE_SIZES
from utils.options.parser import DETECTIONS, RunParser, add_batch_size, add_device_options
from utils.options.presets import presets_help
from utils.options.values import count, count_or_none, fraction, not_negative, positive, ratio


def training_parser() -> RunParser:
    """The parser of the training script."""
    parser = RunParser(
        description="Train teacher and student on noisy labels and write a run folder.",
        epilog=f"Presets, defaults of some runs: {presets_help()}",
    )
    add_device_options(parser)
    _add_data_and_length(parser)
    _add_network_and_optimizer(parser)
    _add_method(parser)
    add_departures(parser)
    _add_resuming(parser)
    _add_reporting(parser)
    return parser


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
        help="own images: no random flips, for letters and other images whose mirror image "
        "belongs to another class",
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
        help="random flips and crops of the training images; after_tipping: only once the "
        "tipping point is found, so that memorization begins earlier",
    )
    group.add_argument(
        "--limit_train",
        type=count,
        metavar="IMAGES",
        help="number of training images to use, chosen by the seed; only these are scored",
    )


def _add_network_and_optimizer(parser: RunParser) -> None:
    group = parser.add_argument_group("network and optimizer (SGD)")
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
        ("warm_up", not_negative, 0.0, "EPOCHS", "epochs of linear learning-rate warm-up"),
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
        help=argparse.SUPPRESS,  # between checkpoints; SIGINT, SIGTERM and SIGHUP write one too
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
        ("clean_test_freq", 10, "EPOCHS", "epochs between clean tests; the last is always tested"),
        ("noisy_val_freq", 10, "EPOCHS", "epochs between noisy validations; the last always is"),
        ("print_freq", 100, "STEPS", argparse.SUPPRESS),  # between updates of the progress bar
    ):
        group.add_argument(f"--{name}", type=count, default=default, metavar=unit, help=words)
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
    # Accepted and not shown: no progress bars (there are none where stderr is no terminal); no
    # plots; loading workers, which images that live on the device do not need.
    group.add_argument("--quiet", action="store_true", help=argparse.SUPPRESS)
    group.add_argument("--no_plots", action="store_true", help=argparse.SUPPRESS)
    group.add_argument("--num_workers", type=count_or_none, default=4, help=argparse.SUPPRESS)
