"""The table over seeds."""

import json
import statistics
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import training_options
from tests.made_up_run import made_up_run
from utils import runs, summary


def write_run(results: Path, seed: int, accuracy: float, tipping: int | None, *words: str) -> None:
    args = training_options("--dataset", "digits", "--noise_type", "rand1", "--seed", seed, *words)
    folder = results / f"run_{len(list(results.iterdir()))}"
    folder.mkdir()
    options = {name: str(v) if isinstance(v, Path) else v for name, v in vars(args).items()}
    files: dict[str, Any] = {
        "args": {"options": options, "precision": "bf16" if "bf16" in words else "fp32"},
        "training": {"tipping_point": tipping},
        "learning": {"last": {"accuracy": accuracy}, "best_val": None},
        "detection": {"precision": 0.5, "recall": 0.25, "f1": 1 / 3},
    }
    for name, content in files.items():
        (folder / f"{name}.json").write_text(json.dumps(content))


def rows_of(results: Path) -> list[dict[str, str]]:
    heading, *rows = summary.table(summary.read_runs(results))
    return [dict(zip(heading, row, strict=True)) for row in rows]


def test_mean_and_deviation_over_seeds(tmp_path: Path):
    for seed, accuracy in enumerate((90.0, 92.0, 97.0)):
        write_run(tmp_path, seed, accuracy, tipping=5 + seed)
    (row,) = rows_of(tmp_path)
    deviation = statistics.stdev((90.0, 92.0, 97.0))
    assert row["n"] == "3" and row["method"] == "bkd" and row["setting"] == "default"
    assert row["test acc. last %"] == f"93.00 ± {deviation:.2f}"
    assert row["test acc. best val %"] == row["wall s"] == "-"
    assert row["F1"] == "0.333 ± 0.000" and row["tipping epoch"] == "6.0 ± 1.0"


def test_runs_of_other_settings_are_never_averaged(tmp_path: Path):
    write_run(tmp_path, 0, 90.0, 5)
    write_run(tmp_path, 0, 50.0, None, "--width", "4", "--n_epoch", "3")
    write_run(tmp_path, 0, 80.0, None, "--method", "ce")
    write_run(tmp_path, 1, 10.0, None, "--alpha4", "0.9", "--clean_test_freq", "1")
    write_run(tmp_path, 1, 85.0, None, "--precision", "bf16")
    by_setting = {(row["setting"], row["method"]): row for row in rows_of(tmp_path)}
    assert set(by_setting) == {
        ("default", "bkd"),
        ("n_epoch=3 width=4", "bkd"),
        ("default", "ce"),
        ("alpha4=0.9", "bkd"),
        ("bf16", "bkd"),
    }
    assert all(row["n"] == "1" for row in by_setting.values())
    assert by_setting["default", "bkd"]["test acc. last %"] == "90.00"
    assert by_setting["n_epoch=3 width=4", "bkd"]["tipping epoch"] == "never"
    assert by_setting["default", "ce"]["tipping epoch"] == "-"


def test_a_tipping_point_that_came_only_sometimes_is_told(tmp_path: Path):
    write_run(tmp_path, 0, 90.0, 6)
    write_run(tmp_path, 1, 90.0, None)
    assert rows_of(tmp_path)[0]["tipping epoch"] == "6.0 (1 never)"


def test_the_same_run_twice_is_no_second_seed(tmp_path: Path):
    write_run(tmp_path, 0, 90.0, 6)
    write_run(tmp_path, 0, 90.0, 6)
    with pytest.raises(ValueError, match=r"run_1 and .*run_0 are the same run"):
        rows_of(tmp_path)


def test_a_foreign_args_json_is_named(tmp_path: Path):
    write_run(tmp_path, 0, 90.0, 6)
    (tmp_path / "run_0" / "args.json").write_text('{"lr": 0.1}')
    with pytest.raises(ValueError, match=r"args.json: does not name a run"):
        rows_of(tmp_path)


def test_text_and_markdown_hold_the_same_cells(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
):
    write_run(tmp_path, 0, 90.0, 6)
    monkeypatch.setattr("sys.argv", ["utils.summary", str(tmp_path)])
    summary.main()
    text = capsys.readouterr().out.splitlines()
    monkeypatch.setattr("sys.argv", ["utils.summary", str(tmp_path), "--markdown"])
    summary.main()
    markdown = capsys.readouterr().out.splitlines()
    cells = [cell.strip() for cell in markdown[2].strip("|").split("|")]
    assert " ".join(text[1].split()) == " ".join(cells)
    assert set(markdown[1]) <= set("|-") and markdown[1].count("|") == markdown[0].count("|")


def test_unfinished_runs_are_left_out_and_nothing_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
):
    write_run(tmp_path, 0, 90.0, 6)
    (tmp_path / "run_0" / "training.json").unlink()
    for folder in (tmp_path, tmp_path / "nowhere"):
        monkeypatch.setattr("sys.argv", ["utils.summary", str(folder)])
        with pytest.raises(SystemExit) as exit_:
            summary.main()
        assert exit_.value.code == 2 and str(folder) in capsys.readouterr().err


def test_what_is_kept_gives_the_same_table_and_names_no_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
):
    results, kept = tmp_path / "results", tmp_path / "docs" / "digits"
    made = made_up_run(results, "--dataset", "digits", "--data_dir", tmp_path, name="a")
    made_up_run(results, "--noise_path", tmp_path / "own.pt", "--seed", 3, name="b")
    (results / "a" / "teacher.pth.tar").write_bytes(b"large")
    (results / "unfinished").mkdir()
    monkeypatch.setattr("sys.argv", ["utils.summary", str(results), "--keep", str(kept)])
    summary.main()
    assert capsys.readouterr().out == f"{kept}\n"
    assert {path.name for path in kept.iterdir()} == {"a", "b"}
    for name in "ab":
        assert sorted(file.name for file in (kept / name).iterdir()) == sorted(runs.KEPT)
    own_labels = {"noise_path=own.pt", f"noise_path={tmp_path / 'own.pt'}"}
    for here, there in zip(rows_of(kept), rows_of(results), strict=True):
        assert here == there or {here.pop("setting"), there.pop("setting")} == own_labels
        assert here == there
    for file in kept.rglob("*.*"):
        assert str(tmp_path) not in file.read_text()
        if file.name != "args.json":
            assert file.read_bytes() == (results / file.parent.name / file.name).read_bytes()
    assert json.loads((kept / "b" / "args.json").read_text())["options"]["noise_path"] == "own.pt"
    assert made.folder.is_dir()


def call_into(results: Path, readme: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["utils.summary", str(results), "--into", str(readme)])
    summary.main()


def test_the_table_goes_between_its_markers_and_nothing_else_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
):
    results, readme = tmp_path / "digits", tmp_path / "README.md"
    results.mkdir()
    write_run(results, 0, 90.0, 6)
    before, after = "Title ±\n<!-- results digits begin -->", "<!-- results digits end -->\nrest\n"
    other = "<!-- results cifar begin -->old<!-- results cifar end -->\n"
    readme.write_text(f"{before} old {after}{other}", encoding="utf-8")
    for _ in range(2):  # the second time it stays as it is
        call_into(results, readme, monkeypatch)
        shown = summary.as_markdown(summary.table(summary.read_runs(results)))
        text = readme.read_text(encoding="utf-8")
        assert text == f"{before}\n\n{shown}\n\n{after}{other}"
    assert capsys.readouterr().out == f"{readme}\n{readme}\n"


@pytest.mark.parametrize(
    "text",
    [
        "no markers",
        "<!-- results digits begin -->",
        "<!-- results digits end --><!-- results digits begin -->",
        "<!-- results digits begin --><!-- results digits end -->" * 2,
        "<!-- results cifar begin --><!-- results cifar end -->",
    ],
)
def test_missing_markers_are_one_line_and_status_2(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture, text: str
):
    results, readme = tmp_path / "digits", tmp_path / "README.md"
    results.mkdir()
    write_run(results, 0, 90.0, 6)
    readme.write_text(text)
    with pytest.raises(SystemExit) as exit_:
        call_into(results, readme, monkeypatch)
    error = capsys.readouterr().err
    assert exit_.value.code == 2 and error.count("\n") == 1
    assert "<!-- results digits begin -->" in error and str(readme) in error
    assert readme.read_text() == text
