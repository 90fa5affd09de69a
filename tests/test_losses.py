"""Every loss formula against the slow one, its gradients, and extreme logits."""

from typing import NamedTuple

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.testing import assert_close

from models.losses import (
    Guide,
    agreement,
    baseline_loss,
    compensation_loss,
    pair_loss,
    posterior_targets,
    prior_penalty,
    robust_targets,
    transition_matrix,
)
from tests import oracle

SHAPES = [(1, 2), (1, 10), (3, 2), (4, 5), (7, 10)]
shapes = pytest.mark.parametrize("shape", SHAPES)
masked_means = pytest.mark.parametrize("masked_mean", [False, True])
smoothings = pytest.mark.parametrize("share", [0.1, 0.9])


class Draw(NamedTuple):
    """A random batch in float64."""

    teacher: Tensor  # [B, C]
    student: Tensor  # [B, C]
    labels: Tensor  # [B]
    alpha: Tensor  # [B]

    def given(self) -> tuple[Tensor, Tensor, Tensor, Guide]:
        """The arguments of a loss."""
        return *self[:3], Guide(self.alpha)

    def lists(self) -> tuple[list, list, list, list]:
        """The same as plain numbers."""
        return tuple(values.tolist() for values in self)


def draw(shape: tuple[int, int], seed: int = 0) -> Draw:
    generator = torch.Generator().manual_seed(seed)
    teacher, student = 3 * torch.randn(2, *shape, generator=generator, dtype=torch.float64)
    labels = torch.randint(shape[1], shape[:1], generator=generator)
    return Draw(teacher, student, labels, torch.rand(shape[0], generator=generator).double())


def matrix(rows: list[list[float]]) -> Tensor:
    return torch.tensor(rows, dtype=torch.float64)


def huge(batch: int = 50, classes: int = 10) -> tuple[Tensor, Tensor]:
    """Teacher's and student's logits, float32, each 10,000 or -10,000."""
    generator = torch.Generator().manual_seed(1)
    signs = torch.randint(2, (2, batch, classes), generator=generator)
    teacher, student = (2 * signs - 1) * 1e4
    return teacher, student


@shapes
def test_agreement(shape: tuple[int, int]):
    teacher, student, *_ = draw(shape)
    expected = matrix(oracle.agreement(teacher.tolist(), student.tolist()))
    assert_close(agreement(teacher, student), expected)
    assert_close(agreement(teacher.float(), student.float()), expected.float())


def test_agreement_where_the_product_underflows():
    teacher = torch.tensor([[1e4, -1e4, 0.0]])
    student = torch.tensor([[-1e4, 1e4, 0.0]])
    assert (teacher.softmax(1) * student.softmax(1)).sum() == 0  # 0/0 if computed directly
    assert_close(agreement(teacher, student), torch.full((1, 3), 1 / 3))


def test_agreement_of_huge_logits():
    teacher, student = huge()
    result = agreement(teacher, student)
    assert result.isfinite().all()
    assert_close(result.sum(1), torch.ones(50))
    # softmax(t) * softmax(s) is proportional to exp(t + s)
    expected = [oracle.softmax(row) for row in (teacher + student).tolist()]
    assert_close(result, torch.tensor(expected))


@shapes
@masked_means
def test_compensation_loss(shape: tuple[int, int], masked_mean: bool):
    batch = draw(shape, seed=1)
    teacher, student, labels, _ = batch.lists()
    result = compensation_loss(*batch[:3], masked_mean=masked_mean)
    expected = oracle.compensation_loss(teacher, student, labels, masked_mean)
    assert result.item() == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(("masked_mean", "expected"), [(False, 54 / 5), (True, 54 / 4)])
def test_compensation_loss_by_hand(masked_mean: bool, expected: float):
    teacher = torch.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])  # 2^2 + 3^2 + 4^2 + 5^2 = 54
    labels = torch.tensor([0, 2])
    result = compensation_loss(teacher, torch.zeros(2, 3), labels, masked_mean=masked_mean)
    assert result.item() == pytest.approx(expected)


def test_equal_logits():
    teacher, _, labels, _ = draw((4, 5))
    assert compensation_loss(teacher, teacher.clone(), labels) == 0
    squares = teacher.softmax(1) ** 2
    assert_close(agreement(teacher, teacher), squares / squares.sum(1, keepdim=True))


@shapes
def test_compensation_loss_is_blind_to_the_given_label(shape: tuple[int, int]):
    teacher, student, labels, _ = draw(shape)
    column = labels[:, None]
    before = compensation_loss(teacher, student, labels)
    for index, value in ((0, 1e6), (1, -7.0)):
        changed = [teacher, student]
        changed[index] = changed[index].scatter(1, column, value)
        assert compensation_loss(*changed, labels) == before
    teacher.requires_grad_()
    student.requires_grad_()
    slopes = torch.autograd.grad(compensation_loss(teacher, student, labels), (teacher, student))
    for slope in slopes:
        given = F.one_hot(labels, shape[1]).bool()
        assert (slope[given] == 0).all()
        assert (slope[~given] != 0).all()


@shapes
def test_robust_targets(shape: tuple[int, int]):
    _, student, labels, alpha = draw(shape, seed=2)
    probs = student.softmax(1)
    expected = oracle.robust_targets(labels.tolist(), probs.tolist(), alpha.tolist())
    assert_close(robust_targets(labels, probs, alpha), matrix(expected))


def test_robust_targets_by_hand():
    labels, probs = torch.tensor([0, 1]), matrix([[0.8, 0.2], [0.8, 0.2]])
    result = robust_targets(labels, probs, torch.tensor([1.0, 0.5], dtype=torch.float64))
    # alpha 1: squares of the student's alone; alpha 0.5: (0.4, 0.6)^1.5
    powers = [0.4**1.5, 0.6**1.5]
    expected = [[0.64 / 0.68, 0.04 / 0.68], [power / sum(powers) for power in powers]]
    assert_close(result, matrix(expected))


@pytest.mark.parametrize("student", [draw((50, 10)).student.float(), huge()[1]])
def test_alpha_0_is_plain_cross_entropy(student: Tensor):
    teacher, _, labels, _ = draw((50, 10))
    teacher, alpha = teacher.float(), torch.zeros(50)
    targets = robust_targets(labels, student.softmax(1), alpha)
    assert torch.equal(targets, F.one_hot(labels, 10).float())
    naive = pair_loss(teacher, student, labels, Guide(alpha)).naive
    assert_close(naive, F.cross_entropy(teacher, labels))


@shapes
@masked_means
@pytest.mark.parametrize("alpha", [None, 0.0, 1.0])
def test_pair_loss(shape: tuple[int, int], masked_mean: bool, alpha: float | None):
    batch = draw(shape, seed=3)
    if alpha is not None:
        batch = batch._replace(alpha=torch.full_like(batch.alpha, alpha))
    result = pair_loss(*batch.given(), masked_mean=masked_mean)
    expected = oracle.pair_loss(*batch.lists(), masked_mean)
    assert [part.item() for part in result] == pytest.approx(list(expected), rel=1e-10)


@shapes
@smoothings
def test_smoothed_targets(shape: tuple[int, int], share: float):
    batch = draw(shape, seed=3)
    result = pair_loss(*batch.given(), label_smoothing=share)
    expected = oracle.pair_loss(*batch.lists(), label_smoothing=share)
    assert [part.item() for part in result] == pytest.approx(list(expected), rel=1e-10)
    alone = baseline_loss(*batch.given(), label_smoothing=share)
    targets = oracle.smoothed(F.one_hot(batch.labels, shape[1]).tolist(), share)
    expected = oracle.cross_entropy(batch.teacher.tolist(), targets)
    assert alone.total.item() == alone.naive.item() == pytest.approx(expected, rel=1e-10)
    assert alone.compensation == 0


def test_without_smoothing_the_losses_are_the_papers_bit_for_bit():
    batch = draw((50, 10), seed=5)
    labels, alpha, results = batch.labels, batch.alpha.float(), []

    def new_logits() -> list[Tensor]:
        return [each.float().requires_grad_() for each in (batch.teacher, batch.student)]

    for smoothing in ({}, {"label_smoothing": 0.0}, {"label_smoothing": 1e-3}):
        inputs = new_logits()
        loss = pair_loss(*inputs, labels, Guide(alpha), **smoothing)
        alone = baseline_loss(*inputs, labels, Guide(alpha), **smoothing).total
        slopes = torch.autograd.grad(loss.total + alone, inputs)
        results.append((*loss, alone, *slopes))
    inputs = new_logits()
    naive = F.cross_entropy(inputs[0], robust_targets(labels, inputs[1].softmax(1), alpha))
    compensation = compensation_loss(*inputs, labels)
    alone = F.cross_entropy(inputs[0], labels)
    slopes = torch.autograd.grad(naive + compensation + alone, inputs)
    papers = (naive + compensation, naive, compensation, alone, *slopes)
    for result in results[:2]:
        assert all(torch.equal(one, other) for one, other in zip(result, papers, strict=True))
    same = [torch.equal(one, other) for one, other in zip(results[2], papers, strict=True)]
    assert same == [False, False, True, False, False, False]  # compensation alone stays


@pytest.mark.parametrize("shape", [(1, 2), (4, 5)])
@masked_means
@pytest.mark.parametrize("detached", [False, True])
@pytest.mark.parametrize("share", [0.0, 0.2])
def test_pair_loss_gradients(
    shape: tuple[int, int], masked_mean: bool, detached: bool, share: float
):
    """Attached, the student also learns through the target; detached, the target is held fixed."""
    batch = draw(shape, seed=4)
    inputs = batch.teacher.requires_grad_(), batch.student.requires_grad_()
    loss = pair_loss(
        *batch.given(),
        masked_mean=masked_mean,
        detach_student_target=detached,
        label_smoothing=share,
    )
    by_teacher, by_student = torch.autograd.grad(loss.total, inputs)

    teacher, student, labels, alpha = batch.lists()

    def total(t: oracle.Matrix, s: oracle.Matrix) -> float:
        fixed = student if detached else None
        return oracle.pair_loss(t, s, labels, alpha, masked_mean, fixed, share).total

    expected = matrix(oracle.gradient(lambda t: total(t, student), teacher))
    assert_close(by_teacher, expected, rtol=1e-6, atol=1e-7)
    expected = matrix(oracle.gradient(lambda s: total(teacher, s), student))
    assert_close(by_student, expected, rtol=1e-6, atol=1e-7)


def test_the_gradient_flows_through_the_target_into_the_student():
    batch = draw((4, 5))
    batch.student.requires_grad_()
    (slope,) = torch.autograd.grad(pair_loss(*batch.given()).naive, batch.student)
    assert (slope != 0).all()
    assert not pair_loss(*batch.given(), detach_student_target=True).naive.requires_grad


@pytest.mark.parametrize("alpha", [0.0, 0.3, 0.7, 1.0])
def test_finite_where_student_probabilities_underflow(alpha: float):
    inputs = [logits.requires_grad_() for logits in huge()]
    assert (inputs[1].softmax(1) == 0).any()
    labels = torch.arange(50) % 10
    loss = pair_loss(*inputs, labels, Guide(torch.full((50,), alpha)))
    assert all(part.isfinite() for part in loss)
    for slope in torch.autograd.grad(loss.total, inputs):
        assert slope.isfinite().all()


@shapes
def test_baseline_loss(shape: tuple[int, int]):
    batch = draw(shape)
    result = baseline_loss(*batch.given())
    one_hot = F.one_hot(batch.labels, shape[1]).tolist()
    assert result.naive.item() == pytest.approx(
        oracle.cross_entropy(batch.teacher.tolist(), one_hot)
    )
    assert result.total == result.naive
    assert result.compensation == 0


def draw_guide(shape: tuple[int, int], seed: int = 0) -> Guide:
    """All that a robust phase may be given, in float64."""
    batch, classes = shape
    generator = torch.Generator().manual_seed(100 + seed)

    def shares(*sizes: int) -> Tensor:
        return torch.rand(*sizes, generator=generator, dtype=torch.float64).softmax(-1)

    return Guide(
        draw(shape, seed).alpha,
        shares(batch, classes),
        shares(classes, classes),
        shares(2, classes),
        torch.ones((), dtype=torch.float64),
        torch.randperm(batch, generator=generator),
        torch.tensor(0.7, dtype=torch.float64),
    )


@shapes
def test_posterior_targets(shape: tuple[int, int]):
    labels, guide = draw(shape).labels, draw_guide(shape)
    expected = oracle.posterior_targets(
        labels.tolist(), guide.predicted.tolist(), guide.transition.tolist()
    )
    result = posterior_targets(labels, guide.predicted, guide.transition)
    assert_close(result, matrix(expected))


def test_posterior_targets_by_hand():
    predicted, labels = matrix([[0.9, 0.1], [0.9, 0.1]]), torch.tensor([0, 1])
    transition = matrix([[0.8, 0.2], [0.1, 0.9]])  # a fifth of class 0 is given label 1
    result = posterior_targets(labels, predicted, transition)
    # 0.9 * 0.8 to 0.1 * 0.1, and 0.9 * 0.2 to 0.1 * 0.9
    assert_close(result, matrix([[72 / 73, 1 / 73], [2 / 3, 1 / 3]]))


@pytest.mark.parametrize("sure", [0.0, 1e-30, 0.5])
def test_where_no_label_is_ever_wrong_the_posterior_is_one_hot(sure: float):
    predicted = torch.tensor([[1 - sure, sure], [1 - sure, sure]])
    result = posterior_targets(torch.tensor([0, 1]), predicted, torch.eye(2))
    assert torch.equal(result, torch.eye(2))


@shapes
def test_transition_matrix(shape: tuple[int, int]):
    labels, guide = draw(shape).labels, draw_guide(shape)
    expected = oracle.transition_matrix(guide.predicted.tolist(), labels.tolist())
    assert_close(transition_matrix(guide.predicted, labels), matrix(expected))


def test_the_transition_matrix_is_found_again():
    """Where the predictions are the true classes it is the share of each wrong label."""
    generator = torch.Generator().manual_seed(0)
    true = torch.tensor([[0.7, 0.3, 0.0], [0.0, 1.0, 0.0], [0.2, 0.2, 0.6]])
    classes = torch.randint(3, (30000,), generator=generator)
    labels = torch.multinomial(true[classes], 1, generator=generator).squeeze(1)
    found = transition_matrix(F.one_hot(classes, 3).float(), labels)
    assert_close(found, true, atol=0.01, rtol=0)


@shapes
@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_prior_penalty(shape: tuple[int, int], momentum: float):
    """Its value with a momentum; its gradient as if the marginal were the batch's own mean."""
    logits, guide = draw(shape).teacher.requires_grad_(), draw_guide(shape)
    prior, marginal = guide.marginals
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


def test_the_penalty_of_a_lost_class():
    prior = torch.tensor([0.5, 0.5])
    assert prior_penalty(torch.zeros(4, 2), prior, prior) == 0
    lost = torch.tensor([[50.0, -50.0]]).expand(4, 2).clone().requires_grad_()
    penalty = prior_penalty(lost, prior, prior)
    assert penalty > 40 and penalty.isfinite()
    remembered = prior_penalty(lost, prior, torch.tensor([0.6, 0.4]), 0.9)
    assert 0 < remembered < 0.2


@shapes
@pytest.mark.parametrize("mixup", [False, True])
def test_the_loss_of_bkd_plus_and_its_gradients(shape: tuple[int, int], mixup: bool):
    batch, guide = draw(shape, seed=6), draw_guide(shape, seed=6)
    prior = torch.full((shape[1],), 1 / shape[1], dtype=torch.float64)
    inputs = batch.teacher.requires_grad_(), batch.student.requires_grad_()
    options = {"posterior": True, "both_learn": True, "naive_compensation": True}
    options |= {"class_balance": 0.5, "prior": prior, "mixup": mixup}
    loss = pair_loss(*inputs, batch.labels, guide, **options).total
    slopes = torch.autograd.grad(loss, inputs)

    teacher, student, labels, _ = batch.lists()
    predicted, transition = guide.predicted.tolist(), guide.transition.tolist()
    targets = oracle.posterior_targets(labels, predicted, transition)
    if mixup:
        partners = [targets[i] for i in guide.partner.tolist()]
        targets = oracle.mixed(targets, partners, guide.weight.item())

    def total(t: oracle.Matrix, s: oracle.Matrix) -> float:
        marginals = zip((t, s), guide.marginals.tolist(), strict=True)
        penalties = [oracle.prior_penalty(logits, prior.tolist(), m) for logits, m in marginals]
        return oracle.robust_phase_loss(t, s, targets, penalties, 0.5)

    assert loss.item() == pytest.approx(total(teacher, student), rel=1e-10)
    expected = matrix(oracle.gradient(lambda t: total(t, student), teacher))
    assert_close(slopes[0], expected, rtol=1e-6, atol=1e-7)
    expected = matrix(oracle.gradient(lambda s: total(teacher, s), student))
    assert_close(slopes[1], expected, rtol=1e-6, atol=1e-7)


@shapes
def test_mixed_images_have_both_labels_losses(shape: tuple[int, int]):
    batch, guide = draw(shape, seed=7), draw_guide(shape, seed=7)
    result = pair_loss(*batch[:3], guide, mixup=True)
    probs = batch.student.softmax(1)
    targets = robust_targets(batch.labels, probs, guide.alpha)
    targets = matrix(
        oracle.mixed(targets.tolist(), targets[guide.partner].tolist(), guide.weight.item())
    )
    assert_close(result.naive, F.cross_entropy(batch.teacher, targets))
    teacher, student, labels, _ = batch.lists()
    of_partners = oracle.compensation_loss(teacher, student, batch.labels[guide.partner].tolist())
    own = oracle.compensation_loss(teacher, student, labels)
    assert result.compensation.item() == pytest.approx(0.7 * own + 0.3 * of_partners)
    alone = guide._replace(weight=torch.ones_like(guide.weight))
    assert_close(pair_loss(*batch[:3], alone, mixup=True), pair_loss(*batch[:3], alone))


def test_before_the_robust_phase_the_departures_change_nothing():
    batch, prior = draw((7, 10)), torch.full((10,), 0.1, dtype=torch.float64)
    guide = draw_guide((7, 10))._replace(
        alpha=torch.zeros(7, dtype=torch.float64),
        transition=torch.eye(10, dtype=torch.float64),
        robust=torch.zeros((), dtype=torch.float64),
    )
    papers = pair_loss(*batch[:3], guide)
    for options in (
        {"posterior": True},
        {"both_learn": True},
        {"naive_compensation": True},
        {"class_balance": 2.0, "prior": prior, "marginal_momentum": 0.9},
    ):
        assert_close(pair_loss(*batch[:3], guide, **options), papers)
        changed = pair_loss(*batch[:3], draw_guide((7, 10)), **options).total
        assert (changed - pair_loss(*batch[:3], draw_guide((7, 10))).total).abs() > 1e-3
