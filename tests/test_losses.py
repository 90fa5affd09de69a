"""Every loss formula against the slow one, its gradients, and extreme logits."""

from typing import NamedTuple

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.testing import assert_close

from models.build import baseline_loss
from models.losses import PairLoss, agreement, compensation_loss, pair_loss, robust_targets
from tests import oracle

SHAPES = [(1, 2), (1, 10), (3, 2), (4, 5), (7, 10)]
shapes = pytest.mark.parametrize("shape", SHAPES)
masked_means = pytest.mark.parametrize("masked_mean", [False, True])


class Draw(NamedTuple):
    """A random batch in float64."""

    teacher: Tensor  # [B, C]
    student: Tensor  # [B, C]
    labels: Tensor  # [B]
    alpha: Tensor  # [B]

    def loss(self, *, masked_mean: bool = False) -> PairLoss:
        """The paper's, with its targets."""
        targets = robust_targets(self.labels, self.student.softmax(1), self.alpha)
        return pair_loss(*self[:3], targets, masked_mean=masked_mean)

    def lists(self) -> tuple[list, list, list, list]:
        """Its fields as plain numbers."""
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
    naive = pair_loss(teacher, student, labels, targets).naive
    assert_close(naive, F.cross_entropy(teacher, labels))


@shapes
@masked_means
@pytest.mark.parametrize("alpha", [None, 0.0, 1.0])
def test_pair_loss(shape: tuple[int, int], masked_mean: bool, alpha: float | None):
    batch = draw(shape, seed=3)
    if alpha is not None:
        batch = batch._replace(alpha=torch.full_like(batch.alpha, alpha))
    result = batch.loss(masked_mean=masked_mean)
    expected = oracle.pair_loss(*batch.lists(), masked_mean)
    assert [part.item() for part in result] == pytest.approx(list(expected), rel=1e-10)


@pytest.mark.parametrize("shape", [(1, 2), (4, 5)])
@masked_means
def test_pair_loss_gradients(shape: tuple[int, int], masked_mean: bool):
    """The student also learns through the target."""
    batch = draw(shape, seed=4)
    inputs = batch.teacher.requires_grad_(), batch.student.requires_grad_()
    by_teacher, by_student = torch.autograd.grad(batch.loss(masked_mean=masked_mean).total, inputs)

    teacher, student, labels, alpha = batch.lists()

    def total(t: oracle.Matrix, s: oracle.Matrix) -> float:
        return oracle.pair_loss(t, s, labels, alpha, masked_mean).total

    expected = matrix(oracle.gradient(lambda t: total(t, student), teacher))
    assert_close(by_teacher, expected, rtol=1e-6, atol=1e-7)
    expected = matrix(oracle.gradient(lambda s: total(teacher, s), student))
    assert_close(by_student, expected, rtol=1e-6, atol=1e-7)


def test_the_gradient_flows_through_the_target_into_the_student():
    batch = draw((4, 5))
    batch.student.requires_grad_()
    (slope,) = torch.autograd.grad(batch.loss().naive, batch.student)
    assert (slope != 0).all()


@pytest.mark.parametrize("alpha", [0.0, 0.3, 0.7, 1.0])
def test_finite_where_student_probabilities_underflow(alpha: float):
    inputs = [logits.requires_grad_() for logits in huge()]
    assert (inputs[1].softmax(1) == 0).any()
    labels = torch.arange(50) % 10
    loss = Draw(*inputs, labels, torch.full((50,), alpha)).loss()
    assert all(part.isfinite() for part in loss)
    for slope in torch.autograd.grad(loss.total, inputs):
        assert slope.isfinite().all()


@shapes
def test_baseline_loss(shape: tuple[int, int]):
    batch = draw(shape)
    result = baseline_loss(*batch[:3], ())
    one_hot = F.one_hot(batch.labels, shape[1]).tolist()
    assert result.naive.item() == pytest.approx(
        oracle.cross_entropy(batch.teacher.tolist(), one_hot)
    )
    assert result.total == result.naive
    assert result.compensation == 0
