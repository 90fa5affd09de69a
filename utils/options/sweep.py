"""The options of `python -m utils.sweep` and `python -m utils.sweep.measure`."""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from utils.label_sets import LABEL_SETS
from utils.methods import METHOD_HELP, METHODS
from utils.options.parser import OneLineParser, add_net
from utils.options.values import count, count_or_none, path, positive, seed

SWEPT = [name for name in LABEL_SETS if name != "folder"]  # own images have one label set
CHALLENGE = ("aggre", "worst", "rand1")  # its label sets of CIFAR-10; those of the digits too
MOST_AUTOMATIC_JOBS = 8
PAGE = "index.html"
STAGES = (  # of `measure`, in the order that matters; see utils/sweep/measure.py
    "tests",
    "benchmark",
    "bkd",
    "bkd+",
    "ce",
    "seeds",
    "all_images",
    "cifar100",
    "more_labels",
    "departures",
)


def sweep_parser() -> OneLineParser:
    """The options of the sweep; those of the training script follow "--"."""
    parser = OneLineParser(
        prog="utils.sweep",
        usage="python -m utils.sweep [options] [-- options of the training script]",
        description="Train and evaluate every label set with every method and seed, then print "
        "the table. A finished stage is not repeated, an interrupted one is resumed.",
        epilog="Exit status: 0; 1 with --needs_gpu where there is none; 2 for wrong input and "
        "where a run failed; 128 + its number after a signal.",
    )
    runs = parser.add_argument_group("runs")
    runs.add_argument("--dataset", choices=SWEPT, default="cifar10", help="data set")
    runs.add_argument(
        "--noise_types",
        nargs="+",
        metavar="LABEL_SET",
        help=f"label sets (default: {' '.join(CHALLENGE)}, or noisy100)",
    )
    _add_seeds(runs, [0])
    runs.add_argument(
        "--methods",
        nargs="+",
        choices=list(METHODS),
        default=["bkd"],
        help=METHOD_HELP,
    )
    add_net(runs)
    _add_folders(runs, "results")
    runs.add_argument("--dry_run", action="store_true", help="only print the commands")
    runs.add_argument(
        "--status",
        action="store_true",
        help="only tell which runs are finished, running, failed or pending, by their run folders",
    )
    here = _add_machine(parser)
    here.add_argument(
        "--estimate_first",
        action="store_true",
        help="measure some steps of each method and say how long all will take, then start",
    )
    here.add_argument(
        "--page",
        action="store_true",
        help=f"behind the table also write one page of all runs, {PAGE} in the results folder",
    )
    _add_slurm(parser)
    return parser


def measure_parser() -> OneLineParser:
    """The options of the programme for a new GPU."""
    parser = OneLineParser(
        prog="utils.sweep.measure",
        usage="python -m utils.sweep.measure [options] [-- options of the training script]",
        description="Run what is worth knowing of a new GPU, in the order that matters; stop "
        "where something looks wrong, and pack what is to be kept.",
    )
    programme = parser.add_argument_group("programme")
    programme.add_argument(
        "--stages", nargs="+", choices=STAGES, default=list(STAGES), help="stages to run"
    )
    programme.add_argument(
        "--go_on", action="store_true", help="warn where something looks wrong, do not stop"
    )
    _add_seeds(programme, [1, 2], 'seeds of the stage "seeds"')
    _add_folders(programme, "results/measure")
    _add_machine(parser)
    return parser


def split_words(argv: Sequence[str] | None) -> tuple[list[str], list[str]]:
    """The options of the sweep, and those of the training script: what follows "--"."""
    words = list(sys.argv[1:] if argv is None else argv)
    end = words.index("--") if "--" in words else len(words)
    return words[:end], words[end + 1 :]


def jobs(text: str) -> int:
    """A type of option: a number from 1; "auto": as many as there are cores, 8 at most."""
    if text == "auto":
        return min(os.cpu_count() or 1, MOST_AUTOMATIC_JOBS)
    return count(text)


def _setup_command(text: str) -> str:
    if not text.strip() or not text.isprintable():
        raise argparse.ArgumentTypeError(f"{text!r} is not a shell command on one line")
    return text


def _add_seeds(
    group: argparse._ActionsContainer, default: list[int], words: str = "random seeds"
) -> None:
    group.add_argument(
        "--seeds", nargs="+", type=seed, default=default, metavar="NUMBER", help=words
    )


def _add_folders(group: argparse._ActionsContainer, results: str) -> None:
    for name, default, words in (
        ("results_dir", Path(results), "folder of run folders"),
        ("data_dir", path("~/data"), "folder of data sets and label files"),
    ):
        group.add_argument(f"--{name}", type=path, default=default, metavar="FOLDER", help=words)


def _add_machine(parser: argparse.ArgumentParser) -> argparse._ActionsContainer:
    here = parser.add_argument_group("on this machine")
    here.add_argument(
        "--jobs",
        type=jobs,
        default=1,
        metavar="NUMBER",
        help="runs at a time, spread over the GPUs; with 1 its lines are shown; "
        f"auto: as many as there are cores, {MOST_AUTOMATIC_JOBS} at most",
    )
    here.add_argument(
        "--needs_gpu",
        action="store_true",
        help="without a GPU start no run, but estimate how long one would take",
    )
    return here


def _add_slurm(parser: argparse.ArgumentParser) -> None:
    slurm = parser.add_argument_group("on a Slurm cluster: one job array, through submitit")
    slurm.add_argument("--slurm", metavar="PARTITION", help="partition to submit the runs to")
    for name, kind, default, unit, words in (
        ("slurm_time", count, 120, "MINUTES", "time limit; a run that meets it is resumed"),
        ("slurm_gpus", count_or_none, 1, "NUMBER", "GPUs of a run, 1 or 0"),
        ("slurm_cpus", count, 4, "NUMBER", "CPU cores of a run"),
        ("slurm_mem", positive, 16.0, "GB", "memory of a run"),
    ):
        slurm.add_argument(f"--{name}", type=kind, default=default, metavar=unit, help=words)
    slurm.add_argument(
        "--slurm_setup",
        type=_setup_command,
        action="append",
        default=[],
        metavar="COMMAND",
        help='shell command before each run, such as "module load cuda"; may be repeated',
    )
    slurm.add_argument(
        "--array_parallelism", type=count, default=16, metavar="NUMBER", help="runs at a time"
    )
