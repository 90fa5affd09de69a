"""Runs on this machine: so many at a time, GPUs and cores shared out, signals handed on."""

import contextlib
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from types import FrameType
from typing import IO

from tqdm import tqdm

from utils.console import discard, say
from utils.sweep.runs import Outcome, Task, run_stages

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
INTERVAL = 0.2  # seconds between two looks at signals, logs and progress
BAR_INTERVAL = 1.0  # seconds between two updates
NOT_SAID = ("$ ", "failed: ")  # beginnings of lines in a log that the sweep has written
SAME_SIGNAL = 0.1  # seconds: timeout(1) sends its signal to the process and to its group


def gpus() -> list[str]:
    """What CUDA_VISIBLE_DEVICES may name: the GPUs there are, of those that it names already."""
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
    """A context: entered, the first signal asks all runs to stop, a second one kills them."""

    def __init__(self, jobs: int, gpus: Sequence[str]):
        """`jobs`: runs at a time."""
        self.jobs, self.gpus = jobs, list(gpus)
        self.lock = threading.Lock()
        self.children: set[subprocess.Popen] = set()
        self.signals: list[int] = []  # as they came
        self.first_signal = 0.0  # when it came
        self.stopped = self.silent = False

    def __enter__(self) -> "Machine":
        # One that is ignored, as SIGHUP under nohup, stays ignored.
        mine = [each for each in SIGNALS if signal.getsignal(each) is not signal.SIG_IGN]
        self.before = {number: signal.signal(number, self._note) for number in mine}
        return self

    def __exit__(self, *error: object) -> None:
        for number, handler in self.before.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if not self.signals:
            self.first_signal = time.monotonic()
        elif not self.stopped:
            return  # the same one, twice
        self.signals.append(number)

    @property
    def exit_status(self) -> int | None:
        """That of a process that a signal has ended; None where there was no signal."""
        return 128 + self.signals[0] if self.signals else None

    def run(self, tasks: Sequence[Task], *, silent: bool = False) -> list[Outcome]:
        """Run all tasks, say a line for each, and return what became of them, in their order.

        `silent`: say nothing of them; they have no checkpoint either.
        """
        self.silent = silent
        outcomes = {task.name: Outcome("finished", task.result()) for task in tasks}
        due = [task for task in tasks if is_due(task)]
        for task in tasks:
            if task not in due:
                self._say(f"{task.name}: finished before, {outcomes[task.name].detail}")
        jobs = max(1, min(self.jobs, len(due)))
        self.slots: queue.Queue[dict[str, str]] = queue.Queue()
        for slot in range(jobs):
            self.slots.put(self._share(slot, jobs))
        progress = Progress(due, follow=jobs == 1 and not silent)
        with ThreadPoolExecutor(jobs) as pool:
            futures: dict[Future[Outcome], Task] = {pool.submit(self._run, t): t for t in due}
            try:
                while futures:
                    done, _ = wait(futures, timeout=INTERVAL, return_when=FIRST_COMPLETED)
                    self._hand_signals_on()
                    for line in progress.look():
                        self._say(line)
                    for future in done:
                        task = futures.pop(future)
                        progress.ended(task)
                        outcomes[task.name] = outcome = future.result()
                        if outcome.word != "pending":
                            self._say(f"{task.name}: {', '.join(filter(None, outcome))}")
            finally:
                if futures:
                    self._stop()
                progress.close()
        return [outcomes[task.name] for task in tasks]

    def _share(self, slot: int, jobs: int) -> dict[str, str]:
        """A slot's variables: a GPU and some of the cores. The only run at a time gets all."""
        if jobs == 1:
            return {}
        share = {}
        if self.gpus:
            share["CUDA_VISIBLE_DEVICES"] = self.gpus[slot % len(self.gpus)]
        if "OMP_NUM_THREADS" not in os.environ:
            share["OMP_NUM_THREADS"] = str(max(1, (os.cpu_count() or 1) // jobs))
        return share

    def _run(self, task: Task) -> Outcome:
        """One task, in a thread."""
        share = self.slots.get()
        try:
            return run_stages(
                task, lambda command, log: self._child(command, log, share), lambda: self.stopped
            )
        finally:
            self.slots.put(share)

    def _child(self, command: Sequence[str], log: IO[bytes], share: dict[str, str]) -> int | None:
        """Exit status of a child in a session of its own; None where none shall start."""
        with self.lock:
            if self.stopped:
                return None
            child = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=os.environ | share,
                start_new_session=True,  # a terminal's Ctrl-C is handed on, once
            )
            self.children.add(child)
        try:
            return child.wait()
        finally:
            with self.lock:
                self.children.discard(child)

    def _hand_signals_on(self) -> None:
        if not self.signals or time.monotonic() - self.first_signal < SAME_SIGNAL:
            return
        if not self.stopped:
            self._stop()
            name = signal.Signals(self.signals[0]).name
            what = "end" if self.silent else "write a checkpoint and end"
            words = f"{name}: waiting for {len(self.children)} to {what}"
            with contextlib.suppress(OSError):  # a terminal that has been closed
                tqdm.write(f"{words}; the same signal again kills", file=sys.stderr)
        elif len(self.signals) > 1:
            with self.lock:
                for child in self.children:
                    with contextlib.suppress(ProcessLookupError):  # it has just ended
                        os.killpg(child.pid, signal.SIGKILL)

    def _stop(self) -> None:
        """Start nothing more; each child gets SIGTERM, once."""
        with self.lock:
            for child in () if self.stopped else self.children:
                child.terminate()
            self.stopped = True

    def _say(self, line: str) -> None:
        """Say a line; where nobody reads any more (`| head`), all runs are asked to stop."""
        if self.silent:
            return
        try:
            say(line)
        except BrokenPipeError:
            discard(sys.stdout)
            self._note(signal.SIGPIPE, None)


class Progress:
    """One bar of all epochs; and what the run says, where there is one at a time."""

    def __init__(self, tasks: Sequence[Task], *, follow: bool):
        """`follow`: whether to return the lines of the logs."""
        self.tasks, self.follow = list(tasks), follow
        self.ends = {task.log: size(task) for task in tasks}
        total, done = sum(task.epochs for task in tasks), self._done()
        self.bar = tqdm(
            total=total or None,
            initial=done,
            desc=f"{len(tasks)} run{'s' * (len(tasks) != 1)}",
            unit="epoch",
            dynamic_ncols=True,
            disable=None if total else True,
        )
        self.over, self.updated = 0, 0.0  # epochs of the tasks that have ended; time of the update

    def _done(self) -> int:
        return sum(min(task.epochs_done(), task.epochs) for task in self.tasks)

    def look(self) -> list[str]:
        """Update the bar; the lines that have come since."""
        if not self.bar.disable and time.monotonic() - self.updated > BAR_INTERVAL:
            self.updated = time.monotonic()
            self.bar.n = self.over + self._done()
            self.bar.refresh()
        lines = []
        for task in self.tasks if self.follow else ():
            if size(task) > self.ends[task.log]:
                with open(task.log, "rb") as file:
                    file.seek(self.ends[task.log])
                    whole, newline, _ = file.read().rpartition(b"\n")
                self.ends[task.log] += len(whole + newline)
                lines += whole.decode(errors="replace").splitlines()
        return [line for line in lines if not line.startswith(NOT_SAID)]

    def ended(self, task: Task) -> None:
        """A task is over, whatever became of it."""
        self.tasks.remove(task)
        done = min(task.epochs_done(), task.epochs)
        self.over += done
        if self.bar.total:
            self.bar.total -= task.epochs - done  # those that it will not reach here

    def close(self) -> None:
        """All are over."""
        self.bar.close()


def is_due(task: Task) -> bool:
    """Whether anything is left to do, or to complain of."""
    try:
        return bool(task.stages_left())
    except (ValueError, OSError):
        return True


def size(task: Task) -> int:
    """Bytes in its log."""
    return task.log.stat().st_size if task.log.exists() else 0
