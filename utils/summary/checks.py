"""What became of each run, and what looks wrong about it."""

from collections.abc import Iterable, Sequence

from utils.console import duration
from utils.summary.runs import LABELS, Run
from utils.summary.table import group_runs, identity

EARLIEST, LATEST = 5, 60  # epochs between which a tipping point on CIFAR can be expected
HEADING = (
    "seed",
    "tipping epoch",
    "groups 1 to 4: images (% wrong)",
    "noise rate: estimated, true %",
    "best clean test % (epoch)",
    "last clean test %",
    "vanished classes",
    "wall time",
    "peak memory",
)


def checks_table(runs: Iterable[Run]) -> list[list[str]]:
    """Heading and one row for each run."""
    groups = group_runs(runs)
    heading, *names = identity(groups)
    rows = [[*heading, *HEADING]]
    for name, group in zip(names, groups.values(), strict=True):
        rows.extend([*name, str(run.seed), *run_cells(run)] for run in group)
    return rows


def run_cells(run: Run) -> list[str]:
    """What became of one run, from "tipping epoch" on."""
    tipping = run.value("training", "tipping_point")
    if tipping is None:
        tipping = "never" if run.key.has_student else "-"
    groups = (f"{size} ({100 * wrong / max(size, 1):.1f})" for size, wrong in run.groups)
    noise = [run.value("training", f"{kind}_noise_rate") for kind in ("estimated", "true")]
    seconds, gib = (run.value("timing", name) for name in ("wall_seconds", "peak_memory_gib"))
    best = max(run.clean_tests, default=None, key=lambda test: test[1])
    return [
        str(tipping),
        ", ".join(groups) or "-",
        "-" if None in noise else ", ".join(f"{100 * rate:.1f}" for rate in noise),
        f"{best[1]:.2f} ({best[0]})" if best else "-",
        f"{run.clean_tests[-1][1]:.2f}" if best else "-",
        " ".join(map(str, run.vanished)) or "none",
        "-" if seconds is None else duration(seconds),
        "-" if gib is None else f"{gib:.1f} GiB",
    ]


def label_warnings(runs: Iterable[Run]) -> list[tuple[Run, str]]:
    """Runs that are not averaged with others of their options, for these had other labels."""
    words = "trained on other labels than runs with the same options; not averaged with these"
    apart = [group for key, group in group_runs(runs).items() if f"{LABELS}=" in key.setting]
    return [(run, words) for group in apart for run in group]


def warnings_of(runs: Sequence[Run]) -> list[tuple[Run, str]]:
    """Runs that look wrong, and why: by labels, tipping point on CIFAR, and baseline's accuracy."""
    accuracy = {(run.key, run.seed): run.value("training", "clean_test_accuracy") for run in runs}
    warnings = label_warnings(runs)
    for run in (run for group in group_runs(runs).values() for run in group):
        key, tipping = run.key, run.value("training", "tipping_point")
        if not key.has_student:
            continue
        if key.dataset.startswith("cifar") and not EARLIEST <= (tipping or 0) <= LATEST:
            came = "never came" if tipping is None else f"came in epoch {tipping}"
            words = f"the tipping point {came}; expected is epoch {EARLIEST} to {LATEST}"
            warnings.append((run, words))
        own, other = (accuracy.get((key._replace(method=m), run.seed)) for m in (key.method, "ce"))
        if own is not None and other is not None and own < other:
            words = f"ends at {own:.2f} % clean test accuracy, below the baseline's {other:.2f} %"
            warnings.append((run, words))
    return warnings
