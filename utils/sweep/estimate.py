"""How long a sweep will take here: measured on some steps of each method before it starts."""

import contextlib
import heapq
from collections.abc import Sequence
from itertools import repeat
from statistics import mean

from utils.console import duration
from utils.sweep.local import Machine
from utils.sweep.run_time import RunTime
from utils.sweep.runs import Stage, SweepRun

STEPS = 20


class Measurement:
    """Some steps of a run that write nothing but a log."""

    epochs = 0

    def __init__(self, run: SweepRun, number: int):
        """`number`: of those at the same time."""
        self.name = f"measurement {number} of {run.args.method}"
        self.log = run.log.with_name(f"measurement_{number}_of_{run.log.name}")
        self.command = [*run.stages()[0].command, "--measure_steps", str(STEPS)]

    def stages_left(self) -> list[Stage]:
        """The training script, which measures."""
        return [Stage("measurement", self.command)]

    def epochs_done(self) -> int:
        """It has none."""
        return 0

    def result(self) -> str:
        """What it has said so far."""
        with contextlib.suppress(OSError):
            return self.log.read_text(encoding="utf-8", errors="replace")
        return ""


def tell(machine: Machine, runs: Sequence[SweepRun]) -> None:
    """Measure each method that has epochs left, and say how long all will take.

    Nothing is said where nothing is left, or a signal came. Raises ValueError with the line of a
    measurement that failed.
    """
    left = {run.name: epochs_left(run) for run in runs}
    due = [run for run in runs if left[run.name]]
    if not due:
        return
    jobs = min(machine.jobs, len(due))
    methods = list(dict.fromkeys(run.args.method for run in due))
    at_once = f"{jobs} run{'s' * (jobs > 1)} at a time"
    print(
        f"measuring {STEPS} steps each of {' and '.join(methods)}, {at_once}, to tell how long "
        "this will take; data that is missing is downloaded first",
        flush=True,
    )
    times: dict[str, RunTime] = {}
    for method in methods:
        first = next(run for run in due if run.args.method == method)
        times[method] = measure(machine, [Measurement(first, number) for number in range(jobs)])
        if machine.exit_status:
            return
        mine = [left[run.name] for run in due if run.args.method == method]
        print(
            f"{method}: {len(mine)} run{'s' * (len(mine) > 1)} with {sum(mine)} epochs left, "
            f"{bound([method])} {times[method].longest_epoch(method):.1f} s an epoch",
            flush=True,
        )
    each = [seconds_left(run, times[run.args.method], left[run.name]) for run in due]
    print(
        f"this will take {bound(methods)} {duration(wall_seconds(each, jobs))}, {at_once}; Ctrl-C "
        "stops it, and the same command resumes",
        flush=True,
    )


def measure(machine: Machine, tasks: Sequence[Measurement]) -> RunTime:
    """The mean of the tasks, which run at the same time; zeros where a signal came."""
    for task in tasks:
        task.log.unlink(missing_ok=True)
    outcomes = machine.run(tasks, silent=True)
    if machine.exit_status:
        return RunTime(0, 0, 0, 0)
    found = []
    for task, outcome in zip(tasks, outcomes, strict=True):
        if outcome.word != "finished":
            raise ValueError(f"{task.name} failed: {outcome.detail}")
        if (seconds := RunTime.read(outcome.detail)) is None:
            raise ValueError(f"{task.name} failed: it said no times; see {task.log}")
        found.append(seconds)
    return RunTime(*map(mean, zip(*found, strict=True)))


def epochs_left(run: SweepRun) -> int:
    """As the run says; 0 where its folder holds another one, which it will complain of at once."""
    try:
        return run.epochs_left()
    except (ValueError, OSError):
        return 0


def seconds_left(run: SweepRun, seconds: RunTime, epochs: int) -> float:
    """Those of a run with so many epochs left, at most."""
    evaluations = len(run.stages()) - 1
    return seconds.training(run.args.method, epochs) + evaluations * seconds.start


def wall_seconds(each: Sequence[float], jobs: int) -> float:
    """Those of runs that begin in their order, so many at a time."""
    ends = list(repeat(0.0, jobs))
    for seconds in each:
        heapq.heapreplace(ends, ends[0] + seconds)
    return max(ends)


def bound(methods: Sequence[str]) -> str:
    """What a time of these is: nobody knows beforehand when the tipping point of bkd comes."""
    return "about" if set(methods) == {"ce"} else "at most"
