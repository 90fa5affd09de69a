"""The optimizer's learning rate, set before every step: a function of the progress alone."""

from typing import Any

import torch


class LearningRate:
    """One of three schedules over a number of epochs.

    step: multiplied by a factor every so many epochs, as the paper does; linear: falls from the
    first step on, to 0 at the end; after_tipping: stays until the tipping point is found, and falls
    from there likewise. Each may begin with a warm-up, in which the rate rises from 0; a linear
    fall begins after it.
    """

    def __init__(
        self,
        optimizer: torch.optim.Optimizer,
        schedule: str,
        epochs: int,
        *,
        lr_step: int = 1,
        lr_gamma: float = 1.0,
        warm_up: float = 0.0,
    ):
        """`warm_up`: its epochs.

        `lr_step`, `lr_gamma`: epochs between decays, and their factor, of the schedule step.
        """
        self.optimizer, self.schedule, self.epochs = optimizer, schedule, epochs
        self.initial: float = optimizer.param_groups[0]["lr"]
        self.lr_step, self.lr_gamma, self.warm_up = lr_step, lr_gamma, warm_up
        self.falls_from = warm_up if schedule == "linear" else None  # epoch; None: not yet

    def at(self, progress: float) -> float:
        """The rate of the step before which `progress` epochs are done."""
        rate = self.initial
        if progress < self.warm_up:
            return rate * progress / self.warm_up
        if self.schedule == "step":
            for _ in range(int(progress) // self.lr_step):  # one by one: rounded as by StepLR
                rate *= self.lr_gamma
        elif self.falls_from is not None and progress > self.falls_from:
            rate *= (self.epochs - progress) / (self.epochs - self.falls_from)
        return rate

    def left(self, progress: float) -> float:
        """The rate there as a share of the initial one."""
        return self.at(progress) / self.initial

    def set(self, progress: float) -> None:
        """Give the optimizer that rate."""
        for group in self.optimizer.param_groups:
            group["lr"] = self.at(progress)

    def tipping_point_found(self, progress: float) -> None:
        """The robust phase begins after so many epochs."""
        if self.schedule == "after_tipping":
            self.falls_from = progress

    def state_dict(self) -> dict[str, Any]:
        """What the progress does not say."""
        return {"falls_from": self.falls_from}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        self.falls_from = state["falls_from"]
