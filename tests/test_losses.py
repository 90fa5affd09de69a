"""Loss formulas against the slow ones, and extreme logits; gradients: test_robust_phase.py."""

from typing import NamedTuple

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.testing import assert_close

from models.build import baseline_loss
from models.losses import agreement, compensation_loss, pair_loss, robust_targets
from tests import oracle

shapes = pytest.mark.parametrize("shape", [(1, 2), (1, 10), (3, 2), (4, 5), (7, 10)])


class Draw(NamedTuple):
    teacher: Tensor  # [B, C]
    student: Tensor  # [B, C]
    labels: Tensor  # [B]
    alpha: Tensor  # [B]

    def lists(self) -> tuple[list, list, list, list]:
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
    signs = torch.randint(2, (2, batch, classes), generator=torch.Generator().manual_seed(1))
    teacher, student = (2 * signs - 1) * 1e4
    return teacher, student


@shapes
def test_agreement(shape: tuple[int, int]):
    teacher, student, *_ = draw(shape)
    expected = matrix(oracle.agreement(teacher.tolist(), student.tolist()))
    assert_close(agreement(teacher, student), expected)
    assert_close(agreement(teacher.float(), student.float()), expected.float())


def test_agreement_of_huge_logits():
    teacher, student = huge()
    student[0] = -teacher[0]
    assert (teacher.softmax(1) * student.softmax(1))[0].sum() == 0  # 0/0 if computed directly
    result = agreement(teacher, student)
    assert result.isfinite().all()
    assert_close(result.sum(1), torch.ones(50))
    # softmax(t) * softmax(s) is proportional to exp(t + s)
    expected = [oracle.softmax(row) for row in (teacher + student).tolist()]
    assert_close(result, torch.tensor(expected))


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


@pytest.mark.parametrize("student", [draw((50, 10)).student.float(), huge()[1]])
def test_alpha_0_is_plain_cross_entropy(student: Tensor):
    teacher, _, labels, _ = draw((50, 10))
    teacher, alpha = teacher.float(), torch.zeros(50)
    targets = robust_targets(labels, student.softmax(1), alpha)
    assert torch.equal(targets, F.one_hot(labels, 10).float())
    naive = pair_loss(teacher, student, labels, targets).naive
    assert_close(naive, F.cross_entropy(teacher, labels))


@pytest.mark.parametrize("alpha", [0.0, 0.3, 0.7, 1.0])
def test_finite_where_student_probabilities_underflow(alpha: float):
    inputs = [logits.requires_grad_() for logits in huge()]
    assert (inputs[1].softmax(1) == 0).any()
    labels = torch.arange(50) % 10
    targets = robust_targets(labels, inputs[1].softmax(1), torch.full((50,), alpha))
    loss = pair_loss(*inputs, labels, targets)
    assert all(part.isfinite() for part in loss)
    for slope in torch.autograd.grad(loss.total, inputs):
        assert slope.isfinite().all()


@shapes
def test_baseline_loss(shape: tuple[int, int]):
    batch = draw(shape)
    result = baseline_loss(*batch[:3], ())
    assert result.naive.item() == pytest.approx(
        oracle.cross_entropy(batch.teacher.tolist(), F.one_hot(batch.labels, shape[1]).tolist())
    )
    assert result.total == result.naive
    assert result.compensation == 0
