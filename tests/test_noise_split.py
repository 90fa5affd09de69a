"""Threshold, groups and tipping point against slow ones; the monitor, also when resumed."""

import math
import random

import pytest
import torch
from torch import Tensor

from models.losses import agreement
from models.noise_split import (
    EpochRecord,
    OtsuSplit,
    Scores,
    TippingPointMonitor,
    otsu,
    score,
    student_weights,
    tipping_point,
    trust_groups,
)
from tests import oracle

dtypes = pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
EXACT_TIE = [0.125, 0.5, 0.875]  # exact in binary; s = 126..500 mirrors s = 501..875


KINDS = {  # of scores, from two uniform draws
    "bimodal": lambda u, other: torch.where(other < 0.7, 1 - u**4, u**4),
    "uniform": lambda u, _: u,
    "skewed high": lambda u, _: 1 - u**8,
    "skewed low": lambda u, _: u**8,
    "low half": lambda u, _: u / 2,
    "narrow": lambda u, _: 0.6 + u / 100,
    "0, 1 and others": lambda u, other: torch.where(u < 0.6, other.round(), other),
    "few values": lambda u, _: (u * 5).floor() / 5 + 0.0005,
}


def assert_best(scores: Tensor):
    """No split has a better criterion than the chosen one, whose means are right."""
    split = otsu(scores)
    cuts = oracle.otsu_cuts(scores.tolist())
    s = round(split.threshold * 1000)
    best = max(cut.quality for cut in cuts if cut)
    assert split.threshold == s / 1000
    assert cuts[s].quality == pytest.approx(best, rel=1e-9)
    assert (split.low_mean, split.high_mean) == pytest.approx(cuts[s][1:], rel=1e-9)
    assert s == 2 or cuts[s - 1] != cuts[s]  # the smallest s with this split


@dtypes
@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("kind", KINDS)
def test_otsu_finds_the_best_split(kind: str, seed: int, dtype: torch.dtype):
    generator = torch.Generator().manual_seed(seed)
    assert_best(KINDS[kind](*torch.rand(2, 300, generator=generator, dtype=dtype)))


@dtypes
@pytest.mark.parametrize(
    "bins",
    [
        [501, 502, 503, 506, 509, 516],
        [501, 508, 512, 513, 515, 516],
        [500, 503, 503, 504, 504, 507],
    ],
)
def test_otsu_depends_on_details(bins: list[int], dtype: torch.dtype):
    """Here another variance floor, or the mean of the bins instead of the scores, gives another."""
    assert_best((torch.tensor(bins, dtype=dtype) + 0.999) / 1000)


@dtypes
@pytest.mark.parametrize(
    ("scores", "expected"),
    [
        ([0.1005] * 3 + [0.9005] * 2, (0.1, 0.101, 0.9)),
        ([0.0] * 5 + [1.0] * 5, (0.0, 0.002, 0.999)),  # the last bin takes 1, the first s is 2
        ([0.0, 0.0015, 0.0025], (0.0005, 0.002, 0.002)),
        ([0.9965, 0.9975, 1.0], (0.996, 0.997, 0.998)),  # the last s is 997
        (EXACT_TIE, (0.125, 0.126, 0.6875)),
    ],
)
def test_otsu_ties_and_edges(scores: list[float], expected: tuple[float, ...], dtype: torch.dtype):
    assert otsu(torch.tensor(scores, dtype=dtype)) == pytest.approx(expected, rel=1e-12)


def test_the_tie_is_a_tie():
    cuts = oracle.otsu_cuts(EXACT_TIE)
    assert cuts[126].quality == cuts[501].quality == max(cut.quality for cut in cuts if cut)


@pytest.mark.parametrize(
    "scores", [[0.5], [0.5001, 0.5009], [0.0, 0.0015], [0.9975, 0.9985, 1.0], [1.0], [0.0]]
)
def test_otsu_without_two_sides(scores: list[float]):
    assert not any(oracle.otsu_cuts(scores))
    assert otsu(torch.tensor(scores)) is None
    assert not student_weights(torch.tensor(scores), [0.5] * 4).any()


@pytest.mark.parametrize("bad", [math.nan, -1e-6, 1 + 1e-6, math.inf, -math.inf])
def test_otsu_refuses_other_numbers(bad: float):
    with pytest.raises(ValueError, match="0 to 1"):
        otsu(torch.tensor([0.2, bad, 0.7]))


@dtypes
def test_trust_groups(dtype: torch.dtype):
    split = OtsuSplit(0.25, 0.7, 0.75)  # 0.7 is a little less in float32
    edges = torch.tensor([0.0, *split, 1.0], dtype=dtype)
    near = [edges, edges.nextafter(edges + 1), edges.nextafter(edges - 1)]
    scores = torch.cat([torch.linspace(0, 1, 300, dtype=dtype), *near])
    assert trust_groups(scores, split).tolist() == oracle.trust_groups(scores.tolist(), *split)
    exact = torch.tensor([0.2, 0.25, 0.3, 0.7, 0.72, 0.75, 0.8], dtype=torch.float64)
    assert trust_groups(exact, split).tolist() == [4, 3, 3, 2, 2, 1, 1]


def random_curve(seed: int) -> list[float]:
    """Floats, or one of few whole numbers, so that ties occur; sometimes with a NaN."""
    drawer = random.Random(seed)
    length = drawer.randrange(0, 25)
    if seed % 2:
        return [float(drawer.randrange(4)) for _ in range(length)]
    curve = [drawer.random() for _ in range(length)]
    if seed % 10 == 0 and curve:
        curve[drawer.randrange(length)] = math.nan
    return curve


def test_tipping_point_of_random_curves():
    curves = [random_curve(seed) for seed in range(1000)]
    expected = [oracle.tipping_point(curve) for curve in curves]
    assert [tipping_point(curve) for curve in curves] == expected
    assert {None, 2, 3, 4, 5} < set(expected)


@pytest.mark.parametrize(
    ("curve", "expected"),
    [
        ([0, 1, 2, 1, 0], None),  # five entries are too few
        ([0, 1, 2, 1, 0, 0], 2),
        ([0, 0, 0, 1, 2, 1], None),  # only one epoch after it
        ([0, 3, 0, 0, 0, 0], None),  # only one epoch before it
        ([1, 2, 2, 1, 0, 0], None),  # a tie is no peak
        ([0, 1, 2, 1, 0, 5, 1, 0], 2),  # the first, not the highest
    ],
)
def test_tipping_point(curve: list[float], expected: int | None):
    assert tipping_point(curve) == expected


def marked(epoch: int, confidence: float) -> EpochRecord:
    """A record with tensors that name its epoch."""
    mark = torch.tensor([epoch, 0.5])
    return EpochRecord(epoch, confidence, mark, Scores(mark + 1, mark + 2))


def feed(monitor: TippingPointMonitor, curve: list[float]) -> EpochRecord | None:
    for epoch in range(len(monitor.curve), len(curve)):
        assert monitor.searching
        if found := monitor.update(*marked(epoch, curve[epoch])[1:]):
            return found
    return None


def test_monitor_returns_the_tipping_points_record():
    for seed in range(200):
        curve, monitor = random_curve(seed), TippingPointMonitor()
        expected = oracle.tipping_point(curve)
        found = feed(monitor, curve)
        assert tipping_point(monitor.curve) == (found.epoch if found else None) == expected
        assert monitor.searching == (found is None)
        if found:
            with pytest.raises(ValueError, match="has been found"):
                monitor.update(1.0, *[None] * 2)
            assert monitor.curve == curve[: max(expected + 3, 6)]
            assert str(found) == str(marked(expected, curve[expected]))


@pytest.mark.parametrize(
    ("curve", "expected"), [([0.3], 0), ([0.1, 0.4, 0.2], 1), ([0.1, 0.4, 0.4], 1), ([3, 2, 1], 0)]
)
def test_monitor_keeps_the_most_confident(curve: list[float], expected: int):
    monitor = TippingPointMonitor()
    assert monitor.most_confident is None
    feed(monitor, curve)
    assert str(monitor.most_confident) == str(marked(expected, curve[expected]))


@pytest.mark.parametrize("curve", [[1, 2, 3, 9, 4, 5, 6, 7], [*range(12), 5, 4], [3.0] * 9])
def test_monitor_resumed(curve: list[float]):
    whole = TippingPointMonitor()
    expected = feed(whole, curve)
    for stop in range(len(whole.curve)):
        before, after = TippingPointMonitor(), TippingPointMonitor()
        feed(before, curve[:stop])
        state = before.state_dict()
        for record in state["recent"]:
            record["scores"]["teacher_masked"] = torch.zeros(2)  # earlier versions had it
        after.update(9.0, torch.zeros(2), Scores(*torch.zeros(2, 2)))  # to be replaced
        after.load_state_dict(state)
        assert str(vars(after)) == str(vars(before))
        for monitor in (after, before):
            assert str(feed(monitor, curve)) == str(expected)
            assert str(vars(monitor)) == str(vars(whole))
        assert state["curve"] == curve[:stop]  # a copy: neither monitor changes it


@pytest.mark.parametrize("shape", [(1, 2), (40, 3), (40, 10)])
def test_score(shape: tuple[int, int]):
    generator = torch.Generator().manual_seed(0)
    teacher, student = 3 * torch.randn(2, *shape, generator=generator, dtype=torch.float64)
    labels = torch.randint(shape[1], shape[:1], generator=generator)
    result = score(agreement(teacher, student), labels)
    rows = oracle.agreement(teacher.tolist(), student.tolist())
    for i, label in enumerate(labels.tolist()):
        assert result.agreement[i].item() == pytest.approx(rows[i][label])
        assert result.prediction[i] == rows[i].index(max(rows[i]))
