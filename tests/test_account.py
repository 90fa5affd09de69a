"""The account of every run, and what looks wrong."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.made_up_run import made_up_run
from utils import account


def run(results: Path, seed: int, *words: object, **training: Any) -> Path:
    folder = made_up_run(
        results, "--seed", seed, *words, name=f"run_{len(list(results.iterdir()))}"
    )
    record = json.loads((folder.folder / "training.json").read_text()) | training
    (folder.folder / "training.json").write_text(json.dumps(record))
    return folder.folder


def told(results: Path, monkeypatch: pytest.MonkeyPatch, capsys, *words: str) -> tuple:
    monkeypatch.setattr("sys.argv", ["utils.account", str(results), *words])
    with pytest.raises(SystemExit) as exit_:
        account.main()
    return int(exit_.value.code), *capsys.readouterr()


GROUPS = {
    "group_sizes": [50, 20, 10, 20],
    "group_wrong": [5, 1, 5, 19],
    "estimated_noise_rate": 0.3,
    "true_noise_rate": 0.301,
}


def test_what_became_of_a_run_is_told(tmp_path: Path, monkeypatch, capsys):
    run(tmp_path, 3, "--noise_type", "rand1", **GROUPS)
    status, out, err = told(tmp_path, monkeypatch, capsys, "--markdown")
    cells = [cell.strip() for cell in out.splitlines()[2].strip("|").split("|")]
    assert dict(zip(account.HEADING, cells, strict=True)) == {
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
        "lost classes": "none",
        "wall time": "1 min 23 s",
    }
    assert (status, err) == (0, "")


@pytest.mark.parametrize(
    ("tipping", "expected"),
    [(4, "came in epoch 4"), (61, "came in epoch 61"), (None, "never came")],
)
def test_an_unlikely_tipping_point_looks_wrong(
    tipping: int | None, expected: str, tmp_path: Path, monkeypatch, capsys
):
    folder = run(tmp_path, 0, tipping_point=tipping)
    run(tmp_path, 1, tipping_point=60)
    run(tmp_path, 0, "--dataset", "digits", tipping_point=tipping)  # of which less is known
    status, out, err = told(tmp_path, monkeypatch, capsys)
    assert status == 1 and err.count("\n") == 1 and len(out.splitlines()) == 4
    assert f"{folder}: the tipping point {expected}" in err


def test_an_accuracy_below_the_baselines_looks_wrong(tmp_path: Path, monkeypatch, capsys):
    for seed, own in ((0, 80.0), (1, 70.0)):
        below = run(tmp_path, seed, clean_test_accuracy=own)
        run(tmp_path, seed, "--method", "ce", clean_test_accuracy=75.0)
    run(tmp_path, 1, "--width", 8, clean_test_accuracy=10.0)  # has no baseline of its own
    status, _, err = told(tmp_path, monkeypatch, capsys)
    assert status == 1 and err == (
        f"{below}: ends at 70.00 % clean test accuracy, below the baseline's 75.00 %\n"
    )


def test_no_runs_are_one_line_and_status_2(tmp_path: Path, monkeypatch, capsys):
    for folder in (tmp_path, tmp_path / "nowhere"):
        status, _, err = told(folder, monkeypatch, capsys)
        assert status == 2 and err.count("\n") == 1 and str(folder) in err
