"""run.sh, end to end: the Python it finds or makes, what its variables do, what it hands over."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.lives import wait_until
from tests.stand_in import make_executable
from utils import has_packages

TOP = Path(__file__).parents[1]
STAGES = {  # what each one's log must hold
    "training": r"epoch   3 .* clean test \d+\.\d\d % \d+\.\d s, 0:00 left\n",
    "learning": r"Best test acc selected by val is \d+\.\d\d\n$",
    "detection": r"The f-score is \d\.\d{4}\n$",
}


def run_sh(
    words: str, top: Path = TOP, home: str | None = os.environ.get("HOME"), **variables: str
) -> subprocess.CompletedProcess:
    """bash run.sh with these variables, called from another folder."""
    environment = os.environ | {"PYTHON": sys.executable} | variables
    environment.pop("HOME", None)
    return subprocess.run(
        ["bash", str(top / "run.sh"), *words.split()],
        cwd="/",
        env=environment | ({"HOME": home} if home else {}),
        capture_output=True,
        text=True,
        timeout=600,
    )


@pytest.fixture
def stand_in(tmp_path: Path) -> str:
    """A python for run.sh in which the three scripts take no time: tests/stand_in.py."""
    return make_executable(tmp_path / "a b" / "python")


def test_run_sh_resumes_goes_from_data_to_table_and_repeats_nothing(tmp_path: Path):
    variables = {"SEEDS": "0", "LABEL_SETS": "rand1", "METHODS": "bkd", "OMP_NUM_THREADS": "1"}
    variables |= {"RESULTS_DIR": str(tmp_path)}
    words = "demo --n_epoch 4 --width 4 --no_plots"
    folder = tmp_path / "digits_rand1_seed_0"
    log = folder / "training.log"
    process = subprocess.Popen(
        ["bash", str(TOP / "run.sh"), *words.split(), "--checkpoint_freq", "99"],
        env=os.environ | variables | {"PYTHON": sys.executable},
        stdout=subprocess.DEVNULL,
        preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_DFL),  # if it is ignored here
    )
    wait_until(lambda: log.exists() and "epoch   0" in log.read_text())
    process.send_signal(signal.SIGHUP)  # its terminal is closed
    assert process.wait(100) == 128 + signal.SIGHUP
    assert (folder / "checkpoint.pt").exists() and not (folder / "learning.log").exists()

    # How often a checkpoint is written is not part of a run.
    first = run_sh(words, **variables)
    assert first.returncode == 0 and "resuming from epoch" in log.read_text(), first.stderr
    logs = {stage: (folder / f"{stage}.log").read_text() for stage in STAGES}
    for stage, last_line in STAGES.items():
        assert re.search(last_line, logs[stage]), logs[stage]
    row = r"^digits +rand1 +n_epoch=4 width=4 +bkd +1 +\d\d\.\d\d "
    assert re.search(row, first.stdout, re.MULTILINE)
    assert "F1 0." in first.stdout and "no tipping point" in first.stdout

    again = run_sh(words, **variables)
    assert again.returncode == 0 and "rand1/bkd/seed 0: finished before" in again.stdout
    assert logs == {stage: (folder / f"{stage}.log").read_text() for stage in STAGES}
    other = run_sh(f"{words} --lr 0.5", **variables)
    assert other.returncode == 2 and "--lr 0.02 there, 0.5 here" in other.stderr


def test_run_sh_without_a_gpu_names_what_there_is_for_a_cpu(tmp_path: Path, stand_in: str):
    variables = {"PYTHON": stand_in, "RESULTS_DIR": str(tmp_path / "r"), "CUDA_VISIBLE_DEVICES": ""}
    done = run_sh("", **variables, ALLOW_CPU="")
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1)
    assert "bash run.sh laptop" in done.stderr and "ALLOW_CPU=1" in done.stderr
    assert not (tmp_path / "r").exists()
    done = run_sh("challenge --n_epoch 1", **variables, ALLOW_CPU="1", METHODS="ce")
    assert done.returncode == 0 and done.stdout.count(": finished, ") == 3, done.stderr


def test_run_sh_laptop_takes_the_compact_networks_and_whole_label_sets(tmp_path, stand_in: str):
    variables = {"PYTHON": stand_in, "RESULTS_DIR": str(tmp_path / "results"), "JOBS": "2"}
    done = run_sh("laptop --no_plots", CUDA_VISIBLE_DEVICES="", **variables)
    assert done.returncode == 0, done.stderr
    runs = sorted(path.parent for path in (tmp_path / "results").glob("*/args.json"))
    names = {f"cifar10_{labels}_seed_0_compact" for labels in ("aggre", "rand1", "worst")}
    suffixes = ("", "_bkd+", "_ce")
    assert {run.name for run in runs} == {name + end for name in names for end in suffixes}
    for run in runs:
        options = json.loads((run / "args.json").read_text())["options"]
        assert options["net"] == "compact" and options["limit_train"] is None
        assert (run / "learning.json").exists() and (run / "detection.json").exists()
    assert re.search(r"^cifar10 +worst +default +bkd ", done.stdout, re.MULTILINE)
    assert (tmp_path / "results" / "index.html").exists()


@pytest.mark.parametrize(
    ("words", "variables", "message"),
    [
        ("train", {}, "unknown command 'train'"),
        ("demo --seed 3", {}, "SEEDS="),
        ("demo", {"SEEDS": "*"}, "'*' is not a whole number"),
        ("demo", {"JOBS": "0"}, "--jobs: '0' is not a whole number from 1"),
    ],
)
def test_run_sh_refuses_what_it_does_not_know(words, variables, message, tmp_path, stand_in):
    results = tmp_path / "results"
    done = run_sh(words, PYTHON=stand_in, RESULTS_DIR=str(results), **variables)
    assert done.returncode == 2 and message in done.stderr and done.stderr.count("\n") == 1
    assert not results.exists()


PRETENDER = """#!/bin/sh
# Has all packages but those for the tests, until pip has installed them.
echo "$@" >> calls
case "$*" in
  *has_packages.py*tests/requirements.txt*) [ -e installed ] ;;
  *"pip --version"*) [ "$0" = .venv/bin/python ] ;;
  *"-m venv"*) mkdir -p .venv/bin && cp "$0" .venv/bin/python ;;
  *"pip install"*) touch installed ;;
esac
"""


def test_run_sh_builds_on_the_torch_of_the_python_that_is_there(tmp_path: Path):
    shutil.copy(TOP / "run.sh", tmp_path)
    python = tmp_path / "pretender"
    python.write_text(PRETENDER)
    python.chmod(0o755)
    done = run_sh("test -k x", tmp_path, home=str(tmp_path), PYTHON=str(python))
    assert done.returncode == 0, done.stderr
    calls = (tmp_path / "calls").read_text().splitlines()
    assert "-m venv --clear --system-site-packages .venv" in calls
    assert calls[-1].startswith("-m pytest -n auto") and calls[-1].endswith(" -k x")


@pytest.mark.skipif(not shutil.which("dash"), reason="needs a shell that is not bash")
def test_run_sh_says_that_it_needs_bash():
    done = subprocess.run(["dash", str(TOP / "run.sh"), "demo"], capture_output=True, text=True)
    assert done.returncode == 2 and done.stderr == "run.sh: error: needs bash; say: bash run.sh\n"


def test_run_sh_works_without_a_home(tmp_path: Path, stand_in: str):
    done = run_sh("setup", home=None, PYTHON=stand_in)
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{stand_in}\n", "")


def test_has_packages(tmp_path: Path):
    file = tmp_path / "requirements.txt"
    for line in ("# a comment", "numpy>=1.0"):
        file.write_text(f"{line}\n\n")
        assert has_packages.main([str(file)])
    for line in ("numpy>=999.0", "numpy==1.0", "no-such-package-at-all>=1.0"):
        file.write_text(f"{line}\n\n")
        assert not has_packages.main([str(file)]), line
