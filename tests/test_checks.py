"""What became of each run, and what looks wrong."""

from pathlib import Path
from typing import Any

import pytest

from tests.made_up_run import edit_json, made_up_run
from utils.summary.__main__ import main


def add_run(results: Path, seed: int, *words: object, **training: Any) -> Path:
    """A run with other values in training.json."""
    name = f"run_{len(list(results.iterdir()))}"
    folder = made_up_run(results, "--seed", seed, *words, name=name).folder
    edit_json(folder / "training.json", **training)
    return folder


def check(results: Path, capsys: pytest.CaptureFixture) -> tuple[int, str, str]:
    """Exit status, stdout and stderr."""
    return main([str(results), "--checks", "--markdown"]), *capsys.readouterr()


GROUPS = {
    "group_sizes": [50, 20, 10, 20],
    "group_wrong": [5, 1, 5, 19],
    "estimated_noise_rate": 0.3,
    "true_noise_rate": 0.301,
}


def test_what_became_of_a_run_is_shown(tmp_path: Path, capsys: pytest.CaptureFixture):
    add_run(tmp_path, 3, "--noise_type", "rand1", **GROUPS)
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
    ("tipping", "expected"),
    [
        (0, "came in epoch 0"),
        (4, "came in epoch 4"),
        (61, "came in epoch 61"),
        (None, "never came"),
    ],
)
def test_an_unlikely_tipping_point_looks_wrong(
    tipping: int | None, expected: str, tmp_path: Path, capsys: pytest.CaptureFixture
):
    folder = add_run(tmp_path, 0, tipping_point=tipping)
    add_run(tmp_path, 1, tipping_point=60)
    add_run(tmp_path, 0, "--dataset", "digits", tipping_point=tipping)  # of which less is known
    status, out, err = check(tmp_path, capsys)
    assert status == 1 and err.count("\n") == 1 and len(out.splitlines()) == 5
    assert f"{folder}: the tipping point {expected}" in err


def test_an_accuracy_below_the_baselines_looks_wrong(tmp_path: Path, capsys):
    for seed, own in ((0, 80.0), (1, 70.0)):
        below = add_run(tmp_path, seed, clean_test_accuracy=own)
        add_run(tmp_path, seed, "--method", "ce", clean_test_accuracy=75.0)
    add_run(tmp_path, 1, "--width", 8, clean_test_accuracy=10.0)  # has no baseline of its own
    add_run(tmp_path, 1, "--precision", "bf16", clean_test_accuracy=10.0)  # nor has this one
    status, _, err = check(tmp_path, capsys)
    assert status == 1 and err == (
        f"{below}: ends at 70.00 % clean test accuracy, below the baseline's 75.00 %\n"
    )


def test_runs_that_had_to_be_skipped_come_before_warnings(tmp_path: Path, capsys):
    add_run(tmp_path, 0, tipping_point=4)
    add_run(tmp_path, 1, tipping_point="soon")
    status, out, err = check(tmp_path, capsys)
    assert status == 2 and err.count("\n") == 2 and len(out.splitlines()) == 3
