"""Runs as one Slurm job array, through submitit, an optional requirement."""

import os
import signal
import subprocess
import sys
import time
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

from utils.sweep.runs import LOGS, SweepRun, run_stages, start

TIMEOUTS = 20  # how often a run may meet the time limit and be resumed
SECONDS_TO_STOP = 75  # for a step and a checkpoint; Slurm kills 90 s after SIGUSR2
SECONDS_TO_BE_ENDED = 600
SHIELDED = (signal.SIGTERM, signal.SIGUSR2)  # Slurm signals every process of a job
ASK_TO_STOP = signal.SIGHUP  # the child's: not one of those
POLL = 0.1  # seconds


class RunInJob:
    """What submitit pickles and calls: the stages of one run, in child processes.

    At SIGUSR2, before the time limit or at preemption, submitit calls `checkpoint` in this process
    in the midst of whatever it does, and queues the job again. SIGTERM (`scancel`, preemption)
    makes the run write its checkpoint too.
    """

    def __init__(self) -> None:
        self.child: subprocess.Popen | None = None
        self.asked = False

    def __call__(self, run: SweepRun) -> str:
        """Run what is left; raises RuntimeError with the reason of a failure."""
        signal.signal(ASK_TO_STOP, signal.SIG_DFL)  # the child must not inherit that it is ignored
        before = signal.signal(signal.SIGTERM, lambda *_: self.ask_to_stop())
        try:
            outcome = run_stages(run, self._start)
            if self.asked:  # a job that ended by itself would not be queued again
                time.sleep(SECONDS_TO_BE_ENDED)
        finally:
            signal.signal(signal.SIGTERM, before)
        if outcome.word != "finished":
            raise RuntimeError(f"{run.name}: {outcome.word}, {outcome.detail}")
        return outcome.detail

    def checkpoint(self, run: SweepRun) -> Any:
        """Let the child write its checkpoint and end; what to call when the job runs again."""
        from submitit.helpers import DelayedSubmission

        self.ask_to_stop()
        if self.child and not _ended(self.child, SECONDS_TO_STOP):
            os.killpg(self.child.pid, signal.SIGKILL)  # resumes from the checkpoint before
        return DelayedSubmission(RunInJob(), run)

    def ask_to_stop(self) -> None:
        """The child gets a signal, once; no other child starts."""
        if not self.asked and self.child:
            self.child.send_signal(ASK_TO_STOP)
        self.asked = True

    def _start(self, command: Sequence[str], log: IO[bytes]) -> int | None:
        """Exit status of a child; None where the run shall end."""
        threads = os.environ.get("SLURM_CPUS_PER_TASK")
        cores = {"OMP_NUM_THREADS": threads} if threads else {}
        before = signal.pthread_sigmask(signal.SIG_BLOCK, SHIELDED)
        try:  # the child inherits the mask; what comes meanwhile is handled below
            if self.asked:
                return None
            self.child = start(command, log, cores | os.environ)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        _ended(self.child)
        child, self.child = self.child, None
        status = child.wait()
        return None if self.asked else status


def _ended(child: subprocess.Popen, seconds: float = float("inf")) -> bool:
    """Wait for its end so long; it stays there to be waited for.

    `Popen.wait` holds a lock, for which a signal's handler that interrupts it would wait forever.
    """
    end = time.monotonic() + seconds
    while child.returncode is None:
        if os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT):
            return True
        if time.monotonic() > end:
            return False
        time.sleep(POLL)
    return True


def submit(runs: Sequence[SweepRun], args: Namespace) -> str:
    """Submit the runs as one job array; returns its number. Raises ValueError with the reason.

    `args`: of `utils.options.sweep.sweep_parser`.
    """
    try:
        import submitit
    except ImportError as error:
        raise ValueError(
            f"--slurm: needs submitit; {sys.executable} -m pip install 'submitit>=1.5'"
        ) from error
    folder = Path(args.results_dir).resolve() / LOGS / "slurm"
    try:
        executor = submitit.SlurmExecutor(folder, max_num_timeout=TIMEOUTS)
        executor.update_parameters(
            job_name="blind_knowledge_distillation",
            partition=args.slurm,
            time=args.slurm_time,
            gpus_per_node=args.slurm_gpus or None,
            cpus_per_task=args.slurm_cpus,
            mem=f"{round(args.slurm_mem * 1024)}MB",
            setup=args.slurm_setup,
            array_parallelism=args.array_parallelism,
            srun_args=["--cpus-per-task", str(args.slurm_cpus)],  # srun does not inherit it
        )
        jobs = executor.map_array(RunInJob(), runs)
    except (RuntimeError, OSError, subprocess.SubprocessError) as error:
        raise ValueError(f"--slurm: {' '.join(str(error).split())}") from error
    return jobs[0].job_id.split("_")[0]
