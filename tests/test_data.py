"""Splits, label sets and the digits."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits as sklearn_digits

from data.cifar import CIFAR
from data.datasets import given_labels
from data.digits import TRANSITIONS, load_digits, noisy_digits
from data.splits import choose_positions, split_indices
from utils.label_sets import LABEL_SETS


@pytest.mark.parametrize("seed", [0, 42])
@pytest.mark.parametrize(
    ("count", "ratio", "held"), [(50_000, 0.1, 5000), (1297, 0.1, 129), (100, 0.0, 0)]
)
def test_split_equals_the_authors(seed: int, count: int, ratio: float, held: int):
    state = np.random.get_state()
    np.random.seed(seed)
    expected = np.arange(count)
    np.random.shuffle(expected)
    np.random.set_state(state)
    train, val = split_indices(count, ratio, seed)
    assert np.array_equal(val, expected[:held])
    assert np.array_equal(train, expected[held:])
    assert sorted([*train, *val]) == [*range(count)]
    assert np.array_equal(np.random.get_state()[1], state[1])  # the global generator is unused
    assert np.random.get_state()[2] == state[2]


def test_split_of_seed_0():
    train, val = split_indices(50_000, 0.1, 0)
    assert val[:4].tolist() == [11841, 19602, 45519, 25747] and val[-1] == 23333
    assert train[:3].tolist() == [19977, 31768, 43126]


def test_digits():
    np.random.seed(1)
    train, test, names = load_digits()
    np.random.seed(2)
    assert all(torch.equal(a, b) for a, b in zip(train, load_digits()[0], strict=True))
    assert train.images.shape == (1297, 1, 8, 8)
    assert test.images.shape == (500, 1, 8, 8)
    assert train.images.dtype == torch.uint8
    assert (train.images.min(), train.images.max()) == (0, 255)
    assert names == [str(k) for k in range(10)]
    clean = given_labels("digits", "clean", train.clean_labels, Path(), None, 0)
    assert torch.equal(clean, train.clean_labels)
    # Together they are exactly scikit-learn's images, whose largest value is 16.
    ours = [
        [label, *(16 / 255 * image.flatten()).round().int().tolist()]
        for split in (train, test)
        for image, label in zip(split.images, split.clean_labels.tolist(), strict=True)
    ]
    source = sklearn_digits()
    assert sorted(ours) == sorted(np.column_stack([source.target, source.data]).tolist())


def test_choose_positions():
    train, scored, val = choose_positions(100, 0.1, seed=3, limit=20)
    assert np.array_equal(train, split_indices(100, 0.1, 3)[0][:20])
    assert scored.tolist() == sorted(train) and len(val) == 10
    everything = choose_positions(100, 0.0, seed=3, limit=None)
    assert everything.scored.tolist() == [*range(100)]
    assert np.array_equal(everything.val, everything.train)  # none are held out


def test_label_sets():
    assert all(each.default in each.keys for each in LABEL_SETS.values())
    assert set(LABEL_SETS) == {*CIFAR, "digits", "folder"}
    heavy = "import utils.label_sets, sys; assert not {'torch', 'numpy'} & sys.modules.keys()"
    subprocess.run([sys.executable, "-c", heavy], check=True, cwd=Path(__file__).parents[1])


@pytest.mark.parametrize("noise_type", TRANSITIONS)
def test_noisy_digits(noise_type: str):
    rows = np.array(TRANSITIONS[noise_type])
    assert rows.shape == (10, 10) and rows.min() >= 0 and (rows.sum(1) == 10_000).all()
    assert np.array_equal(rows.argmax(1), np.arange(10))
    clean_labels = load_digits()[0].clean_labels
    np.random.seed(5)
    before = np.random.get_state()[1].copy()
    first, again, other = (
        given_labels("digits", noise_type, clean_labels, Path(), None, seed) for seed in (0, 0, 1)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    counts = np.zeros((10, 10))  # true class, given class
    for seed in range(200):
        np.add.at(counts, (clean_labels, noisy_digits(noise_type, clean_labels.numpy(), seed)), 1)
    assert np.abs(counts / counts.sum(1, keepdims=True) - rows / 10_000).max() < 0.015
    noise = 1 - counts.trace() / counts.sum()
    table = {"aggre": 0.0901, "rand1": 0.17234, "worst": 0.40208}  # CIFAR-10N's, equal classes
    assert noise == pytest.approx(table[noise_type], abs=0.005)
    assert np.array_equal(np.random.get_state()[1], before)
