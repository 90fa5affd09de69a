"""From the options of a run to all that its training changes."""

import argparse
from functools import partial
from typing import Any, NamedTuple, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from models.averaged_weights import AveragedWeights
from models.epoch_statistics import EpochStatistics
from models.fast.training_step import LossFunction, TrainingStep
from models.learning_rate import LearningRate
from models.losses import PairLoss
from models.mixup import Mixup
from models.noise_split import Scores, TippingPointMonitor, score
from models.planted_labels import PlantedLabels
from models.robust_phase import RobustPhase, loss_with_departures
from models.teacher_student import TeacherStudent, build_baseline, build_pair, infer
from utils.devices import Machine
from utils.methods import METHODS

LITTLE = 0.25  # of the learning rate, too little to unlearn what is memorized
WHITENING_SAMPLE = 5000  # training images that set the compact network's first convolution


class Images(Protocol):
    """The training images and their given labels [N], in batches; its length is their number."""

    labels: Tensor

    def first(self, count: int) -> Tensor: ...

    def __len__(self) -> int: ...


class Training(NamedTuple):
    """All that training changes."""

    step: TrainingStep
    rate: LearningRate
    statistics: EpochStatistics
    robust_phase: RobustPhase
    monitor: TippingPointMonitor
    averaged: AveragedWeights | None
    planted: PlantedLabels

    def evaluated(self) -> TeacherStudent:
        """The networks that are evaluated and saved: averaged weights once there are any."""
        return self.averaged.module if self.averaged and self.averaged.updates else self.step.pair

    def labels(self, epoch: int) -> Tensor:
        """The labels [N] to train on in an epoch, with planted ones while they have a use.

        That ends where the student is blind, or in the robust phase little of the rate is left.
        """
        robust_phase = self.robust_phase
        late = robust_phase.begun and self.rate.left(epoch) < LITTLE
        return self.planted.given if late or not robust_phase.visible() else self.planted.labels

    def predict(self, loader: Images) -> Tensor:
        """The evaluated networks' predictions [N] of a loader's images, in data order."""
        return infer(self.evaluated(), loader, len(loader.labels)).argmax(1)

    def scores(self, loader: Images) -> Scores:
        """The trained pair's scores of a loader's N images at their labels, in data order."""
        return score(infer(self.step.pair, loader, len(loader.labels)), loader.labels)

    def parts(self) -> dict[str, Any]:
        """What a checkpoint holds of it, by name."""
        parts = {"networks": self.step.pair, "averaged": self.averaged, "rate": self.rate}
        parts |= {"optimizer": self.step.optimizer, "statistics": self.statistics}
        parts |= {"robust_phase": self.robust_phase, "monitor": self.monitor}
        return {name: part for name, part in parts.items() if part is not None}


def make_training(
    args: argparse.Namespace, num_classes: int, images: Images, machine: Machine
) -> Training:
    """New networks with all they need, ready to train on such images; `args`: the run's options."""
    step = make_step(args, num_classes, images, machine)
    schedule = {"lr_step": args.lr_step, "lr_gamma": args.lr_gamma, "warm_up": args.warm_up}
    labels = images.labels
    mixup = Mixup(args.mixup, args.seed)
    strong_views = args.strong_views if METHODS[args.method].has_student else 0.0
    return Training(
        step,
        LearningRate(step.optimizer, args.lr_schedule, args.n_epoch, **schedule),
        EpochStatistics(len(labels), len(images), labels.device),
        RobustPhase(
            len(labels),
            num_classes,
            labels.device,
            args.ensemble_momentum,
            mixup,
            strong_views,
            args.n_epoch,
        ),
        TippingPointMonitor(),
        AveragedWeights(step.pair, args.ema_decay) if args.ema_decay else None,
        PlantedLabels(labels, num_classes, args.planted, args.seed),
    )


def make_step(
    args: argparse.Namespace, num_classes: int, images: Images, machine: Machine
) -> TrainingStep:
    """New networks with their optimizer and loss."""
    build = build_pair if METHODS[args.method].has_student else build_baseline
    pair = build(num_classes, args.width, net=args.net, digits=args.dataset == "digits")
    if args.net == "compact":
        first = images.first(WHITENING_SAMPLE)
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
    loss = make_loss(args, class_prior(args.dataset, images.labels, num_classes))
    return TrainingStep(pair, optimizer, loss, args.batch_size, compiled=machine.compiled)


def make_loss(args: argparse.Namespace, prior: Tensor) -> LossFunction:
    """The method's loss with the departures that are asked for; `prior`: see `class_prior`."""
    if not METHODS[args.method].has_student:
        return baseline_loss
    return partial(
        loss_with_departures,
        masked_mean=args.masked_mean,
        detach_student_target=args.detach_student_target,
        posterior=args.target == "posterior",
        both_learn=args.target_for == "both",
        naive_compensation=args.compensation == "naive",
        class_balance=args.class_balance,
        prior=prior,
        mixup=args.mixup > 0,
    )


def baseline_loss(
    teacher_logits: Tensor, student_logits: Tensor, labels: Tensor, inputs: tuple[Tensor, ...]
) -> PairLoss:
    """Cross-entropy of one network with the given labels [B]; logits [B, C], the rest unused."""
    naive = F.cross_entropy(teacher_logits, labels)
    return PairLoss(naive, naive, naive.new_zeros(()))


def class_prior(dataset: str, labels: Tensor, num_classes: int) -> Tensor:
    """Share [C] that the prior penalty asks of each class, sum 1.

    Uniform for the data sets whose classes are alike, for own images that of the given labels [N],
    where a class without a label counts as having one.
    """
    if dataset != "folder":
        return torch.full((num_classes,), 1 / num_classes, device=labels.device)
    counts = torch.bincount(labels, minlength=num_classes).clamp(min=1).float()
    return counts / counts.sum()
