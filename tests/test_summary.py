"""The table over seeds, and what becomes of runs that are not as expected."""

import json
import math
import os
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.made_up_run import edit_json, made_up_run
from utils.summary.__main__ import main
from utils.summary.runs import read_runs
from utils.summary.table import half_width, table

TOP = Path(__file__).parents[1]


def add_run(results: Path, seed: int, accuracy: float, tipping: int | None, *words: object) -> Path:
    """A run on digits rand1, in the next of the folders run_0, run_1, ..."""
    results.mkdir(exist_ok=True)
    name = f"run_{len(list(results.iterdir()))}"
    words = ("--dataset", "digits", "--noise_type", "rand1", "--seed", seed, *words)
    folder = made_up_run(results, *words, name=name).folder
    edit_json(folder / "learning.json", last={"accuracy": accuracy}, best_val=None)
    edit_json(folder / "training.json", tipping_point=tipping)
    (folder / "timing.json").unlink()
    return folder


def rows_of(results: Path) -> list[dict[str, str]]:
    runs, skipped = read_runs(results)
    assert skipped == []
    heading, *rows = table(runs)
    assert len(set(heading)) == len(heading)
    return [dict(zip(heading, row, strict=True)) for row in rows]


def test_mean_and_deviation_over_seeds(tmp_path: Path):
    for seed, accuracy in enumerate((90.0, 92.0, 97.0)):
        add_run(tmp_path, seed, accuracy, 5 + seed)
    (row,) = rows_of(tmp_path)
    deviation = statistics.stdev((90.0, 92.0, 97.0))
    assert row["n"] == "3" and row["method"] == "bkd" and row["setting"] == "default"
    assert row["test acc. last %"] == f"93.00 ± {deviation:.2f}"
    assert row["test acc. best val %"] == row["wall s"] == "-"
    assert row["F1"] == "0.600 ± 0.000" and row["tipping epoch"] == "6.0 ± 1.0"


def test_the_confidence_interval_is_students():
    values = (90.0, 92.0, 97.0)
    # The 97.5 % quantile of Student's t with 2 degrees of freedom in closed form.
    quantile = 2 * 0.475 * math.sqrt(2 / (1 - (2 * 0.475) ** 2))
    expected = quantile * statistics.stdev(values) / math.sqrt(3)
    assert half_width(values, "ci95") == pytest.approx(expected, rel=1e-12)
    assert half_width((3.0, 3.0), "ci95") == 0
    assert half_width((3.0,), "ci95") is half_width((3.0,), "std") is None


def test_runs_of_other_settings_are_never_averaged(tmp_path: Path):
    add_run(tmp_path, 0, 90.0, 5)
    add_run(tmp_path, 0, 50.0, None, "--width", 4, "--n_epoch", 3)
    add_run(tmp_path, 0, 80.0, None, "--method", "ce")
    add_run(tmp_path, 1, 10.0, None, "--alpha4", 0.9, "--clean_test_freq", 1, "--quiet", True)
    rows = {(row["setting"], row["method"]): row for row in rows_of(tmp_path)}
    assert list(rows) == [
        ("default", "bkd"),
        ("default", "ce"),
        ("alpha4=0.9", "bkd"),
        ("n_epoch=3 width=4", "bkd"),
    ]
    assert all(row["n"] == "1" for row in rows.values())
    assert rows["default", "bkd"]["test acc. last %"] == "90.00"
    assert rows["n_epoch=3 width=4", "bkd"]["tipping epoch"] == "never"
    assert rows["default", "ce"]["tipping epoch"] == "-"


def test_precision_has_a_column_only_where_rows_differ_in_it(tmp_path: Path):
    add_run(tmp_path, 0, 90.0, 5, "--precision", "bf16")
    (row,) = rows_of(tmp_path)
    assert row["setting"] == "default" and "compute precision" not in row
    add_run(tmp_path, 1, 85.0, 5)
    rows = rows_of(tmp_path)
    assert [row["compute precision"] for row in rows] == ["bf16", "fp32"]
    assert {row["setting"] for row in rows} == {"default"}


def test_the_setting_is_what_the_run_recorded_not_todays_defaults(tmp_path: Path):
    folder = add_run(tmp_path, 0, 90.0, 5, "--width", 8)
    edit_json(folder / "args.json", non_default_options={"lr_step": 7, "method": "bkd"})
    assert rows_of(tmp_path)[0]["setting"] == "lr_step=7"


def test_a_tipping_point_that_only_some_seeds_have_is_shown(tmp_path: Path):
    add_run(tmp_path, 0, 90.0, 6)
    add_run(tmp_path, 1, 90.0, None)
    assert rows_of(tmp_path)[0]["tipping epoch"] == "6.0 (1 never)"


WRONG: list[tuple[str, dict[str, Any] | str, str]] = [  # changes of a record, or a file's text
    ("args.json", {"options": 5}, "options is 5, no object"),
    ("args.json", {"options": {"lr": 0.1}}, "'dataset' is missing"),
    ("args.json", {"options": {"dataset": ["a"], "noise_type": "b", "method": "c"}}, "no text"),
    ("args.json", {"precision": None}, "no text"),
    ("args.json", {"options": {"dataset": "a", "noise_type": "b", "method": []}}, "method is []"),
    ("args.json", {"non_default_options": [1]}, "non_default_options is [1], no object"),
    ("training.json", {"epochs": None}, "epochs is None"),
    ("training.json", {"tipping_point": "5"}, "tipping_point is '5'"),
    ("training.json", {"tipping_point": True}, "tipping_point is True"),
    ("training.json", {"group_sizes": [1, 2], "group_wrong": [1]}, "is shorter"),
    ("training.json", {"group_sizes": [1], "group_wrong": ["1"]}, "group size is '1'"),
    ("training.json", "{}", "'epochs' is missing"),
    ("training.json", "{", "not JSON"),
    ("timing.json", {"wall_seconds": math.nan}, "wall_seconds is nan"),
    ("timing.json", '{"wall_seconds": 1e999}', "wall_seconds is inf"),
    ("learning.json", {"last": 91.0}, "last.accuracy is 91.0, no object"),
    ("learning.json", {"best_val": {"accuracy": "\n"}}, r"best_val.accuracy is '\n'"),
    ("detection.json", {"detections": {"final": {"f1": 2}}}, "detections.final.f1 is 2"),
    ("metrics.csv", "epoch,clean_test_accuracy\n0,nan\n", "clean_test_accuracy is nan"),
    ("metrics.csv", "epoch,clean_test_accuracy\n1e9,5\n", "'1e9'"),
    ("metrics.csv", "epoch,vanished_classes\n0,<b>\n", "'<b>'"),
    ("metrics.csv", "\udcff", "no table of text"),
]


@pytest.mark.parametrize(("file", "wrong", "words"), WRONG)
def test_a_run_that_is_not_as_expected_is_skipped_and_the_others_are_shown(
    tmp_path: Path, capsys, file: str, wrong: dict[str, Any] | str, words: str
):
    for name in ("bad", "good"):
        made_up_run(tmp_path, "--dataset", "digits", name=name, epochs=1)
    if isinstance(wrong, str):
        (tmp_path / "bad" / file).write_text(wrong, errors="surrogateescape")
    else:
        edit_json(tmp_path / "bad" / file, **wrong)
    (tmp_path / "good" / "notes.json").write_text("[]")  # beside a run's own files
    for option in ([], ["--checks"]):
        assert main([str(tmp_path), *option]) == 2
        out, err = capsys.readouterr()
        assert err.count("\n") == 1 and f"skipped: {tmp_path / 'bad' / file}: " in err
        assert words in err and ("remove" in err or "no table" in err)
        assert len(out.split("\n\n")[0].splitlines()) == 2  # heading and one row


def test_a_run_that_does_not_say_what_differs_from_its_defaults_is_skipped(tmp_path: Path):
    add_run(tmp_path, 0, 90.0, 6)
    folder = add_run(tmp_path, 1, 90.0, 6)
    record = json.loads((folder / "args.json").read_text())
    del record["non_default_options"]
    (folder / "args.json").write_text(json.dumps(record))
    runs, (line,) = read_runs(tmp_path)
    assert [run.seed for run in runs] == [0]
    assert str(folder) in line and "'non_default_options' is missing" in line


def test_the_same_run_twice_is_no_second_seed(tmp_path: Path, capsys: pytest.CaptureFixture):
    add_run(tmp_path, 0, 90.0, 6)
    add_run(tmp_path, 0, 95.0, 6)
    assert main([str(tmp_path)]) == 2
    out, err = capsys.readouterr()
    assert f"{tmp_path / 'run_1'}: the same run as {tmp_path / 'run_0'}" in err
    assert err.count("\n") == 1 and "90.00" in out and "95.00" not in out


@pytest.mark.parametrize("option", [[], ["--checks"]])
def test_no_finished_run_is_one_line_and_status_2(tmp_path: Path, capsys, option: list[str]):
    folder = add_run(tmp_path, 0, 90.0, 6)
    (folder / "training.json").unlink()
    for results in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(SystemExit) as exit_:
            main([str(results), *option])
        err = capsys.readouterr().err
        assert exit_.value.code == 2 and err.count("\n") == 1 and str(results) in err


@pytest.mark.parametrize(
    "options", [["--checks", "--html", "x"], ["--embed"], ["--into", "x", "--keep", "y"]]
)
def test_options_that_do_not_go_together_are_refused(tmp_path: Path, capsys, options: list[str]):
    with pytest.raises(SystemExit) as exit_:
        main([str(tmp_path), *options])
    assert exit_.value.code == 2 and options[0] in capsys.readouterr().err


def test_text_and_markdown_hold_the_same_cells(tmp_path: Path, capsys: pytest.CaptureFixture):
    add_run(tmp_path, 0, 90.0, 6)
    assert main([str(tmp_path)]) == 0
    text = capsys.readouterr().out.splitlines()
    assert main([str(tmp_path), "--markdown"]) == 0
    markdown = capsys.readouterr().out.splitlines()
    cells = [cell.strip() for cell in markdown[2].strip("|").split("|")]
    assert " ".join(text[1].split()) == " ".join(cells)
    assert set(markdown[1]) <= set("|-") and markdown[1].count("|") == markdown[0].count("|")


def test_what_comes_from_files_is_plain_text_in_markdown(tmp_path: Path, capsys):
    path = "a|b`c`\n<script>alert(1)</script> [d](e) *f* \\ \ud800 \x1b[31m"
    add_run(tmp_path, 0, 90.0, 6, "--noise_path", path)
    assert main([str(tmp_path), "--markdown"]) == 0
    *_, row, _blank, _note, _note2 = capsys.readouterr().out.splitlines()
    assert (
        r"| noise_path=a\|b\`c\`\\n&lt;script&gt;alert(1)&lt;/script&gt; \[d\](e) \*f\* \\ "
        r"\\ud800 \\x1b\[31m | bkd |"
    ) in row
    assert main([str(tmp_path)]) == 0
    _, line, *_ = capsys.readouterr().out.splitlines()
    assert "noise_path=a|b`c`\\n<script>" in line and "\x1b" not in line


def test_the_summary_does_without_torch(tmp_path: Path):
    add_run(tmp_path, 0, 90.0, 6)
    (tmp_path / "torch.py").write_text("raise ImportError('torch')")
    command = [sys.executable, "-m", "utils.summary", str(tmp_path), "--html", "index.html"]
    path = os.pathsep.join((str(tmp_path), str(TOP)))
    done = subprocess.run(
        command, cwd=tmp_path, env=os.environ | {"PYTHONPATH": path}, capture_output=True, text=True
    )
    assert (done.returncode, done.stderr) == (0, "")
