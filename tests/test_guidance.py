"""What is kept of each image from pass to pass, mixed batches, and averaged weights."""

from functools import partial

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from models.build import average_weights, class_prior
from models.fast.training_step import StepResult
from models.guidance import Guidance
from models.losses import transition_matrix
from models.mixup import NO_MIXUP, Mixup
from models.teacher_student import build_pair

CPU = torch.device("cpu")
new_guidance = partial(Guidance, 6, 3, CPU)


def result_of(agreements: Tensor, marginals: Tensor) -> StepResult:
    nothing = torch.zeros(len(agreements))
    return StepResult(torch.zeros(4), nothing, nothing.long(), agreements, marginals)


def softmaxes(rows: int, seed: int) -> Tensor:
    return torch.randn(rows, 3, generator=torch.Generator().manual_seed(seed)).softmax(1)


def test_predictions_and_marginals_are_running_means():
    guidance = new_guidance(0.7, 0.9)
    predicted = torch.full((6, 3), 1 / 3)
    marginals = torch.full((2, 3), 1 / 3)
    for number, index in enumerate([[0, 4], [5, 1], [4, 2]]):
        agreements, means = softmaxes(2, number), softmaxes(2, 10 + number)
        places = torch.tensor(index)
        mix = guidance.mix(places, 0, number)
        guide = guidance.of(places, mix)
        assert torch.equal(guide.predicted, predicted[places])  # of the passes before
        assert_close(guide.marginals, marginals)
        guidance.add(result_of(agreements, means), places, mix)
        for row, place in enumerate(index):
            predicted[place] = 0.7 * predicted[place] + 0.3 * agreements[row]
        marginals = 0.9 * marginals + 0.1 * means
        assert_close(guidance.predicted, predicted)
        assert_close(guidance.marginals, marginals)


def test_until_the_robust_phase_all_targets_are_one_hot():
    guidance = new_guidance(mixup=Mixup(1.0))
    index = torch.arange(6)
    guide = guidance.of(index, guidance.mix(index, 3, 4))
    assert not guide.alpha.any() and guide.robust == 0 and guide.weight == 1
    assert torch.equal(guide.transition, torch.eye(3))
    alpha, labels = torch.linspace(0, 1, 6), index % 3
    guidance.begin_robust_phase(alpha)
    guidance.estimate_transition(labels)
    guide = guidance.of(index[2:], guidance.mix(index[2:], 3, 4))
    assert torch.equal(guide.alpha, alpha[2:]) and guide.robust == 1 and guide.weight < 1
    assert torch.equal(guide.transition, transition_matrix(guidance.predicted, labels))


def test_a_mixed_batch_says_nothing_of_its_images():
    guidance = new_guidance(0.5, 0.5, Mixup(1.0))
    guidance.begin_robust_phase(torch.zeros(6))
    index = torch.arange(3)
    mix = guidance.mix(index, 0, 0)
    guidance.add(result_of(softmaxes(3, 0), softmaxes(2, 1)), index, mix)
    assert mix.mixed and torch.equal(guidance.predicted, torch.full((6, 3), 1 / 3))
    assert_close(guidance.marginals, (softmaxes(2, 1) + 1 / 3) / 2)


def test_the_state_is_whole():
    guidance, resumed = (new_guidance(0.7, 0.9, Mixup(1.0)) for _ in range(2))
    guidance.begin_robust_phase(torch.rand(6))
    index = torch.arange(3)
    guidance.add(result_of(softmaxes(3, 0), softmaxes(2, 1)), index, NO_MIXUP.draw(index, 0, 0))
    guidance.estimate_transition(torch.arange(6) % 3)
    resumed.load_state_dict(guidance.state_dict())
    for one, other in zip(
        guidance.of(index, guidance.mix(index, 2, 1)),
        resumed.of(index, resumed.mix(index, 2, 1)),
        strict=True,
    ):
        assert torch.equal(one, other)
    with pytest.raises(ValueError, match="predicted has shape"):
        Guidance(6, 4, CPU).load_state_dict(guidance.state_dict() | {"alpha": torch.zeros(6)})


def test_mixing_depends_on_seed_and_place_alone():
    index, images = torch.arange(8), torch.randn(8, 3, 4, 4)
    places = [(seed, epoch, step) for seed in (0, 1) for epoch in range(5) for step in range(40)]
    mixes = [Mixup(0.5, seed).draw(index, epoch, step) for seed, epoch, step in places]
    again = [Mixup(0.5, seed).draw(index, epoch, step) for seed, epoch, step in places]
    for one, other in zip(mixes, again, strict=True):
        assert torch.equal(one.partner, other.partner) and one.weight == other.weight
    assert 0.4 < sum(mix.mixed for mix in mixes) / len(mixes) < 0.6
    weights = torch.stack([mix.weight for mix in mixes if mix.mixed])
    assert len(weights.unique()) > 150 and weights.min() >= 0.5 and weights.max() <= 1
    assert abs(weights.mean() - 0.75) < 0.03
    for mix in mixes:
        assert torch.equal(mix.partner.sort().values, index)
        mixed = mix.of(images)
        expected = mix.weight * images + (1 - mix.weight) * images[mix.partner]
        assert_close(mixed, expected) if mix.mixed else torch.equal(mixed, images)


def test_class_priors():
    labels = torch.tensor([0, 0, 0, 2])
    assert_close(class_prior("uniform", labels, 4), torch.full((4,), 0.25))
    assert_close(class_prior("labels", labels, 4), torch.tensor([3.0, 1.0, 1.0, 1.0]) / 6)


def test_averaged_weights_are_those_of_the_steps():
    torch.manual_seed(0)
    pair = build_pair(3, 4, digits=True)
    averaged = average_weights(pair, 0.9)
    expected = None
    for _ in range(3):
        with torch.no_grad():
            for values in pair.state_dict().values():
                values.add_(torch.randn_like(values)) if values.is_floating_point() else None
        averaged.update_parameters(pair)
        now = {name: each.clone() for name, each in pair.state_dict().items()}
        expected = expected or now  # the first as they are
        for name, values in now.items():
            if values.is_floating_point():
                expected[name] = 0.9 * expected[name] + 0.1 * values
    for name, values in averaged.module.state_dict().items():
        assert_close(values, expected[name], msg=name)
    assert averaged.module.teacher is not pair.teacher
