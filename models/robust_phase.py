"""The robust phase: what follows the tipping point, and how bkd+ departs from the paper there.

The paper trains the teacher on the robust target, a mix of label and student's prediction by four
groups, and goes on with the compensation loss: the student stays blind. Departures, as options:

- Target: the posterior of the true class by Bayes' rule, from the label, the pair's mean
  prediction over the epochs, and the noise transition matrix that these two imply.
- Learners: both networks learn the target, and the compensation loss stops.
- Prior penalty: a class that the label noise mixes with another can vanish from a network's
  predictions; the penalty grows as the mean prediction leaves the class prior.
- Strong views: the loss is also taken on a heavily changed view of each image, its target kept.

A student that sees the labels learns more of them, and memorizes where it can. So the first two
hold until planted labels (models/planted_labels.py) are memorized; from there the paper's loss.

N training images, C classes, B images in a batch.
"""

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from models import losses
from models.fast.training_step import StepResult
from models.losses import PairLoss
from models.mixup import NO_MIXUP, Mix, Mixup

MEMORIZED = 0.05  # rise of the share of planted labels agreed with that makes the student blind
RECENT = 0.5  # momentum of that share: of 100 planted labels some are agreed with by chance
MARGINAL_MOMENTUM = 0.9  # of the mean prediction over the batches
RAMP = 0.08  # of the epochs, in which strong views come to count in full


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
    strong: Tensor  # [], weight of the loss on strong views


class Departures(NamedTuple):
    """How the loss departs from the paper's; by default not at all."""

    masked_mean: bool = False  # see `compensation_loss`
    detach_student_target: bool = False  # no gradient through the target into the student
    posterior: bool = False  # `posterior_targets`, without a gradient
    both_learn: bool = False  # the student's cross-entropy with the targets is added
    naive_compensation: bool = False  # no compensation loss in the robust phase
    class_balance: float = 0.0  # weight of each network's `prior_penalty` in the robust phase
    prior: Tensor | None = None  # [C], its prior
    mixup: bool = False  # images are mixed as the inputs say, and so are targets and compensation


def loss_with_departures(
    teacher_logits: Tensor,
    student_logits: Tensor,
    labels: Tensor,
    inputs: tuple[Tensor, ...],
    **departures: Any,
) -> PairLoss:
    """Loss of the pair, by default the paper's `pair_loss` with its robust targets.

    Logits may be [2B, C], the second half of strong views, whose targets are those of the first.
    `inputs`: the fields of `LossInputs`; `departures`: of `Departures`.
    """
    inputs, how, count = LossInputs(*inputs), Departures(**departures), len(labels)
    logits = teacher_logits[:count], student_logits[:count]
    targets = loss_targets(logits[1], labels, inputs, how)
    total, naive, compensation = view_loss(logits, targets, labels, inputs, how)
    if len(teacher_logits) > count:
        strong = teacher_logits[count:], student_logits[count:]
        total = (
            total + inputs.strong * view_loss(strong, targets.detach(), labels, inputs, how).total
        )
    if how.class_balance:
        for each, marginal in zip(logits, inputs.marginals, strict=True):
            penalty = losses.prior_penalty(each, how.prior, marginal, MARGINAL_MOMENTUM)
            total = total + how.class_balance * inputs.robust * penalty
    return PairLoss(total, naive, compensation)


def loss_targets(
    student_logits: Tensor, labels: Tensor, inputs: LossInputs, how: Departures
) -> Tensor:
    """What the networks learn: [B, C]."""
    student = student_logits.detach() if how.detach_student_target else student_logits
    targets = losses.robust_targets(labels, F.softmax(student, 1), inputs.alpha)
    if how.posterior:
        by_bayes = losses.posterior_targets(labels, inputs.predicted, inputs.transition)
        targets = torch.lerp(targets, by_bayes, inputs.visibility * inputs.robust)
    if how.mixup:
        targets = torch.lerp(targets[inputs.partner], targets, inputs.weight)
    return targets


def view_loss(
    logits: tuple[Tensor, Tensor],
    targets: Tensor,
    labels: Tensor,
    inputs: LossInputs,
    how: Departures,
) -> PairLoss:
    """Loss of one view of the images, by its logits, without the prior penalty."""
    visible = inputs.visibility * inputs.robust
    total, naive, compensation = losses.pair_loss(
        *logits, labels, targets, masked_mean=how.masked_mean
    )
    if how.mixup:
        of_partners = labels[inputs.partner]
        others = losses.compensation_loss(*logits, of_partners, masked_mean=how.masked_mean)
        compensation = torch.lerp(others, compensation, inputs.weight)
        total = naive + compensation
    if how.naive_compensation:
        total = naive + compensation * (1 - visible)
    if how.both_learn:
        total = total + visible * F.cross_entropy(logits[1], targets.detach())
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
        strong_views: float = 0.0,
        epochs: int = 1,
    ):
        """`ensemble_momentum`: weight of the mean so far, 0 to below 1. `mixup`: once begun.

        `strong_views`: weight of their loss, reached in the first RAMP of all `epochs`.
        """
        self.ensemble_momentum, self.mixup = ensemble_momentum, mixup
        self.most, self.steps = strong_views, max(1, round(RAMP * epochs))
        self.begun = False
        self.alpha = torch.zeros(images, device=device)  # one-hot targets
        self.predicted = torch.full((images, classes), 1 / classes, device=device)
        self.transition = torch.eye(classes, device=device)  # all labels are right
        self.marginals = torch.full((2, classes), 1 / classes, device=device)
        self.robust = torch.zeros((), device=device)
        self.visibility = torch.ones((), device=device)
        self.memorized = torch.ones((), device=device)  # 1: not measured yet
        self.least = torch.ones((), device=device)
        self.strong = torch.zeros((), device=device)

    def mix(self, index: Tensor, epoch: int, step: int) -> Mix:
        """How the batch with the images at `index` [B] is mixed."""
        if not self.mixup.share:
            return Mix(index, self.robust, mixed=False)  # the loss reads neither of the two
        return (self.mixup if self.begun else NO_MIXUP).draw(index, epoch, step)

    def inputs(self, index: Tensor, mix: Mix) -> LossInputs:
        """The loss's inputs for the images at `index` [B], mixed like that."""
        of_images = self.alpha[index], self.predicted[index]
        of_all = self.transition, self.marginals, self.robust
        return LossInputs(*of_images, *of_all, *mix[:2], self.visibility, self.strong)

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
        """After an epoch: transition matrix by the labels [N], visibility, strong views' weight.

        `memorized`: the share of planted labels, or None. Once its running mean has risen enough
        above its lowest, the student is blind for good. The rise counts by `rate_left`, the share
        of the learning rate: near its end a network cannot forget, and would only lose the labels.
        """
        self.transition.copy_(losses.transition_matrix(self.predicted, labels))
        self.strong.add_(self.most / self.steps).clamp_(max=self.most)
        if memorized is not None:
            share, mean = self.least.new_tensor(memorized), self.memorized
            mean.copy_(share if mean == 1 else share.lerp(mean, RECENT))
            self.least.clamp_(max=mean.clamp(min=0))  # below is chance too
            if rate_left * (mean - self.least) > MEMORIZED:
                self.visibility.zero_()

    def state_dict(self) -> dict[str, Any]:
        """What changes from step to step."""
        names = "alpha predicted transition marginals robust strong visibility memorized least"
        return {name: getattr(self, name) for name in names.split()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned; raises ValueError for other shapes."""
        for name, tensor in self.state_dict().items():
            saved = state.get(name, tensor)  # older checkpoints lack some
            if saved.shape != tensor.shape:
                raise ValueError(f"{name} has shape {tuple(saved.shape)}")
            tensor.copy_(saved)
        self.begun = bool(self.robust)
