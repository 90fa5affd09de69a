"""Scalars and pictures for TensorBoard."""

import csv
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import blind_knowledge_dist_training as training
from tests.conftest import training_options
from utils.runs import run_folder
from utils.tracker import Tracker


def events_of(folder: Path):
    """What TensorBoard itself reads there."""
    pytest.importorskip("tensorboard", reason="needs the tensorboard package")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder / "tensorboard"), size_guidance={"images": 0})
    return events.Reload()


def test_a_run_hands_on_all_its_figures_and_pictures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    pytest.importorskip("tensorboard", reason="needs the tensorboard package")
    picture = tmp_path / "noise_split.png"
    Image.fromarray(np.full((4, 6, 3), 200, np.uint8)).save(picture)
    monkeypatch.setattr(training, "write_pictures", lambda *_: [picture])
    words = "--dataset digits --limit_train 200 --n_epoch 3 --noisy_val_freq 2 --tensorboard"
    args = training_options(*words.split(), "--results_dir", tmp_path)
    training.main(args)

    events = events_of(run_folder(args))
    with open(run_folder(args) / "metrics.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    names = set(rows[0]) - {"epoch", "phase", "vanished_classes"}
    assert set(events.Tags()["scalars"]) == names and "loss" in names
    for name in names:
        written = [(event.step, event.value) for event in events.Scalars(name)]
        expected = [(int(row["epoch"]), float(row[name])) for row in rows if row[name]]
        assert [step for step, _ in written] == [epoch for epoch, _ in expected]
        assert np.allclose([value for _, value in written], [value for _, value in expected])
    (image,) = events.Images("noise_split")
    assert (image.width, image.height, image.step) == (6, 4, 3)


def test_epochs_done_again_replace_those_before(tmp_path: Path):
    pytest.importorskip("tensorboard", reason="needs the tensorboard package")
    for epochs, value in ((range(4), 1.0), (range(2, 5), 2.0)):
        tracker = Tracker(tmp_path, wanted=True)
        for epoch in epochs:
            tracker.scalars({"epoch": epoch, "phase": "naive", "loss": value, "nothing": None})
    events = events_of(tmp_path)
    assert [(e.step, e.value) for e in events.Scalars("loss")] == [
        (0, 1.0),
        (1, 1.0),
        (2, 2.0),
        (3, 2.0),
        (4, 2.0),
    ]


def test_without_the_package_one_line_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    tracker = Tracker(tmp_path, wanted=True)
    tracker.scalars({"epoch": 0, "loss": 1.0})
    tracker.pictures([tmp_path / "none.png"], 0)
    said = capsys.readouterr().out
    assert said.count("\n") == 1 and "--tensorboard" in said and "not installed" in said
    assert list(tmp_path.iterdir()) == []


def test_unless_it_is_wanted_nothing_is_written(tmp_path: Path):
    Tracker(tmp_path, wanted=False).scalars({"epoch": 0, "loss": 1.0})
    assert list(tmp_path.iterdir()) == []


def test_pictures_can_be_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    drawn: list[Path] = []
    monkeypatch.setattr(training, "write_pictures", lambda folder, *_: drawn.append(folder) or [])
    words = ("--dataset", "digits", "--limit_train", 100, "--n_epoch", 1, "--seed")
    args = training_options(*words, 1, "--results_dir", tmp_path)
    training.main(args)
    assert drawn == [run_folder(args)]
    training.main(training_options(*words, 2, "--results_dir", tmp_path, "--no_pictures"))
    assert drawn == [run_folder(args)]
