"""From the options of a run to its networks, optimiser and loss."""

import argparse
from functools import partial
from typing import Protocol

import torch
from torch import Tensor
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from models.fast.training_step import LossFunction, TrainingStep
from models.guidance import Guidance
from models.losses import baseline_loss, pair_loss
from models.mixup import Mixup
from models.teacher_student import TeacherStudent, build_baseline, build_pair
from utils.devices import Machine

WHITENED = 5000  # training images by which the compact network's first convolution is set


class Images(Protocol):
    """The training images and their given labels [N]."""

    labels: Tensor

    def first(self, count: int) -> Tensor: ...


def make_step(
    args: argparse.Namespace, num_classes: int, images: Images, machine: Machine
) -> TrainingStep:
    """New networks with their optimiser and loss, ready to train on such images.

    `args`: see `utils.options.training`.
    """
    build = build_baseline if args.method == "ce" else build_pair
    pair = build(num_classes, args.width, net=args.net, digits=args.dataset == "digits")
    if args.net == "compact":
        first = images.first(WHITENED)
        for network in pair.trained_networks().values():
            network.whiten(first)
    pair.prepare(machine.device, bf16=machine.precision == "bf16", plain=machine.plain)
    optimizer = torch.optim.SGD(
        pair.parameters(),
        args.lr,
        args.momentum,
        weight_decay=args.weight_decay,
        fused=None if machine.plain else True,
    )
    loss = make_loss(args, class_prior(args.class_prior, images.labels, num_classes))
    return TrainingStep(pair, optimizer, loss, args.batch_size, compiled=machine.compiled)


def make_loss(args: argparse.Namespace, prior: Tensor) -> LossFunction:
    """The method's loss with the departures that are asked for; `prior`: see `class_prior`."""
    if args.method == "ce":
        return partial(baseline_loss, label_smoothing=args.label_smoothing)
    return partial(
        pair_loss,
        masked_mean=args.masked_mean,
        detach_student_target=args.detach_student_target,
        label_smoothing=args.label_smoothing,
        posterior=args.target == "posterior",
        both_learn=args.target_for == "both",
        naive_compensation=args.compensation == "naive",
        class_balance=args.class_balance,
        prior=prior,
        marginal_momentum=args.marginal_momentum,
        mixup=args.mixup > 0,
    )


def make_guidance(args: argparse.Namespace, num_classes: int, labels: Tensor) -> Guidance:
    """A new guidance for the training images with these given labels [N], on their device."""
    momenta = args.ensemble_momentum, args.marginal_momentum
    mixup = Mixup(args.mixup, args.seed)
    return Guidance(len(labels), num_classes, labels.device, *momenta, mixup)


def class_prior(kind: str, labels: Tensor, num_classes: int) -> Tensor:
    """The share [C] of each class, sum 1: "uniform", or "labels": as among the labels [N].

    A class without a label counts as having one.
    """
    if kind == "uniform":
        return torch.full((num_classes,), 1 / num_classes, device=labels.device)
    counts = torch.bincount(labels, minlength=num_classes).clamp(min=1).float()
    return counts / counts.sum()


def average_weights(pair: TeacherStudent, decay: float) -> AveragedModel:
    """Running mean of the pair's weights and batch-norm statistics; `decay`: weight of the old.

    Its first update takes the weights as they are.
    """
    return AveragedModel(pair, multi_avg_fn=get_ema_multi_avg_fn(decay), use_buffers=True)
