"""What is said: on stdout and stderr, above the bars, in a run's log, to TensorBoard."""

import io
import logging
import os
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from tqdm import tqdm

from tests.conftest import train
from utils.console import logged_to, say
from utils.files import read_columns
from utils.run_folder.tensorboard import TensorBoard


def test_lines_go_to_the_terminal_and_are_appended_to_the_log(tmp_path: Path, capsys):
    log = tmp_path / "training.log"
    log.write_text("before\n")
    say("not logged")
    with logged_to(log):
        say("one")
        say("two", logging.ERROR)
    said = capsys.readouterr()
    assert (said.out, said.err) == ("not logged\none\n", "two\n")
    assert log.read_text() == "before\none\ntwo\n"


def test_the_error_that_ends_it_is_logged(tmp_path: Path, capsys):
    with pytest.raises(ValueError, match="too hot"), logged_to(tmp_path / "log"):
        raise ValueError("--lr 3: too hot")
    assert (tmp_path / "log").read_text() == "error: --lr 3: too hot\n"
    assert capsys.readouterr().out == ""  # who catches it says it


def test_bars_make_way_for_lines(tmp_path: Path, capsys):
    with tqdm(total=3, file=sys.stdout, desc="run", disable=False) as bar:
        bar.update()
        say("a line")
    assert "\ra line\n" in capsys.readouterr().out.replace(" " * 20, "").replace(" \r", "\r")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_log_that_fills_its_disk_ends_in_one_line(tmp_path: Path, capsys):
    (tmp_path / "log").symlink_to("/dev/full")
    with logged_to(tmp_path / "log"):
        say("one")
        say("two")
    out, err = capsys.readouterr()
    assert out.splitlines()[0] == "one" and out.splitlines()[2] == "two"
    assert "warning" in out and "No space left" in out and out.count("\n") == 3
    assert err == ""


def test_a_reader_that_has_gone_ends_any_command(monkeypatch: pytest.MonkeyPatch):
    reader, writer = os.pipe()
    os.close(reader)
    with open(writer, "w") as stream, pytest.raises(SystemExit) as ended:
        monkeypatch.setattr(sys, "stdout", stream)
        say("a line")
    assert ended.value.code == 141


def test_a_log_that_cannot_be_made_is_named(tmp_path: Path):
    with pytest.raises(OSError, match="cannot be written"), logged_to(tmp_path):
        pass


def test_what_the_terminal_cannot_show_is_written_out(monkeypatch: pytest.MonkeyPatch):
    terminal = io.TextIOWrapper(io.BytesIO(), encoding="latin-1")
    monkeypatch.setattr(sys, "stdout", terminal)
    say("M\u00e4use -> \u732b")
    assert terminal.buffer.getvalue() == b"M\xe4use -> \\u732b\n"


needs_tensorboard = pytest.mark.skipif(not find_spec("tensorboard"), reason="needs tensorboard")


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
    blank = "memorized_share"  # nothing is held out
    names = set(columns) - {"epoch", "phase", "vanished_classes", blank}
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
