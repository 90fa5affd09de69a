"""The options by which a run departs from the paper; bkd+ is some of them together."""

import argparse

from utils.options.parser import RunParser
from utils.options.values import fraction, not_negative, ratio


def add_departures(parser: RunParser) -> None:
    """Add the departures: off by default, so that each can be tried alone."""
    group = parser.add_argument_group(
        "departures from the paper", "off for bkd; bkd+ has some of them on, see its presets"
    )
    _add_robust_phase(group)
    _add_loss(group)


def _add_robust_phase(group: argparse._ActionsContainer) -> None:
    group.add_argument(
        "--class_balance",
        type=not_negative,
        default=0.0,
        metavar="WEIGHT",
        help="weight of the prior penalty in the robust phase: KL divergence of each network's "
        "mean prediction from the class prior",
    )
    group.add_argument(
        "--ensemble_momentum",
        type=ratio,
        default=0.7,
        metavar="FACTOR",
        help="momentum of each image's mean prediction over epochs, for the posterior target",
    )
    group.add_argument(
        "--target",
        choices=("student", "posterior"),
        default="student",
        help="target of the robust phase; student: label and student's prediction, mixed by "
        "groups; posterior: the true label's probabilities by Bayes' rule, from the label, the "
        "pair's mean prediction over epochs, and the noise transition matrix of these two",
    )
    group.add_argument(
        "--target_for",
        choices=("teacher", "both"),
        default="teacher",
        help="which networks learn the target by cross-entropy in the robust phase",
    )
    group.add_argument(
        "--compensation",
        choices=("always", "naive"),
        default="always",
        help="when the compensation loss is in the loss; naive: only before the tipping point",
    )
    group.add_argument(
        "--mixup",
        type=fraction,
        default=0.0,
        metavar="SHARE",
        help="share of the robust phase's batches whose images are mixed in pairs, 0 to 1",
    )
    group.add_argument(
        "--ema_decay",
        type=ratio,
        default=0.0,
        metavar="FACTOR",
        help="decay of the averaged weights over the steps of the robust phase, which are then "
        "evaluated and saved; 0: none",
    )


def _add_loss(group: argparse._ActionsContainer) -> None:
    group.add_argument(
        "--detach_student_target",
        action="store_true",
        help="no gradient through the robust target into the student",
    )
    group.add_argument(
        "--masked_mean",
        action="store_true",
        help="compensation loss divided by B*(C-1) instead of B*C-1",
    )
