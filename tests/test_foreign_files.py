"""What is in a run folder, but not of that run or no file at all: one line, no figure."""

import os
from pathlib import Path

import pytest

import learning
from tests.conftest import call
from tests.made_up_run import edit_json, made_up_run
from utils.files import read_arrays, read_columns, read_json
from utils.options.training import training_parser
from utils.plots.run_data import read_run
from utils.review import __main__ as review
from utils.run_folder.description import Description
from utils.run_folder.folder import RunFolder
from utils.run_folder.predictions import Predictions
from utils.summary import __main__ as summary


@pytest.mark.parametrize("read", [read_json, read_columns, read_arrays])
def test_what_is_no_regular_file_is_named_and_not_waited_for(read, tmp_path: Path):
    os.mkfifo(tmp_path / "pipe")
    for place in (tmp_path, tmp_path / "pipe"):
        with pytest.raises(ValueError, match=f"^{place}: not a .*; check that path"):
            read(place)


def test_errors_of_the_system_have_no_number(tmp_path: Path, capsys: pytest.CaptureFixture):
    with pytest.raises(SystemExit) as ended:
        summary.main(["--into", str(tmp_path / "nothing.md")])
    words = f"{tmp_path}/nothing.md: No such file or directory; check that path, its permissions"
    assert ended.value.code == 2 and words in capsys.readouterr().err


@pytest.mark.parametrize("name", ["options", "non_default_options", "class_counts"])
def test_a_record_of_other_kinds_of_values_is_refused(name: str, tmp_path: Path):
    folder = RunFolder(made_up_run(tmp_path).folder)
    edit_json(folder.args, **{name: 5})
    with pytest.raises(ValueError, match="does not name a run"):
        folder.finished_run(Description.of(training_parser().parse_args([])))
    with pytest.raises(ValueError, match="does not name a run"):
        folder.check_data(["class 0"])
    folder.args.write_text("{}")
    with pytest.raises(ValueError, match="holds a run with other options"):
        folder.finished_run(Description.of(training_parser().parse_args(["--seed", "3"])))


def test_networks_of_another_run_are_noticed(tmp_path: Path, capsys: pytest.CaptureFixture):
    folder = RunFolder(made_up_run(tmp_path).folder)  # 12 epochs, the best is 5, 71 %
    learning.check_networks(folder, False, 11, 71.4)
    learning.check_networks(folder, True, 5, 60.0)
    learning.check_networks(RunFolder(tmp_path), False, None, 60.0)
    assert capsys.readouterr().out == ""
    learning.check_networks(folder, False, 11, 60.0)
    assert "60.00 % by the networks, 71.00 in" in capsys.readouterr().out
    for best, epoch in ((False, 5), (True, 4)):
        with pytest.raises(ValueError, match=f"of epoch {epoch}, unlike .* of another run"):
            learning.check_networks(folder, best, epoch, 71.0)


def test_runs_are_kept_in_a_folder_of_their_own(tmp_path: Path, capsys: pytest.CaptureFixture):
    run = made_up_run(tmp_path / "results").folder
    (tmp_path / "file").write_text("")
    for group in (tmp_path / "results", run, tmp_path / "file"):
        with pytest.raises(SystemExit):
            summary.main([str(tmp_path / "results"), "--keep", str(group)])
        assert f"--keep {group}: " in capsys.readouterr().err
    assert not list(tmp_path.rglob("runs.jsonl"))


def test_a_page_of_a_list_is_not_written_over_that_of_a_run(tmp_path: Path, capsys):
    folder = RunFolder(made_up_run(tmp_path).folder)
    folder.review.write_text(review.PAGE_MARK)
    (tmp_path / "list.csv").write_text("file_name,given_label,suggested_label,score\n1,a,b,0.5\n")
    words = ["--suspects", tmp_path / "list.csv", "--images", tmp_path, "--out", folder.review]
    with pytest.raises(SystemExit):
        review.main([*map(str, words), "--force"])
    assert "is the page of a run" in capsys.readouterr().err


def test_what_stdout_cannot_encode_is_written_out(tmp_path: Path):
    made_up_run(tmp_path)
    for encoding in ("ascii", "utf-8:strict"):
        place = tmp_path / "M\u00e4use\udcff.html"
        done = call("-m", "utils.summary", tmp_path, "--html", place, PYTHONIOENCODING=encoding)
        assert done.returncode == 0 and "use" in done.stdout and done.stderr == ""


def test_matplotlib_says_nothing_of_its_folders(tmp_path: Path):
    folder = made_up_run(tmp_path).folder
    (tmp_path / "file").write_text("")
    done = call("-m", "utils.plots", folder, MPLCONFIGDIR=str(tmp_path / "file" / "x"))
    assert done.returncode == 0 and done.stderr == ""


def test_predictions_of_another_run_are_refused(tmp_path: Path):
    folder = RunFolder(made_up_run(tmp_path).folder)
    sizes = Predictions.read(folder.predictions).split_summary()["group_sizes"]
    edit_json(folder.training, group_sizes=sizes, split_epoch=5)
    assert read_run(folder.path).predictions
    edit_json(folder.training, group_sizes=sizes[::-1])
    with pytest.raises(ValueError, match="not of this run"):
        read_run(folder.path)


def test_a_log_of_other_epochs_is_skipped(tmp_path: Path, capsys: pytest.CaptureFixture):
    folder = RunFolder(made_up_run(tmp_path).folder)
    lines = folder.metrics.read_text().splitlines()
    for cut, words in ((lines[:5], "has 4 of 12 epochs"), ([], "has 0 of 12 epochs")):
        folder.metrics.write_text("\n".join(cut))
        with pytest.raises(SystemExit):
            summary.main([str(tmp_path)])
        assert words in capsys.readouterr().err
    folder.metrics.write_text("\n".join(lines))
    edit_json(folder.learning, last=3)
    with pytest.raises(SystemExit):
        summary.main([str(tmp_path)])
    assert "learning.json: last.accuracy is none, for there is 3" in capsys.readouterr().err
