"""How likely each given label is right, from class probabilities that do not know the label.

Probabilities by networks that were trained on a label say little of it: they may have memorized it.
So they come out of fold: each image is judged by networks that were trained without it. A network's
confidence is no frequency, and its errors look like wrong labels. A noise model tells both apart:

    P(label | image) = sum_k p_k(image) T[k, label]
    p_k = softmax(-exponent * margin * (gap_k / margin) ** power)

with a noise transition matrix T. gap_k is how far the log probability of class k is below the
largest, margin the median of the smallest gaps. Networks from scratch may be sure of images that
they do not understand: small gaps mean less than they say, large ones more (power above 1). Bayes'
rule then gives the probability of each true class. Two models compete. `uniform_models`: wrong
labels are spread over the classes; one number, and the mean over all that explain the labels.
`structured_noise`: wrong labels follow similarity; T is read off the images of which the
predictions are most certain (anchors: Patrini et al., CVPR 2017).

Similar classes are also what predictions confuse by themselves, and a T of its own is free to
take such errors for noise. So uniform noise is kept for networks from scratch, where it explains
held-out labels better, where images are few or predictions contradict most labels, and where these
are surer than they should be (exponent below about 1): their certain images are then no anchors.

N images, C classes. All in double precision.
"""

import math
from collections.abc import Iterable
from itertools import compress, product
from typing import NamedTuple

import torch
from torch import Tensor

EXPONENTS = [0.25 * 1.08**k for k in range(40)]  # 0.25 to 5
STEPS = 60  # of expectation maximization for uniform noise
POWERS = (1.0, 1.5, 2.0, 3.0, 4.0)  # of the gaps
SURENESS_SPREAD = 0.4  # of log exponent below 0: few networks are surer than twice what they should
NEGLIGIBLE = 7  # nats by which a model is less likely than the likeliest
SMALLEST_MARGIN = 1e-3  # in nats, should most images have two likeliest classes
NOISE = 0.0001, 0.9  # smallest and largest
MIN_PROBABILITY = 1e-12  # a smaller probability counts as this
ANCHORS = 0.85  # certain images of a class, as a share of its labels
PRIOR_ANCHORS = 30  # so many more obey uniform noise
FOLDS = 5  # in which both models explain held-out labels
CONTEST_ANCHORS = 0.7  # there: fewer explain held-out labels better, more find more wrong ones
BETTER = 0.05  # standard deviations of a label's log-likelihood
FEWEST_OF_A_CLASS = 50  # images on average: for fewer T has too many numbers
LEAST_AGREEMENT = 0.5  # of predictions and labels
LEAST_EXPONENT = 1.05  # of uniform noise with power 1
FEWEST_SHOWN = 5  # wrong labels of a class on images of others
SUREST = 0.5  # of the images of a class: among these a wrong label is no error of the predictions


class NoiseModel(NamedTuple):
    """How predictions and wrong labels come about."""

    exponent: float  # above 1 where the predictions are less confident than they should be
    power: float  # above 1 where large gaps are more reliable, and small ones less, than they say
    transition: Tensor  # T [C, C]: a row a true class, a column a given one

    def joint(self, probabilities: Tensor, labels: Tensor) -> Tensor:
        """P(label, true class | image) [N, C] for probabilities [N, C] and labels [N]."""
        return _sharpened(probabilities, self.exponent, self.power) * self.transition.T[labels]

    def log_likelihoods(self, probabilities: Tensor, labels: Tensor) -> Tensor:
        """log P(label | image) [N] in nats."""
        return self.joint(probabilities, labels).sum(1).clamp(min=MIN_PROBABILITY).log()

    def posterior(self, probabilities: Tensor, labels: Tensor) -> Tensor:
        """P(true class | image, label) [N, C]."""
        joint = self.joint(probabilities, labels)
        return joint / joint.sum(1, keepdim=True)


class Judgment(NamedTuple):
    """What probabilities say of given labels."""

    posterior: Tensor  # [N, C], see `label_posterior`
    mostly_wrong: Tensor  # [C], see `mostly_wrong`
    agreement: Tensor  # [], share of the labels that are the likeliest class


def judge_labels(probabilities: Tensor, labels: Tensor, *, from_scratch: bool = False) -> Judgment:
    """Judge the labels [N] by probabilities [N, C] that do not know them.

    `from_scratch`: these are of networks that have seen no other images.
    """
    about = probabilities, labels
    posterior = label_posterior(*about, from_scratch=from_scratch)
    return Judgment(posterior, mostly_wrong(*about), agreement(*about))


def agreement(probabilities: Tensor, labels: Tensor) -> Tensor:
    """Share of the labels [N] that are the likeliest class by probabilities [N, C]: a scalar."""
    return (probabilities.argmax(1) == labels).double().mean()


def label_posterior(probabilities: Tensor, labels: Tensor, *, from_scratch: bool = False) -> Tensor:
    """Probability of each class to be the true one, given image and label: [N, C], sum 1.

    `probabilities` [N, C] are calibrated on the labels [N] themselves. At the label it is the
    probability that the label is right. `from_scratch`: see `judge_labels`.
    """
    about = probabilities, labels
    structured = None if from_scratch else suitable_structured_noise(*about)
    if structured:
        return structured.posterior(*about)
    return sum(weight * model.posterior(*about) for weight, model in uniform_models(*about))


def suitable_structured_noise(probabilities: Tensor, labels: Tensor) -> NoiseModel | None:
    """Structured noise, where it suits probabilities [N, C] and labels [N] better; see above."""
    uniform = uniform_noise(probabilities, labels)
    few = len(labels) < FEWEST_OF_A_CLASS * probabilities.shape[1]
    if few or agreement(probabilities, labels) < LEAST_AGREEMENT:
        return None
    if uniform.exponent < LEAST_EXPONENT:
        return None
    better = _held_out_advantage(probabilities, labels)
    if better.mean() > BETTER * better.std():
        return None
    return structured_noise(probabilities, labels, uniform, ANCHORS)


def uniform_noise(probabilities: Tensor, labels: Tensor) -> NoiseModel:
    """The likeliest model of power 1 by which a share of the labels is drawn anew, uniformly."""
    models = (_uniform(probabilities, labels, 1, exponent) for exponent in EXPONENTS)
    return _likeliest(models, probabilities, labels)


def uniform_models(probabilities: Tensor, labels: Tensor) -> list[tuple[float, NoiseModel]]:
    """Such models of all powers, each with its posterior probability where it has some.

    Often several explain the labels as well: much noise and reliable predictions, or little noise
    and predictions that are too sure. A prior makes very sure ones unlikely.
    """
    models = [_uniform(probabilities, labels, *each) for each in product(POWERS, EXPONENTS[::2])]
    evidence = torch.stack(
        [
            each.log_likelihoods(probabilities, labels).sum()
            - (min(0.0, math.log(each.exponent)) / SURENESS_SPREAD) ** 2 / 2
            for each in models
        ]
    )
    likely = evidence > evidence.max() - NEGLIGIBLE
    weights = evidence[likely].softmax(0).tolist()
    return list(zip(weights, compress(models, likely), strict=True))


def _uniform(probabilities: Tensor, labels: Tensor, power: float, exponent: float) -> NoiseModel:
    classes, noise = probabilities.shape[1], torch.tensor(0.1, dtype=torch.double)
    at_label = _sharpened(probabilities, exponent, power).gather(1, labels[:, None])  # [N, 1]
    for _ in range(STEPS):
        drawn = noise / classes
        noise = (drawn / (drawn + (1 - noise) * at_label)).mean().clamp(*NOISE)
    return NoiseModel(exponent, power, (1 - noise) * torch.eye(classes) + noise / classes)


def structured_noise(
    probabilities: Tensor, labels: Tensor, uniform: NoiseModel, anchors: float
) -> NoiseModel:
    """The model whose T counts the labels of each class's most certain images.

    They are as many as that share of the class's labels; PRIOR_ANCHORS more obey the `uniform`
    model. The exponent is the likeliest, and the power 1.
    """
    counts = PRIOR_ANCHORS * uniform.transition  # [C, C]
    for k, images in enumerate(torch.bincount(labels, minlength=len(counts)).tolist()):
        certain = probabilities[:, k].topk(int(anchors * images)).indices
        counts[k] += torch.bincount(labels[certain], minlength=len(counts))
    transition = counts / counts.sum(1, keepdim=True)
    models = (NoiseModel(exponent, 1, transition) for exponent in EXPONENTS)
    return _likeliest(models, probabilities, labels)


def _likeliest(models: Iterable[NoiseModel], probabilities: Tensor, labels: Tensor) -> NoiseModel:
    return max(models, key=lambda model: model.log_likelihoods(probabilities, labels).sum())


def mostly_wrong(probabilities: Tensor, labels: Tensor) -> Tensor:
    """Classes of which most labels are wrong as other classes show it: [C], bool.

    By how many of the surest images of each other class have that label. What does not know a class
    contradicts its labels as well. Then few of them are there, or they are on images of the class
    that it is taken for; so where one class has more than half of them, most of this class's own
    surest images must have its label. A class that is mixed up with several is not told apart.
    """
    classes = probabilities.shape[1]
    counts = torch.bincount(labels, minlength=classes)
    shown = torch.zeros(classes, classes, dtype=torch.long)  # a row: the labels of such images
    for k, images in enumerate(counts.tolist()):
        sure = probabilities[:, k].topk(int(SUREST * images)).indices
        shown[k] = torch.bincount(labels[sure], minlength=classes)
    known = 2 * shown.diagonal() > SUREST * counts
    shown.fill_diagonal_(0)
    total = shown.sum(0)
    spread = 2 * shown.amax(0) <= total
    return (known | spread) & (total >= FEWEST_SHOWN) & (2 * total > SUREST * counts)


def _held_out_advantage(probabilities: Tensor, labels: Tensor) -> Tensor:
    """How much better uniform noise explains each label [N], in nats, by fits without the image."""
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))
    found = torch.zeros(len(labels), dtype=torch.double)
    for part in order.chunk(FOLDS):
        others = ~torch.isin(torch.arange(len(labels)), part)
        fitted, held_out = ((probabilities[k], labels[k]) for k in (others, part))
        uniform = uniform_noise(*fitted)
        structured = structured_noise(*fitted, uniform, CONTEST_ANCHORS)
        found[part] = uniform.log_likelihoods(*held_out) - structured.log_likelihoods(*held_out)
    return found


def _sharpened(probabilities: Tensor, exponent: float, power: float) -> Tensor:
    logs = probabilities.double().clamp(min=MIN_PROBABILITY).log()
    gaps = logs.amax(1, keepdim=True) - logs
    margin = gaps.topk(2, largest=False).values[:, 1].median().clamp(min=SMALLEST_MARGIN)
    return (-exponent * margin * (gaps / margin) ** power).softmax(1)
