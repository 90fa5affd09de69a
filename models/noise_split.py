"""From agreements to weights: tipping point, the authors' variant of Otsu's threshold, groups.

N images; an image's score is the pair's agreement at its given label, in 0..1.
"""

from collections import deque
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

VARIANCE_FLOOR = 1e-5  # a smaller variance counts as this
NEIGHBOURS = 2  # epochs on either side of a tipping point that must be lower
FIRST_LENGTH = 6  # epochs needed before one can be found


class OtsuSplit(NamedTuple):
    """The three cuts between the four groups."""

    low_mean: float
    threshold: float
    high_mean: float


def otsu(scores: Tensor, bins: int = 1000) -> OtsuSplit | None:
    """The authors' variant of Otsu's threshold over a histogram of `scores` [N]; None: no split.

    Equal bins over [0, 1]; a bin's value is its lower edge. Of all s in 2..bins-3 with scores on
    both sides, the smallest with the largest
    `(n1 (m1 - m)^2 + n2 (m2 - m)^2) / (n1 d1 + n2 d2)`
    wins: counts n, means m1, m2 and standard deviations d (not variances) of the bins below s and
    from s on, m the plain mean of the scores. In float64 by cumulative sums, on the CPU: CUDA's are
    not deterministic. Raises ValueError for scores that are not numbers in 0..1.
    """
    scores = scores.cpu().double()
    if not bool(((scores >= 0) & (scores <= 1)).all()):  # NaN fails both
        raise ValueError("scores must be numbers from 0 to 1")
    bin_of = (scores * bins).long().clamp(max=bins - 1)  # [N]
    counts = torch.bincount(bin_of, minlength=bins).double()  # [bins]
    values = torch.arange(bins).double() / bins
    sums = torch.stack([counts * values**power for power in range(3)]).cumsum(1)  # [3, bins]
    low = sums[:, 1 : bins - 3]  # over the bins below s, for each s in 2..bins-3
    high = sums[:, -1:] - low

    overall = scores.mean()
    between, within, means = 0.0, 0.0, []
    for n, total, squares in (low, high):
        mean = total / n
        spread = (squares / n - mean.square()).clamp(min=VARIANCE_FLOOR).sqrt()
        between += n * (mean - overall).square()
        within += n * spread
        means.append(mean)
    two_sided = (low[0] > 0) & (high[0] > 0)
    if not two_sided.any():
        return None
    best = torch.where(two_sided, between / within, -torch.inf).argmax()  # the first of ties
    return OtsuSplit(means[0][best].item(), values[best + 2].item(), means[1][best].item())


def trust_groups(scores: Tensor, split: OtsuSplit | None) -> Tensor:
    """Group of each score [N]: 1 (label most likely right) .. 4 (most likely wrong).

    4 below the low mean, 3 from there, 2 from the threshold, 1 from the high mean. Without a split
    all are in group 1.
    """
    if split is None:
        return torch.ones_like(scores, dtype=torch.long)
    scores, device = scores.cpu().double(), scores.device  # MPS has no float64
    return (1 + sum((scores < cut).long() for cut in split)).to(device)


def student_weights(scores: Tensor, alphas: Sequence[float]) -> Tensor:
    """The alpha [N] of each image's robust target: `alphas` are those of groups 1 to 4.

    0, which keeps the one-hot targets, for all images where `scores` [N] cannot be split.
    """
    split = otsu(scores)
    if split is None:
        return torch.zeros_like(scores)
    return torch.tensor(alphas, device=scores.device)[trust_groups(scores, split) - 1]


def tipping_point(confidence: Sequence[float]) -> int | None:
    """The first epoch whose confidence exceeds that of both epochs before and both after it.

    `confidence`: the student's largest probability averaged over all images, one entry an epoch.
    None while there is no such epoch, and with fewer than six entries.
    """
    if len(confidence) < FIRST_LENGTH:
        return None
    for i in range(NEIGHBOURS, len(confidence) - NEIGHBOURS):
        around = [*confidence[i - NEIGHBOURS : i], *confidence[i + 1 : i + 1 + NEIGHBOURS]]
        if all(confidence[i] > other for other in around):
            return i
    return None


class Scores(NamedTuple):
    """Agreements and predictions of the pair for N images."""

    agreement: Tensor  # [N], at the label
    prediction: Tensor  # [N], the class with the largest agreement


def score(agreements: Tensor, labels: Tensor) -> Scores:
    """Scores of N images from the pair's agreements [N, C] and given labels [N]."""
    return Scores(agreements.gather(1, labels[:, None]).squeeze(1), agreements.argmax(1))


class Split(NamedTuple):
    """The images' trust groups by their scores of one epoch."""

    epoch: int
    fallback: bool  # no tipping point was found
    scores: Scores
    group: Tensor  # [N], 1 to 4
    cuts: OtsuSplit | None


class EpochRecord(NamedTuple):
    """One epoch before the tipping point."""

    epoch: int
    confidence: float  # the student's, averaged over the training images
    train_agreement: Tensor  # [training images], from the passes that trained
    scores: Scores  # of the full set, eval mode


class TippingPointMonitor:
    """Finds the tipping point, and keeps the records of the epochs that may still be needed.

    Those are the last few, one of which may prove to be the tipping point, and the most confident
    one, the fallback should there never be one.
    """

    def __init__(self):
        self.searching = True  # until the tipping point is found
        self.curve: list[float] = []  # the confidence of each epoch
        self.recent: deque[EpochRecord] = deque(maxlen=FIRST_LENGTH - NEIGHBOURS)
        self.most_confident: EpochRecord | None = None

    def update(
        self, confidence: float, train_agreement: Tensor, scores: Scores
    ) -> EpochRecord | None:
        """Add the next epoch; the tipping point's record in the epoch in which it is found.

        The arguments are those of `EpochRecord`. Call it only while `searching`; raises ValueError
        afterwards.
        """
        if not self.searching:
            raise ValueError("the tipping point has been found; there is nothing to update")
        record = EpochRecord(len(self.curve), confidence, train_agreement, scores)
        self.curve.append(confidence)
        self.recent.append(record)
        if self.most_confident is None or confidence > self.most_confident.confidence:
            self.most_confident = record
        self.searching = tipping_point(self.curve) is None
        return None if self.searching else self.record()

    def record(self) -> EpochRecord:
        """The tipping point's; while there is none, that of the most confident epoch."""
        if self.searching:
            return self.most_confident
        epoch = tipping_point(self.curve)
        return next(record for record in self.recent if record.epoch == epoch)

    def split(self) -> Split:
        """The groups by the scores of that record's epoch."""
        record = self.record()
        agreements = record.scores.agreement
        cuts = otsu(agreements)
        group = trust_groups(agreements, cuts)
        return Split(record.epoch, self.searching, record.scores, group, cuts)

    def state_dict(self) -> dict[str, Any]:
        """Everything needed to resume, in plain containers and tensors."""
        return {
            "searching": self.searching,
            "curve": list(self.curve),
            "recent": [_plain(record) for record in self.recent],
            "most_confident": self.most_confident and _plain(self.most_confident),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Resume from what `state_dict` returned."""
        self.searching = bool(state["searching"])
        self.curve = list(state["curve"])
        self.recent.clear()
        self.recent.extend(_record(plain) for plain in state["recent"])
        self.most_confident = state["most_confident"] and _record(state["most_confident"])


def _plain(record: EpochRecord) -> dict[str, Any]:
    return {**record._asdict(), "scores": record.scores._asdict()}


def _record(plain: dict[str, Any]) -> EpochRecord:
    scores = Scores(*(plain["scores"][name] for name in Scores._fields))  # once there were more
    return EpochRecord(**{**plain, "scores": scores})
