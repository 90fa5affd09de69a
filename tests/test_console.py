"""What is said: on stdout, on stderr, above the bars, and in the log of a run folder."""

import io
import logging
import sys
from pathlib import Path

import pytest
from tqdm import tqdm

import blind_knowledge_dist_training as training
from tests.conftest import training_options
from utils.console import logged_to, say
from utils.run_folder.folder import RunFolder


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


def test_a_log_that_cannot_be_made_is_named(tmp_path: Path):
    with pytest.raises(OSError, match="cannot be written"), logged_to(tmp_path):
        pass


def test_each_run_has_its_log_and_a_restart_begins_a_new_one(tmp_path: Path):
    words = ("--dataset", "digits", "--n_epoch", 1, "--limit_train", 100, "--results_dir", tmp_path)
    args = training_options(*words)
    training.main(args)
    log = RunFolder.of(args).log("training")
    before = log.read_text()
    assert "epoch   0 naive" in before and "fallback" in before
    training.main(training_options(*words, "--restart"))
    assert (tmp_path / "replaced" / f"{log.parent.name}_1" / log.name).read_text() == before
    assert log.read_text().count("epoch   0 naive") == 1
    assert log.read_text().startswith(f"{log.parent}: the run that was here is now ")


def test_what_the_terminal_cannot_show_is_written_out(monkeypatch: pytest.MonkeyPatch):
    terminal = io.TextIOWrapper(io.BytesIO(), encoding="latin-1")
    monkeypatch.setattr(sys, "stdout", terminal)
    say("M\u00e4use -> \u732b")
    assert terminal.buffer.getvalue() == b"M\xe4use -> \\u732b\n"
