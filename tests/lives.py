"""Runs of the training script in processes of their own, which may end in many ways.

They are forked from a process that has imported everything, so that a life costs no import. That
process must not have asked for CUDA (torch.cuda.is_available is enough), or no life could use it.
"""

from utils.startup import run_script

import contextlib
import itertools
import multiprocessing
import os
import pty
import resource
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import blind_knowledge_dist_training as training
from data.download import digest
from models.fast.training_step import TrainingStep
from tests.conftest import training_options
from utils import files
from utils.plots import draw

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["tests.lives", "sklearn.datasets"])
DIFFERENT = {"args.json", "timing.json", "training.log", ".lock"}  # folder, times, no content


class Life:
    """One process that trains, its exit status and what it said."""

    def __init__(self, folder: Path, words: tuple[object, ...], fate: tuple = ()):
        """`fate`: a function called beforehand to plant its end, and what it is called with."""
        self.log = folder.with_name(f"{folder.name}.log")
        words = (*words, "--results_dir", folder)
        self.process = CONTEXT.Process(target=_live, args=(self.log, words, fate))
        self.process.start()

    def end(self, timeout: float = 300) -> int:
        """Wait for it; its exit status, negative for the signal that killed it."""
        self.process.join(timeout)
        assert not self.process.is_alive(), "it goes on and on"
        return self.process.exitcode

    def said(self) -> str:
        return self.log.read_text()


def _live(log: Path, words: tuple[object, ...], fate: tuple) -> None:
    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(file, 1)
    os.dup2(file, 2)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):  # if they are ignored here
        signal.signal(number, signal.SIG_DFL)
    sys.argv = ["training.py"]
    draw.write_plots = lambda *_: []  # they take longer than the run
    options = training_options(*words)
    if options.device == "cpu":  # torch's optimisers would look at a GPU all the same
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
    if fate:
        fate[0](*fate[1:])
    with contextlib.suppress(BrokenPipeError):
        result = run_script(training.main, options)
        sys.stdout.flush()
        sys.exit(training.IN_DOUBT if result.get("fallback") else 0)


def live(folder: Path, *words: object, fate: tuple = ()) -> tuple[int, str]:
    one = Life(folder, words, fate)
    return one.end(), one.said()


def at_call(owner: type, name: str, number: int, act: Callable, after: bool = False) -> None:
    """Give `act` the object before that call of its method in this process, or just `after` it."""
    method, count = getattr(owner, name), itertools.count()

    def counted(self: Any, *arguments: Any) -> Any:
        now = next(count) == number
        if now and not after:
            act(self)
        result = method(self, *arguments)
        if now and after:
            act(self)
        return result

    setattr(owner, name, counted)


def at_step(number: int, act: Callable[[TrainingStep], object], after: bool = False) -> None:
    """Let `act` be called in that training step of the process, or just `after` it."""
    at_call(TrainingStep, "__call__", number, act, after)


def send(number: int) -> None:
    os.kill(os.getpid(), number)


def kill_soon_after_step(number: int, seconds: float) -> None:
    """SIGKILL so many seconds after that step has begun, whatever is done then."""
    killer = threading.Timer(seconds, send, [signal.SIGKILL])
    killer.daemon = True
    at_step(number, lambda _: killer.start())


def signal_at_step(number: int, which: int) -> None:
    at_step(number, lambda _: send(which))


def hang_up_at_step(number: int) -> None:
    """Write to a terminal that is closed in that step, as its window would be."""
    terminal, side = pty.openpty()
    for output in (1, 2):
        os.dup2(side, output)
    os.close(side)
    at_step(number, lambda _: (os.close(terminal), send(signal.SIGHUP)))


def kill_at_write(number: int, after: bool) -> None:
    """SIGKILL as that file is about to get its name, or just `after` it got it."""
    at_call(Path, "replace", number, lambda _: send(signal.SIGKILL), after)


def wait_at_step(number: int, flag: Path) -> None:
    """Make a file in that step, and wait there for ever."""
    at_step(number, lambda _: (flag.touch(), time.sleep(600)))


def limit_file_size(size: int) -> None:
    """No file can become larger than so many bytes, as on a disk that is nearly full."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))


def lose_a_number(number: int, *signals: int) -> None:
    """From that step on one of the weights is no number; a signal may follow before the next."""

    def lose(step: TrainingStep) -> None:
        step.weights[0].data.view(-1)[0] = float("nan")
        for which in signals:
            send(which)

    at_step(number, lose, after=True)


def wait_until(condition: Callable[[], object], seconds: float = 120) -> None:
    """Look every 20 ms; an AssertionError if it never comes."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it never came"
        time.sleep(0.02)


def sums(folder: Path) -> dict[str, str]:
    """The digests of all files of a run that must not depend on how often it was interrupted."""
    names = {path.name for path in folder.iterdir() if not path.name.endswith(files.PARTIAL)}
    return {name: digest(folder / name) for name in names - DIFFERENT}


def only_run(results: Path) -> Path:
    (folder,) = [path for path in results.iterdir() if path.name != "replaced"]
    return folder
