"""The options by which a run departs from the paper; bkd+ is some of them together."""

import argparse

from utils.options.values import add_options, fraction, not_negative, ratio

DEPARTURES = {
    ("class_balance", not_negative, 0.0, "WEIGHT"): "weight of the prior penalty in the robust "
    "phase: KL divergence of each network's mean prediction from the class prior",
    ("target", ("student", "posterior")): "target of the robust phase; student: label and "
    "student's prediction, mixed by groups; posterior: the true label's probabilities by Bayes' "
    "rule, from the label, the pair's mean prediction over epochs, and the noise transition matrix "
    "of these two",
    ("target_for", ("teacher", "both")): "which networks learn the target by cross-entropy in the "
    "robust phase",
    ("compensation", ("always", "naive")): "when the compensation loss is in the loss; naive: only "
    "before the tipping point",
    ("planted", ratio, 0.0, "SHARE"): "share of the training images, 100 at most, that get a "
    "random wrong label; once the pair comes to agree with these, target, learners and "
    "compensation are the paper's again",
    # Accepted and not shown: decay of the averaged weights over the steps of the robust phase,
    # which are then evaluated and saved; momentum of each image's mean prediction over epochs, for
    # the posterior target; share of the robust phase's batches whose images are mixed in pairs;
    # weight of the loss on strong views of the images in the robust phase, with the targets of the
    # plain ones, at twice the time; no gradient through the robust target into the student;
    # compensation loss divided by B*(C-1).
    ("ema_decay", ratio, 0.0): argparse.SUPPRESS,
    ("ensemble_momentum", ratio, 0.7): argparse.SUPPRESS,
    ("mixup", fraction, 0.0): argparse.SUPPRESS,
    ("strong_views", fraction, 0.0, "WEIGHT"): argparse.SUPPRESS,
    ("detach_student_target", bool): argparse.SUPPRESS,
    ("masked_mean", bool): argparse.SUPPRESS,
}


def add_departures(parser: argparse.ArgumentParser) -> None:
    """Add the departures: off by default, so that each can be tried alone."""
    words = "off for bkd; bkd+ has some of them on, see its presets"
    add_options(parser.add_argument_group("departures from the paper", words), DEPARTURES)
