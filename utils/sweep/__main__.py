"""Label sets x seeds x methods through the three scripts, here or on a Slurm cluster.

    python -m utils.sweep --dataset cifar10 --noise_types aggre worst rand1 --seeds 0 1 2 --jobs 4

See `utils.options.sweep` for the options and the exit status.
"""

import argparse
import shlex
import subprocess
import sys
from collections.abc import Sequence

from utils.console import discard
from utils.options.sweep import PAGE, split_words, sweep_parser
from utils.sweep import estimate, local, slurm
from utils.sweep.runs import Outcome, SweepRun, Task, counted, make_runs

STEPS_TO_MEASURE = 3
NO_GPU = 1  # exit status


def main(argv: Sequence[str] | None = None) -> int:
    """Run, submit, list or tell the status of the runs; the exit status."""
    own, words = split_words(argv)
    parser = sweep_parser()
    args = parser.parse_args(own)
    runs = make_runs(args, words, parser.error)
    try:
        if args.status:
            return tell_status(runs)
        if args.dry_run:
            return tell_commands(runs)
        if args.slurm:
            return submit(args, runs)
        gpus = local.gpus() if args.needs_gpu or args.jobs > 1 else []
        if args.needs_gpu and not gpus:
            return tell_one(runs)
        return run_here(args, runs, gpus)
    except BrokenPipeError:
        discard(sys.stdout)
        return 141
    except KeyboardInterrupt:
        return 130
    except (ValueError, OSError) as error:
        parser.error(str(error))


def tell_status(runs: Sequence[SweepRun]) -> int:
    """A line for each run and how many there are of each status."""
    outcomes = [run.status() for run in runs]
    for run, outcome in zip(runs, outcomes, strict=True):
        print(f"{outcome.word:8s}  {run.name}{': ' * bool(outcome.detail)}{outcome.detail}")
    print(f"{len(runs)} runs: {counted(outcomes)}")
    return 0


def tell_commands(runs: Sequence[SweepRun]) -> int:
    """The commands that are left to run."""
    for run in runs:
        for stage in run.stages_left():
            print(shlex.join(stage.command))
    return 0


def submit(args: argparse.Namespace, runs: Sequence[SweepRun]) -> int:
    """Submit what is neither finished nor running; exit status 2 where a run cannot be."""
    for name in ("estimate_first", "page"):
        if getattr(args, name):
            raise ValueError(f"--{name} with --slurm: it is for runs on this machine; leave it out")
    if runs[0].args.restart:
        raise ValueError("--restart with --slurm: a job that is queued again would restart again")
    outcomes = [run.status() for run in runs]
    due, refused = [], []
    for run, outcome in zip(runs, outcomes, strict=True):
        try:
            if run.stages_left() and outcome.word not in ("running", "finished"):
                due.append(run)
        except (ValueError, OSError) as error:
            refused.append(f"{run.name}: {error}")
    if due:
        number = slurm.submit(due, args)
        print(
            f"job array {number}: {len(due)} of {len(runs)} runs, {args.array_parallelism} at a "
            f"time; how far they are: the same command with --status; the table: python -m "
            f"utils.summary {args.results_dir}"
        )
    else:
        print(f"nothing to submit: {counted(outcomes)}")
    return tell_failures(refused)


def tell_one(runs: Sequence[SweepRun]) -> int:
    """There is no GPU: measure a few steps, say how long it would take; the exit status."""
    print("No CUDA device here. Measuring a few steps of a full run on the CPU:", flush=True)
    training = runs[0].stages()[0].command
    done = subprocess.run([*training, "--measure_steps", str(STEPS_TO_MEASURE)])
    if done.returncode:
        return done.returncode if done.returncode > 0 else 128 - done.returncode
    print(
        f"This would be {len(runs)} such runs. To start them all the same: ALLOW_CPU=1 bash "
        "run.sh (the sweep: without --needs_gpu); CIFAR-10N without a GPU: bash run.sh laptop; a "
        "try of minutes: bash run.sh demo"
    )
    return NO_GPU


def run_here(args: argparse.Namespace, runs: Sequence[SweepRun], gpus: Sequence[str]) -> int:
    """Run all on this machine and print the table; the exit status."""
    with local.Machine(args.jobs, gpus) as machine:
        if args.estimate_first:
            estimate.tell(machine, runs)
            if machine.exit_status:
                print("stopped while measuring; no run was started", file=sys.stderr)
                return machine.exit_status
        outcomes = machine.run(runs)
    if machine.exit_status:
        again = "the same command" + " without --restart" * runs[0].args.restart
        print(f"{counted(outcomes)}; {again} resumes from there", file=sys.stderr)
        return machine.exit_status
    tabled = 0
    if any(outcome.word == "finished" for outcome in outcomes):
        tabled = tell_results(args)
    return tell_failures(failures(runs, outcomes)) or tabled


def tell_results(args: argparse.Namespace) -> int:
    """The table, and where wanted the page; the exit status."""
    from utils.summary.__main__ import main as summary

    results = args.results_dir.resolve()
    try:
        status = summary([str(args.results_dir)])
        if args.page:
            print("\npage of all runs, for a browser:", flush=True)
            status = summary([str(args.results_dir), "--html", str(results / PAGE)]) or status
    except SystemExit as error:  # no run could be read: it has said so
        status = int(error.code or 0)
    return status


def failures(tasks: Sequence[Task], outcomes: Sequence[Outcome]) -> list[str]:
    """A line for each that failed."""
    pairs = zip(tasks, outcomes, strict=True)
    return [f"{task.name}: {outcome.detail}" for task, outcome in pairs if outcome.word == "failed"]


def tell_failures(lines: Sequence[str]) -> int:
    """Name them on stderr; the exit status."""
    for line in lines:
        print(f"utils.sweep: error: failed: {line}", file=sys.stderr)
    return 2 if lines else 0


if __name__ == "__main__":
    sys.exit(main())
