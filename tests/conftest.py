"""What several tests share: made-up CIFAR archives with planted label noise, and one real run."""

import argparse
import hashlib
import pickle
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
from torchvision import datasets

import blind_knowledge_dist_training as training
from utils.options import parse_options, training_parser

CLASSES, PER_CLASS, TEST_COUNT, NOISE = 10, 50, 100, 0.3


def training_options(*words: object) -> argparse.Namespace:
    """The training script's options for these words of a command line."""
    return parse_options(training_parser(), [str(word) for word in words])


class MadeUpCifar(NamedTuple):
    """A data folder with 500 training images in CIFAR-10's format, 30 % of the labels wrong."""

    folder: Path
    label_file: Path
    clean_labels: np.ndarray
    labels: np.ndarray


def _images(labels: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Easy images [N, 3072]: each class has a colour in each of four bands, plus some noise."""
    colours = np.random.default_rng(0).integers(0, 256, (CLASSES, 3, 4, 1, 1))
    bands = np.broadcast_to(colours, (CLASSES, 3, 4, 8, 32)).reshape(CLASSES, 3, 32, 32)
    noisy = bands[labels] + generator.normal(0, 40, (len(labels), 3, 32, 32))
    return noisy.clip(0, 255).astype(np.uint8).reshape(len(labels), -1)


def _write_pickle(path: Path, content: dict) -> str:
    path.write_bytes(pickle.dumps(content))
    return hashlib.md5(path.read_bytes()).hexdigest()


@pytest.fixture
def made_up_cifar(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> MadeUpCifar:
    generator = np.random.default_rng(1)
    clean_labels = generator.permutation(np.repeat(np.arange(CLASSES), PER_CLASS))
    labels = clean_labels.copy()
    wrong = generator.random(len(labels)) < NOISE
    labels[wrong] = (labels[wrong] + generator.integers(1, CLASSES, wrong.sum())) % CLASSES

    folder = tmp_path / "data"
    base = folder / datasets.CIFAR10.base_folder
    base.mkdir(parents=True)
    images, train_list = _images(clean_labels, generator), []
    for number, part in enumerate(np.array_split(np.arange(len(labels)), 5), start=1):
        batch = {"data": images[part], "labels": clean_labels[part].tolist()}
        name = f"data_batch_{number}"
        train_list.append([name, _write_pickle(base / name, batch)])
    test_labels = np.resize(np.arange(CLASSES), TEST_COUNT)
    test = {"data": _images(test_labels, generator), "labels": test_labels.tolist()}
    meta = {"label_names": [f"class {k}" for k in range(CLASSES)]}
    monkeypatch.setattr(datasets.CIFAR10, "train_list", train_list)
    monkeypatch.setattr(
        datasets.CIFAR10, "test_list", [["test_batch", _write_pickle(base / "test_batch", test)]]
    )
    monkeypatch.setattr(
        datasets.CIFAR10,
        "meta",
        {**datasets.CIFAR10.meta, "md5": _write_pickle(base / "batches.meta", meta)},
    )
    label_file = folder / "own_labels.pt"
    torch.save({"clean_label": clean_labels, "worse_label": labels}, label_file)
    return MadeUpCifar(folder, label_file, clean_labels, labels)


@pytest.fixture(scope="session")
def digits_run(tmp_path_factory: pytest.TempPathFactory) -> argparse.Namespace:
    """Options of a finished run on digits at its defaults, rand1, seed 0."""
    results = tmp_path_factory.mktemp("results")
    args = training_options(
        "--dataset", "digits", "--noise_type", "rand1", "--results_dir", results
    )
    training.main(args)
    return args
