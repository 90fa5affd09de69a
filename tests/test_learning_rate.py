"""The learning rate's schedules, and that each step of training has the rate of its progress."""

import math
from collections.abc import Iterable, Iterator
from itertools import islice

import pytest
import torch
from torch import Tensor

import blind_knowledge_dist_training as training
from data.loader import Batch
from models.fast.training_step import StepResult, TrainingStep
from models.learning_rate import LearningRate
from models.robust_phase import loss_with_departures
from tests.test_training import small_loader, small_pair, training_of

EPOCHS, STEPS, INITIAL = 12, 5, 0.3


def new_optimizer(lr: float = INITIAL) -> torch.optim.SGD:
    weights = [torch.nn.Parameter(torch.ones(2)) for _ in range(2)]
    return torch.optim.SGD([{"params": [each]} for each in weights], lr)


def rate_of(schedule: str, **decay: float) -> LearningRate:
    return LearningRate(new_optimizer(), schedule, EPOCHS, **decay)


def all_steps(epochs: int = EPOCHS) -> list[float]:
    """The progress before each step."""
    return [epoch + step / STEPS for epoch in range(epochs) for step in range(STEPS)]


@pytest.mark.parametrize("lr", [0.02, 0.1, 1 / 3])
@pytest.mark.parametrize(("every", "gamma"), [(1, 0.1), (3, 0.1), (3, 0.7), (150, 0.1), (2, 1.5)])
def test_step_is_torchs_bit_for_bit(lr: float, every: int, gamma: float):
    optimizer = new_optimizer(lr)
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, every, gamma)
    rate = LearningRate(new_optimizer(lr), "step", 40, lr_step=every, lr_gamma=gamma)
    for epoch in range(40):
        expected = schedule.get_last_lr()
        for step in range(STEPS):
            rate.set(epoch + step / STEPS)
            assert [group["lr"] for group in rate.optimizer.param_groups] == expected, epoch
        assert rate.at(epoch) == expected[0]
        optimizer.step()
        schedule.step()


@pytest.mark.parametrize("warm_up", [0.4, 2, 3.7])
def test_a_warm_up_rises_from_nothing(warm_up: float):
    for schedule in ("step", "linear", "after_tipping"):
        decay = {"lr_step": 4, "lr_gamma": 0.5}
        rate, without = rate_of(schedule, warm_up=warm_up, **decay), rate_of(schedule, **decay)
        assert rate.at(0) == 0 and rate.at(warm_up) == pytest.approx(INITIAL)
        assert rate.at(warm_up / 3) == pytest.approx(INITIAL / 3)
        if schedule == "linear":
            assert rate.at(EPOCHS) == 0
            assert rate.at((warm_up + EPOCHS) / 2) == pytest.approx(INITIAL / 2)
        else:
            after = [each for each in all_steps() if each >= warm_up]
            assert [rate.at(each) for each in after] == [without.at(each) for each in after]


@pytest.mark.parametrize("found", [1, 7, EPOCHS - 1, EPOCHS, None])
def test_after_tipping_falls_to_nothing_from_where_it_was_found(found: int | None):
    rate, rates = rate_of("after_tipping"), []
    for progress in [*all_steps(), EPOCHS]:
        if progress == found:
            rate.tipping_point_found(found)
            assert rate.left(found - 1) == 1  # the epoch after which it was found
        rates.append(rate.at(progress))
    at_end = rates.pop()
    falls = 0 if found is None else (EPOCHS - found) * STEPS
    before, after = rates[: len(rates) - falls], rates[len(rates) - falls :]
    assert set(before) == {INITIAL}
    assert after == pytest.approx([INITIAL - n * INITIAL / falls for n in range(falls)])
    assert at_end == (INITIAL if found in (EPOCHS, None) else 0)


class Spy(TrainingStep):
    """A training step that notes the optimizer's rate and a weight's update."""

    def __init__(self):
        pair = small_pair()
        optimizer = torch.optim.SGD(pair.parameters(), INITIAL)
        super().__init__(pair, optimizer, loss_with_departures, batch_size=8)
        self.rates: list[float] = []
        self.factors: list[float] = []

    def __call__(self, *batch: Tensor) -> StepResult:
        weight = self.pair.teacher.linear.bias
        before = weight.detach().clone()
        result = super().__call__(*batch)
        self.rates.append(self.optimizer.param_groups[0]["lr"])
        self.factors.append(((before - weight.detach()).norm() / weight.grad.norm()).item())
        return result


def broken_off(batches: Iterable[Batch], count: int) -> Iterator[Batch]:
    yield from islice(batches, count)
    raise InterruptedError


@pytest.mark.parametrize("break_at", [0, 1, 3, STEPS])
@pytest.mark.parametrize("schedule", ["step", "linear", "after_tipping"])
def test_each_step_has_its_rate_also_in_an_epoch_that_is_resumed(schedule: str, break_at: int):
    loader, step = small_loader(37, 8), Spy()
    assert len(loader) == STEPS  # the last one short
    rate = LearningRate(step.optimizer, schedule, 4, lr_step=2, lr_gamma=0.5)
    state = training_of(step, rate, loader)
    for epoch in range(4):
        state.statistics.reset()
        if epoch == 2:
            rate.tipping_point_found(2)
            with pytest.raises(InterruptedError):
                training.train_epoch(state, broken_off(loader, break_at), epoch, averaging=False)
        training.train_epoch(state, loader.after(state.statistics.steps), epoch, averaging=False)
        assert state.statistics.share_done() == 1
    assert step.rates == [rate_at(schedule, progress) for progress in all_steps(4)]
    assert step.factors == pytest.approx(step.rates, rel=1e-3)


def rate_at(schedule: str, progress: float) -> float:
    """By hand: 4 epochs, halved every other one, or the tipping point found after two."""
    if schedule == "step":
        return INITIAL * 0.5 ** math.floor(progress / 2)
    if schedule == "linear":
        return INITIAL * ((4 - progress) / 4)
    return INITIAL * ((4 - progress) / 2 if progress >= 2 else 1)
