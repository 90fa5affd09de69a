"""What became of each run, and what looks wrong about it."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from utils.summary.runs import Run
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


class RunWarning(NamedTuple):
    """A run that looks wrong, and why."""

    run: Run
    words: str


def checks_table(runs: Iterable[Run]) -> list[list[str]]:
    """Heading and one row for each run."""
    groups = group_runs(runs)
    heading, *names = identity(groups)
    rows = [[*heading, *HEADING]]
    for name, group in zip(names, groups.values(), strict=True):
        rows.extend([*name, str(run.seed), *_cells(run)] for run in group)
    return rows


def _cells(run: Run) -> list[str]:
    """What became of one run, from "tipping epoch" on."""
    training = run.records["training"]
    tests = _clean_tests(run)
    best = max(tests, default=None, key=lambda test: test[1])
    tipping = training.get("tipping_point")
    if tipping is None:
        tipping = "-" if run.key.method == "ce" else "never"
    groups = "-"
    if training.get("group_sizes") and training.get("group_wrong"):
        groups = ", ".join(
            f"{size} ({100 * wrong / max(size, 1):.1f})"
            for size, wrong in zip(training["group_sizes"], training["group_wrong"], strict=True)
        )
    noise = [training.get(f"{kind}_noise_rate") for kind in ("estimated", "true")]
    vanished = run.metrics.get("vanished_classes", [""])[-1]
    return [
        str(tipping),
        groups,
        "-" if None in noise else ", ".join(f"{100 * rate:.1f}" for rate in noise),
        f"{best[1]:.2f} ({best[0]})" if best else "-",
        f"{tests[-1][1]:.2f}" if tests else "-",
        vanished or "none",
        duration(run.value("timing", "wall_seconds")),
        memory(run.value("timing", "peak_memory_gib")),
    ]


def _clean_tests(run: Run) -> list[tuple[int, float]]:
    """Epoch and accuracy in percent of each clean test."""
    columns = (run.metrics.get(name, ()) for name in ("epoch", "clean_test_accuracy"))
    return [(int(epoch), float(cell)) for epoch, cell in zip(*columns, strict=False) if cell]


def warnings_of(runs: Sequence[Run]) -> list[RunWarning]:
    """What looks wrong: tipping points on CIFAR, and accuracies below the baseline's."""
    baselines = {(run.key, run.seed): last_accuracy(run) for run in runs if run.key.method == "ce"}
    warnings = []
    for key, group in group_runs(runs).items():
        for run in group if key.method != "ce" else ():
            tipping = run.value("training", "tipping_point")
            if key.dataset.startswith("cifar") and not EARLIEST <= (tipping or 0) <= LATEST:
                came = "never came" if tipping is None else f"came in epoch {tipping}"
                words = f"the tipping point {came}; expected is epoch {EARLIEST} to {LATEST}"
                warnings.append(RunWarning(run, words))
            own = last_accuracy(run)
            other = baselines.get((key._replace(method="ce"), run.seed))
            if own is not None and other is not None and own < other:
                words = (
                    f"ends at {own:.2f} % clean test accuracy, below the baseline's {other:.2f} %"
                )
                warnings.append(RunWarning(run, words))
    return warnings


def last_accuracy(run: Run) -> float | None:
    """Clean test accuracy after the last epoch, in percent."""
    return run.value("training", "clean_test_accuracy")


def memory(gib: float | None) -> str:
    """GiB in words, "-" for none."""
    return "-" if gib is None else f"{gib:.1f} GiB"


def duration(seconds: float | None) -> str:
    """Seconds in words, "-" for none."""
    if seconds is None:
        return "-"
    minutes, rest = divmod(round(seconds), 60)
    if not minutes:
        return f"{rest} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02} min" if hours else f"{minutes} min {rest:02} s"
