"""The table over seeds, the checks, and what becomes of runs that are not as expected."""

import math
import os
import statistics
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import TOP, call
from tests.made_up_run import edit_json, made_up_run
from utils.summary.__main__ import main
from utils.summary.runs import read_runs
from utils.summary.table import table


def add_run(results: Path, seed: int, accuracy: float, tipping: int | None, *words: object) -> Path:
    """A run on digits rand1 without best_val and times."""
    return made_up_run(
        results,
        *("--dataset", "digits", "--noise_type", "rand1", "--seed", seed, *words),
        learning={"last": {"accuracy": accuracy}, "best_val": None},
        training={"tipping_point": tipping},
        timing=None,
    ).folder


def rows_of(results: Path) -> list[dict[str, str]]:
    runs, skipped = read_runs(results)
    assert skipped == []
    heading, *rows = table(runs)
    assert len(set(heading)) == len(heading)
    return [dict(zip(heading, row, strict=True)) for row in rows]


def test_mean_and_deviation_over_seeds(tmp_path: Path):
    accuracies = (90.0, 92.0, 97.0, 93.0)
    of_runs = enumerate(zip(accuracies, (5, 6, 7, None), strict=True))
    folders = [add_run(tmp_path, seed, *measured) for seed, measured in of_runs]
    (row,) = rows_of(tmp_path)
    assert row["n"] == "4" and row["method"] == "bkd" and row["setting"] == "default"
    assert row["test acc. last %"] == f"93.00 ± {statistics.stdev(accuracies):.2f}"
    assert row["test acc. best val %"] == row["wall s"] == "-"
    assert row["F1"] == "0.600 ± 0.000" and row["tipping epoch"] == "6.0 ± 1.0 (1 never)"
    assert "memorized %" not in row  # runs that held nothing out have no such share
    for seed, share in enumerate((-0.5, 4.5)):
        edit_json(folders[seed] / "training.json", memorized_share=share)
    assert rows_of(tmp_path)[0]["memorized %"] == "2.0 ± 3.5"


def test_runs_of_other_settings_are_never_averaged(tmp_path: Path):
    add_run(tmp_path, 0, 90.0, 5)
    add_run(tmp_path, 0, 50.0, None, "--width", 4, "--n_epoch", 3)
    add_run(tmp_path, 0, 80.0, None, "--method", "ce")
    add_run(tmp_path, 1, 10.0, None, "--alpha4", 0.9, "--clean_test_freq", 1, "--quiet", True)
    former = add_run(tmp_path, 0, 20.0, 5, "--width", 8)  # whose default was 8, of lr_step not 7
    edit_json(former / "args.json", non_default_options={"lr_step": 7, "method": "bkd"})
    rows = {(row["setting"], row["method"]): row for row in rows_of(tmp_path)}
    assert list(rows) == [
        ("default", "bkd"),
        ("default", "ce"),
        ("alpha4=0.9", "bkd"),
        ("lr_step=7", "bkd"),
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


WRONG: list[tuple[str, dict[str, Any] | str, str]] = [  # changes of a record, or a file's text
    ("args.json", {"options": 5}, "'int' object is not"),
    ("args.json", {"options": {"lr": 0.1}}, "'dataset' is missing"),
    ("args.json", {"options": {"dataset": "a", "noise_type": "b", "method": []}}, "method is []"),
    ("args.json", '{"options": {}}', "'non_default_options' is missing"),
    ("args.json", {"non_default_options": [1]}, "'list' object has no attribute 'items'"),
    ("training.json", {"epochs": None}, "epochs is None"),
    ("training.json", {"tipping_point": "5"}, "tipping_point is '5'"),
    ("training.json", {"tipping_point": True}, "tipping_point is True"),
    ("training.json", {"group_sizes": [1, 2], "group_wrong": [1]}, "is shorter"),
    ("training.json", {"group_sizes": [1], "group_wrong": ["1"]}, "group size is '1'"),
    ("training.json", "{}", "'epochs' is missing"),
    ("training.json", "{", "not JSON"),
    ("timing.json", {"wall_seconds": math.nan}, "wall_seconds is nan"),
    ("timing.json", '{"wall_seconds": 1e999}', "wall_seconds is inf"),
    ("learning.json", {"last": 91.0}, "last.accuracy is none"),
    ("learning.json", {"best_val": {"accuracy": "\n"}}, r"best_val.accuracy is '\n'"),
    ("detection.json", {"detections": {"final": {"f1": "2"}}}, "detections.final.f1 is '2'"),
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


def test_the_same_run_twice_is_no_second_seed(tmp_path: Path, capsys: pytest.CaptureFixture):
    add_run(tmp_path, 0, 90.0, 6)
    add_run(tmp_path, 0, 95.0, 6)
    assert main([str(tmp_path)]) == 2
    out, err = capsys.readouterr()
    assert f"{tmp_path / 'run_1'}: the same run as {tmp_path / 'run_0'}" in err
    assert err.count("\n") == 1 and "90.00" in out and "95.00" not in out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["nowhere"], "nowhere: no such folder of runs"),
        (["unfinished"], "unfinished: holds no finished run; train one first"),
        (["unfinished", "--checks"], "unfinished: holds no finished run; train one first"),
        (["results", "--html", "nowhere/index.html"], "nowhere"),
        (["results", "--checks", "--html", "x"], "give one of --checks, --into, and --keep"),
        (["results", "--into", "x", "--keep", "y"], "give one of --checks, --into, and --keep"),
        (["results", "--embed"], "give --html FILE too"),
        (["results", "--into", "mine.md"], "mine.md: needs lines <!-- results NAME begin -->"),
        (["results", "--into", "photo.jpg"], "photo.jpg: 'utf-8' codec can't decode"),
    ],
)
def test_wrong_use_is_one_line_and_status_2(
    words: list[str], said: str, tmp_path: Path, capsys, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    add_run(tmp_path / "results", 0, 90.0, 6)
    (add_run(tmp_path / "unfinished", 0, 90.0, 6) / "training.json").unlink()
    (tmp_path / "mine.md").write_text("no table")
    (tmp_path / "photo.jpg").write_bytes(b"\xff\xd8")
    with pytest.raises(SystemExit) as exit_:
        main(words)
    out, err = capsys.readouterr()
    assert exit_.value.code == 2 and out == "" and err.count("\n") == 1 and said in err


def test_runs_of_other_labels_are_not_averaged_and_named(tmp_path: Path, capsys):
    for dataset in ("cifar10", "digits"):  # whose labels are drawn by the seed
        for seed, digest in enumerate(("a" * 64, "a" * 64, "b" * 64, ["a"], None)):
            words = ("--dataset", dataset, "--seed", seed)
            made_up_run(tmp_path, *words, name=f"{dataset}_{seed}", args={"labels_sha256": digest})
    counts = [(row["data set"], row["setting"], row["n"]) for row in rows_of(tmp_path)]
    named = [("cifar10", f"labels_sha256={k * 8}", n) for k, n in (("a", "2"), ("b", "1"))]
    assert counts == [*named, ("cifar10", "default", "2"), ("digits", "default", "5")]
    for words, status in (([], 0), (["--checks"], 1)):
        assert main([str(tmp_path), *words]) == status
        lines = capsys.readouterr().err.splitlines()
        for line, name in zip(lines, ("cifar10_0", "cifar10_1", "cifar10_2"), strict=True):
            assert line.startswith(f"{tmp_path / name}: trained on other labels")


def test_other_peoples_files_are_written_over_by_force_alone(tmp_path: Path, capsys):
    results = tmp_path / "results"
    add_run(results, 0, 90.0, 6)
    group = tmp_path / "group"
    group.mkdir()
    for words, file in (
        (["--html", tmp_path / "thesis.html"], tmp_path / "thesis.html"),
        (["--keep", group], group / "curves.csv"),
    ):
        command = [str(results), *map(str, words)]
        file.write_text("mine")
        with pytest.raises(SystemExit):
            main(command)
        assert f"{file}: exists and is no earlier output" in capsys.readouterr().err
        assert file.read_text() == "mine" and len(list(group.iterdir())) == int(
            file.parent == group
        )
        assert main([*command, "--force"]) == main(command) == 0
        assert file.read_text() != "mine"


def test_what_comes_from_files_is_plain_text(tmp_path: Path, capsys: pytest.CaptureFixture):
    path = "a|b`c`\n<script>alert(1)</script> [d](e) *f* \\ \ud800 \x1b[31m"
    add_run(tmp_path, 0, 90.0, 6, "--noise_path", path)
    assert main([str(tmp_path), "--markdown"]) == 0
    heading, line, row, *_ = capsys.readouterr().out.splitlines()
    assert (
        r"| noise_path=a\|b\`c\`\\n&lt;script&gt;alert(1)&lt;/script&gt; \[d\](e) \*f\* \\ "
        r"\\ud800 \\x1b\[31m | bkd |"
    ) in row
    assert set(line) <= set("|-") and line.count("|") == heading.count("|")
    assert main([str(tmp_path)]) == 0
    text_heading, text_row, *_ = capsys.readouterr().out.splitlines()
    assert text_heading.split() == heading.replace("|", "").split()
    assert "noise_path=a|b`c`\\n<script>" in text_row and "\x1b" not in text_row


def test_the_summary_does_without_torch(tmp_path: Path):
    add_run(tmp_path, 0, 90.0, 6)
    (tmp_path / "torch.py").write_text("raise ImportError('torch')")
    path = os.pathsep.join((str(tmp_path), str(TOP)))
    words = ("-m", "utils.summary", tmp_path, "--html", "index.html")
    done = call(*words, cwd=tmp_path, PYTHONPATH=path)
    assert (done.returncode, done.stderr) == (0, "")


def check(results: Path, capsys: pytest.CaptureFixture) -> tuple[int, str, str]:
    """Exit status, stdout and stderr."""
    return main([str(results), "--checks", "--markdown"]), *capsys.readouterr()


def test_what_became_of_a_run_is_shown(tmp_path: Path, capsys: pytest.CaptureFixture):
    groups = {"group_sizes": [50, 20, 10, 20], "group_wrong": [5, 1, 5, 19]}
    rates = {"estimated_noise_rate": 0.3, "true_noise_rate": 0.301}
    made_up_run(tmp_path, "--seed", 3, "--noise_type", "rand1", training=groups | rates)
    status, out, err = check(tmp_path, capsys)
    heading, _, cells = ([c.strip() for c in line.split("|")[1:-1]] for line in out.splitlines())
    assert dict(zip(heading, cells, strict=True)) == {
        "data set": "cifar10",
        "labels": "rand1",
        "setting": "default",
        "method": "bkd",
        "seed": "3",
        "tipping epoch": "5",
        "groups 1 to 4: images (% wrong)": "50 (10.0), 20 (5.0), 10 (50.0), 20 (95.0)",
        "noise rate: estimated, true %": "30.0, 30.1",
        "best clean test % (epoch)": "71.00 (11)",
        "last clean test %": "71.00",
        "vanished classes": "none",
        "wall time": "1:23",
        "peak memory": "1.2 GiB",
    }
    assert (status, err) == (0, "")


@pytest.mark.parametrize(
    ("epoch", "came"),
    [
        (0, "came in epoch 0"),
        (4, "came in epoch 4"),
        (61, "came in epoch 61"),
        (None, "never came"),
    ],
)
def test_an_unlikely_tipping_point_looks_wrong(epoch: int | None, came: str, tmp_path, capsys):
    tipping = {"tipping_point": epoch}
    folder = made_up_run(tmp_path, training=tipping).folder
    made_up_run(tmp_path, "--seed", 1, training={"tipping_point": 60})
    made_up_run(tmp_path, "--dataset", "digits", training=tipping)  # of which less is known
    status, out, err = check(tmp_path, capsys)
    assert status == 1 and err.count("\n") == 1 and len(out.splitlines()) == 5
    assert f"{folder}: the tipping point {came}" in err


def test_an_accuracy_below_the_baselines_looks_wrong_and_skipped_runs_come_first(tmp_path, capsys):
    def add(accuracy: float, *words: object) -> Path:
        return made_up_run(tmp_path, *words, training={"clean_test_accuracy": accuracy}).folder

    add(75, "--method", "ce")
    add(80)
    add(75, "--seed", 1, "--method", "ce")
    below = add(70, "--seed", 1)
    add(10, "--seed", 1, "--width", 8)  # has no baseline of its own
    add(10, "--seed", 1, "--precision", "bf16")  # nor has this one
    broken = made_up_run(tmp_path, "--seed", 2, training={"tipping_point": "soon"}).folder
    status, _, err = check(tmp_path, capsys)
    skipped, *warnings = err.splitlines()
    assert status == 2 and str(broken) in skipped
    expected = "ends at 70.00 % clean test accuracy, below the baseline's 75.00 %"
    assert warnings == [f"{below}: {expected}"]
