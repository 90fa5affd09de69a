"""What is worth knowing of a new GPU, in the order that matters: `bash run.sh measure`.

It stops where something looks wrong, packs what is to be kept whenever it ends, and continues where
it was when called again.
"""

import argparse
import os
import shutil
import sys
import tarfile
from collections.abc import Callable, Sequence
from contextlib import redirect_stdout, suppress
from pathlib import Path
from typing import NamedTuple

from utils.files import read_json
from utils.options.parser import NETS
from utils.options.sweep import measure_parser, split_words
from utils.summary.__main__ import main as summary
from utils.sweep import local
from utils.sweep.__main__ import failures, tell_failures
from utils.sweep.runs import Stage, Task, make_runs

LONGEST = 8  # minutes that 300 epochs may take by the benchmark's estimate
KEPT = "kept"


class Runs(NamedTuple):
    """A line of the programme: runs of a stage, and the folder that they go to."""

    stage: str
    folder: str
    dataset: str
    noise_types: tuple[str, ...]
    methods: tuple[str, ...] = ("bkd",)
    seeds: tuple[int, ...] | None = (0,)  # None: those of --seeds
    options: tuple[str, ...] = ()


HARDEST_FIRST = ("worst", "aggre", "rand1")
PROGRAMME = (
    Runs("bkd", "challenge", "cifar10", HARDEST_FIRST),
    Runs("bkd+", "challenge", "cifar10", HARDEST_FIRST, methods=("bkd+",)),
    Runs("ce", "challenge", "cifar10", HARDEST_FIRST, methods=("ce",)),
    Runs("seeds", "challenge", "cifar10", HARDEST_FIRST, methods=("bkd", "bkd+"), seeds=None),
    Runs("all_images", "all_images", "cifar10", HARDEST_FIRST, options=("--val_ratio", "0")),
    Runs("cifar100", "challenge", "cifar100", ("noisy100",)),
    Runs("more_labels", "challenge", "cifar10", ("rand2", "rand3")),
    Runs(
        "departures",
        "detached_target",
        "cifar10",
        ("worst",),
        options=("--detach_student_target",),
    ),
    Runs("departures", "masked_mean", "cifar10", ("worst",), options=("--masked_mean",)),
)
FOLDERS = tuple(dict.fromkeys(runs.folder for runs in PROGRAMME))


class Command:
    """One command that is not repeated once it has succeeded."""

    epochs = 0

    def __init__(self, name: str, words: Sequence[str], base: Path):
        self.name, self.words = name, list(words)
        self.log, self.done = base / f"{name}.log", base / f"{name}.done"

    def stages_left(self) -> list[Stage]:
        """The command, or none."""
        return [] if self.done.exists() else [Stage(self.name, self.words)]

    def epochs_done(self) -> int:
        """It has none."""
        return 0

    def result(self) -> str:
        """What stands in its log."""
        return f"see {self.log}"


class LooksWrong(Exception):
    """The programme stops here."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the programme; the exit status."""
    own, words = split_words(argv)
    parser = measure_parser()
    args = parser.parse_args(own)
    args.base = args.results_dir.resolve()
    stages = [line for line in PROGRAMME if line.stage in args.stages]
    tasks = [(line, runs_of(line, args, words, parser.error)) for line in stages]
    gpus = local.gpus()
    if args.needs_gpu and not gpus:
        parser.error(
            "no CUDA device here; a try on the CPU: ALLOW_CPU=1 GO_ON=1 bash run.sh measure "
            "--width 4 --limit_train 300 --n_epoch 7"
        )
    try:
        args.base.mkdir(parents=True, exist_ok=True)
        with local.Machine(args.jobs, gpus) as machine:
            try:
                return follow(machine, args, tasks, quick=not gpus)
            finally:
                pack(args.base)
    except KeyboardInterrupt:
        return 130
    except LooksWrong as reason:
        parser.error(f"{reason}; look into that first (GO_ON=1 or --go_on continues all the same)")
    except OSError as error:
        parser.error(str(error))


def runs_of(
    line: Runs, args: argparse.Namespace, words: Sequence[str], error: Callable
) -> Sequence[Task]:
    """The runs of a line; `error` is called where an option is wrong."""
    options = {"dataset": line.dataset, "noise_types": line.noise_types, "methods": line.methods}
    folders = {"results_dir": args.base / line.folder, "data_dir": args.data_dir}
    seeds = args.seeds if line.seeds is None else line.seeds
    sweep = argparse.Namespace(**options, **folders, seeds=seeds, net=NETS[0])
    return make_runs(sweep, [*line.options, *words], error)


def follow(
    machine: local.Machine,
    args: argparse.Namespace,
    tasks: Sequence[tuple[Runs, Sequence[Task]]],
    quick: bool,
) -> int:
    """All stages in their order; the exit status. Raises LooksWrong."""
    for command in commands(args, quick):
        failed = run(machine, command.name, [command])
        if machine.exit_status:
            return machine.exit_status
        if failed:
            warn(args, f"{command.name} failed")
        else:
            command.done.touch()
    benchmark = args.base / "benchmark.json"
    if "benchmark" in args.stages and benchmark.exists():
        minutes = int(read_json(benchmark)["run_seconds"] / 60)
        if minutes >= LONGEST:
            warn(args, f"300 epochs would take {minutes} minutes, more than {LONGEST}")
    for line, runs in tasks:
        failed = run(machine, line.stage, runs)
        if machine.exit_status:
            return machine.exit_status
        if failed:
            return tell_failures(failed)
        if summary([str(args.base / line.folder), "--checks"]):
            warn(args, "a run looks wrong, see above")
    return 0


def commands(args: argparse.Namespace, quick: bool) -> list[Command]:
    """Tests and benchmark, where they are wanted."""
    threads = os.environ.get("OMP_NUM_THREADS", "1")  # of each of many processes
    tests = ["env", f"OMP_NUM_THREADS={threads}", sys.executable, "-m", "pytest", "-q"]
    tests += ["-n", "auto", "--maxprocesses", "8", "--dist", "worksteal"]
    benchmark = [sys.executable, "-m", "tests.benchmark", *["--quick"] * quick]
    benchmark += ["--json", str(args.base / "benchmark.json")]
    words = {"tests": tests, "benchmark": benchmark}
    return [Command(name, words[name], args.base) for name in words if name in args.stages]


def run(machine: local.Machine, stage: str, tasks: Sequence[Task]) -> list[str]:
    """Run the tasks of a stage; a line for each that failed."""
    print(f"== {stage}", flush=True)
    return failures(tasks, machine.run(tasks))


def warn(args: argparse.Namespace, words: str) -> None:
    """Raises LooksWrong unless --go_on."""
    if not args.go_on:
        raise LooksWrong(words)
    print(f"{words}; continuing because of --go_on", flush=True)


def pack(base: Path) -> None:
    """kept.tar.gz: all that was measured, without networks and single predictions."""
    kept, archive = base / KEPT, base / f"{KEPT}.tar.gz"
    shutil.rmtree(kept, ignore_errors=True)
    folders = [path.parent for name in FOLDERS for path in base.glob(f"{name}/*/args.json")]
    for folder in (base, *folders):
        name = folder.relative_to(base)
        for kind, pattern in (("logs", "*.log"), ("plots", "*.png")):
            (kept / kind / name).mkdir(parents=True, exist_ok=True)
            for path in folder.glob(pattern):
                shutil.copy(path, kept / kind / name)
    if (base / "benchmark.json").exists():
        shutil.copy(base / "benchmark.json", kept / "logs")
    for name in FOLDERS:
        if not list(base.glob(f"{name}/*/training.json")):
            continue
        with suppress(SystemExit):  # where none of these can be read: one line was said
            summary([str(base / name), "--keep", str(kept / "results" / name)])
            with open(kept / f"{name}.md", "w", encoding="utf-8") as file, redirect_stdout(file):
                summary([str(base / name), "--checks", "--markdown"])
    with tarfile.open(archive, "w:gz") as file:
        file.add(kept, KEPT)
    print(
        f"to keep: {archive}; its results/NAME belong into docs/results, NAME.md into "
        "docs/reproduction.md; then python -m utils.summary docs/results/NAME --into README.md"
    )


if __name__ == "__main__":
    sys.exit(main())
