"""Planted labels: wrong labels of our own. How many the pair agrees with tells what it memorizes.

N training images, C classes, P of the images planted. Labels that are known to be wrong measure
memorization where the truth is unknown, as the threshold samples of Pleiss et al. (2020) do.
"""

import torch
from torch import Tensor

MOST = 100  # enough: of so many a share of a tenth is known to within 3 points


class PlantedLabels:
    """A few training images whose labels are replaced by random other ones."""

    def __init__(self, labels: Tensor, classes: int, share: float, seed: int):
        """Replace a `share` of the given labels [N], `MOST` at most, drawn by the seed alone.

        Raises ValueError for a share that is none of them.
        """
        generator = torch.Generator().manual_seed(seed)
        count = min(int(share * len(labels)), MOST)
        if share and not count:
            hint = "choose a larger share, or 0"
            raise ValueError(f"--planted {share}: is none of {len(labels)} training images; {hint}")
        places = torch.randperm(len(labels), generator=generator)[:count]
        steps = torch.randint(1, classes, (count,), generator=generator)
        self.given, self.classes = labels, classes
        self.places = places.to(labels.device)  # [P]
        self.labels = labels.clone()  # [N], with the planted ones
        self.labels[self.places] = (labels[self.places] + steps.to(labels.device)) % classes
        self.others = torch.ones(len(labels), dtype=torch.bool, device=labels.device)  # [N]
        self.others[self.places] = False

    def memorized(self, prediction: Tensor) -> float | None:
        """Share of the planted labels that the `prediction` [N] agrees with, beyond chance.

        Chance is a random wrong label's: that of being predicted for another image. None: no
        planted image has a prediction; -1 is none.
        """
        predicted, agreed = prediction >= 0, prediction == self.labels
        planted, others = agreed[~self.others & predicted], agreed[self.others & predicted]
        if not len(planted):
            return None
        return float(planted.float().mean() - (~others).float().mean() / (self.classes - 1))
