"""The benchmark, as a user calls it."""

import json
import subprocess
import sys
from pathlib import Path

import pytest


def test_the_quick_benchmark_measures_all_it_promises(tmp_path: Path):
    path = tmp_path / "there" / "benchmark.json"
    words = ["--quick", "--rounds", "1", "--net", "compact", "--json", str(path)]
    command = [sys.executable, "-m", "tests.benchmark", *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    rows = json.loads(path.read_text())["rows"]
    for name, (median, low, high) in rows.items():
        assert name in done.stdout and 0 < low <= median <= high
    step_ms, epoch = rows["training step, ms"][0], rows["epoch, s"][0]
    assert epoch == pytest.approx(352 * step_ms / 1e3)
    assert rows["18 epochs, 10 of them scored, min"][0] > 18 * epoch / 60
