"""The robust phase: what follows the tipping point, and how bkd+ departs from the paper there.

The paper trains the teacher on the robust target, a mix of label and student's prediction by four
groups, and goes on with the compensation loss: the student stays blind. The departures, each an
option:

- Target: the posterior of the true class by Bayes' rule, from the label, the pair's mean
  prediction over the epochs, and the noise transition matrix that these two imply.
- Learners: both networks learn the target, and the compensation loss stops.
- Prior penalty: a class that the label noise mixes with another can vanish from a network's
  predictions; the penalty grows as the mean prediction leaves the class prior.

A student that sees the labels learns more of them, and memorizes where it can. So the first two
hold until planted labels (models/planted_labels.py) are memorized; from there the paper's loss.

N training images, C classes, B images in a batch.
"""

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from models.fast.training_step import StepResult
from models.losses import PairLoss, compensation_loss, pair_loss, robust_targets
from models.mixup import NO_MIXUP, Mix, Mixup

MIN_PROBABILITY = 1e-12  # a smaller probability counts as this
MEMORIZED = 0.05  # rise of the share of planted labels agreed with that makes the student blind
MARGINAL_MOMENTUM = 0.9  # of the mean prediction over the batches


class LossInputs(NamedTuple):
    """Tensors that the loss takes beside logits and labels: the same fixed tuple on every path."""

    alpha: Tensor  # [B], weight of the student's prediction in the target, see `robust_targets`
    predicted: Tensor  # [B, C], the pair's mean prediction, see `posterior_targets`
    transition: Tensor  # [C, C], likewise
    marginals: Tensor  # [2, C], teacher's and student's mean prediction, see `prior_penalty`
    robust: Tensor  # [], 1 in the robust phase, else 0
    partner: Tensor  # [B], the image of the batch that each is mixed with
    weight: Tensor  # [], of each image itself in the mix
    visibility: Tensor  # [], 1 while the student sees labels in the robust phase, then 0


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


def loss_with_departures(
    teacher_logits: Tensor,
    student_logits: Tensor,
    labels: Tensor,
    inputs: tuple[Tensor, ...],
    *,
    masked_mean: bool = False,
    detach_student_target: bool = False,
    posterior: bool = False,
    both_learn: bool = False,
    naive_compensation: bool = False,
    class_balance: float = 0.0,
    prior: Tensor | None = None,
    mixup: bool = False,
) -> PairLoss:
    """Loss of the pair, by default the paper's `pair_loss` with its robust targets.

    `inputs`: the fields of `LossInputs`. `detach_student_target`: no gradient through the target
    into the student. `posterior`: the targets are `posterior_targets` instead, without a gradient.
    `mixup`: the images are mixed as the inputs say; targets and compensation are those of both.

    In the robust phase alone: `both_learn` adds the student's cross-entropy with the same targets,
    `naive_compensation` leaves the compensation loss out, and a `class_balance` above 0 adds that
    multiple of each network's `prior_penalty` for the `prior` [C].
    """
    inputs = LossInputs(*inputs)
    visible = inputs.visibility * inputs.robust
    student = student_logits.detach() if detach_student_target else student_logits
    student_probs = F.softmax(student, 1)  # [B, C]
    targets = robust_targets(labels, student_probs, inputs.alpha)  # [B, C]
    if posterior:
        by_bayes = posterior_targets(labels, inputs.predicted, inputs.transition)
        targets = torch.lerp(targets, by_bayes, visible)
    if mixup:
        targets = torch.lerp(targets[inputs.partner], targets, inputs.weight)
    logits = teacher_logits, student_logits
    total, naive, compensation = pair_loss(*logits, labels, targets, masked_mean=masked_mean)
    if mixup:
        of_partners = labels[inputs.partner]
        others = compensation_loss(*logits, of_partners, masked_mean=masked_mean)
        compensation = torch.lerp(others, compensation, inputs.weight)
        total = naive + compensation
    if naive_compensation:
        total = naive + compensation * (1 - visible)
    if both_learn:
        total = total + visible * F.cross_entropy(student_logits, targets.detach())
    if class_balance:
        for each, marginal in zip(logits, inputs.marginals, strict=True):
            penalty = prior_penalty(each, prior, marginal, MARGINAL_MOMENTUM)
            total = total + class_balance * inputs.robust * penalty
    return PairLoss(total, naive, compensation)


class RobustPhase:
    """What training keeps of each image for the loss, from pass to pass.

    `predicted` [N, C] is the running mean of the pair's agreements in the passes that trained
    (temporal ensembling, Laine & Aila 2017), `marginals` that of the batches' mean predictions.
    """

    def __init__(
        self,
        images: int,
        classes: int,
        device: torch.device,
        ensemble_momentum: float = 0.0,
        mixup: Mixup = NO_MIXUP,
    ):
        """`ensemble_momentum`: weight of the mean so far, 0 to below 1. `mixup`: once begun."""
        self.ensemble_momentum, self.mixup = ensemble_momentum, mixup
        self.begun = False
        self.alpha = torch.zeros(images, device=device)  # one-hot targets
        self.predicted = torch.full((images, classes), 1 / classes, device=device)
        self.transition = torch.eye(classes, device=device)  # all labels are right
        self.marginals = torch.full((2, classes), 1 / classes, device=device)
        self.robust = torch.zeros((), device=device)
        self.visibility = torch.ones((), device=device)
        self.least = torch.ones((), device=device)

    def mix(self, index: Tensor, epoch: int, step: int) -> Mix:
        """How the batch with the images at `index` [B] is mixed."""
        if not self.mixup.share:
            return Mix(index, self.robust, mixed=False)  # the loss reads neither of the two
        return (self.mixup if self.begun else NO_MIXUP).draw(index, epoch, step)

    def inputs(self, index: Tensor, mix: Mix) -> LossInputs:
        """The loss's inputs for the images at `index` [B], mixed like that."""
        of_images = self.alpha[index], self.predicted[index]
        of_all = self.transition, self.marginals, self.robust
        return LossInputs(*of_images, *of_all, *mix[:2], self.visibility)

    def update(self, result: StepResult, index: Tensor, mix: Mix) -> None:
        """Take in a step on the images at `index` [B]; mixed ones say nothing of a single image."""
        if not mix.mixed:
            new = result.agreements.lerp(self.predicted[index], self.ensemble_momentum)
            self.predicted[index] = new
        self.marginals.lerp_(result.marginals, 1 - MARGINAL_MOMENTUM)

    def begin(self, alpha: Tensor) -> None:
        """Begin the robust phase with the next step, with these weights [N]."""
        self.alpha.copy_(alpha)
        self.robust.fill_(1)
        self.begun = True

    def visible(self) -> bool:
        """Whether the student sees the labels in the robust phase."""
        return bool(self.visibility)

    def conclude(self, labels: Tensor, memorized: float | None, rate_left: float = 1.0) -> None:
        """What an epoch says: the transition matrix by the labels [N], and the visibility.

        `memorized`: the share of planted labels, if there are any. Once it has risen enough above
        its lowest, the student is blind for good. The rise counts by `rate_left`, the share of the
        learning rate that is left: near its end a network cannot forget any more, and would only
        lose what it learns by the labels.
        """
        self.transition.copy_(transition_matrix(self.predicted, labels))
        if memorized is not None:
            self.least.clamp_(max=max(0.0, memorized))  # below is chance too
            if rate_left * (memorized - float(self.least)) > MEMORIZED:
                self.visibility.zero_()

    def state_dict(self) -> dict[str, Any]:
        """What changes from step to step."""
        names = ("alpha", "predicted", "transition", "marginals", "robust", "visibility", "least")
        return {name: getattr(self, name) for name in names}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned; raises ValueError for other shapes."""
        for name, tensor in self.state_dict().items():
            saved = state.get(name, tensor)  # an older checkpoint has no visibility
            if saved.shape != tensor.shape:
                raise ValueError(f"{name} has shape {tuple(saved.shape)}")
            tensor.copy_(saved)
        self.begun = bool(self.robust)
