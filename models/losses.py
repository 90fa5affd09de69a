"""The losses of Blind Knowledge Distillation (arXiv 2211.11355), each equation written once.

B images, C classes; logits are [B, C], `labels` [B] are the given ones.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

SMALLEST = 1e-12  # a smaller probability counts as this


class PairLoss(NamedTuple):
    """Scalars: what is minimised, and its two parts."""

    total: Tensor
    naive: Tensor  # the teacher's cross-entropy
    compensation: Tensor


class Guide(NamedTuple):
    """What the loss is given of a batch beside its labels; it needs `alpha`, its options the rest.

    `alpha` [B]: weight of the student's prediction in the target, see `robust_targets`. `predicted`
    [B, C] and `transition` [C, C]: see `posterior_targets`. `marginals` [2, C]: teacher's and
    student's mean prediction, see `prior_penalty`. `robust` []: 1 in the robust phase, else 0.
    `partner` [B], `weight` []: each image is mixed with that of the batch, and has that weight.
    """

    alpha: Tensor
    predicted: Tensor | None = None
    transition: Tensor | None = None
    marginals: Tensor | None = None
    robust: Tensor | None = None
    partner: Tensor | None = None
    weight: Tensor | None = None


def agreement(teacher_logits: Tensor, student_logits: Tensor) -> Tensor:
    """softmax(t) * softmax(s), normalised to sum 1 over the classes: [B, C].

    Computed from logarithms, so that it cannot become 0/0.
    """
    log_products = F.log_softmax(teacher_logits, 1) + F.log_softmax(student_logits, 1)  # [B, C]
    return F.softmax(log_products, 1)


def compensation_loss(
    teacher_logits: Tensor, student_logits: Tensor, labels: Tensor, *, masked_mean: bool = False
) -> Tensor:
    """Squared distance of the logits on all classes but the given one: the blind part, a scalar.

    The sum is divided by B * C - 1, as the authors do; with `masked_mean` by B * (C - 1), the
    number of its terms. The gradient flows into both networks.
    """
    batch, classes = teacher_logits.shape
    difference = (teacher_logits - student_logits).scatter(1, labels[:, None], 0.0)  # [B, C]
    return difference.square().sum() / (
        batch * (classes - 1) if masked_mean else batch * classes - 1
    )


def robust_targets(labels: Tensor, student_probs: Tensor, alpha: Tensor) -> Tensor:
    """r = (1 - alpha) * one_hot(labels) + alpha * student_probs, r^(1 + alpha), sum 1: [B, C].

    `student_probs` [B, C]; `alpha` [B], in 0..1: weight of the student's prediction in the target;
    0 gives one-hot, the target before the tipping point.
    """
    alpha = alpha[:, None]  # [B, 1]
    one_hot = F.one_hot(labels, student_probs.shape[1]).to(student_probs.dtype)  # [B, C]
    mixed = (1 - alpha) * one_hot + alpha * student_probs
    sharpened = mixed ** (1 + alpha)
    return sharpened / sharpened.sum(1, keepdim=True)


def prior_penalty(logits: Tensor, prior: Tensor, marginal: Tensor, momentum: float = 0.0) -> Tensor:
    """KL(prior || m) in nats, a scalar that is large where a class is hardly predicted any more.

    `prior` [C], sum 1: the share that each class should have. m = momentum * marginal +
    (1 - momentum) * the batch's mean softmax; `marginal` [C]: that of the batches before. The
    gradient is that of the batch's mean in the place of m, -prior / m / B for each softmax, so that
    a momentum makes it steadier and not smaller. With momentum 0 the penalty of DivideMix
    (Li et al. 2020).
    """
    batch_mean = F.softmax(logits, 1).mean(0)  # [C]
    running = marginal.lerp(batch_mean.detach(), 1 - momentum)
    running = running + (batch_mean - batch_mean.detach())
    return (prior * (prior.log() - running.log())).sum()


def posterior_targets(labels: Tensor, predicted: Tensor, transition: Tensor) -> Tensor:
    """The true label's probabilities by Bayes' rule, given image and label: [B, C], sum 1.

    `predicted` [B, C]: probability of each class by the image alone; `transition` [C, C]:
    probability that an image of class (row) is given the label (column). The identity, where no
    label is ever wrong, gives one-hot.
    """
    joint = predicted.clamp(min=SMALLEST) * transition[:, labels].T  # [B, C]
    return joint / joint.sum(1, keepdim=True)


def transition_matrix(predicted: Tensor, labels: Tensor) -> Tensor:
    """Row k: how the labels [N] of class k are distributed, by `predicted` [N, C]: [C, C].

    One label is added to each cell, so that none is impossible (Laplace smoothing). With the
    posterior as prediction this is the M step of Dawid and Skene (1979).
    """
    one_hot = F.one_hot(labels, predicted.shape[1]).to(predicted.dtype)  # [N, C]
    counts = predicted.T @ one_hot + 1
    return counts / counts.sum(1, keepdim=True)


def pair_loss(
    teacher_logits: Tensor,
    student_logits: Tensor,
    labels: Tensor,
    guide: Guide,
    *,
    masked_mean: bool = False,
    detach_student_target: bool = False,
    label_smoothing: float = 0.0,
    posterior: bool = False,
    both_learn: bool = False,
    naive_compensation: bool = False,
    class_balance: float = 0.0,
    prior: Tensor | None = None,
    marginal_momentum: float = 0.0,
    mixup: bool = False,
) -> PairLoss:
    """Teacher's cross-entropy with the robust targets, plus the compensation loss.

    The gradient flows through the target into the student as well, as in the authors' program,
    unless `detach_student_target`. `label_smoothing`: share of each target that is spread over all
    classes. `posterior`: the targets are `posterior_targets` instead, without a gradient. `mixup`:
    the images are mixed as the guide says; targets and compensation are those of both.

    Departures in the robust phase: `both_learn` adds the student's cross-entropy with the same
    targets, `naive_compensation` leaves the compensation loss out, and a `class_balance` above 0
    adds that multiple of each network's `prior_penalty` for the `prior` [C].
    """
    if posterior:
        targets = posterior_targets(labels, guide.predicted, guide.transition)  # [B, C]
    else:
        student_probs = F.softmax(student_logits, 1)  # [B, C]
        if detach_student_target:
            student_probs = student_probs.detach()
        targets = robust_targets(labels, student_probs, guide.alpha)  # [B, C]
    if mixup:
        targets = torch.lerp(targets[guide.partner], targets, guide.weight)
    naive = F.cross_entropy(teacher_logits, targets, label_smoothing=label_smoothing)
    logits, divisor = (teacher_logits, student_logits), {"masked_mean": masked_mean}
    compensation = compensation_loss(*logits, labels, **divisor)
    if mixup:
        of_partners = compensation_loss(*logits, labels[guide.partner], **divisor)
        compensation = torch.lerp(of_partners, compensation, guide.weight)
    total = naive + (compensation * (1 - guide.robust) if naive_compensation else compensation)
    if both_learn:
        learned = F.cross_entropy(student_logits, targets.detach(), label_smoothing=label_smoothing)
        total = total + guide.robust * learned
    if class_balance:
        for each, marginal in zip(logits, guide.marginals, strict=True):
            penalty = prior_penalty(each, prior, marginal, marginal_momentum)
            total = total + class_balance * guide.robust * penalty
    return PairLoss(total, naive, compensation)


def baseline_loss(
    teacher_logits: Tensor,
    student_logits: Tensor,
    labels: Tensor,
    guide: Guide,
    *,
    label_smoothing: float = 0.0,
) -> PairLoss:
    """Plain cross-entropy of one network with the given labels; arguments as for `pair_loss`."""
    naive = F.cross_entropy(teacher_logits, labels, label_smoothing=label_smoothing)
    return PairLoss(naive, naive, naive.new_zeros(()))
