"""How likely each given label is right, from class probabilities that do not know the label.

Probabilities by networks that were trained on a label say little of it: they may have memorized it.
So they come out of fold: each image is judged by networks that were trained without it. A network's
confidence is no frequency, and its errors look like wrong labels. Both are told apart by two
numbers that make the given labels most likely:

    P(label | image) = (1 - noise) * p(label) + noise / C,   p = softmax(exponent * log probability)

The share of labels that even confident predictions contradict gives the noise, the others the
exponent. Bayes' rule then gives the probability that the label is the true class.

N images, C classes.
"""

from typing import NamedTuple

import torch
from torch import Tensor

EXPONENTS = [0.25 * 1.08**k for k in range(40)]  # 0.25 to 5
STEPS = 60  # of expectation maximization for the noise
NOISE = 0.0001, 0.9  # smallest and largest
MIN_PROBABILITY = 1e-12  # a smaller probability counts as this


class Calibration(NamedTuple):
    """The two numbers, and how well they explain the labels."""

    exponent: float  # above 1 where the predictions are less confident than they should be
    noise: float  # share of the labels that are drawn anew, uniformly
    likelihood: float  # mean log-likelihood of the labels in nats


def calibrate(probabilities: Tensor, labels: Tensor) -> Calibration:
    """The calibration of probabilities [N, C] that makes the labels [N] most likely."""
    return max((_noise(probabilities, labels, each) for each in EXPONENTS), key=lambda c: c[2])


def _noise(probabilities: Tensor, labels: Tensor, exponent: float) -> Calibration:
    """The calibration with that exponent."""
    uniform, noise = 1 / probabilities.shape[1], torch.tensor(0.1, dtype=torch.double)
    at_label = _sharpened(probabilities, exponent).gather(1, labels[:, None]).squeeze(1)  # [N]
    for _ in range(STEPS):
        drawn = noise * uniform / (noise * uniform + (1 - noise) * at_label)
        noise = drawn.mean().clamp(*NOISE)
    likelihood = (noise * uniform + (1 - noise) * at_label).log().mean()
    return Calibration(exponent, noise.item(), likelihood.item())


def _sharpened(probabilities: Tensor, exponent: float) -> Tensor:
    return (exponent * probabilities.double().clamp(min=MIN_PROBABILITY).log()).softmax(1)


def label_posterior(probabilities: Tensor, labels: Tensor) -> Tensor:
    """Probability of each class to be the true one, given image and label: [N, C], sum 1.

    `probabilities` [N, C] are calibrated on the labels [N] themselves. In double precision. At the
    label it is the probability that the label is right.
    """
    calibration, classes = calibrate(probabilities, labels), probabilities.shape[1]
    joint = _sharpened(probabilities, calibration.exponent) * calibration.noise / classes
    at_label = joint.gather(1, labels[:, None])
    right = at_label * (1 + (1 - calibration.noise) * classes / calibration.noise)
    joint = joint.scatter(1, labels[:, None], right)
    return joint / joint.sum(1, keepdim=True)
