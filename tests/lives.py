"""Runs of the training script in processes of their own, which may end in many ways.

They are forked from a process that has imported everything, so that a life costs no import.
"""

from utils.startup import run_script

import contextlib
import hashlib
import multiprocessing
import os
import pty
import random
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import blind_knowledge_dist_training as training
from models.fast.training_step import TrainingStep
from tests.conftest import training_options
from utils import files
from utils.run_folder import session
from utils.run_folder.interruption import Interruption

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["tests.lives"])
DIFFERENT = {"args.json", "timing.json", "training.log", ".lock"}  # folder, times, no content


class Life:
    """One process that trains, its exit status and what it said."""

    def __init__(self, folder: Path, words: tuple[object, ...], fate: Callable | None = None):
        """`fate`: called there beforehand, with what follows it in a tuple, to plant its end."""
        self.log = folder.with_name(f"{folder.name}.log")
        self.folder = folder
        words = (*words, "--results_dir", folder)
        self.process = CONTEXT.Process(target=_live, args=(self.log, words, fate))
        self.process.start()

    def end(self, timeout: float = 300) -> int:
        """Wait for it; its exit status, negative for the signal that killed it."""
        self.process.join(timeout)
        assert not self.process.is_alive(), "it goes on and on"
        return self.process.exitcode

    def said(self) -> str:
        """Its stdout and stderr."""
        return self.log.read_text()


def _live(log: Path, words: tuple[object, ...], fate: Any) -> None:
    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(file, 1)
    os.dup2(file, 2)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):  # if they are ignored here
        signal.signal(number, signal.SIG_DFL)
    sys.argv = ["training.py"]
    session.write_plots = lambda *_: []  # they take longer than the run
    if fate:
        function, *arguments = fate if isinstance(fate, tuple) else (fate,)
        function(*arguments)
    with contextlib.suppress(BrokenPipeError):
        result = run_script(training.main, training_options(*words))
        sys.stdout.flush()
        sys.exit(training.NO_TIPPING_POINT if result.get("fallback") else 0)


def live(folder: Path, *words: object, fate: Any = None) -> tuple[int, str]:
    """Exit status and words of one life."""
    one = Life(folder, words, fate)
    return one.end(), one.said()


def at_step(number: int, end: Callable[[], None]) -> None:
    """Let `end` be called within that training step of the process."""
    call, count = TrainingStep.__call__, iter(range(10**9))

    def counted(self: TrainingStep, *batch: Any) -> Any:
        if next(count) == number:
            end()
        return call(self, *batch)

    TrainingStep.__call__ = counted


def kill_soon_after_step(number: int, seconds: float) -> None:
    """SIGKILL so many seconds after that step has begun, whatever is done then."""

    def wait_and_kill() -> None:
        time.sleep(seconds)
        os.kill(os.getpid(), signal.SIGKILL)

    at_step(number, lambda: threading.Thread(target=wait_and_kill, daemon=True).start())


def signal_at_step(number: int, which: int) -> None:
    """That signal, sent to itself in that step."""
    at_step(number, lambda: os.kill(os.getpid(), which))


def hang_up_at_step(number: int) -> None:
    """Write to a terminal that is closed in that step, as its window would be."""
    terminal, side = pty.openpty()
    for output in (1, 2):
        os.dup2(side, output)
    os.close(side)

    def hang_up() -> None:
        os.close(terminal)
        os.kill(os.getpid(), signal.SIGHUP)

    at_step(number, hang_up)


def kill_at_write(number: int, after: bool) -> None:
    """SIGKILL as that file is about to get its name, or just `after` it got it."""
    replace, count = Path.replace, iter(range(10**9))

    def counted(self: Path, target: Path) -> Path:
        now = next(count) == number
        if now and not after:
            os.kill(os.getpid(), signal.SIGKILL)
        result = replace(self, target)
        if now:
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    Path.replace = counted


def wait_at_step(number: int, flag: Path) -> None:
    """Make a file in that step, and wait there for ever."""

    def wait() -> None:
        flag.touch()
        time.sleep(600)

    at_step(number, wait)


def limit_file_size(size: int) -> None:
    """No file can become larger than so many bytes, as on a disk that is nearly full."""
    import resource

    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))


def lose_a_number(number: int) -> None:
    """From that step on one of the weights is no number."""
    call, count = TrainingStep.__call__, iter(range(10**9))

    def spoilt(self: TrainingStep, *batch: Any) -> Any:
        seen = call(self, *batch)
        if next(count) == number:
            self.weights[0].data.view(-1)[0] = float("nan")
        return seen

    TrainingStep.__call__ = spoilt


def lose_a_number_and_stop(number: int) -> None:
    """The same, and a signal before the next step."""
    lose_a_number(number)
    check = Interruption.check

    def stopped(self: Interruption) -> None:
        if (network := TRAINED.get("step")) and not network.weights[0].isfinite().all():
            self.number = signal.SIGTERM
        check(self)

    Interruption.check = stopped
    make = training.make_step

    def kept(*arguments: Any) -> TrainingStep:
        TRAINED["step"] = make(*arguments)
        return TRAINED["step"]

    training.make_step = kept


TRAINED: dict[str, TrainingStep] = {}


def sums(folder: Path) -> dict[str, str]:
    """The digests of all files of a run that must not depend on how often it was interrupted."""
    return {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.iterdir()
        if path.name not in DIFFERENT and not path.name.endswith(files.PARTIAL)
    }


def only_run(results: Path) -> Path:
    """The one run folder there."""
    (folder,) = [path for path in results.iterdir() if path.name != "replaced"]
    return folder


def host() -> str:
    """This machine's name, as others call it."""
    return socket.gethostname()


def chances(seed: int) -> random.Random:
    """Random moments, the same in every test run."""
    return random.Random(seed)
