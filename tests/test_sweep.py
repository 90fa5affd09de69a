"""python -m utils.sweep: which runs, where they run, what a signal and a failure do, Slurm jobs."""

import errno
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from unittest.mock import Mock

import pytest

from tests.lives import wait_until
from tests.stand_in import make_executable
from utils.lock import locked
from utils.options.sweep import jobs
from utils.run_folder.interruption import SIGNALS
from utils.sweep import local
from utils.sweep.__main__ import main

TOP = Path(__file__).parents[1]
SLOW = "0.1"  # seconds an epoch
DIGITS = ("--dataset", "digits", "--results_dir")


@pytest.fixture
def stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A python in which the three scripts take no time: tests/stand_in.py."""
    path = make_executable(tmp_path / "python")
    monkeypatch.setattr(sys, "executable", path)
    monkeypatch.setenv("PYTHON", path)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    return path


@pytest.fixture
def sweep(tmp_path: Path, stand_in: str, capfd: pytest.CaptureFixture) -> Callable:
    """Call the sweep of digits here; its exit status, stdout and stderr."""

    def call(words: str) -> tuple[int, str, str]:
        try:
            status = main([*DIGITS, str(tmp_path / "r"), *shlex.split(words)])
        except SystemExit as exit_:
            status = exit_.code
        return status, *capfd.readouterr()

    return call


def background(results: Path, stand_in: str, words: str, seconds: str = SLOW) -> subprocess.Popen:
    """The sweep of digits in a process of its own, whose signals are at their defaults."""

    def defaults() -> None:
        for number in SIGNALS:
            signal.signal(number, signal.SIG_DFL)

    return subprocess.Popen(
        [stand_in, "-m", "utils.sweep", *DIGITS, str(results), *words.split()],
        env=os.environ | {"EPOCH_SECONDS": seconds},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=defaults,
    )


def holds(path: Path, words: str) -> bool:
    return path.exists() and words in path.read_text()


def test_each_run_is_made_once_and_no_finished_stage_again(sweep: Callable, tmp_path: Path):
    words = "--noise_types worst worse --seeds 0 0 --methods ce bkd --jobs 2"
    status, said, error = sweep(f"{words} --page -- --n_epoch 2")
    assert status == 0 and "failed" not in error
    lines = sorted(line for line in said.splitlines() if line.startswith("worst/"))
    ending = "finished, test accuracy 50.00 %, F1 0.500, 0:01"
    logs = tmp_path / "r" / "sweep"
    assert lines == [
        f"worst/bkd/seed 0: {ending}",
        f"worst/bkd/seed 0: started, see {logs}/digits_worst_seed_0.log",
        f"worst/ce/seed 0: {ending}",
        f"worst/ce/seed 0: started, see {logs}/digits_worst_seed_0_ce.log",
    ]
    page = tmp_path / "r" / "index.html"
    assert str(page) in said and "digits_worst_seed_0_ce" in page.read_text()
    assert re.search(r"^digits +worst +\S+ +ce +1 +50.00", said, re.MULTILINE)

    learning = tmp_path / "r" / "digits_worst_seed_0" / "learning.json"
    learning.unlink()
    logs = {path: path.read_text() for path in (tmp_path / "r").glob("*/*.log")}
    status, said, _ = sweep(f"{words} -- --n_epoch 2")
    assert status == 0 and said.startswith("worst/ce/seed 0: finished before, test accuracy 50.00")
    assert learning.exists()
    changed = {path.name for path, text in logs.items() if path.read_text() != text}
    assert changed == {"digits_worst_seed_0.log", "learning.log"}
    assert set(logs) == set((tmp_path / "r").glob("*/*.log"))

    assert sweep(f"{words} --status -- --n_epoch 2")[1].endswith("\n2 runs: 2 finished\n")
    assert sweep(f"{words} --dry_run -- --n_epoch 2") == (0, "", "")
    status, said, error = sweep(f"{words} -- --n_epoch 2 --lr 0.5")
    assert (status, error.count("\n")) == (2, 2) and "--lr 0.02 there, 0.5 here" in error


def test_a_folder_belongs_to_one_sweep_and_is_none_of_other_things(sweep: Callable, tmp_path: Path):
    (tmp_path / "r" / "sweep").mkdir(parents=True)
    words = "--noise_types rand1 --methods ce"
    with locked(tmp_path / "r" / "sweep"):
        status, said, error = sweep(words)
        assert sweep(f"{words} --status")[0] == 0
    assert (status, said, error.count("\n")) == (2, "", 1)
    assert f"another process works in this folder (process {os.getpid()} on" in error
    (tmp_path / "r" / "index.html").write_text("mine")
    status, said, error = sweep(f"{words} --page")
    assert (status, said, error.count("\n")) == (2, "", 1) and "or leave out --page" in error
    shutil.rmtree(tmp_path / "r" / "sweep")
    (tmp_path / "r" / "sweep").touch()
    status, said, error = sweep(words)
    assert (status, said, error.count("\n")) == (2, "", 1) and "choose another --results" in error
    status, said, error = sweep(f"{words} --results_dir {'x' * 300}")
    assert (status, error.count("\n")) == (2, 1) and "is too long a name" in error


def test_nothing_is_made_by_a_dry_run_or_by_asking(sweep: Callable, tmp_path: Path):
    status, said, _ = sweep("--noise_types rand1 --dry_run -- --lr 0.1")
    training, learning, detection = said.splitlines()
    assert status == 0 and training.endswith("--lr 0.1") and "--lr" not in learning + detection
    assert f"{TOP}/detection.py --dataset digits --noise_type rand1 --seed 0" in detection
    status, said, _ = sweep("--noise_types rand1 aggre --status")
    assert (status, said.splitlines()[-1]) == (0, "2 runs: 2 pending")
    assert not (tmp_path / "r").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--seeds ../../x", "'../../x' is not a whole number"),
        ("--seeds 0 -1", "'-1' is not a whole number"),
        ("--noise_types foo", "argument --noise_type: invalid choice: 'foo'"),
        ("--noise_types rand2", "digits has no --noise_type rand2; it has clean, aggre"),
        ("--methods sgd", "invalid choice: 'sgd'"),
        ("--jobs 0", "'0' is not a whole number from 1"),
        ("--slurm_time 0 --slurm p", "'0' is not a whole number"),
        ("--slurm_setup 'a\nb' --slurm p", "is not a shell command on one line"),
        ("--slurm p --page", "--page with --slurm"),
        ("--slurm p -- --restart", "--restart with --slurm"),
        ("-- --seed 3", "--seed: give --seeds before --"),
        ("-- --results_dir=there", "give --results_dir before -- (run.sh: RESULTS_DIR=…"),
        ("-- --measure_steps 5", "--measure_steps: a sweep measures nothing"),
        ("-- --n_epohc 3", "did you mean --n_epoch?"),
        ("-- --lr -1", "argument --lr: '-1' is not a number above 0"),
    ],
)
def test_wrong_words_are_one_line_and_leave_nothing(words: str, message: str, sweep, tmp_path):
    status, said, error = sweep(words)
    assert status == 2 and said == "" and error.count("\n") == 1 and message in error
    assert error.startswith("utils.sweep: error: ") and not (tmp_path / "r").exists()


def test_the_others_go_on_when_runs_fail(sweep: Callable, tmp_path: Path):
    foreign = tmp_path / "r" / "digits_aggre_seed_0_ce"
    foreign.mkdir(parents=True)
    (foreign / "teacher.pth.tar").write_bytes(b"of unknown origin")
    words = "--noise_types aggre rand1 --methods ce --jobs 3 --seeds"
    status, said, error = sweep(f"{words} 0 -- --n_epoch 1")
    assert status == 2 and "rand1/ce/seed 0: finished, " in said
    assert re.search(r"^aggre/ce/seed 0: failed, .* of unknown origin", said, re.MULTILINE)
    assert re.search(r"error: failed: aggre/ce/seed 0: .* of unknown origin", error)
    assert re.search(r"^digits +rand1 ", said, re.MULTILINE)  # the table

    status, _, error = sweep(f"{words} 1 -- --lr 0.666")
    log = tmp_path / "r" / "sweep" / "digits_rand1_seed_1_ce.log"
    line = "training.py: error: the loss is not finite; try a smaller --lr"
    assert status == 2 and error.count("\n") == 2
    assert f"failed: rand1/ce/seed 1: blind_knowledge_dist_{line}; see {log}\n" in error
    status, said, error = sweep(f"{words} 2 -- --lr 0.999 --n_epoch 3")
    reason = "ended by SIGKILL; epoch   0 clean test 50.00 %"
    assert status == 2 and f"aggre/ce/seed 2: {reason}; see" in error
    said = sweep(f"{words} 2 --status -- --lr 0.999 --n_epoch 3")[1]
    assert said.startswith(f"failed    aggre/ce/seed 2: {reason}\n")
    assert said.endswith("2 runs: 2 failed\n")


def test_restart_of_fresh_results_replaces_nothing(sweep: Callable, tmp_path: Path):
    words = "--noise_types aggre --methods ce -- --n_epoch 1 --restart"
    assert sweep(words)[0] == 0 and not (tmp_path / "r" / "replaced").exists()
    assert sweep(words)[0] == 0
    replaced = list((tmp_path / "r" / "replaced").iterdir())
    assert [path.name for path in replaced] == ["digits_aggre_seed_0_ce_1"]
    assert (replaced[0] / "training.json").exists()


def test_children_are_asked_to_stop_once(monkeypatch: pytest.MonkeyPatch):
    """Also where the terminal that should be told of it has been closed."""
    machine, child = local.Machine(2, []), Mock()
    machine.children = [child]
    machine.signal = signal.SIGHUP
    monkeypatch.setattr(local.tqdm, "write", Mock(side_effect=OSError(errno.EIO, "gone")))
    machine._hand_signal_on()
    machine._stop()
    assert child.terminate.call_count == 1 and machine.exit_status == 129


def test_gpus_and_cores_are_shared_out(sweep: Callable, tmp_path: Path, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,6")
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr(local, "usable_cpus", lambda: 6)
    monkeypatch.setenv("EPOCH_SECONDS", "1")  # so that they all run at once
    assert sweep("--noise_types clean aggre rand1 --methods ce --jobs 20000 -- --n_epoch 1")[0] == 0
    files = (tmp_path / "r").glob("*/args.json")
    children = [json.loads(path.read_text())["children"] for path in files]
    assert sorted(each["CUDA_VISIBLE_DEVICES"] for each in children) == ["4", "4", "6"]
    assert [each["OMP_NUM_THREADS"] for each in children] == ["2", "2", "2"]


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="needs CPU affinity")
def test_as_many_jobs_as_cpus_that_the_process_may_use():
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(before)})
    try:
        assert jobs("auto") == 1
    finally:
        os.sched_setaffinity(0, before)
    assert jobs("auto") == min(8, len(before))


@pytest.mark.parametrize("which", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_lets_all_write_checkpoints_and_resume(which, tmp_path: Path, stand_in, sweep):
    count = 1 if which == signal.SIGINT else 2
    words = f"--noise_types aggre --methods ce --seeds 0 1 2 --jobs {count}"
    more = "-- --n_epoch 500"
    process = background(tmp_path / "r", stand_in, f"{words} {more}")
    logs = [tmp_path / f"r/digits_aggre_seed_{seed}_ce/training.log" for seed in range(count)]
    wait_until(lambda: all(holds(log, "epoch   1") for log in logs))
    said = sweep(f"{words} --status {more}")[1]
    assert re.match(r"running   aggre/ce/seed 0: epoch \d+ of 500\n", said)
    assert said.endswith(f"3 runs: {count} running, {3 - count} pending\n")
    for _ in range(count):  # at once: timeout(1) sends it to the process and to its group
        process.send_signal(which)
    said, error = process.communicate(timeout=60)
    assert process.returncode == 128 + which
    assert f"{which.name}: waiting for {count} to write a checkpoint and end" in error
    assert f"{count} interrupted; the same command resumes from there\n" in error
    epochs = dict(re.findall(r"seed (\d): interrupted, SIGTERM in epoch (\d+); the same", said))
    assert len(list((tmp_path / "r").glob("digits*"))) == count == len(epochs)  # no more begun
    assert all((log.parent / "checkpoint.pt").exists() for log in logs)
    status = f"pending   aggre/ce/seed 0: resumes after epoch {epochs['0']} of 500\n"
    assert sweep(f"{words} --status {more}")[1].startswith(status)
    assert sweep(f"{words} {more}")[0] == 0
    for seed, log in enumerate(logs):
        assert log.read_text().count("the same command resumes from there") == 1
        assert f"resuming from epoch {epochs[str(seed)]}\n" in log.read_text()
        assert not (log.parent / "checkpoint.pt").exists()


def test_a_second_signal_kills(tmp_path: Path, stand_in: str):
    words = "--noise_types aggre --methods ce -- --n_epoch 9"
    process = background(tmp_path / "r", stand_in, words, seconds="30")
    folder = tmp_path / "r" / "digits_aggre_seed_0_ce"
    wait_until(lambda: (folder / "args.json").exists())
    process.send_signal(signal.SIGTERM)
    assert "a second signal kills" in process.stderr.readline()
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=10)
    assert process.returncode == 143 and not (folder / "checkpoint.pt").exists()


def test_nobody_reading_any_more_lets_it_write_a_checkpoint(tmp_path: Path, stand_in: str):
    words = "--noise_types aggre rand1 --methods ce --jobs 2 -- --n_epoch 500"
    process = background(tmp_path / "r", stand_in, words)
    folders = [tmp_path / "r" / f"digits_{labels}_seed_0_ce" for labels in ("aggre", "rand1")]
    wait_until(lambda: all(holds(folder / "training.log", "epoch   1") for folder in folders))
    process.stdout.close()  # as head -1 does
    os.kill(json.loads((folders[0] / "lock.json").read_text())["pid"], signal.SIGKILL)
    with process.stderr:  # what became of the killed one can no longer be printed
        error = process.stderr.read()
    assert process.wait(60) == 141 and "Traceback" not in error
    assert (folders[1] / "checkpoint.pt").exists()
    assert "the same command resumes" in (folders[1] / "training.log").read_text()


def test_slurm_needs_submitit_and_its_commands(sweep: Callable, monkeypatch: pytest.MonkeyPatch):
    pytest.importorskip("submitit")
    monkeypatch.setenv("PATH", "")
    status, _, error = sweep("--slurm gpu")
    assert status == 2 and error.count("\n") == 1 and '"srun"' in error
    monkeypatch.setitem(sys.modules, "submitit", None)
    status, _, error = sweep("--slurm gpu")
    assert status == 2 and error.count("\n") == 1 and "-m pip install 'submitit>=1.5'" in error


class Cluster:
    """Commands named as Slurm's that note what they are asked; jobs are started by hand."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch):
        self.file, self.requeued = folder / "batch.sh", folder / "requeued"
        for name, text in {
            "sbatch": f'cp "$1" "{self.file}" && echo "Submitted batch job 4242"',
            "srun": "while case $1 in --unbuffered) true;; --*) shift;; *) false;; esac; do shift; "
            'done; exec "$@"',
            "scontrol": f'echo "$@" >> "{self.requeued}"',
        }.items():
            (folder / name).write_text(f"#!/bin/sh\n{text}\n")
            (folder / name).chmod(0o755)
        monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
        monkeypatch.setenv("EPOCH_SECONDS", SLOW)

    def start(self, task: int) -> subprocess.Popen:
        ids = {"SLURM_JOB_ID": "4250", "SLURM_ARRAY_JOB_ID": "4242", "SLURM_CPUS_PER_TASK": "3"}
        return subprocess.Popen(
            ["bash", str(self.file)],
            env=os.environ | ids | {"SLURM_ARRAY_TASK_ID": str(task)},
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )


def signal_job(job: subprocess.Popen, number: int) -> None:
    """As slurmstepd: every process of the step, whatever its session, but not the batch script."""
    pids, waiting = [], [job.pid]
    while waiting:
        pid = waiting.pop()
        pids.append(pid)
        waiting += map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split())
    for pid in reversed(pids[1:]):
        os.kill(pid, number)


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stand_in: str) -> Iterator[Cluster]:
    pytest.importorskip("submitit")
    if not Path("/proc/self/task").exists():
        pytest.skip("Slurm is for Linux")
    folder = tmp_path / "bin"
    folder.mkdir()
    yield Cluster(folder, monkeypatch)


def test_slurm_gets_one_job_array_that_resumes_run_by_run(cluster, sweep, tmp_path):
    words, more = "--noise_types aggre rand1 --methods ce bkd", "-- --n_epoch 20 --lr 0.5"
    slurm = "--slurm gpu --slurm_time 30 --array_parallelism 2 --slurm_cpus 3 --slurm_mem 1.5 "
    slurm += "--slurm_setup 'export A=1' --slurm_setup true"
    status, said, error = sweep(f"{words} {slurm} {more}")
    assert status == 0, error
    assert said.startswith("job array 4242: 4 of 4 runs, 2 at a time")
    batch = cluster.file.read_text()
    for line in (
        *("--partition=gpu", "--time=30", "--array=0-3%2", "--cpus-per-task=3", "--mem=1536MB"),
        *("--gpus-per-node=1", "--signal=USR2@90", "--open-mode=append"),
    ):
        assert f"#SBATCH {line}\n" in batch
    assert "\nexport A=1\ntrue\n" in batch

    job, log = cluster.start(1), tmp_path / "r" / "sweep" / "digits_aggre_seed_0.log"
    wait_until(lambda: holds(log, "epoch   2"))
    assert "running   aggre/bkd/seed 0" in sweep(f"{words} --status {more}")[1]
    signal_job(job, signal.SIGUSR2)
    assert job.wait(30) != 0 and cluster.requeued.read_text() == "requeue 4242_1\n"
    assert log.read_text().count("the same command resumes from there") == 1
    assert "pending   aggre/bkd/seed 0: resumes after" in sweep(f"{words} --status {more}")[1]
    assert cluster.start(1).wait(60) == 0 and "resuming from epoch" in log.read_text()
    folder = tmp_path / "r" / "digits_aggre_seed_0"
    assert (folder / "detection.json").exists() and not (folder / "checkpoint.pt").exists()
    assert json.loads((folder / "args.json").read_text())["children"]["OMP_NUM_THREADS"] == "3"
    assert "finished  aggre/bkd/seed 0: test" in sweep(f"{words} --status {more}")[1]

    said = sweep(f"{words} {slurm} {more}")[1]
    assert said.startswith("job array 4242: 3 of 4 runs")  # the finished one is not


def test_slurm_job_told_to_terminate_is_queued_again(cluster: Cluster, sweep: Callable, tmp_path):
    words = "--noise_types aggre --methods ce --slurm gpu --slurm_gpus 0 -- --n_epoch 500"
    assert sweep(words)[0] == 0
    batch, folder = cluster.file.read_text(), tmp_path / "r" / "digits_aggre_seed_0_ce"
    assert "gpus" not in batch and "array" not in batch
    cluster.file.write_text(f"unset SLURM_ARRAY_JOB_ID; SLURM_JOB_ID=4242\n{batch}")
    job = cluster.start(0)
    wait_until(lambda: holds(folder / "training.log", "epoch   1"))
    signal_job(job, signal.SIGTERM)
    wait_until(lambda: (folder / "checkpoint.pt").exists())
    time.sleep(0.5)
    assert job.poll() is None  # Slurm would take its end for that of the job
    signal_job(job, signal.SIGUSR2)
    job.wait(30)
    assert cluster.requeued.read_text() == "requeue 4242\n"


def test_slurm_job_that_fails_says_why(cluster: Cluster, sweep: Callable):
    words, more = "--noise_types aggre rand1 --methods ce", "-- --n_epoch 1 --lr 0.666"
    assert sweep(f"{words} --slurm gpu {more}")[0] == 0
    assert cluster.start(0).wait(60) != 0
    said = sweep(f"{words} --status {more}")[1]
    assert re.search(r"failed +aggre/ce/seed 0: .*the loss is not finite; try a smaller --lr", said)
    assert said.endswith("2 runs: 1 pending, 1 failed\n") and not cluster.requeued.exists()
