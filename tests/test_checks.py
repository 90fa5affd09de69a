"""What became of each run, and what looks wrong."""

from pathlib import Path

import pytest

from tests.made_up_run import made_up_run
from utils.summary.__main__ import main


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
