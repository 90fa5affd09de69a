"""Mixup: batches of weighted means of two images (Zhang et al. 2018, arXiv 1710.09412)."""

import random
from typing import NamedTuple

import torch
from torch import Tensor


class Mix(NamedTuple):
    """With which image of the batch each is mixed."""

    partner: Tensor  # [B], positions in the batch
    weight: Tensor  # [], of an image itself: 0.5 to 1; its partner has the rest
    mixed: bool  # False: each image is left as it is

    def of(self, images: Tensor) -> Tensor:
        """The mixed images [B, ...], or [2B, ...]: the second half is mixed as the first."""
        if not self.mixed:
            return images
        views = images.unflatten(0, (-1, len(self.partner)))
        return torch.lerp(views[:, self.partner], views, self.weight).flatten(0, 1)


class Mixup(NamedTuple):
    """Mixes a share of all batches, with weights uniform in 0.5 to 1: Beta(1, 1), folded.

    All is drawn from the seed and the batch's place: no state is kept from step to step.
    """

    share: float  # 0 to 1
    seed: int = 0

    def draw(self, index: Tensor, epoch: int, step: int) -> Mix:
        """For the batch with the images at `index` [B]."""
        draw = random.Random(f"{self.seed} {epoch} {step}")
        mixed = draw.random() < self.share
        weight = 0.5 + 0.5 * draw.random() if mixed else 1.0
        partner = torch.arange(len(index), device=index.device).roll(draw.randrange(len(index)))
        return Mix(partner, torch.full((), weight, device=index.device), mixed)


NO_MIXUP = Mixup(0.0)
