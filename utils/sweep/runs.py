"""Runs of a sweep: their commands, and how far each is by its run folder alone."""

import argparse
import itertools
import signal
import subprocess
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import IO, Any, NamedTuple

from utils.console import duration, what_of
from utils.files import read_json
from utils.lock import is_locked
from utils.options.parser import NETS
from utils.options.sweep import CHALLENGE
from utils.options.training import training_parser
from utils.run_folder.description import Description
from utils.run_folder.folder import RunFolder

TOP = Path(__file__).parents[2]  # of the checkout, where the scripts are
LOGS = "sweep"  # beside the run folders
FALLBACK = 3  # exit status of the training where no tipping point came
SET_BEFORE = {  # option of the training script -> the sweep's, and the variable of run.sh
    "--dataset": ("--dataset", ""),
    "--noise_type": ("--noise_types", "LABEL_SETS"),
    "--seed": ("--seeds", "SEEDS"),
    "--method": ("--methods", "METHODS"),
    "--net": ("--net", "NET"),
    "--results_dir": ("--results_dir", "RESULTS_DIR"),
    "--data_dir": ("--data_dir", "DATA_DIR"),
}


class Stage(NamedTuple):
    """One child process, and the exit statuses that are no failure."""

    name: str
    command: list[str]
    good: tuple[int, ...] = (0,)


class Outcome(NamedTuple):
    """What became of a run: finished, running, pending, failed or interrupted."""

    word: str
    detail: str = ""


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
        """The three scripts in their order."""
        names = ("dataset", "noise_type", "seed", "method", "net", "results_dir", "data_dir")
        run = [word for name in names for word in (f"--{name}", str(getattr(self.args, name)))]

        def command(script: str) -> list[str]:
            return [sys.executable, str(TOP / f"{script}.py"), *run]

        training = [*command("blind_knowledge_dist_training"), *self.words]
        evaluations = [Stage(name, command(name)) for name in ("learning", "detection")]
        return [Stage("training", training, (0, FALLBACK)), *evaluations]

    def stages_left(self) -> list[Stage]:
        """Stages to run; raises ValueError or OSError where the folder holds another run."""
        again = self.args.restart or self.args.noise_path  # the training compares its labels
        return self.stages() if again or self._trained() is None else self._unevaluated()

    def _unevaluated(self) -> list[Stage]:
        """Evaluations whose results are missing or older than the networks of a trained run."""
        made = (self.folder.learning, self.folder.detection_metrics)
        trained = self.folder.training.stat().st_mtime_ns
        return [
            stage
            for stage, path in zip(self.stages()[1:], made, strict=True)
            if not path.exists() or path.stat().st_mtime_ns < trained
        ]

    def _trained(self) -> dict[str, Any] | None:
        return self.folder.finished_run(Description.of(self.args))

    def epochs_done(self) -> int:
        """Rows of metrics.csv."""
        try:
            with open(self.folder.metrics, "rb") as file:
                return max(0, sum(1 for _ in file) - 1)
        except OSError:
            return 0

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

    def status(self) -> Outcome:
        """finished, running, failed or pending, with a few words."""
        done = f"epoch {self.epochs_done()} of {self.epochs}"
        if is_locked(self.folder.path):
            return Outcome("running", done)
        try:
            if (trained := self._trained()) and not self._unevaluated():
                return Outcome("finished", self.result())
        except (ValueError, OSError) as error:
            return Outcome("failed", what_of(error))
        last = last_line(self.log)
        if last.startswith("failed: "):
            return Outcome("failed", last.removeprefix("failed: "))
        resumes = f"resumes after {done}" if self.folder.checkpoint.exists() else ""
        return Outcome("pending", "trained, not evaluated" if trained else resumes)


def make_runs(
    args: argparse.Namespace, words: Sequence[str], error: Callable[[str], Any]
) -> list[SweepRun]:
    """Each run once, seed by seed. `error` is called with a line where an option is wrong.

    `args`: of the sweep. `words`: further options of the training script. Nothing is written.
    """
    for word in words:
        if (name := word.split("=")[0]) in SET_BEFORE:
            option, variable = SET_BEFORE[name]
            of_run_sh = f" (run.sh: {variable}=… in front of bash)" if variable else ""
            error(f"{word}: give {option} before --{of_run_sh}")
        if name == "--measure_steps":
            error(f"{word}: a sweep measures nothing; give it to the training script")
    parser = training_parser()
    parser.prog = "utils.sweep"
    challenge = ("noisy100",) if args.dataset == "cifar100" else CHALLENGE
    folders = ("--results_dir", str(args.results_dir.resolve()))
    folders += ("--data_dir", str(args.data_dir.resolve()))
    runs = {}
    for seed, noise_type, method in itertools.product(
        args.seeds, args.noise_types or challenge, args.methods
    ):
        run = ("--dataset", args.dataset, "--noise_type", noise_type, "--seed", str(seed))
        run += ("--method", method, "--net", args.net)
        options = parser.parse_args([*run, *folders, *words])
        one = SweepRun(options, words)
        runs.setdefault(one.folder.path, one)
    return list(runs.values())


def run_stages(
    run: SweepRun, run_command: Callable[[Sequence[str], IO[bytes]], int | None]
) -> Outcome:
    """Run the stages that are left; a failure is also the last line of the log.

    `run_command`: from a command and the log to its exit status, None where all runs shall end.
    """
    try:
        stages = run.stages_left()
        run.log.parent.mkdir(parents=True, exist_ok=True)
    except (ValueError, OSError) as error:
        return Outcome("failed", what_of(error))
    try:
        with open(run.log, "ab", buffering=0) as log:
            for stage in stages:
                log.write(f"$ {' '.join(stage.command)}\n".encode())
                status = run_command(stage.command, log)
                if status is None:
                    return Outcome("interrupted", last_line(run.log))
                if status in stage.good:
                    continue
                reason = last_line(run.log) or f"{stage.name} said nothing"
                if status < 0:
                    reason = f"ended by {signal.Signals(-status).name}; {reason}"
                log.write(f"failed: {reason}\n".encode())
                return Outcome("failed", f"{reason}; see {run.log}")
    except OSError as error:
        return Outcome("failed", f"{run.log}: {error.strerror}")
    return Outcome("finished", run.result())


def start(command: Sequence[str], log: IO[bytes], environment: dict[str, str]) -> subprocess.Popen:
    """The started child, in a session of its own: a terminal's Ctrl-C does not reach it."""
    return subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=subprocess.STDOUT,
        env=environment,
        start_new_session=True,
    )


def last_line(log: Path) -> str:
    """The last line of a log that is neither blank nor a command; "" where there is none."""
    try:
        lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return ""
    line = next((line.strip() for line in reversed(lines) if line.strip()), "")
    return "" if line.startswith("$ ") else line


def counted(outcomes: Iterable[Outcome]) -> str:
    """Number of outcomes of each kind: "2 finished, 1 failed"."""
    words = [outcome.word for outcome in outcomes]
    return ", ".join(f"{words.count(word)} {word}" for word in sorted(set(words), reverse=True))
