"""Statistics of an epoch's training passes, accumulated on the device."""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from models.fast.training_step import StepResult

STEPS_PER_CHECK = {"cpu": 1, "cuda": 50, "mps": 50}  # looking at a loss makes the host wait


class EpochStats(NamedTuple):
    """Statistics of one epoch's training passes over N images."""

    loss: float  # averaged over the images, as its two parts
    naive_loss: float
    compensation_loss: float
    confidence: float  # the student's largest probability, averaged over the images
    agreement: Tensor  # [N], at the label
    prediction: Tensor  # [N]; -1 for an image that was mixed with another


class EpochStatistics:
    """Statistics of an epoch so far; they stay on the device until `stats` or `check`."""

    def __init__(self, images: int, steps: int, device: torch.device):
        """`images`, `steps`: of a whole epoch."""
        self.sums = torch.zeros(4, device=device)  # over the images, of `StepResult.means`
        self.losses = torch.zeros(steps, device=device)
        self.agreement = torch.zeros(images, device=device)
        self.prediction = torch.full((images,), -1, device=device)
        self.steps = self.images = 0

    def update(self, result: StepResult, index: Tensor, *, mixed: bool = False) -> None:
        """Take in a step on the images at `index` [B]; `mixed`: with each other.

        Raises FloatingPointError for a loss that is not finite, looking every `STEPS_PER_CHECK`
        steps of the device.
        """
        self.sums += len(index) * result.means
        self.losses[self.steps] = result.means[0]
        self.agreement[index] = result.agreement
        if not mixed:
            self.prediction[index] = result.prediction
        self.steps += 1
        self.images += len(index)
        if self.steps % STEPS_PER_CHECK[self.sums.device.type] == 0:
            self.check()

    def share_done(self) -> float:
        """Share of the epoch's steps that are done."""
        return self.steps / len(self.losses)

    def check(self) -> None:
        """Raises FloatingPointError naming the first step whose loss is not finite."""
        losses = self.losses[: self.steps]
        if not losses.isfinite().all():
            step = int(losses.isfinite().logical_not().nonzero()[0])
            raise FloatingPointError(f"step {step}: the loss is {losses[step].item()}")

    def stats(self) -> EpochStats:
        """The averages; raises FloatingPointError as `check`."""
        self.check()
        return EpochStats(*(self.sums / self.images).tolist(), self.agreement, self.prediction)

    def reset(self) -> None:
        """Begin the next epoch. What `stats` returned stays valid."""
        self.__init__(len(self.agreement), len(self.losses), self.sums.device)

    def state_dict(self) -> dict[str, Any]:
        """The whole state; raises FloatingPointError as `check`."""
        self.check()
        return vars(self).copy()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Resume from what `state_dict` returned; raises ValueError for other shapes."""
        for name, own in vars(self).items():
            if isinstance(own, Tensor):
                if state[name].shape != own.shape:
                    raise ValueError(f"{name} has shape {tuple(state[name].shape)}")
                own.copy_(state[name])
        self.steps, self.images = int(state["steps"]), int(state["images"])
