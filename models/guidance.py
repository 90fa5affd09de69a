"""What the loss is given of each training image beside its label, kept from pass to pass."""

from typing import Any

import torch
from torch import Tensor

from models.fast.training_step import StepResult
from models.losses import Guide, transition_matrix
from models.mixup import NO_MIXUP, Mix, Mixup


class Guidance:
    """Of N training images and C classes; see `Guide` for what a batch is given.

    `predicted` [N, C] is the running mean of the pair's agreements in the passes that trained
    (temporal ensembling, Laine & Aila 2017), `marginals` that of the batches' mean predictions.
    """

    def __init__(
        self,
        images: int,
        classes: int,
        device: torch.device,
        ensemble_momentum: float = 0.0,
        marginal_momentum: float = 0.0,
        mixup: Mixup = NO_MIXUP,
    ):
        """Each momentum: weight of what was before, 0 to below 1. `mixup`: of the robust phase."""
        self.ensemble_momentum, self.marginal_momentum = ensemble_momentum, marginal_momentum
        self.mixup, self.mixing = mixup, False
        self.alpha = torch.zeros(images, device=device)  # one-hot targets
        self.predicted = torch.full((images, classes), 1 / classes, device=device)
        self.transition = torch.eye(classes, device=device)  # all labels are right
        self.marginals = torch.full((2, classes), 1 / classes, device=device)
        self.robust = torch.zeros((), device=device)

    def mix(self, index: Tensor, epoch: int, step: int) -> Mix:
        """How the batch with the images at `index` [B] is mixed."""
        return (self.mixup if self.mixing else NO_MIXUP).draw(index, epoch, step)

    def of(self, index: Tensor, mix: Mix) -> Guide:
        """The loss's guide for the images at `index` [B], mixed like that."""
        of_images = self.alpha[index], self.predicted[index]
        return Guide(*of_images, self.transition, self.marginals, self.robust, *mix[:2])

    def add(self, result: StepResult, index: Tensor, mix: Mix) -> None:
        """Add a step on the images at `index` [B]; mixed ones say nothing of a single image."""
        if not mix.mixed:
            new = result.agreements.lerp(self.predicted[index], self.ensemble_momentum)
            self.predicted[index] = new
        self.marginals.lerp_(result.marginals, 1 - self.marginal_momentum)

    def begin_robust_phase(self, alpha: Tensor) -> None:
        """From the next step on, with these weights [N]."""
        self.alpha.copy_(alpha)
        self.robust.fill_(1)
        self.mixing = True

    def estimate_transition(self, labels: Tensor) -> None:
        """Anew from the running mean predictions and the given labels [N]."""
        self.transition.copy_(transition_matrix(self.predicted, labels))

    def state_dict(self) -> dict[str, Any]:
        """What changes from step to step."""
        names = ("alpha", "predicted", "transition", "marginals", "robust")
        return {name: getattr(self, name) for name in names}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned; raises ValueError for other shapes."""
        for name, own in self.state_dict().items():
            if state[name].shape != own.shape:
                raise ValueError(f"{name} has shape {tuple(state[name].shape)}")
            own.copy_(state[name])
        self.mixing = bool(self.robust)
