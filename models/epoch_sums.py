"""What the training passes of one epoch show, added up on the device."""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from models.training_step import Seen


class EpochStats(NamedTuple):
    """What one epoch's training passes showed."""

    loss: float  # averaged over the images, as its two parts
    naive_loss: float
    compensation_loss: float
    confidence: float  # the student's largest probability, averaged over the images
    agreement: Tensor  # [N], at the label
    prediction: Tensor  # [N]


class EpochSums:
    """What an epoch's training passes have shown so far; stays on the device until asked."""

    def __init__(self, images: int, steps: int, device: torch.device):
        """`images`, `steps`: of a whole epoch."""
        self.sums = torch.zeros(4, device=device)  # of what each step saw on average
        self.losses = torch.zeros(steps, device=device)
        self.agreement = torch.zeros(images, device=device)
        self.prediction = torch.zeros(images, dtype=torch.long, device=device)
        self.steps = self.images = 0

    def add(self, seen: Seen, index: Tensor) -> None:
        """Take in a step on the images at `index` [B].

        Raises FloatingPointError, on CUDA only later: there, to look would be to wait.
        """
        self.sums += len(index) * seen.means
        self.losses[self.steps] = seen.means[0]
        self.agreement[index] = seen.agreement
        self.prediction[index] = seen.prediction
        self.steps += 1
        self.images += len(index)
        if not self.sums.is_cuda:
            self.check()

    def check(self) -> None:
        """Raises FloatingPointError with the first step whose loss was no number."""
        losses = self.losses[: self.steps]
        if not losses.isfinite().all():
            step = int(losses.isfinite().logical_not().nonzero()[0])
            raise FloatingPointError(f"step {step}: the loss is {losses[step].item()}")

    def stats(self) -> EpochStats:
        """The averages; raises FloatingPointError."""
        self.check()
        return EpochStats(*(self.sums / self.images).tolist(), self.agreement, self.prediction)

    def reset(self) -> None:
        """The next epoch begins. What `stats` returned stays as it is."""
        self.__init__(len(self.agreement), len(self.losses), self.sums.device)

    def state_dict(self) -> dict[str, Any]:
        """All of it; raises FloatingPointError."""
        self.check()
        return vars(self).copy()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from what `state_dict` returned; raises ValueError for another epoch's sizes."""
        for name, own in vars(self).items():
            if isinstance(own, Tensor):
                if state[name].shape != own.shape:
                    raise ValueError(f"{name} has shape {tuple(state[name].shape)}")
                own.copy_(state[name])
        self.steps, self.images = int(state["steps"]), int(state["images"])
