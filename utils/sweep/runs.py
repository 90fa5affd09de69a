"""Which runs a sweep has, their commands, and how far each is: from the run folders alone."""

import argparse
import contextlib
import fcntl
import itertools
import signal
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import IO, Any, NamedTuple, Protocol

from utils.console import duration
from utils.files import read_json
from utils.label_sets import LABEL_SETS
from utils.lock import HOLDER, LOCK
from utils.options.parser import NETS
from utils.options.sweep import CHALLENGE
from utils.options.training import training_parser
from utils.run_folder.description import Description
from utils.run_folder.folder import RunFolder

TOP = Path(__file__).parents[2]  # of the checkout, where the scripts are
LOGS = "sweep"  # beside the run folders
FALLBACK = 3  # exit status of the training where no tipping point came
SET_BY_THE_SWEEP = {
    "--dataset": "--dataset before --",
    "--noise_type": "--noise_types before -- (run.sh: LABEL_SETS=… in front of bash)",
    "--seed": "--seeds before -- (run.sh: SEEDS=… in front of bash)",
    "--method": "--methods before -- (run.sh: METHODS=… in front of bash)",
    "--net": "--net before -- (run.sh: NET=… in front of bash)",
    "--results_dir": "--results_dir before -- (run.sh: RESULTS_DIR=… in front of bash)",
    "--data_dir": "--data_dir before -- (run.sh: DATA_DIR=… in front of bash)",
    "--measure_steps": "it to the training script alone",
}


class Stage(NamedTuple):
    """One child process, and the exit statuses that are no failure."""

    name: str
    command: list[str]
    good: tuple[int, ...] = (0,)


class Outcome(NamedTuple):
    """What became of a task: finished, running, pending, failed or interrupted."""

    word: str
    detail: str = ""


class Task(Protocol):
    """What can be run: stages one after the other, their output appended to one log."""

    name: str
    log: Path
    epochs: int  # 0 where there are none

    def stages_left(self) -> list[Stage]: ...

    def epochs_done(self) -> int: ...

    def result(self) -> str: ...


class SweepRun:
    """Training, learning and detection of one label set, method and seed."""

    def __init__(self, args: argparse.Namespace, words: Sequence[str]):
        """`args`: the training script's options, `words`: those given beside the run's own."""
        self.args, self.words = args, list(words)
        self.folder = RunFolder.of(args)
        net = [] if args.net == NETS[0] else [args.net]
        self.name = "/".join([args.noise_type, *net, args.method, f"seed {args.seed}"])
        self.log = args.results_dir / LOGS / f"{self.folder.path.name}.log"
        self.epochs: int = args.n_epoch

    def stages(self) -> list[Stage]:
        """All three."""
        names = ("dataset", "noise_type", "seed", "method", "net", "results_dir", "data_dir")
        run = [word for name in names for word in (f"--{name}", str(getattr(self.args, name)))]

        def command(script: str) -> list[str]:
            return [sys.executable, str(TOP / f"{script}.py"), *run]

        return [
            Stage(
                "training",
                [*command("blind_knowledge_dist_training"), *self.words],
                (0, FALLBACK),
            ),
            Stage("learning", command("learning")),
            Stage("detection", command("detection")),
        ]

    def stages_left(self) -> list[Stage]:
        """Those to run; raises ValueError or OSError where the folder holds another run."""
        training, *evaluations = self.stages()
        again = self.args.restart or self.args.noise_path  # the training compares its labels
        if again or self._trained() is None:
            return [training, *evaluations]
        return self._unevaluated(evaluations)

    def _unevaluated(self, evaluations: Sequence[Stage]) -> list[Stage]:
        """Those whose results are missing or older than the networks of a trained run."""
        made = (self.folder.learning, self.folder.detection_metrics)
        trained = self.folder.training.stat().st_mtime_ns
        return [
            stage
            for stage, path in zip(evaluations, made, strict=True)
            if not path.exists() or path.stat().st_mtime_ns < trained
        ]

    def _trained(self) -> dict[str, Any] | None:
        run = self.args.dataset, self.args.net, self.args.method
        defaults = training_parser().defaults_of(*run)
        return self.folder.finished_run(Description.of(self.args, defaults))

    def epochs_done(self) -> int:
        """Rows of metrics.csv."""
        if self.args.restart and self.folder.training.exists():
            return 0
        try:
            with open(self.folder.metrics, "rb") as file:
                return max(0, sum(1 for _ in file) - 1)
        except OSError:
            return 0

    def epochs_left(self) -> int:
        """Those that the training has still to do; raises as `stages_left` does."""
        if self.stages_left()[:1] != self.stages()[:1]:
            return 0
        if self.args.restart:
            return self.epochs
        if self.folder.training.exists():  # it will say that it is finished
            return 0
        with contextlib.suppress(OSError):
            done, saved = self.epochs_done(), self.folder.checkpoint.stat().st_mtime_ns
            if saved < self.folder.metrics.stat().st_mtime_ns:  # it was killed since
                done -= done % self.args.checkpoint_freq
            return max(0, self.epochs - done)
        return self.epochs

    def result(self) -> str:
        """The evaluation of a finished run in a few words; "" where it cannot be read."""
        try:
            accuracy = read_json(self.folder.learning)["last"]["accuracy"]
            f1 = read_json(self.folder.detection_metrics)["f1"]
            seconds = read_json(self.folder.timing)["wall_seconds"]
            training = read_json(self.folder.training)
            fallback = ", no tipping point" if training.get("fallback") else ""
            return f"test accuracy {accuracy:.2f} %, F1 {f1:.3f}{fallback}, {duration(seconds)}"
        except (OSError, ValueError, KeyError, TypeError):
            return ""

    def is_running(self) -> bool:
        """Whether a process holds the folder's lock."""
        if not (self.folder.path / HOLDER).exists():  # so that nobody who starts is disturbed
            return False
        with contextlib.suppress(OSError), open(self.folder.path / LOCK) as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return True
        return False

    def status(self) -> Outcome:
        """finished, running, failed or pending, with a few words."""
        done = f"epoch {self.epochs_done()} of {self.epochs}"
        if self.is_running():
            return Outcome("running", done)
        try:
            if (trained := self._trained()) and not self._unevaluated(self.stages()[1:]):
                return Outcome("finished", self.result())
        except (ValueError, OSError) as error:
            return Outcome("failed", " ".join(str(error).split()))
        last = last_line(self.log)
        if last.startswith("failed: "):
            return Outcome("failed", last.removeprefix("failed: "))
        resumes = f"resumes after {done}" if self.folder.checkpoint.exists() else ""
        return Outcome("pending", "trained, not evaluated" if trained else resumes)


def make_runs(
    args: argparse.Namespace, words: Sequence[str], error: Callable[[str], Any]
) -> list[SweepRun]:
    """Each run once, seed by seed; `error` is called with a line where an option is wrong.

    `args`: of the sweep. `words`: further ones of the training script. Nothing is made.
    """
    for word in words:
        if instead := SET_BY_THE_SWEEP.get(word.split("=")[0]):
            error(f"{word}: give {instead}")
    parser = training_parser()
    parser.prog = "utils.sweep"
    known = LABEL_SETS[args.dataset]
    chosen = args.noise_types or ([known.default] if args.dataset == "cifar100" else CHALLENGE)
    for name in chosen:
        if name not in (*known.keys, *known.aliases):
            names = ", ".join(known.keys)
            error(f"--dataset {args.dataset} has no label set {name!r}; it has {names}")
    folders = ("--results_dir", str(args.results_dir.resolve()))
    folders += ("--data_dir", str(args.data_dir.resolve()))
    runs = {}
    for seed, noise_type, method in itertools.product(args.seeds, chosen, args.methods):
        run = ("--dataset", args.dataset, "--noise_type", noise_type, "--seed", str(seed))
        run += ("--method", method, "--net", args.net)
        options = parser.parse_args([*run, *folders, *words])
        one = SweepRun(options, words)
        runs.setdefault(one.folder.path, one)
    return list(runs.values())


def run_stages(
    task: Task,
    run_command: Callable[[Sequence[str], IO[bytes]], int | None],
    stopped: Callable[[], bool],
) -> Outcome:
    """Run what is left of a task. A failure is the last line of its log too.

    `run_command`: of a command and the log; its exit status, None where it was not started.
    `stopped`: whether all runs shall end.
    """
    if stopped():
        return Outcome("pending")
    try:
        stages = task.stages_left()
        task.log.parent.mkdir(parents=True, exist_ok=True)
    except (ValueError, OSError) as error:
        return Outcome("failed", " ".join(str(error).split()))
    try:
        with open(task.log, "ab", buffering=0) as log:
            for stage in stages:
                log.write(f"$ {' '.join(stage.command)}\n".encode())
                status = run_command(stage.command, log)
                if status in stage.good:
                    continue
                if status is None or stopped():
                    return Outcome("interrupted", said_last(task.log))
                reason = said_last(task.log) or f"{stage.name} said nothing"
                if status < 0:
                    reason = f"ended by {signal.Signals(-status).name}; {reason}"
                log.write(f"failed: {reason}\n".encode())
                return Outcome("failed", f"{reason}; see {task.log}")
    except OSError as error:
        return Outcome("failed", f"{task.log}: {error.strerror}")
    return Outcome("finished", task.result())


def last_line(path: Path) -> str:
    """The last line of a file that is not blank; "" where there is none."""
    with contextlib.suppress(OSError), open(path, "rb") as file:
        file.seek(max(0, file.seek(0, 2) - 10_000))
        lines = file.read().decode(errors="replace").split("\n")
        return next((line.strip() for line in reversed(lines) if line.strip()), "")
    return ""


def said_last(log: Path) -> str:
    """The last line that a stage has said; "" where it said nothing."""
    line = last_line(log)
    return "" if line.startswith("$ ") else line


def counted(outcomes: Iterable[Outcome]) -> str:
    """How many there are of each: "2 finished, 1 failed"."""
    words = [outcome.word for outcome in outcomes]
    return ", ".join(f"{words.count(word)} {word}" for word in sorted(set(words), reverse=True))
