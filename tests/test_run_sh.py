"""run.sh, end to end: the Python it finds or makes, what its variables do, what it hands over."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import pytest
import torch

from utils import has_packages

TOP = Path(__file__).parents[1]


def run_sh(*words: str, **variables: str) -> subprocess.CompletedProcess:
    """bash run.sh with these variables, called from another folder."""
    environment = {"PYTHON": sys.executable} | variables
    return subprocess.run(
        ["bash", str(TOP / "run.sh"), *words],
        cwd="/",
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=600,
    )


@pytest.fixture
def stand_in(tmp_path: Path) -> str:
    """A python for run.sh in which the three scripts take no time: tests/stand_in.py."""
    path = tmp_path / "a b" / "python"
    path.parent.mkdir()
    path.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{TOP}/tests/stand_in.py" "$@"\n')
    path.chmod(0o755)
    return str(path)


def test_run_sh_goes_from_data_to_table_and_repeats_nothing(tmp_path: Path):
    variables = {"SEEDS": "0", "LABEL_SETS": "rand1", "METHODS": "bkd"}
    variables |= {"RESULTS_DIR": str(tmp_path)}

    def demo(*words: str) -> subprocess.CompletedProcess:
        return run_sh("demo", "--n_epoch", "4", "--no_plots", *words, **variables)

    first = demo()
    assert first.returncode == 0, first.stdout + first.stderr
    folder = tmp_path / "digits_rand1_seed_0"
    logs = {stage: (folder / f"{stage}.log").read_text() for stage in stages()}
    for stage, last_line in stages().items():
        assert re.search(last_line, logs[stage]), logs[stage]
    assert re.search(r"^digits +rand1 +n_epoch=4 +bkd +1 +\d\d\.\d\d ", first.stdout, re.MULTILINE)
    assert "F1 0." in first.stdout and "no tipping point" in first.stdout

    again = demo()
    assert again.returncode == 0 and "rand1/bkd/seed 0: finished before" in again.stdout
    assert logs == {stage: (folder / f"{stage}.log").read_text() for stage in stages()}
    other = demo("--lr", "0.5")
    assert other.returncode == 2 and "--lr 0.02 there, 0.5 here" in other.stderr


def stages() -> dict[str, str]:
    """What each stage's log must hold."""
    return {
        "training": r"epoch   3 .* clean test \d+\.\d\d % \d+\.\d s, 0:00 left\n",
        "learning": r"Best test acc selected by val is \d+\.\d\d\n$",
        "detection": r"The f-score is \d\.\d{4}\n$",
    }


@pytest.mark.skipif(torch.cuda.is_available(), reason="with CUDA the challenge just runs")
@pytest.mark.skipif(
    not (Path.home() / "data" / "cifar-10-batches-py").is_dir(), reason="needs CIFAR-10"
)
def test_run_sh_stops_without_cuda_and_says_how_long_it_would_take(tmp_path: Path):
    variables = {"ALLOW_CPU": "", "SEEDS": "0 1", "RESULTS_DIR": str(tmp_path / "results")}
    done = run_sh("challenge", "--width", "2", **variables)
    assert done.returncode == 1, done.stdout + done.stderr
    assert re.search(r"300 epochs of 352 steps would take about \d+ h \d\d min", done.stdout)
    assert "6 such runs" in done.stdout and not (tmp_path / "results").exists()


def test_run_sh_measures_stops_where_something_looks_wrong_and_packs(tmp_path: Path, stand_in: str):
    results = tmp_path / "results"

    def measure(**more: str) -> subprocess.CompletedProcess:
        variables = {"PYTHON": stand_in, "RESULTS_DIR": str(results), "ALLOW_CPU": "1"}
        variables |= {"STAGES": "bkd bkd+ ce departures", "CUDA_VISIBLE_DEVICES": "", "JOBS": "2"}
        return run_sh("measure", "--n_epoch", "7", **variables | more)

    first = measure()
    assert first.returncode == 2 and "the tipping point never came" in first.stderr
    assert "a run looks wrong, see above; look into that first" in first.stderr
    assert (results / "kept.tar.gz").exists() and not (results / "masked_mean").exists()
    assert not list(results.glob("challenge/*_ce")) and not list(results.glob("challenge/*_bkd+"))

    second = measure(GO_ON="1")
    assert second.returncode == 0, second.stderr
    assert second.stdout.count("finished before") == 3
    assert second.stdout.splitlines()[-1].startswith(f"to keep: {results / 'kept.tar.gz'};")
    with tarfile.open(results / "kept.tar.gz") as archive:
        names = set(archive.getnames())
    runs = {f"challenge/cifar10_{labels}_seed_0" for labels in ("aggre", "rand1", "worst")}
    runs |= {f"{run}_{method}" for run in runs for method in ("bkd+", "ce")}
    runs |= {f"{name}/cifar10_worst_seed_0" for name in ("detached_target", "masked_mean")}
    for run in runs:
        assert {f"kept/results/{run}/learning.json", f"kept/logs/{run}/detection.log"} <= names
        assert f"kept/{run.split('/')[0]}.md" in names
        options = json.loads((results / run / "args.json").read_text())["options"]
        method = run.split("_seed_0_")[1] if "_seed_0_" in run else "bkd"
        assert options["n_epoch"] == 7 and options["method"] == method
        assert options["detach_student_target"] == run.startswith("detached_target")
        assert options["masked_mean"] == run.startswith("masked_mean")
    assert {path.parent for path in results.glob("*/*/args.json")} == {results / r for r in runs}


def test_run_sh_laptop_takes_the_compact_networks_and_whole_label_sets(
    tmp_path: Path, stand_in: str
):
    variables = {"PYTHON": stand_in, "RESULTS_DIR": str(tmp_path / "results"), "JOBS": "2"}
    done = run_sh("laptop", "--no_plots", CUDA_VISIBLE_DEVICES="", **variables)
    assert done.returncode == 0, done.stderr
    assert re.search(r"^this will take at most .*, 2 runs at a time;", done.stdout, re.MULTILINE)
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


def test_run_sh_leaves_no_training_behind_and_resumes_it(tmp_path: Path):
    variables = {"RESULTS_DIR": str(tmp_path), "SEEDS": "0 1", "LABEL_SETS": "rand1"}
    variables |= {"PYTHON": sys.executable, "METHODS": "ce", "JOBS": "2", "OMP_NUM_THREADS": "1"}
    words = ("demo", "--n_epoch", "12", "--no_plots")
    process = subprocess.Popen(
        ["bash", str(TOP / "run.sh"), *words, "--checkpoint_freq", "99"],
        env=os.environ | variables,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_DFL),  # if it is ignored here
    )
    logs = [tmp_path / f"digits_rand1_seed_{seed}_ce" / "training.log" for seed in (0, 1)]
    end = time.monotonic() + 200
    while not all(each.exists() and "epoch   1" in each.read_text() for each in logs):
        assert time.monotonic() < end and process.poll() is None
        time.sleep(0.05)
    process.send_signal(signal.SIGHUP)  # its terminal is closed
    said, _ = process.communicate(timeout=100)
    assert process.returncode == 128 + signal.SIGHUP
    assert said.count("the same command resumes from there\n") == 2
    for log in logs:
        assert "the same command resumes from there" in log.read_text()
        assert (log.parent / "checkpoint.pt").exists()
        assert not (log.parent / "learning.log").exists()
    variables["SEEDS"] = "0"  # the other would only take time
    # How often a checkpoint is written is not part of a run.
    done = run_sh(*words, **variables)
    assert done.returncode == 0 and "resuming from epoch" in logs[0].read_text()
    assert not (logs[0].parent / "checkpoint.pt").exists()
    assert (logs[0].parent / "detection.json").exists()


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"SEEDS": "*"}, "'*' is not a whole number"),
        ({"SEEDS": "a b"}, "'a' is not a whole number"),
        ({"SEEDS": "../../x"}, "'../../x' is not a whole number"),
        ({"LABEL_SETS": "foo"}, "no label set 'foo'"),
        ({"METHODS": "bkd sgd"}, "invalid choice: 'sgd'"),
        ({"JOBS": "0"}, "--jobs: '0' is not a whole number from 1"),
    ],
)
def test_run_sh_refuses_wrong_values_before_it_makes_anything(
    variables: dict[str, str], message: str, tmp_path: Path, stand_in: str
):
    results = tmp_path / "results"
    done = run_sh("demo", PYTHON=stand_in, RESULTS_DIR=str(results), **variables)
    assert done.returncode == 2 and message in done.stderr and not results.exists()


def test_run_sh_takes_twins_and_many_jobs_for_what_they_are(tmp_path: Path, stand_in: str):
    variables = {"PYTHON": stand_in, "RESULTS_DIR": str(tmp_path / "r"), "METHODS": "ce"}
    variables |= {"SEEDS": "0 0", "LABEL_SETS": "worse worst", "JOBS": "20000"}
    done = run_sh("demo", "--n_epoch", "1", CUDA_VISIBLE_DEVICES="", **variables)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count(": finished, ") == 1


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["train"], "unknown command 'train'"),
        (["demo", "--seed", "3"], "SEEDS="),
        (["demo", "--results_dir=there"], "RESULTS_DIR="),
        (["measure", "--dataset", "digits"], "--dataset: give"),
    ],
)
def test_run_sh_refuses_what_it_does_not_know(words: list[str], message: str, stand_in: str):
    done = run_sh(*words, PYTHON=stand_in, CUDA_VISIBLE_DEVICES="")
    assert done.returncode == 2 and message in done.stderr and done.stderr.count("\n") == 1


def test_run_sh_finds_a_python_whose_path_has_spaces(tmp_path: Path):
    wrapper = tmp_path / "a b" / "python"
    wrapper.parent.mkdir()
    wrapper.write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
    wrapper.chmod(0o755)
    done = run_sh("setup", PYTHON=str(wrapper))
    assert done.stdout == f"{wrapper}\n" and done.returncode == 0


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
    done = subprocess.run(
        ["bash", str(tmp_path / "run.sh"), "test", "-k", "x"],
        env=os.environ | {"PYTHON": str(python)} | {"HOME": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    calls = (tmp_path / "calls").read_text().splitlines()
    assert "-m venv --clear --system-site-packages .venv" in calls
    assert calls[-1].startswith("-m pytest -n auto") and calls[-1].endswith(" -k x")


@pytest.mark.skipif(not shutil.which("dash"), reason="needs a shell that is not bash")
def test_run_sh_says_that_it_needs_bash():
    done = subprocess.run(["dash", str(TOP / "run.sh"), "demo"], capture_output=True, text=True)
    assert done.returncode == 2 and done.stderr == "run.sh: error: needs bash; say: bash run.sh\n"


def test_run_sh_works_without_a_home(tmp_path: Path, stand_in: str):
    environment = {name: value for name, value in os.environ.items() if name != "HOME"}
    done = subprocess.run(
        ["bash", str(TOP / "run.sh"), "setup"],
        env=environment | {"PYTHON": stand_in},
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{stand_in}\n", "")


@pytest.mark.parametrize(
    ("line", "there"),
    [
        ("# a comment", True),
        ("numpy>=1.0", True),
        ("numpy>=999.0", False),
        ("numpy==1.0", False),
        ("no-such-package-at-all>=1.0", False),
    ],
)
def test_has_packages(line: str, there: bool, tmp_path: Path):
    file = tmp_path / "requirements.txt"
    file.write_text(f"{line}\n\n")
    assert has_packages.main([str(file)]) is there
