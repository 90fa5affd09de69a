"""The benchmark, as a user calls it."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

TOP = Path(__file__).parents[1]


# Input channels, output channels and side of the compact network's 3x3 convolutions at width 8.
CONVOLUTIONS = [(24, 8, 31), (8, 8, 15), (8, 32, 15), (32, 32, 7), (32, 32, 7), (32, 32, 3)]


def multiply_adds(net: str) -> float:
    """By hand, of one image forward and backward through one quick network."""
    if net == "preact18":  # 16 channels, not 64: about a sixteenth of the full size's
        return 3 * 0.557e9 / 16
    whitening, head = 12 * 24 * 31**2, 32 * 10
    first, *others = (9 * inputs * outputs * side**2 for inputs, outputs, side in CONVOLUTIONS)
    return whitening + 2 * first + 3 * (sum(others) + head)  # nothing goes back to the frozen one


@pytest.mark.parametrize("net", ["preact18", "compact"])
def test_the_quick_benchmark_measures_all_it_promises(net: str, tmp_path: Path):
    path = tmp_path / "there" / "benchmark.json"
    command = [sys.executable, "-m", "tests.benchmark", "--quick", "--rounds", "1", "--net", net]
    done = subprocess.run(
        [*command, "--json", str(path)], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stdout + done.stderr
    for part in ("(a) loader", "(b) training step", "(c) scoring", "(d) epoch", "(e) matrix"):
        assert part in done.stdout
    record = json.loads(path.read_text())
    seconds = record["seconds"]
    assert all(0 < row["low"] <= row["median"] <= row["high"] for row in seconds.values())
    operations = 2 * 2 * 128 * multiply_adds(net)  # two networks, 128 images
    assert record["net"] == net
    assert record["step_operations"] == pytest.approx(operations, rel=0.02)
    assert record["epoch_seconds"] == pytest.approx(352 * seconds["step"]["median"])
    assert record["run_seconds"] > {"preact18": 300, "compact": 18}[net] * record["epoch_seconds"]
    assert record["step_over_floor"] > 0.5 and record["machine"]["torch"] == torch.__version__
