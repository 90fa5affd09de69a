"""Averaged weights: an exponential mean over the steps, which never asks the device anything."""

from typing import Any

import torch
from torch.optim.swa_utils import AveragedModel

from models.teacher_student import TeacherStudent


class AveragedWeights(AveragedModel):
    """Running mean of a pair's weights and batch-norm statistics; the pair of them is `module`.

    torch's own class asks the device in every update whether it is the first, and so waits for it.
    The state dict is torch's.
    """

    def __init__(self, pair: TeacherStudent, decay: float):
        """`decay`: weight of the mean so far. The first update takes the weights as they are."""
        super().__init__(pair, use_buffers=True)
        self.decay, self.updates = decay, 0
        means = [*self.module.parameters(), *self.module.buffers()]
        weights = [*pair.parameters(), *pair.buffers()]
        pairs = [(m.detach(), w.detach()) for m, w in zip(means, weights, strict=True)]
        self.floats = [each for each in pairs if each[0].is_floating_point()]
        self.counts = [each for each in pairs if not each[0].is_floating_point()]

    @torch.no_grad()
    def update(self) -> None:
        """Take in the pair's weights as they are now."""
        if not self.updates:
            torch._foreach_copy_(*map(list, zip(*self.floats + self.counts, strict=True)))
        else:
            torch._foreach_lerp_(*map(list, zip(*self.floats, strict=True)), 1 - self.decay)
            for mean, count in self.counts:  # as torch's function does
                mean.copy_(mean * self.decay + count * (1 - self.decay))
        self.updates += 1
        self.n_averaged += 1

    def load_state_dict(self, state: dict[str, Any], strict: bool = True, assign: bool = False):
        """Restore what `state_dict` returned."""
        result = super().load_state_dict(state, strict, assign)
        self.updates = int(self.n_averaged)
        return result
