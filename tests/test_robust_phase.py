"""The robust phase: targets, losses and their gradients, what is kept from pass to pass."""

from collections.abc import Callable
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.testing import assert_close

from models import robust_phase
from models.averaged_weights import AveragedWeights
from models.build import class_prior
from models.fast.training_step import StepResult
from models.losses import (
    compensation_loss,
    posterior_targets,
    prior_penalty,
    robust_targets,
    transition_matrix,
)
from models.mixup import NO_MIXUP, Mixup
from models.planted_labels import PlantedLabels
from models.robust_phase import LossInputs, RobustPhase, loss_with_departures
from models.teacher_student import build_pair
from tests import oracle
from tests.test_losses import Draw, draw, matrix, shapes

CPU = torch.device("cpu")
new_phase = partial(RobustPhase, 6, 3, CPU)


def result_of(agreements: Tensor, marginals: Tensor) -> StepResult:
    nothing = torch.zeros(len(agreements))
    return StepResult(torch.zeros(4), nothing, nothing.long(), agreements, marginals)


def softmaxes(rows: int, seed: int) -> Tensor:
    return torch.randn(rows, 3, generator=torch.Generator().manual_seed(seed)).softmax(1)


def test_predictions_and_marginals_are_running_means():
    phase = new_phase(0.7)
    predicted = torch.full((6, 3), 1 / 3)
    marginals = torch.full((2, 3), 1 / 3)
    for number, index in enumerate([[0, 4], [5, 1], [4, 2]]):
        agreements, means = softmaxes(2, number), softmaxes(2, 10 + number)
        places = torch.tensor(index)
        mix = phase.mix(places, 0, number)
        inputs = phase.inputs(places, mix)
        assert torch.equal(inputs.predicted, predicted[places])  # of the passes before
        assert_close(inputs.marginals, marginals)
        phase.update(result_of(agreements, means), places, mix)
        for row, place in enumerate(index):
            predicted[place] = 0.7 * predicted[place] + 0.3 * agreements[row]
        marginals = 0.9 * marginals + 0.1 * means
        assert_close(phase.predicted, predicted)
        assert_close(phase.marginals, marginals)


def test_until_the_robust_phase_all_targets_are_one_hot():
    phase = new_phase(mixup=Mixup(1.0))
    index = torch.arange(6)
    inputs = phase.inputs(index, phase.mix(index, 3, 4))
    assert not inputs.alpha.any() and inputs.robust == 0 and inputs.weight == 1
    assert torch.equal(inputs.transition, torch.eye(3))
    alpha, labels = torch.linspace(0, 1, 6), index % 3
    phase.begin(alpha)
    phase.conclude(labels, None)
    inputs = phase.inputs(index[2:], phase.mix(index[2:], 3, 4))
    assert torch.equal(inputs.alpha, alpha[2:]) and inputs.robust == 1 and inputs.weight < 1
    assert torch.equal(inputs.transition, transition_matrix(phase.predicted, labels))


def test_a_mixed_batch_says_nothing_of_its_images():
    phase = new_phase(0.5, Mixup(1.0))
    phase.begin(torch.zeros(6))
    index = torch.arange(3)
    mix = phase.mix(index, 0, 0)
    phase.update(result_of(softmaxes(3, 0), softmaxes(2, 1)), index, mix)
    assert mix.mixed and torch.equal(phase.predicted, torch.full((6, 3), 1 / 3))
    assert_close(phase.marginals, 0.9 / 3 + 0.1 * softmaxes(2, 1))


def test_the_state_is_whole():
    phase, resumed = (new_phase(0.7, Mixup(1.0)) for _ in range(2))
    phase.begin(torch.rand(6))
    index = torch.arange(3)
    phase.update(result_of(softmaxes(3, 0), softmaxes(2, 1)), index, NO_MIXUP.draw(index, 0, 0))
    phase.conclude(torch.arange(6) % 3, None)
    resumed.load_state_dict(phase.state_dict())
    one, other = (each.inputs(index, each.mix(index, 2, 1)) for each in (phase, resumed))
    assert all(torch.equal(*fields) for fields in zip(one, other, strict=True))
    with pytest.raises(ValueError, match="predicted has shape"):
        RobustPhase(6, 4, CPU).load_state_dict(phase.state_dict() | {"alpha": torch.zeros(6)})


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
    assert_close(class_prior("digits", labels, 4), torch.full((4,), 0.25))
    assert_close(class_prior("folder", labels, 4), torch.tensor([3.0, 1.0, 1.0, 1.0]) / 6)


def test_averaged_weights_are_torchs_bit_for_bit():
    torch.manual_seed(0)
    pair = build_pair(3, 4, digits=True)
    averaged, resumed = AveragedWeights(pair, 0.9), AveragedWeights(pair, 0.9)
    torchs = AveragedModel(pair, multi_avg_fn=get_ema_multi_avg_fn(0.9), use_buffers=True)
    for _ in range(3):
        with torch.no_grad():
            for values in pair.state_dict().values():
                values.add_(torch.randn_like(values) if values.is_floating_point() else 1)
        averaged.update()
        torchs.update_parameters(pair)
    resumed.load_state_dict(torchs.state_dict())
    assert averaged.updates == resumed.updates == 3
    for name, values in torchs.state_dict().items():
        assert torch.equal(values, averaged.state_dict()[name]), name
    assert not torch.equal(averaged.module.teacher.conv1.weight, pair.teacher.conv1.weight)


def draw_inputs(shape: tuple[int, int], seed: int = 0) -> LossInputs:
    """All that a robust phase may be given, in float64."""
    batch, classes = shape
    generator = torch.Generator().manual_seed(100 + seed)

    def shares(*sizes: int) -> Tensor:
        return torch.rand(*sizes, generator=generator, dtype=torch.float64).softmax(-1)

    return LossInputs(
        draw(shape, seed).alpha,
        shares(batch, classes),
        shares(classes, classes),
        shares(2, classes),
        torch.ones((), dtype=torch.float64),
        torch.randperm(batch, generator=generator),
        torch.tensor(0.7, dtype=torch.float64),
        torch.ones((), dtype=torch.float64),
        torch.tensor(0.6, dtype=torch.float64),
    )


def assert_slopes(
    slopes: tuple[Tensor, ...], total: Callable[[oracle.Matrix, oracle.Matrix], float], batch: Draw
) -> None:
    """Teacher's and student's gradients are those of the slow loss of both logits."""
    teacher, student, *_ = batch.lists()
    by_teacher = oracle.gradient(lambda t: total(t, student), teacher)
    by_student = oracle.gradient(lambda s: total(teacher, s), student)
    for slope, expected in zip(slopes, (by_teacher, by_student), strict=True):
        assert_close(slope, matrix(expected), rtol=1e-6, atol=1e-7)


@shapes
def test_posterior_targets_and_transition_matrix(shape: tuple[int, int]):
    labels, (_, predicted, transition, *_) = draw(shape).labels, draw_inputs(shape)
    lists = labels.tolist(), predicted.tolist(), transition.tolist()
    expected = matrix(oracle.posterior_targets(*lists))
    assert_close(posterior_targets(labels, predicted, transition), expected)
    expected = matrix(oracle.transition_matrix(lists[1], lists[0]))
    assert_close(transition_matrix(predicted, labels), expected)


@pytest.mark.parametrize("sure", [0.0, 1e-30, 0.5])
def test_where_no_label_is_ever_wrong_the_posterior_is_one_hot(sure: float):
    predicted = torch.tensor([[1 - sure, sure], [1 - sure, sure]])
    result = posterior_targets(torch.tensor([0, 1]), predicted, torch.eye(2))
    assert torch.equal(result, torch.eye(2))


@shapes
@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_prior_penalty(shape: tuple[int, int], momentum: float):
    """Its value with a momentum; its gradient as if the marginal were the batch's own mean."""
    logits, extra = draw(shape).teacher.requires_grad_(), draw_inputs(shape)
    prior, marginal = extra.marginals
    result = prior_penalty(logits, prior, marginal, momentum)
    given = prior.tolist(), marginal.tolist()
    expected = oracle.prior_penalty(logits.tolist(), *given, momentum)
    assert result.item() == pytest.approx(expected, rel=1e-10)
    (slope,) = torch.autograd.grad(result, logits)
    running = momentum * marginal + (1 - momentum) * logits.detach().softmax(1).mean(0)

    def tilted(rows: oracle.Matrix) -> float:
        means = oracle.mean_softmax(rows)
        return -sum(p / m * x for p, m, x in zip(given[0], running.tolist(), means, strict=True))

    assert_close(slope, matrix(oracle.gradient(tilted, logits.tolist())), rtol=1e-6, atol=1e-8)


def test_the_penalty_of_a_lost_class_is_finite():
    prior, lost = torch.full((2,), 0.5), torch.tensor([[50.0, -50.0]]).expand(4, 2)
    penalty = prior_penalty(lost, prior, prior, 0.0)
    assert penalty > 40 and penalty.isfinite()


@shapes
@pytest.mark.parametrize("mixup", [False, True])
def test_the_loss_of_bkd_plus_and_its_gradients(
    shape: tuple[int, int], mixup: bool, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(robust_phase, "MARGINAL_MOMENTUM", 0.0)  # see test_prior_penalty
    batch, extra = draw(shape, seed=6), draw_inputs(shape, seed=6)
    prior = torch.full((shape[1],), 1 / shape[1], dtype=torch.float64)
    inputs = batch.teacher.requires_grad_(), batch.student.requires_grad_()
    options = {"posterior": True, "both_learn": True, "naive_compensation": True}
    options |= {"class_balance": 0.5, "prior": prior, "mixup": mixup}
    loss = loss_with_departures(*inputs, batch.labels, extra, **options).total
    slopes = torch.autograd.grad(loss, inputs)

    teacher, student, labels, _ = batch.lists()
    predicted, transition = extra.predicted.tolist(), extra.transition.tolist()
    targets = oracle.posterior_targets(labels, predicted, transition)
    if mixup:
        partners = [targets[i] for i in extra.partner.tolist()]
        targets = oracle.mixed(targets, partners, extra.weight.item())

    def total(t: oracle.Matrix, s: oracle.Matrix) -> float:
        marginals = zip((t, s), extra.marginals.tolist(), strict=True)
        penalties = [oracle.prior_penalty(logits, prior.tolist(), m) for logits, m in marginals]
        return oracle.robust_phase_loss(t, s, targets, penalties, 0.5)

    assert loss.item() == pytest.approx(total(teacher, student), rel=1e-10)
    assert_slopes(slopes, total, batch)


@shapes
@pytest.mark.parametrize("visibility", [0.0, 0.3, 1.0])
def test_as_visibility_falls_the_loss_of_bkd_plus_becomes_the_papers(
    shape: tuple[int, int], visibility: float
):
    batch, extra = draw(shape, seed=8), draw_inputs(shape, seed=8)
    inputs = batch.teacher.requires_grad_(), batch.student.requires_grad_()
    extra = extra._replace(visibility=torch.tensor(visibility, dtype=torch.float64))
    options = {"posterior": True, "both_learn": True, "naive_compensation": True}
    result = loss_with_departures(*inputs, batch.labels, extra, **options).total
    paper = loss_with_departures(*inputs, batch.labels, extra)
    if not visibility:
        slopes = [torch.autograd.grad(each, inputs) for each in (result, paper.total)]
        assert result == paper.total and all(map(torch.equal, *slopes))
    papers = robust_targets(batch.labels, batch.student.softmax(1), extra.alpha)
    by_bayes = posterior_targets(batch.labels, extra.predicted, extra.transition)
    targets = (1 - visibility) * papers + visibility * by_bayes
    teachers, students = (F.cross_entropy(each, targets) for each in inputs)
    blind = (1 - visibility) * paper.compensation
    assert_close(result, teachers + visibility * students + blind)


@shapes
@pytest.mark.parametrize("visibility", [0.0, 1.0])
@pytest.mark.parametrize("plus", [False, True])
def test_strong_views_learn_the_targets_of_the_plain_ones(
    shape: tuple[int, int], plus: bool, visibility: float
):
    batch, others, extra = draw(shape, seed=9), draw(shape, seed=10), draw_inputs(shape, seed=9)
    extra = extra._replace(visibility=torch.tensor(visibility, dtype=torch.float64))
    options = {"posterior": True, "both_learn": True, "naive_compensation": True} if plus else {}
    plain = [each.requires_grad_() for each in (batch.teacher, batch.student)]
    strong = [each.requires_grad_() for each in (others.teacher, others.student)]
    both = [torch.cat(views) for views in zip(plain, strong, strict=True)]
    result = loss_with_departures(*both, batch.labels, extra, **options)
    alone = loss_with_departures(*plain, batch.labels, extra, **options)
    targets = robust_targets(batch.labels, batch.student.softmax(1), extra.alpha)
    if plus and visibility:
        targets = posterior_targets(batch.labels, extra.predicted, extra.transition)
    seen = F.cross_entropy(strong[0], targets.detach())
    seen = seen + plus * visibility * F.cross_entropy(strong[1], targets.detach())
    blind = compensation_loss(*strong, batch.labels)
    seen = seen + (1 - plus * visibility) * blind
    assert_close(result.total, alone.total + 0.6 * seen)
    assert_close(result[1:], alone[1:])  # what is logged is of the plain views
    slopes = torch.autograd.grad(result.total, plain, retain_graph=True)
    assert_close(slopes, torch.autograd.grad(alone.total, plain))  # no way into the targets


def test_strong_views_come_to_count_over_the_first_epochs_of_the_robust_phase():
    phase, resumed, labels = (
        *(new_phase(strong_views=0.8, epochs=50) for _ in range(2)),
        torch.zeros(6, dtype=torch.long),
    )
    weights = []
    for _ in range(6):
        resumed.load_state_dict(phase.state_dict())
        phase, resumed = resumed, phase
        phase.conclude(labels, None)
        places = torch.arange(3)
        weights.append(float(phase.inputs(places, phase.mix(places, 0, 0)).strong))
    assert weights == pytest.approx([0.2, 0.4, 0.6, 0.8, 0.8, 0.8])


def test_the_student_goes_blind_once_planted_labels_are_memorized():
    phase, resumed, labels = new_phase(), new_phase(), torch.zeros(6, dtype=torch.long)
    rise = robust_phase.MEMORIZED / (1 - robust_phase.RECENT)  # in one epoch, which is enough
    epochs = [(0.3, 1), (0.3, 1), (0.1, 1), (0.1, 1), (0.1, 1), (0.1, 1)]
    epochs += [(0.1 + 0.9 * rise, 1), (0.1, 1), (0.1, 1), (0.1, 1), (0.1 + 1.3 * rise, 0.7)]
    epochs += [(None, 1), (0, 1), (0, 1), (0, 1), (0, 1), (0.9 * rise, 1), (0.9 * rise, 1), (0, 1)]
    seen = []
    for memorized, rate_left in epochs:
        resumed.load_state_dict(phase.state_dict())  # a run may stop after any epoch
        phase, resumed = resumed, phase
        phase.conclude(labels, memorized, rate_left)
        seen.append(phase.visible())
    assert seen == [True] * 17 + [False] * 2  # at the second such epoch, and for good
    inputs = phase.inputs(torch.arange(3), phase.mix(torch.arange(3), 0, 0))
    assert inputs.visibility == 0
    older = {name: each for name, each in phase.state_dict().items() if name != "visibility"}
    resumed = new_phase()
    resumed.load_state_dict(older)  # a checkpoint of before there was such a thing
    assert resumed.visible()


def test_planted_labels_are_wrong_few_and_drawn_by_the_seed():
    labels = torch.arange(5000) % 10
    planted, again, other = (PlantedLabels(labels, 10, 0.02, seed) for seed in (3, 3, 4))
    assert torch.equal(planted.given, torch.arange(5000) % 10)  # untouched
    changed = (planted.labels != labels).nonzero()[:, 0]
    assert torch.equal(changed, planted.places.sort().values) and len(changed) == 100
    assert torch.equal(planted.labels, again.labels)
    assert not torch.equal(planted.labels, other.labels)
    assert len((planted.labels - labels).remainder(10).unique()) == 10 and planted.labels.max() == 9
    assert len(PlantedLabels(labels, 10, 0.5, 0).places) == 100  # enough
    assert torch.equal(PlantedLabels(labels, 10, 0.0, 0).labels, labels)
    with pytest.raises(ValueError, match=r"--planted 0.0001: is none of 5000"):
        PlantedLabels(labels, 10, 0.0001, 0)


@pytest.mark.parametrize("classes", [2, 5])
def test_memorized_is_what_is_agreed_with_beyond_chance(classes: int):
    labels = torch.arange(1000) % classes
    planted = PlantedLabels(labels, classes, 0.1, 0)
    assert planted.memorized(planted.labels) == 1  # all is learned by heart
    wrong = (labels + 1) % classes
    chance = planted.labels[planted.places] == wrong[planted.places]
    assert (chance.double().mean() == 1) == (classes == 2)
    expected = chance.double().mean() - 1 / (classes - 1)
    assert planted.memorized(wrong) == pytest.approx(expected.item())
    assert planted.memorized(labels) == 0
    half = labels.where(torch.arange(1000) % 2 == 0, planted.labels)
    odd = (planted.places % 2 == 1).double().mean()
    assert planted.memorized(half) == pytest.approx(odd.item())
    mixed = planted.labels.clone()
    mixed[planted.places[1:]] = mixed[
        planted.others.nonzero()[1:]
    ] = -1  # of two images one is left
    assert planted.memorized(mixed) == 1
    assert planted.memorized(torch.full_like(labels, -1)) is None
    assert PlantedLabels(labels, classes, 0.0, 0).memorized(labels) is None


@shapes
def test_mixed_images_have_both_labels_losses(shape: tuple[int, int]):
    batch, extra = draw(shape, seed=7), draw_inputs(shape, seed=7)
    result = loss_with_departures(*batch[:3], extra, mixup=True)
    teacher, student, labels, _ = batch.lists()
    targets = robust_targets(batch.labels, batch.student.softmax(1), extra.alpha)
    partners = targets[extra.partner].tolist()
    mixed = matrix(oracle.mixed(targets.tolist(), partners, extra.weight.item()))
    assert_close(result.naive, F.cross_entropy(batch.teacher, mixed))
    of_partners = oracle.compensation_loss(teacher, student, batch.labels[extra.partner].tolist())
    own = oracle.compensation_loss(teacher, student, labels)
    assert result.compensation.item() == pytest.approx(0.7 * own + 0.3 * of_partners)
    alone = extra._replace(weight=torch.ones_like(extra.weight))
    results = [loss_with_departures(*batch[:3], alone, mixup=mixup) for mixup in (True, False)]
    assert_close(*results)


@shapes
@pytest.mark.parametrize("alpha", [None, 0.0, 1.0])
@pytest.mark.parametrize("masked_mean", [False, True])
def test_without_departures_the_loss_is_the_papers(
    shape: tuple[int, int], masked_mean: bool, alpha: float | None
):
    batch, extra = draw(shape, seed=5), draw_inputs(shape, seed=5)
    if alpha is not None:
        extra = extra._replace(alpha=torch.full_like(extra.alpha, alpha))
    result = loss_with_departures(*batch[:3], extra, masked_mean=masked_mean)
    teacher, student, labels, _ = batch.lists()
    expected = oracle.pair_loss(teacher, student, labels, extra.alpha.tolist(), masked_mean)
    assert [part.item() for part in result] == pytest.approx(list(expected), rel=1e-10)


@pytest.mark.parametrize("shape", [(1, 2), (4, 5)])
@pytest.mark.parametrize(
    "options", [{}, {"masked_mean": True}, {"detach_student_target": True}], ids=str
)
def test_its_gradients(shape: tuple[int, int], options: dict):
    """The student also learns through the target, unless that is detached."""
    batch, extra = draw(shape, seed=4), draw_inputs(shape, seed=4)
    inputs = batch.teacher.requires_grad_(), batch.student.requires_grad_()
    slopes = torch.autograd.grad(loss_with_departures(*batch[:3], extra, **options).total, inputs)
    _, student, labels, _ = batch.lists()
    given = labels, extra.alpha.tolist(), "masked_mean" in options
    fixed = student if "detach_student_target" in options else None
    assert_slopes(slopes, lambda t, s: oracle.pair_loss(t, s, *given, fixed).total, batch)
