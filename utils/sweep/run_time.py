"""What a run's parts take: the training script measures it, the sweep reads it."""

import re
from typing import NamedTuple

from utils.console import duration

LINE = "measured: {:.3f} s a start, {:.3f} s a warm-up, {:.3f} s an epoch, {:.3f} s a scoring"
WRITTEN = re.compile(re.escape(LINE).replace(re.escape("{:.3f}"), r"(\d+\.\d{3})"))


class RunTime(NamedTuple):
    """Seconds of each part of a run."""

    start: float  # of a script, without what it downloads
    warm_up: float  # before the training's second step
    epoch: float  # with its share of the validations and tests
    scoring: float  # of the training images, once

    def line(self) -> str:
        """What `read` reads: the last line of a measurement."""
        return LINE.format(*self)

    @classmethod
    def read(cls, text: str) -> "RunTime | None":
        """That of the last such line; None where there is none."""
        found = WRITTEN.findall(text)
        return cls(*map(float, found[-1])) if found else None

    def longest_epoch(self, method: str) -> float:
        """Seconds; bkd scores its images in each epoch up to two after the tipping point."""
        return self.epoch + self.scoring if method != "ce" else self.epoch

    def training(self, method: str, epochs: int) -> float:
        """Seconds of so many epochs at most; behind the last one the images are scored."""
        return self.start + self.warm_up + epochs * self.longest_epoch(method) + self.scoring

    def words(self, method: str, epochs: int) -> str:
        """The same for people."""
        if method == "ce":
            return f"about {duration(self.training(method, epochs))}"
        least = self.training("ce", epochs)
        return (
            f"about {duration(least)}, and at most {duration(epochs * self.scoring)} more: "
            f"{self.scoring:.1f} s in each epoch up to two after the tipping point"
        )
