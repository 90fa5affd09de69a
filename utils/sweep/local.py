"""Runs on this machine: so many at a time, GPUs and cores shared out, signals handed on."""

import contextlib
import os
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from types import FrameType
from typing import IO

from tqdm import tqdm

from utils.console import progress_bar, say
from utils.cpus import usable_cpus
from utils.run_folder.interruption import handled_by
from utils.sweep.runs import Outcome, SweepRun, run_stages, start

GROUPS = hasattr(os, "killpg")  # not on Windows, where SIGTERM kills too
INTERVAL = 0.5  # seconds between two looks at signals and progress


def gpus() -> list[str]:
    """Values for CUDA_VISIBLE_DEVICES: the GPUs there are, of those that it names already."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible == "":
        return []
    import torch  # takes seconds

    if not torch.cuda.is_available():
        return []
    if visible is None:
        return [str(number) for number in range(torch.cuda.device_count())]
    return [each for each in visible.split(",") if each.strip()]


class Machine:
    """Runs jobs; meanwhile the first signal asks all runs to stop, the second one kills them."""

    def __init__(self, jobs: int, gpus: Sequence[str]):
        """`jobs`: runs at a time."""
        self.jobs, self.gpus = jobs, list(gpus)
        self.lock = threading.Lock()
        self.children: set[subprocess.Popen] = set()
        self.signal = 0  # that came since the last look: timeout(1) sends its own twice at once
        self.stopped = False
        self.exit_status: int | None = None  # 128 + the first signal's number

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.signal = number

    def run(self, runs: Sequence[SweepRun]) -> dict[SweepRun, Outcome]:
        """Run what is left of all, say a line for each, and return what became of each.

        Where nobody reads the lines any more, the runs are stopped, and SystemExit is raised.
        """
        outcomes = {run: Outcome("finished", run.result()) for run in runs}
        due = [run for run in runs if is_due(run)]
        for run in runs:
            if run not in due:
                say(f"{run.name}: finished before, {outcomes[run].detail}")
        jobs = max(1, min(self.jobs, len(due)))
        shares: queue.Queue[dict[str, str]] = queue.Queue()
        for number in range(jobs):
            shares.put(self._share(number, jobs))
        before, total = sum(run.epochs_done() for run in due), sum(run.epochs for run in due)
        words = f"{len(due)} run{'s' * (len(due) != 1)}"
        bar = progress_bar(before, total, quiet=not due, desc=words, unit="epoch")
        with handled_by(self._note), ThreadPoolExecutor(jobs) as pool, bar:
            futures = {pool.submit(self._run, run, shares): run for run in due}
            try:
                while futures:
                    done, _ = wait(futures, timeout=INTERVAL, return_when=FIRST_COMPLETED)
                    self._hand_signal_on()
                    for future in done:
                        run = futures.pop(future)
                        outcomes[run] = outcome = future.result()
                        if outcome.word != "pending":
                            say(f"{run.name}: {', '.join(filter(None, outcome))}")
                    if not bar.disable:
                        bar.n = sum(run.epochs_done() for run in due)
                        bar.refresh()
            finally:
                self._stop()
        return outcomes

    def _share(self, number: int, jobs: int) -> dict[str, str]:
        """Environment of a job: a GPU and some of the cores. The only one at a time gets all."""
        if jobs == 1:
            return {}
        share = {}
        if self.gpus:
            share["CUDA_VISIBLE_DEVICES"] = self.gpus[number % len(self.gpus)]
        if "OMP_NUM_THREADS" not in os.environ:
            share["OMP_NUM_THREADS"] = str(max(1, usable_cpus() // jobs))
        return share

    def _run(self, run: SweepRun, shares: queue.Queue) -> Outcome:
        """What became of a run, in a thread."""
        share = shares.get()
        try:
            if self.stopped:
                return Outcome("pending")
            say(f"{run.name}: started, see {run.log}")
            return run_stages(run, lambda command, log: self._child(command, log, share))
        finally:
            shares.put(share)

    def _child(self, command: Sequence[str], log: IO[bytes], share: dict[str, str]) -> int | None:
        """Exit status of a child; None where all runs shall end."""
        with self.lock:
            if self.stopped:
                return None
            child = start(command, log, os.environ | share)
            self.children.add(child)
        try:
            status = child.wait()
            return None if self.stopped else status
        finally:
            with self.lock:
                self.children.discard(child)

    def _hand_signal_on(self) -> None:
        if not self.signal:
            return
        number, self.signal = self.signal, 0
        if self.stopped:
            with self.lock:
                for child in self.children:
                    with contextlib.suppress(ProcessLookupError):  # it has just ended
                        os.killpg(child.pid, signal.SIGKILL) if GROUPS else child.kill()
            return
        self.exit_status = 128 + number
        self._stop()
        words = "waiting for {} to write a checkpoint and end; a second signal kills"
        if not GROUPS:
            words = "ending {}; here they cannot be asked for a checkpoint, the last one counts"
        line = f"{signal.Signals(number).name}: {words.format(len(self.children))}"
        with contextlib.suppress(OSError):  # a terminal that has been closed
            tqdm.write(line, file=sys.stderr)

    def _stop(self) -> None:
        """Start nothing more; each child gets SIGTERM, once."""
        with self.lock:
            for child in () if self.stopped else self.children:
                child.terminate()
            self.stopped = True


def is_due(run: SweepRun) -> bool:
    """Whether anything is left to do, or to complain of."""
    try:
        return bool(run.stages_left())
    except (ValueError, OSError):
        return True
