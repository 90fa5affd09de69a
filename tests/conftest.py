"""What several tests share: devices, made-up CIFAR archives with planted noise, one real run.

Where the device does not matter, runs train on $BKD_TEST_DEVICE: the CPU unless it is set.
"""

import argparse
import hashlib
import os
import pickle
import subprocess
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from torchvision import datasets

import blind_knowledge_dist_training as training
from utils.options.training import training_parser
from utils.plots import draw
from utils.run_folder.folder import RunFolder

TOP = Path(__file__).parents[1]
TEST_DEVICE = os.environ.get("BKD_TEST_DEVICE", "cpu")
devices = pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.cuda)])
CLASSES, PER_CLASS, NOISE = 10, 50, 0.3


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip what needs CUDA where there is none.

    Not asked on import: a process that has asked, or its server, can fork none that uses CUDA.
    """
    if item.get_closest_marker("cuda") and not torch.cuda.is_available():
        pytest.skip("needs CUDA")


def training_options(*words: object) -> argparse.Namespace:
    """The training script's options for these words of a command line, on the tests' device."""
    device = ["--device", TEST_DEVICE] + ["--deterministic"] * (TEST_DEVICE != "cpu")
    return training_parser().parse_args([*device, *map(str, words)])


def environment(**changes: str) -> dict[str, str]:
    """The environment of a script: without GPUs where the tests' device is the CPU."""
    return os.environ | ({"CUDA_VISIBLE_DEVICES": ""} if TEST_DEVICE == "cpu" else {}) | changes


def call(*words: object, cwd: Path = TOP, **variables: str) -> subprocess.CompletedProcess:
    """Call Python with these words of a command line and variables."""
    command, settings = [sys.executable, *map(str, words)], {"cwd": cwd, "timeout": 300}
    env = environment(**variables)
    return subprocess.run(command, env=env, capture_output=True, text=True, **settings)


@contextmanager
def synchronisation_refused() -> Iterator[None]:
    """Any wait of the host for CUDA is an error."""

    def set_mode(mode: str) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that it is a prototype, said after it is set
            torch.cuda.set_sync_debug_mode(mode)

    try:
        set_mode("error")
        yield
    finally:
        set_mode("default")


@pytest.fixture(autouse=True)
def no_determinism_left() -> Iterator[None]:
    """A run with --deterministic sets it for its process."""
    yield
    torch.use_deterministic_algorithms(False)


@pytest.fixture(autouse=True, scope="session")
def no_plots() -> Iterator[None]:
    """They take longer than the runs of most tests; test_plots.py looks at them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(draw, "write_plots", lambda *_: [])
        yield


class Hostile:
    """Would make a file if it were unpickled."""

    def __reduce__(self) -> tuple:
        return os.system, ("touch hostile",)


class MadeUpCifar(NamedTuple):
    """A data folder with 500 training images in CIFAR's format, 30 % of the labels wrong."""

    dataset: str
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


@pytest.fixture(params=["cifar10"])
def made_up_cifar(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch) -> MadeUpCifar:
    """The archives that torchvision reads, and a label file; parametrise for "cifar100"."""
    generator = np.random.default_rng(1)
    clean_labels = generator.permutation(np.repeat(np.arange(CLASSES), PER_CLASS))
    labels = clean_labels.copy()
    wrong = generator.random(len(labels)) < NOISE
    labels[wrong] = (labels[wrong] + generator.integers(1, CLASSES, wrong.sum())) % CLASSES

    hundred = request.param == "cifar100"
    source = datasets.CIFAR100 if hundred else datasets.CIFAR10
    folder = tmp_path / "data"
    base = folder / source.base_folder
    base.mkdir(parents=True)
    label_key = "fine_labels" if hundred else "labels"

    def write_split(name: str, split_labels: np.ndarray) -> list[str]:
        content = {"data": _images(split_labels, generator), label_key: split_labels.tolist()}
        return [name, _write_pickle(base / name, content)]

    names = ["train"] if hundred else [f"data_batch_{number}" for number in range(1, 6)]
    parts = zip(names, np.array_split(clean_labels, len(names)), strict=True)
    train_list = [write_split(*part) for part in parts]
    test_name, test_labels = "test" if hundred else "test_batch", np.resize(np.arange(10), 100)
    test_list = [write_split(test_name, test_labels)]
    meta = {source.meta["key"]: [f"class {k}" for k in range(100 if hundred else 10)]}
    meta_sum = _write_pickle(base / source.meta["filename"], meta)
    monkeypatch.setattr(source, "train_list", train_list)
    monkeypatch.setattr(source, "test_list", test_list)
    monkeypatch.setattr(source, "meta", {**source.meta, "md5": meta_sum})
    label_file = folder / "own_labels.pt"
    noisy_key = "noisy_label" if hundred else "worse_label"
    torch.save({"clean_label": clean_labels, noisy_key: labels}, label_file)
    return MadeUpCifar(request.param, folder, label_file, clean_labels, labels)


def train(results: Path, words: str, *more: object) -> tuple[RunFolder, dict[str, Any]]:
    """Train with these words of a command line; the run's folder and record."""
    args = training_options(*words.split(), *more, "--results_dir", results)
    return RunFolder.of(args), training.main(args)


@pytest.fixture(scope="session")
def digits_run(tmp_path_factory: pytest.TempPathFactory) -> argparse.Namespace:
    """Options of a finished run on digits, rand1, seed 0, in fp32: one of those in docs/results."""
    words = ("--dataset", "digits", "--noise_type", "rand1", "--precision", "fp32")
    args = training_options(*words, "--results_dir", tmp_path_factory.mktemp("results"))
    training.main(args)
    return args
