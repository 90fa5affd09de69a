"""A job array on a real Slurm of one node; skipped where its packages are not."""

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

TOP = Path(__file__).parents[1]
SAME = ("metrics.csv", "training.json", "detection.npy", "teacher.pth.tar", "best_teacher.pth.tar")
TRAINING = ("--n_epoch", "10", "--no_plots", "--checkpoint_freq", "99", "--clean_test_freq", "1")


@pytest.fixture
def slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Slurm, for as long as the test takes."""
    pytest.importorskip("submitit")
    if not all(map(shutil.which, ("slurmctld", "slurmd", "munged"))) or os.geteuid():
        pytest.skip("needs slurm-wlm, munge, and root")
    script = ["bash", str(TOP / "tests" / "slurm.sh"), str(tmp_path / "slurm")]
    monkeypatch.setenv("SLURM_CONF", str(tmp_path / "slurm" / "slurm.conf"))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    daemons = subprocess.Popen(
        [*script, "sh", "-c", "echo ready; cat"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with daemons:
        assert daemons.stdout.readline() == "ready\n"
        yield
        daemons.stdin.close()


def said(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, cwd=TOP, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def job_number(task: str) -> str:
    """The number of a task of an array, NUMBER_TASK, as a job."""
    lines = said("squeue", "--noheader", "--array", "--format=%i %A").splitlines()
    return dict(line.split() for line in lines)[task]


def test_an_array_with_a_preempted_run_and_a_failing_one(slurm: None, tmp_path: Path):
    results = tmp_path / "results"
    results.mkdir()
    (results / "digits_rand1_seed_2_ce").write_text("in the way")
    sweep = [sys.executable, "-m", "utils.sweep", "--dataset", "digits", "--methods", "ce"]
    sweep += ["--noise_types", "rand1", "aggre", "--seeds", "0", "1", "2"]
    sweep += ["--results_dir", str(results)]
    cluster = ["--slurm", "here", "--slurm_gpus", "0", "--slurm_cpus", "1", "--slurm_mem", "1.5"]
    submitted = said(*sweep, *cluster, "--array_parallelism", "2", "--", *TRAINING)
    number = submitted.removeprefix("job array ").split(":")[0]
    assert "6 of 6 runs, 2 at a time" in submitted

    log = results / "digits_rand1_seed_0_ce" / "training.log"
    end = time.monotonic() + 400
    preempted = False
    while True:
        assert time.monotonic() < end, said("squeue") + said(*sweep, "--status", "--", *TRAINING)
        assert len(said("squeue", "--noheader", "--states", "R").splitlines()) <= 2
        if not preempted and log.exists() and "epoch   2" in log.read_text():
            # Its step: for a task of an array, scancel would send the signal again and again.
            said("scancel", "--signal=USR2", f"{job_number(f'{number}_0')}.0")
            preempted = True
        if not said("squeue", "--noheader"):
            break
        time.sleep(0.2)
    assert preempted and log.read_text().count("resuming from epoch") == 1

    status = said(*sweep, "--status", "--", *TRAINING)
    assert status.endswith("6 runs: 5 finished, 1 failed\n"), status
    assert "failed    rand1/ce/seed 2: " in status and "cannot be made" in status
    here = [*sweep, "--seeds", "0", "--noise_types", "rand1", "--results_dir", str(tmp_path / "h")]
    said(*here, "--", *TRAINING)
    for name in SAME:
        undisturbed = (tmp_path / "h" / log.parent.name / name).read_bytes()
        assert (log.parent / name).read_bytes() == undisturbed, name
