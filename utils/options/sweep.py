"""The options of `python -m utils.sweep`."""

import argparse
import sys
from collections.abc import Sequence

from utils.cpus import usable_cpus
from utils.label_sets import LABEL_SETS
from utils.methods import METHOD_HELP, METHODS
from utils.options.parser import FOLDERS, NET, OneLineParser
from utils.options.values import add_options, count, count_or_none, positive, seed

SWEPT = [name for name in LABEL_SETS if name != "folder"]  # own images have one label set
CHALLENGE = ("aggre", "worst", "rand1")  # label sets of the challenge, of the digits too
MOST_AUTOMATIC_JOBS = 8
PAGE = "index.html"


def jobs(text: str) -> int:
    """A type of option: a number from 1; "auto": as many as there are cores, 8 at most."""
    if text == "auto":
        return min(usable_cpus(), MOST_AUTOMATIC_JOBS)
    return count(text)


def setup_command(text: str) -> str:
    """A type of option: one line for a shell."""
    if not text.strip() or not text.isprintable():
        raise argparse.ArgumentTypeError(f"{text!r} is not a shell command on one line")
    return text


ONLY = {
    ("dry_run", bool): "only print the commands",
    ("status", bool): "only print which runs are finished, running, failed or pending, by their "
    "run folders",
}
MACHINE = {
    ("jobs", jobs, 1, "NUMBER"): "runs at a time, spread over the GPUs; auto: as many as there are "
    f"cores, {MOST_AUTOMATIC_JOBS} at most",
    ("needs_gpu", bool): "start no run where there is no GPU",
    ("page", bool): f"after the table also write one page of all runs, {PAGE} in the results "
    "folder",
}
SLURM = {
    ("slurm", str, None, "PARTITION"): "partition to submit the runs to",
    ("slurm_time", count, 120, "MINUTES"): "time limit; a run that meets it is resumed",
    ("slurm_gpus", count_or_none, 1, "NUMBER"): "GPUs of a run, 1 or 0",
    ("slurm_cpus", count, 4, "NUMBER"): "CPU cores of a run",
    ("slurm_mem", positive, 16.0, "GB"): "memory of a run",
    ("array_parallelism", count, 16, "NUMBER"): "runs at a time",
}
SLURM_SETUP = 'shell command before each run, such as "module load cuda"; may be repeated'


def sweep_parser() -> OneLineParser:
    """The options of the sweep; options of the training script follow "--"."""
    parser = OneLineParser(
        prog="utils.sweep",
        usage="python -m utils.sweep [options] [-- options of the training script]",
        description="Train and evaluate every label set with every method and seed, then print "
        "the table. A finished stage is not repeated, an interrupted one is resumed. More: "
        "docs/sweeps.md",
        epilog="Exit status: 0; 1 with --needs_gpu where there is no GPU; 2 for wrong input and "
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
    runs.add_argument(
        "--seeds", nargs="+", type=seed, default=[0], metavar="NUMBER", help="random seeds"
    )
    trained = [name for name, method in METHODS.items() if method.has_networks]
    runs.add_argument("--methods", nargs="+", choices=trained, default=["bkd"], help=METHOD_HELP)
    add_options(runs, NET | FOLDERS | ONLY)
    add_options(parser.add_argument_group("on this machine"), MACHINE)
    slurm = parser.add_argument_group("on a Slurm cluster: one job array, through submitit")
    add_options(slurm, SLURM)
    setup = {("slurm_setup", setup_command): SLURM_SETUP}
    add_options(slurm, setup, action="append", default=[], metavar="COMMAND")
    return parser


def split_words(argv: Sequence[str] | None) -> tuple[list[str], list[str]]:
    """The options of the sweep, and what follows "--": options of the training script."""
    words = list(sys.argv[1:] if argv is None else argv)
    end = words.index("--") if "--" in words else len(words)
    return words[:end], words[end + 1 :]
