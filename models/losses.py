"""Losses and targets, each equation written once: the paper's (arXiv 2211.11355), then bkd+'s.

B images, C classes; logits are [B, C], `labels` [B] are the given ones.
"""

from typing import NamedTuple

import torch.nn.functional as F
from torch import Tensor

MIN_PROBABILITY = 1e-12  # a smaller probability counts as this


class PairLoss(NamedTuple):
    """Scalars: what is minimized, and its two parts."""

    total: Tensor
    naive: Tensor  # the teacher's cross-entropy
    compensation: Tensor


def agreement(teacher_logits: Tensor, student_logits: Tensor) -> Tensor:
    """Agreement of teacher and student: softmax(t) * softmax(s), normalized to sum 1: [B, C].

    Computed from logarithms, so that it cannot become 0/0.
    """
    log_products = F.log_softmax(teacher_logits, 1) + F.log_softmax(student_logits, 1)  # [B, C]
    return F.softmax(log_products, 1)


def compensation_loss(
    teacher_logits: Tensor, student_logits: Tensor, labels: Tensor, *, masked_mean: bool = False
) -> Tensor:
    """Compensation loss: squared distance of the logits on all classes but the given label's.

    The blind part, a scalar. The sum is divided by B * C - 1, as the authors do; with
    `masked_mean` by B * (C - 1), the number of its terms. The gradient flows into both networks.
    """
    batch, classes = teacher_logits.shape
    difference = (teacher_logits - student_logits).scatter(1, labels[:, None], 0.0)  # [B, C]
    return difference.square().sum() / (
        batch * (classes - 1) if masked_mean else batch * classes - 1
    )


def robust_targets(labels: Tensor, student_probs: Tensor, alpha: Tensor) -> Tensor:
    """Robust target: r = (1 - alpha) * one_hot(labels) + alpha * student_probs, then r^(1 + alpha).

    Normalized to sum 1: [B, C]. `student_probs` [B, C]; `alpha` [B], in 0..1: weight of the
    student's prediction in the target; 0 gives one-hot, the target before the tipping point.
    """
    alpha = alpha[:, None]  # [B, 1]
    one_hot = F.one_hot(labels, student_probs.shape[1]).to(student_probs.dtype)  # [B, C]
    mixed = (1 - alpha) * one_hot + alpha * student_probs
    sharpened = mixed ** (1 + alpha)
    return sharpened / sharpened.sum(1, keepdim=True)


def pair_loss(
    teacher_logits: Tensor,
    student_logits: Tensor,
    labels: Tensor,
    targets: Tensor,
    *,
    masked_mean: bool = False,
) -> PairLoss:
    """Loss of the pair: the teacher's cross-entropy with the targets plus the compensation loss.

    `targets` [B, C]: `robust_targets` of the student's softmax, through which the gradient flows
    into the student as well, as in the authors' program. `masked_mean`: see `compensation_loss`.
    """
    naive = F.cross_entropy(teacher_logits, targets)
    compensation = compensation_loss(
        teacher_logits, student_logits, labels, masked_mean=masked_mean
    )
    return PairLoss(naive + compensation, naive, compensation)


def posterior_targets(labels: Tensor, predicted: Tensor, transition: Tensor) -> Tensor:
    """Posterior of the true class by Bayes' rule, given image and label: [B, C], sum 1.

    `predicted` [B, C]: probability of each class by the image alone; `transition` [C, C]:
    probability that an image of class (row) is given the label (column). The identity, where no
    label is ever wrong, gives one-hot.
    """
    joint = predicted.clamp(min=MIN_PROBABILITY) * transition[:, labels].T  # [B, C]
    return joint / joint.sum(1, keepdim=True)


def transition_matrix(predicted: Tensor, labels: Tensor) -> Tensor:
    """Noise transition matrix; row k: the distribution of the labels [N] given to class k: [C, C].

    By `predicted` [N, C]. One label is added to each cell, so that none is impossible (Laplace
    smoothing). With the posterior as prediction this is the M step of Dawid and Skene (1979).
    """
    one_hot = F.one_hot(labels, predicted.shape[1]).to(predicted.dtype)  # [N, C]
    counts = predicted.T @ one_hot + 1
    return counts / counts.sum(1, keepdim=True)


def prior_penalty(logits: Tensor, prior: Tensor, marginal: Tensor, momentum: float) -> Tensor:
    """Prior penalty KL(prior || m) in nats: a scalar, large where a class is hardly predicted.

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
