"""What is said: on stdout, on stderr, above the bars, and in the log of a run folder."""

import io
import logging
import sys
from pathlib import Path

import pytest
from tqdm import tqdm

from utils.console import logged_to, say


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


def test_what_the_terminal_cannot_show_is_written_out(monkeypatch: pytest.MonkeyPatch):
    terminal = io.TextIOWrapper(io.BytesIO(), encoding="latin-1")
    monkeypatch.setattr(sys, "stdout", terminal)
    say("M\u00e4use -> \u732b")
    assert terminal.buffer.getvalue() == b"M\xe4use -> \\u732b\n"
