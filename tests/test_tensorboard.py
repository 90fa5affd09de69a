"""Scalars for TensorBoard."""

import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from tests.conftest import train
from utils.files import read_columns
from utils.run_folder.tensorboard import TensorBoard

needs_tensorboard = pytest.mark.skipif(
    find_spec("tensorboard") is None, reason="needs the tensorboard package"
)


def events_of(folder: Path):
    """What TensorBoard itself reads there."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    return EventAccumulator(str(folder)).Reload()


@needs_tensorboard
def test_a_run_writes_all_its_metrics(tmp_path: Path):
    words = "--dataset digits --limit_train 200 --n_epoch 3 --noisy_val_freq 2 --tensorboard"
    folder, _ = train(tmp_path, words)
    events = events_of(folder.tensorboard)
    columns = read_columns(folder.metrics)
    names = set(columns) - {"epoch", "phase", "vanished_classes"}
    assert set(events.Tags()["scalars"]) == names and "loss" in names
    for name in names:
        written = [(event.step, event.value) for event in events.Scalars(name)]
        cells = zip(columns["epoch"], columns[name], strict=True)
        assert np.allclose(written, [(int(epoch), float(cell)) for epoch, cell in cells if cell])


@needs_tensorboard
def test_epochs_done_again_replace_those_before(tmp_path: Path):
    for epochs, value in ((range(4), 1.0), (range(2, 5), 2.0)):
        tensorboard = TensorBoard(tmp_path, wanted=True)
        for epoch in epochs:
            tensorboard.scalars({"epoch": epoch, "phase": "naive", "loss": value, "none": None})
    written = [(event.step, event.value) for event in events_of(tmp_path).Scalars("loss")]
    assert written == [(0, 1.0), (1, 1.0), (2, 2.0), (3, 2.0), (4, 2.0)]


def test_without_the_package_one_line_says_so(tmp_path: Path, monkeypatch, capsys):
    TensorBoard(tmp_path, wanted=False).scalars({"epoch": 0, "loss": 1.0})
    assert capsys.readouterr().out == ""
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    TensorBoard(tmp_path, wanted=True).scalars({"epoch": 0, "loss": 1.0})
    said = capsys.readouterr().out
    assert said.count("\n") == 1 and "--tensorboard" in said and "not installed" in said
    assert list(tmp_path.iterdir()) == []
