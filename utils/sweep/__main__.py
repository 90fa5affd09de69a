"""Label sets x seeds x methods through the three scripts, here or on a Slurm cluster.

    python -m utils.sweep --dataset cifar10 --noise_types aggre worst rand1 --seeds 0 1 2 --jobs 4

See docs/sweeps.md, and `utils.options.sweep` for the options and the exit status.
"""

import argparse
import shlex
import signal
import sys
from collections.abc import Sequence

from utils.console import discard
from utils.files import check_replaceable
from utils.lock import locked
from utils.options.sweep import PAGE, split_words, sweep_parser
from utils.run_folder.folder import RunFolder
from utils.summary.__main__ import PAGE_MARK
from utils.summary.__main__ import main as summary
from utils.sweep import local
from utils.sweep.runs import LOGS, SweepRun, counted, make_runs


def main(argv: Sequence[str] | None = None) -> int:
    """Run, submit or list the runs, or print their status; the exit status."""
    own, words = split_words(argv)
    parser = sweep_parser()
    args = parser.parse_args(own)
    runs = make_runs(args, words, parser.error)
    try:
        if args.status:
            return print_status(runs)
        if args.dry_run:
            return print_commands(runs)
        return submit(args, runs) if args.slurm else run_here(args, runs)
    except BrokenPipeError:
        discard(sys.stdout)
        return 141
    except KeyboardInterrupt:
        return 130
    except (ValueError, OSError) as error:
        parser.error(error)


def print_status(runs: Sequence[SweepRun]) -> int:
    """Print a line for each run, and how many there are of each status."""
    outcomes = [run.status() for run in runs]
    for run, outcome in zip(runs, outcomes, strict=True):
        print(f"{outcome.word:8s}  {run.name}{': ' * bool(outcome.detail)}{outcome.detail}")
    print(f"{len(runs)} runs: {counted(outcomes)}")
    return 0


def print_commands(runs: Sequence[SweepRun]) -> int:
    """Print the commands that are left to run."""
    for run in runs:
        for stage in run.stages_left():
            print(shlex.join(stage.command))
    return 0


def submit(args: argparse.Namespace, runs: Sequence[SweepRun]) -> int:
    """Submit what is neither finished nor running; raises ValueError where a run cannot be."""
    if args.page:
        raise ValueError("--page with --slurm: it is for runs on this machine; leave it out")
    if runs[0].args.restart:
        raise ValueError("--restart with --slurm: a job that is queued again would restart again")
    if not hasattr(signal, "SIGUSR2"):
        raise ValueError("--slurm: this system has not the signals of Slurm; leave it out")
    from utils.sweep import slurm

    due = [run for run in runs if run.stages_left() and run.status().word != "running"]
    if due:
        number = slurm.submit(due, args)
        print(
            f"job array {number}: {len(due)} of {len(runs)} runs, {args.array_parallelism} at a "
            f"time; how far they are: the same command with --status; the table: python -m "
            f"utils.summary {args.results_dir}"
        )
    else:
        print(f"nothing to submit: {counted(run.status() for run in runs)}")
    return 0


def run_here(args: argparse.Namespace, runs: Sequence[SweepRun]) -> int:
    """Run all on this machine and print the table; the exit status."""
    gpus = local.gpus() if args.needs_gpu or args.jobs > 1 else []
    if args.needs_gpu and not gpus:
        print(
            "utils.sweep: error: no CUDA device here; CIFAR-10N without a GPU: bash run.sh laptop; "
            "these runs on the CPU all the same, for days: ALLOW_CPU=1 bash run.sh",
            file=sys.stderr,
        )
        return 1
    logs, page = RunFolder(args.results_dir / LOGS), args.results_dir / PAGE
    if args.page:
        check_replaceable(page, PAGE_MARK, force=False, hint="move it away, or leave out --page")
    logs.make()
    machine = local.Machine(args.jobs, gpus)
    with locked(logs.path):
        outcomes = machine.run(runs)
    if machine.exit_status:
        again = "the same command" + " without --restart" * runs[0].args.restart
        print(f"{counted(outcomes.values())}; {again} resumes from there", file=sys.stderr)
        return machine.exit_status
    failed = [run for run, outcome in outcomes.items() if outcome.word == "failed"]
    status = 0 if len(failed) == len(runs) else print_table(args)
    for run in failed:
        print(f"utils.sweep: error: failed: {run.name}: {outcomes[run].detail}", file=sys.stderr)
    return 2 if failed else status


def print_table(args: argparse.Namespace) -> int:
    """Print the table and write the page, where wanted; the exit status."""
    status = summary([str(args.results_dir)])
    if args.page:
        print("\npage of all runs, for a browser:", flush=True)
        page = args.results_dir.resolve() / PAGE
        status = summary([str(args.results_dir), "--html", str(page)]) or status
    return status


if __name__ == "__main__":
    sys.exit(main())
