"""The losses of Blind Knowledge Distillation (arXiv 2211.11355), each equation written once.

B images, C classes; logits are [B, C], `labels` [B] are the given ones.
"""

from typing import NamedTuple

import torch.nn.functional as F
from torch import Tensor


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
