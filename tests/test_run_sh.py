"""run.sh, end to end: what it starts, repeats, stops and refuses."""

import json
import os
import re
import signal
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import pytest
import torch

TOP = Path(__file__).parents[1]


def test_run_sh_goes_from_data_to_table_and_repeats_nothing(tmp_path: Path):
    environment = os.environ | {
        "PYTHON": sys.executable,
        "RESULTS_DIR": str(tmp_path / "results"),
        "SEEDS": "0",
        "LABEL_SETS": "rand1",
        "METHODS": "bkd",
    }

    def demo(*words: str) -> subprocess.CompletedProcess:
        command = ["bash", str(TOP / "run.sh"), "demo", "--n_epoch", "4", "--no_plots", *words]
        return subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300
        )

    first = demo()
    assert first.returncode == 0, first.stdout + first.stderr
    folder = tmp_path / "results" / "digits_rand1_seed_0"
    logs = {stage: (folder / f"{stage}.log").read_text() for stage in stages()}
    for stage, last_line in stages().items():
        assert re.search(last_line, logs[stage]), logs[stage]
    assert re.search(r"^digits +rand1 +n_epoch=4 +bkd +1 +\d\d\.\d\d ", first.stdout, re.MULTILINE)
    assert "never" in first.stdout

    again = demo()
    assert again.returncode == 0 and "finished" in again.stdout
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
    environment = os.environ | {"PYTHON": sys.executable, "RESULTS_DIR": str(tmp_path / "results")}
    environment.pop("ALLOW_CPU", None)
    done = subprocess.run(
        ["bash", str(TOP / "run.sh"), "challenge", "--width", "2"],
        env=environment | {"SEEDS": "0 1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 1, done.stdout + done.stderr
    assert re.search(r"300 epochs of 352 steps would take about \d+\.\d\d hours", done.stdout)
    assert "6 such runs" in done.stdout and not (tmp_path / "results").exists()


@pytest.fixture
def stand_in(tmp_path: Path) -> str:
    """A python for run.sh in which the three scripts take no time: tests/stand_in.py."""
    path = tmp_path / "python"
    path.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{TOP}/tests/stand_in.py" "$@"\n')
    path.chmod(0o755)
    return str(path)


def test_run_sh_measures_stops_where_something_looks_wrong_and_packs(tmp_path: Path, stand_in: str):
    results = tmp_path / "results"
    environment = os.environ | {"PYTHON": stand_in, "RESULTS_DIR": str(results), "ALLOW_CPU": "1"}
    environment |= {"STAGES": "bkd ce departures"}

    def measure(**more: str) -> subprocess.CompletedProcess:
        return subprocess.run(
            ["bash", str(TOP / "run.sh"), "measure", "--n_epoch", "7"],
            env=environment | more,
            capture_output=True,
            text=True,
            timeout=300,
        )

    first = measure()
    assert first.returncode == 2 and "the tipping point never came" in first.stderr
    assert "a run looks wrong, see above; look into that first" in first.stderr
    assert (results / "kept.tar.gz").exists() and not (results / "masked_mean").exists()
    assert not list(results.glob("challenge/*_ce"))

    second = measure(GO_ON="1")
    assert second.returncode == 0, second.stderr
    assert second.stdout.count("this run is finished") == 3
    assert second.stdout.splitlines()[-1].startswith(f"to keep: {results / 'kept.tar.gz'};")
    with tarfile.open(results / "kept.tar.gz") as archive:
        names = set(archive.getnames())
    runs = {f"challenge/cifar10_{labels}_seed_0" for labels in ("aggre", "rand1", "worst")}
    runs |= {f"{run}_ce" for run in runs}
    runs |= {f"{name}/cifar10_worst_seed_0" for name in ("detached_target", "masked_mean")}
    for run in runs:
        assert {f"kept/results/{run}/learning.json", f"kept/logs/{run}/detection.log"} <= names
        assert f"kept/{run.split('/')[0]}.md" in names
        options = json.loads((results / run / "args.json").read_text())["options"]
        assert options["n_epoch"] == 7 and options["method"] == ("ce" if "_ce" in run else "bkd")
        assert options["detach_student_target"] == run.startswith("detached_target")
        assert options["masked_mean"] == run.startswith("masked_mean")
    assert {path.parent for path in results.glob("*/*/args.json")} == {results / r for r in runs}


def test_run_sh_runs_several_at_a_time_despite_a_failure(tmp_path: Path, stand_in: str):
    results = tmp_path / "results"
    (results / "digits_aggre_seed_0_ce").mkdir(parents=True)
    (results / "digits_aggre_seed_0_ce" / "teacher.pth.tar").write_bytes(b"of unknown origin")
    environment = os.environ | {
        "PYTHON": stand_in,
        "RESULTS_DIR": str(results),
        "LABEL_SETS": "aggre rand1",
        "SEEDS": "0 1",
        "METHODS": "ce",
        "JOBS": "" if (os.cpu_count() or 1) > 1 else "2",  # "": as many as there are cores
    }
    done = subprocess.run(
        ["bash", str(TOP / "run.sh"), "demo", "--n_epoch", "1"],
        env=environment,
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 2 and "failed: aggre/ce/seed 0\n" in done.stderr
    lines = done.stdout.splitlines()
    starts, ends = (
        [number for number, line in enumerate(lines) if re.search(words, line)]
        for words in (
            ": started$",
            r": finished, Best test acc selected by val is \d+\.\d+, The f-score is 0\.\d+$",
        )
    )
    assert len(starts) == 4 and len(ends) == 3
    failed = next(line for line in lines if line.startswith("aggre/ce/seed 0: failed: "))
    assert "unknown origin" in failed and failed.endswith(f"; its logs are in {results}")
    assert starts[:2] == [0, 1]  # before any has ended
    assert not any("epoch" in line for line in lines[: ends[-1]])  # these lines are in the logs
    for name in ("aggre_seed_1", "rand1_seed_0", "rand1_seed_1"):
        folder = results / f"digits_{name}_ce"
        assert "The f-score is" in (folder / "detection.log").read_text()
        assert re.search(r"epoch   0 .*clean test", (folder / "training.log").read_text())
    assert re.search(r"^digits +aggre .* ce +1 ", done.stdout, re.MULTILINE)
    assert re.search(r"^digits +rand1 .* ce +2 ", done.stdout, re.MULTILINE)


@pytest.mark.parametrize(
    ("jobs", "which", "status"), [("1", signal.SIGINT, 130), ("2", signal.SIGTERM, 143)]
)
def test_run_sh_hands_a_signal_on_and_resumes_afterwards(
    jobs: str, which: int, status: int, tmp_path: Path
):
    environment = os.environ | {"PYTHON": sys.executable, "RESULTS_DIR": str(tmp_path)}
    environment |= {"SEEDS": "0 1", "LABEL_SETS": "rand1", "METHODS": "ce", "JOBS": jobs}
    environment |= {"OMP_NUM_THREADS": "1"}
    demo = ["bash", str(TOP / "run.sh"), "demo", "--n_epoch", "10", "--no_plots"]
    words = [*demo, "--checkpoint_freq", "99"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    process = subprocess.Popen(
        words,
        env=environment,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # if it is ignored here
        **pipes,
    )
    logs = [tmp_path / f"digits_rand1_seed_{seed}_ce" / "training.log" for seed in range(int(jobs))]
    log = logs[0]
    end = time.monotonic() + 200
    while not all(each.exists() and "epoch   1" in each.read_text() for each in logs):
        assert time.monotonic() < end and process.poll() is None
        time.sleep(0.05)
    process.send_signal(which)
    said, _ = process.communicate(timeout=100)
    assert process.returncode == status
    assert said.count("the same command resumes from there\n") == int(jobs)
    assert "the same command resumes from there" in log.read_text()
    assert (log.parent / "checkpoint.pt").exists() and not (log.parent / "learning.log").exists()
    if jobs == "2":
        assert len(list(tmp_path.glob("*/checkpoint.pt"))) == 2  # both have written theirs
        return
    assert not (tmp_path / "digits_rand1_seed_1_ce").exists()  # nothing more was begun
    environment["SEEDS"] = "0"  # the other would only take time
    # How often a checkpoint is written is not part of a run.
    done = subprocess.run(demo, env=environment, text=True, timeout=300, **pipes)
    assert done.returncode == 0 and "going on from epoch" in log.read_text()
    assert not (log.parent / "checkpoint.pt").exists()
    assert (log.parent / "detection.json").exists()


@pytest.mark.parametrize("jobs", ["0", "two", "-1"])
def test_run_sh_refuses_wrong_numbers_of_jobs(jobs: str):
    done = subprocess.run(
        ["bash", str(TOP / "run.sh"), "demo"],
        env=os.environ | {"JOBS": jobs},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 2 and f"JOBS={jobs}" in done.stderr


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["train"], "unknown command 'train'"),
        (["demo", "--seed", "3"], "--seed: say SEEDS="),
        (["demo", "--results_dir=there"], "say RESULTS_DIR="),
    ],
)
def test_run_sh_refuses_what_it_does_not_know(words: list[str], message: str):
    command = ["bash", str(TOP / "run.sh"), *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2 and message in done.stderr


def test_run_sh_finds_a_python_whose_path_has_spaces(tmp_path: Path):
    wrapper = tmp_path / "a b" / "python"
    wrapper.parent.mkdir()
    wrapper.write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
    wrapper.chmod(0o755)
    done = subprocess.run(
        ["bash", str(TOP / "run.sh"), "setup"],
        env=os.environ | {"PYTHON": str(wrapper)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.stdout == f"{wrapper}\n" and done.returncode == 0
