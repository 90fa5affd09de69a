"""The method in pure Python, slow and obvious: what the tests compare the code with.

Written from the method's description, not from the code. A matrix has a row per image and a
column per class; labels are column numbers.
"""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

Matrix = list[list[float]]


class Losses(NamedTuple):
    """What is minimised, and its two parts."""

    total: float
    naive: float
    compensation: float


class Cut(NamedTuple):
    """One place to split a histogram: the criterion, and the means of the two sides."""

    quality: float
    low_mean: float
    high_mean: float


def normalised(row: Sequence[float]) -> list[float]:
    return [value / sum(row) for value in row]


def softmax(row: Sequence[float]) -> list[float]:
    """exp(x) over the sum of all exp(x), each divided by the largest against overflow."""
    return normalised([math.exp(x - max(row)) for x in row])


def agreement(teacher: Matrix, student: Matrix) -> Matrix:
    """The product of both softmaxes, each row normalised to sum 1."""
    rows = []
    for t, s in zip(teacher, student, strict=True):
        rows.append(normalised([p * q for p, q in zip(softmax(t), softmax(s), strict=True)]))
    return rows


def compensation_loss(
    teacher: Matrix, student: Matrix, labels: Sequence[int], masked_mean: bool = False
) -> float:
    """Squared differences of the logits wherever the label is not, over B * C - 1."""
    total, batch, classes = 0.0, len(teacher), len(teacher[0])
    for t, s, label in zip(teacher, student, labels, strict=True):
        total += sum((t[k] - s[k]) ** 2 for k in range(classes) if k != label)
    return total / (batch * (classes - 1) if masked_mean else batch * classes - 1)


def robust_targets(labels: Sequence[int], probs: Matrix, alpha: Sequence[float]) -> Matrix:
    """((1 - b) * e_y + b * softmax(s))^(1 + b), each row normalised to sum 1."""
    rows = []
    for label, row, b in zip(labels, probs, alpha, strict=True):
        powers = [((1 - b) * (k == label) + b * p) ** (1 + b) for k, p in enumerate(row)]
        rows.append(normalised(powers))
    return rows


def cross_entropy(logits: Matrix, targets: Matrix) -> float:
    """Minus the target-weighted logarithms of the softmax, averaged over the rows."""
    total = 0.0
    for row, target in zip(logits, targets, strict=True):
        total -= sum(w * math.log(p) for w, p in zip(target, softmax(row), strict=True))
    return total / len(logits)


def pair_loss(
    teacher: Matrix,
    student: Matrix,
    labels: Sequence[int],
    alpha: Sequence[float],
    masked_mean: bool = False,
    target_student: Matrix | None = None,
) -> Losses:
    """Both losses; `target_student`: logits to make the target of in place of the student's."""
    source = student if target_student is None else target_student
    targets = robust_targets(labels, [softmax(row) for row in source], alpha)
    naive = cross_entropy(teacher, targets)
    compensation = compensation_loss(teacher, student, labels, masked_mean)
    return Losses(naive + compensation, naive, compensation)


def posterior_targets(labels: Sequence[int], probs: Matrix, transition: Matrix) -> Matrix:
    """P(true class | image, label) = P(class | image) P(label | class) / P(label | image)."""
    rows = zip(labels, probs, strict=True)
    return [normalised([p * t[y] for p, t in zip(row, transition, strict=True)]) for y, row in rows]


def transition_matrix(probs: Matrix, labels: Sequence[int]) -> Matrix:
    """Expected number of images of class k with label y, and one more; each row to sum 1."""
    classes = range(len(probs[0]))
    counts = [[1.0 for _ in classes] for _ in classes]
    for row, label in zip(probs, labels, strict=True):
        for k in classes:
            counts[k][label] += row[k]
    return [normalised(row) for row in counts]


def mean_softmax(logits: Matrix) -> list[float]:
    rows = [softmax(row) for row in logits]
    return [sum(column) / len(rows) for column in zip(*rows, strict=True)]


def prior_penalty(
    logits: Matrix, prior: Sequence[float], marginal: Sequence[float], momentum: float = 0.0
) -> float:
    """Kullback-Leibler divergence of the running mean prediction from the prior."""
    total = 0.0
    for share, before, now in zip(prior, marginal, mean_softmax(logits), strict=True):
        total += share * math.log(share / (momentum * before + (1 - momentum) * now))
    return total


def robust_phase_loss(
    teacher: Matrix,
    student: Matrix,
    targets: Matrix,
    penalties: Sequence[float],
    class_balance: float,
) -> float:
    """Both networks learn the targets, without compensation, their penalties weighted."""
    learned = cross_entropy(teacher, targets) + cross_entropy(student, targets)
    return learned + class_balance * sum(penalties)


def mixed(one: Matrix, other: Matrix, weight: float) -> Matrix:
    """Row by row: that weight of one, the rest of the other."""
    pairs = zip(one, other, strict=True)
    return [[weight * a + (1 - weight) * b for a, b in zip(*rows, strict=True)] for rows in pairs]


def gradient(function: Callable[[Matrix], float], point: Matrix, step: float = 1e-5) -> Matrix:
    """Derivatives by each entry of `point`, by central finite differences."""
    slopes = []
    for i, row in enumerate(point):
        slopes.append([])
        for k in range(len(row)):
            moved = [list(other) for other in point]
            moved[i][k] = row[k] + step
            above = function(moved)
            moved[i][k] = row[k] - step
            slopes[i].append((above - function(moved)) / (2 * step))
    return slopes


def otsu_cuts(scores: Sequence[float]) -> list[Cut | None]:
    """The authors' criterion of every s in 0..999; None outside of 2..997 and for one-sided s."""
    bins = [min(int(score * 1000), 999) for score in scores]
    m = sum(scores) / len(scores)
    cuts: list[Cut | None] = [None] * 1000
    for s in range(2, 998):
        sides = [k / 1000 for k in bins if k < s], [k / 1000 for k in bins if k >= s]
        if all(sides):
            (n1, m1, d1), (n2, m2, d2) = map(_moments, sides)
            quality = (n1 * (m1 - m) ** 2 + n2 * (m2 - m) ** 2) / (n1 * d1 + n2 * d2)
            cuts[s] = Cut(quality, m1, m2)
    return cuts


def _moments(values: Sequence[float]) -> tuple[int, float, float]:
    mean = sum(values) / len(values)
    variance = sum((value - mean) ** 2 for value in values) / len(values)
    return len(values), mean, math.sqrt(max(variance, 1e-5))


def trust_groups(scores: Sequence[float], m1: float, threshold: float, m2: float) -> list[int]:
    """1 (most likely right) .. 4 (most likely wrong)."""
    return [4 if p < m1 else 3 if p < threshold else 2 if p < m2 else 1 for p in scores]


def tipping_point(m: Sequence[float]) -> int | None:
    """The smallest i in 2..n-3, n >= 6, with m[i] above its two neighbours on either side."""
    for i in range(2, len(m) - 2):
        if len(m) >= 6 and all(m[i] > m[i + step] for step in (-2, -1, 1, 2)):
            return i
    return None
