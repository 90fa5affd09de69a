"""The benchmark, as a user calls it."""

import json
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.parametrize("net", ["preact18", "compact"])
def test_the_quick_benchmark_measures_all_it_promises(net: str, tmp_path: Path):
    path = tmp_path / "there" / "benchmark.json"
    command = [sys.executable, "-m", "tests.benchmark", "--quick", "--rounds", "1", "--net", net]
    command += ["--json", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    record = json.loads(path.read_text())
    for name, (median, low, high) in record["rows"].items():
        assert name in done.stdout and 0 < low <= median <= high
    step_ms, epoch = record["rows"]["training step, ms"][0], record["rows"]["epoch, s"][0]
    assert epoch == pytest.approx(352 * step_ms / 1e3)
    epochs = {"preact18": 300, "compact": 18}[net]
    run = next(row for name, row in record["rows"].items() if name.startswith(f"{epochs} epochs"))
    assert run[0] > epochs * epoch / 60
