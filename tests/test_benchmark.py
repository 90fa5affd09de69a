"""The benchmark, as a user calls it."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

TOP = Path(__file__).parents[1]


# Millions of multiply-adds of a network's forward pass with 16 channels of 64, with 8 of 32. The
# compact network's backward pass is less than twice that: it ends behind the frozen convolution.
FORWARD = {"preact18": 557 / 16, "compact": 2.2}


@pytest.mark.parametrize("net", FORWARD)
def test_the_quick_benchmark_measures_all_it_promises(net: str, tmp_path: Path):
    path = tmp_path / "there" / "benchmark.json"
    command = [sys.executable, str(TOP / "benchmark.py"), "--quick", "--rounds", "1", "--net", net]
    done = subprocess.run(
        [*command, "--json", str(path)], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stdout + done.stderr
    for part in ("(a) loader", "(b) training step", "(c) scoring", "(d) epoch", "(e) matrix"):
        assert part in done.stdout
    record = json.loads(path.read_text())
    seconds = record["seconds"]
    assert all(0 < row["low"] <= row["median"] <= row["high"] for row in seconds.values())
    # 16 channels, not 64: about a sixteenth of the full-size network's 0.557 G multiply-adds.
    assert record["step_operations"] == pytest.approx(6 * 2 * 128 * 0.557e9 / 16, rel=0.02)
    assert record["epoch_seconds"] == pytest.approx(352 * seconds["step"]["median"])
    assert record["run_seconds"] > 300 * record["epoch_seconds"]
    assert record["step_over_floor"] > 0.5 and record["machine"]["torch"] == torch.__version__
