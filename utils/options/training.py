"""The options of `blind_knowledge_dist_training.py`. The defaults are the authors' for CIFAR-10."""

import argparse

from utils.options.departures import add_departures
from utils.options.own_images import IMAGE_SIZES, add_judges
from utils.options.parser import DETECTIONS, RunParser, add_device_options
from utils.options.presets import presets_help
from utils.options.values import (
    add_options,
    count,
    count_or_none,
    fraction,
    not_negative,
    positive,
    ratio,
)

DATA_AND_LENGTH = {
    ("image_size", IMAGE_SIZES, None): "side in pixels to which own images are brought: the short "
    "side is resized, then the center cut out (if not given 64 where most are as large, else 32)",
    ("no_flip", bool): "own images: no random flips, for letters and other images whose mirror "
    "image belongs to another class",
    ("val_ratio", ratio, 0.1, "SHARE"): "share of the training images held out for noisy "
    "validation, 0 to below 1",
    ("n_epoch", count, 300, "EPOCHS"): "number of epochs",
    ("batch_size", count, 128, "IMAGES"): "images in a batch",
    ("augmentation", ("always", "after_tipping")): "random flips and crops of the training images; "
    "after_tipping: only once the tipping point is found, so that memorization begins earlier",
    ("limit_train", count, None, "IMAGES"): "number of training images to use, chosen by the seed; "
    "only these are scored",
}
NETWORK_AND_OPTIMIZER = {
    ("width", count, 64, "CHANNELS"): "channels of the first stage; preact18's others have 2, 4 "
    "and 8 times as many, compact's 4 times",
    ("lr_schedule", ("step", "linear", "after_tipping")): "learning-rate schedule; step: decays by "
    "--lr_gamma every --lr_step epochs; linear: falls to 0 from the end of the warm-up on; "
    "after_tipping: from the tipping point on",
    ("lr", positive, 0.02, "RATE"): "initial learning rate",
    ("lr_step", count, 150, "EPOCHS"): "epochs between learning-rate decays",
    ("lr_gamma", positive, 0.1, "FACTOR"): "learning-rate decay factor (StepLR gamma)",
    ("warm_up", not_negative, 0.0): argparse.SUPPRESS,  # epochs in which the rate rises linearly
    ("momentum", ratio, 0.9, "FACTOR"): "momentum, 0 to below 1",
    ("weight_decay", not_negative, 0.0005, "FACTOR"): "weight decay (L2 penalty)",
}
ALPHA = "weight of the student's prediction in the robust target of group"
METHOD = {
    ("alpha1", fraction, 0.30, "WEIGHT"): f"{ALPHA} 1, 0 to 1 (label most likely right)",
    ("alpha2", fraction, 0.45, "WEIGHT"): f"{ALPHA} 2, 0 to 1",
    ("alpha3", fraction, 0.55, "WEIGHT"): f"{ALPHA} 3, 0 to 1",
    ("alpha4", fraction, 0.70, "WEIGHT"): f"{ALPHA} 4, 0 to 1 (label most likely wrong)",
    ("detection", tuple(DETECTIONS)): "which labels are flagged as wrong; "
    + "; ".join(f"{name}: {words}" for name, words in DETECTIONS.items()),
}
RESUMING = {
    # between checkpoints; SIGINT, SIGTERM and SIGHUP write one too
    ("checkpoint_freq", count, 5, "EPOCHS"): argparse.SUPPRESS,
    ("fold", count_or_none, 0): argparse.SUPPRESS,  # which one is held out
    ("restart", bool): "restart from the first epoch; the old run folder is moved to replaced/, "
    "not deleted",
    ("deterministic", bool): "deterministic algorithms on CUDA, slower; not needed on a CPU",
}
REPORTING = {
    ("clean_test_freq", count, 10, "EPOCHS"): "epochs between clean tests; the last is always "
    "tested",
    ("noisy_val_freq", count, 10, "EPOCHS"): "epochs between noisy validations; the last always is",
    ("tensorboard", bool): "scalars for TensorBoard too, where its package is installed",
    ("measure_steps", count, None, "STEPS"): "number of training steps to time, and no training; "
    "nothing is written",
    # Accepted and not shown: steps between updates of the progress bar; no progress bars (there
    # are none where stderr is no terminal); no plots; loading workers, which images that live on
    # the device do not need.
    ("print_freq", count, 100): argparse.SUPPRESS,
    ("quiet", bool): argparse.SUPPRESS,
    ("no_plots", bool): argparse.SUPPRESS,
    ("num_workers", count_or_none, 4): argparse.SUPPRESS,
}


def training_parser() -> RunParser:
    """The parser of the training script."""
    parser = RunParser(
        description="Train teacher and student on noisy labels and write a run folder.",
        epilog=f"Presets, defaults of some runs: {presets_help()}",
    )
    add_device_options(parser)
    add_options(parser.add_argument_group("data and length"), DATA_AND_LENGTH)
    add_options(parser.add_argument_group("network and optimizer (SGD)"), NETWORK_AND_OPTIMIZER)
    add_options(parser.add_argument_group("method"), METHOD)
    add_departures(parser)
    add_judges(parser)
    add_options(parser.add_argument_group("resuming and restarting"), RESUMING)
    add_options(parser.add_argument_group("reporting"), REPORTING)
    return parser
