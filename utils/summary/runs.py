"""Finished runs, read from run folders and from kept groups and checked once.

A kept group is a folder with runs.jsonl, a line a run, and curves.csv, a row an epoch (kept.py).
A run that is not as expected is skipped with one line, and all others are read.
"""

import json
import reprlib
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from utils.console import what_of
from utils.files import read_columns, read_json
from utils.label_sets import LABEL_SETS
from utils.methods import METHODS
from utils.run_folder.description import NOT_PART_OF_A_RUN
from utils.run_folder.folder import RunFolder

RUNS, CURVES = "runs.jsonl", "curves.csv"
RECORDS = ("args", "training", "timing", "learning", "detection_metrics")  # of RunFolder
IDENTITY = ("dataset", "noise_type", "method", "seed")  # options that have columns of their own
NOT_IN_SETTING = {*IDENTITY, *NOT_PART_OF_A_RUN, "precision", "clean_test_freq"}
LARGEST = 10**12  # of seconds, epochs, GiB
NUMBERS = {  # that are averaged or shown; null where nothing was measured
    "training": (
        *("tipping_point", "clean_test_accuracy", "memorized_share"),
        *("estimated_noise_rate", "true_noise_rate"),
    ),
    "timing": ("wall_seconds", "peak_memory_gib"),
    "learning": ("last.accuracy", "best_val.accuracy"),
    "detection_metrics": ("precision", "recall", "f1", "detections.final.f1"),
}
LABELS = "labels_sha256"  # of args.json
HINT = "remove that run or train it again"
Metrics = dict[str, list[str]]  # cells by column


class RunKey(NamedTuple):
    """What runs that differ in nothing but the seed have in common."""

    dataset: str
    labels: str
    setting: str  # the options that are not at their defaults; "" where all are
    precision: str
    method: str

    @property
    def has_student(self) -> bool:
        """Whether its method has a tipping point and a split."""
        return METHODS[self.method].has_student


class Run(NamedTuple):
    """A finished run."""

    path: Path  # its folder; of a kept run the group's with its name, where nothing is
    key: RunKey
    seed: int
    records: dict[str, dict[str, Any]]  # by name, see RECORDS; empty where there was no file
    metrics: Metrics
    groups: list[tuple[int, int]]  # images and wrong labels in groups 1 to 4
    clean_tests: list[tuple[int, float]]  # epoch, accuracy in percent
    vanished: list[int]  # classes that are not predicted any more

    @property
    def name(self) -> str:
        """The run folder's name."""
        return self.path.name

    @property
    def labels(self) -> str:
        """How the digest of its labels begins; "" where not known, or where the seed draws them."""
        digest, dataset = self.records["args"].get(LABELS), self.key.dataset
        drawn = dataset in LABEL_SETS and LABEL_SETS[dataset].by_seed
        return digest[:8] if isinstance(digest, str) and digest.isalnum() and not drawn else ""

    def value(self, record: str, key: str) -> Any:
        """The value at "key.key" of a record; None where there is none."""
        return _lookup(self.records[record], key)


def read_runs(results: Path) -> tuple[list[Run], list[str]]:
    """The finished runs of a folder of run folders or a kept group, and a line for each skipped.

    Raises ValueError or OSError naming the file where nothing can be read.
    """
    runs: dict[tuple[RunKey, int], Run] = {}
    skipped = []
    for read in (*_kept(results), *_folders(results)):
        try:
            run = read()
            first = runs.setdefault((run.key, run.seed), run)
            if first is not run:
                raise ValueError(f"{run.path}: the same run as {first.path}; move one of them away")
        except (ValueError, OSError) as error:
            skipped.append(f"skipped: {what_of(error)}")
    return list(runs.values()), skipped


def _folders(results: Path) -> Iterator[Callable[[], Run]]:
    for path in sorted(results.iterdir()):
        folder = RunFolder(path)
        if folder.args.is_file() and folder.training.is_file():
            yield partial(_read_folder, folder)


def _read_folder(folder: RunFolder) -> Run:
    paths = {name: getattr(folder, name) for name in (*RECORDS, "metrics")}
    records = {name: read_json(paths[name]) if paths[name].exists() else {} for name in RECORDS}
    metrics = read_columns(folder.metrics) if folder.metrics.exists() else {}
    epochs, logged = records["training"].get("epochs"), len(metrics.get("epoch", ()))
    if epochs and logged != epochs and folder.metrics.exists():
        raise ValueError(f"{folder.metrics}: has {logged} of {epochs} epochs; {HINT}")
    return _checked(folder.path, records, metrics, lambda name: str(paths[name]))


def _kept(group: Path) -> Iterator[Callable[[], Run]]:
    path = group / RUNS
    if not path.is_file():
        return
    columns = read_columns(group / CURVES)
    rows: dict[str, list[int]] = {}
    for row, name in enumerate(columns.pop("run", [])):
        rows.setdefault(name, []).append(row)
    curves = {
        name: {column: [cells[row] for row in of_run] for column, cells in columns.items()}
        for name, of_run in rows.items()
    }
    for number, line in enumerate(path.read_bytes().splitlines(), 1):
        yield partial(_read_line, group, number, line, curves)


def _read_line(group: Path, number: int, line: bytes, curves: dict[str, Metrics]) -> Run:
    place = f"{group / RUNS}, line {number}"
    try:
        record = json.loads(line)
        name = record.pop("run")
        records = {part: dict(record.get(part, {})) for part in RECORDS}
        path, metrics = group / name, curves.get(name, {})
    except (ValueError, RecursionError, AttributeError, KeyError, TypeError) as error:
        raise ValueError(f"{place}: not a run ({error}); {HINT}") from error
    return _checked(path, records, metrics, lambda name: f"{place}, {name}")


def _checked(
    path: Path, records: dict[str, Any], metrics: Metrics, place: Callable[[str], str]
) -> Run:
    """A run whose values can be trusted.

    `place`: where a record is, by its name. Raises ValueError with it, the value and what to do.
    """
    part = "args"
    try:
        key, seed = _identity(records["args"])
        for part, names in NUMBERS.items():
            for name in names:
                if (value := _lookup(records[part], name)) is not None:
                    _number(name, value)
        part = "training"
        _number("epochs", records["training"]["epochs"])
        sizes, wrong = (records["training"].get(f"group_{name}") for name in ("sizes", "wrong"))
        pairs = zip(sizes, wrong, strict=True) if sizes and wrong else ()
        groups = [tuple(_number("group size", n) for n in pair) for pair in pairs]
        part = "metrics"
        cells = zip(*(metrics.get(c, ()) for c in ("epoch", "clean_test_accuracy")), strict=False)
        tests = [
            (int(epoch), _number("clean_test_accuracy", float(cell)))
            for epoch, cell in cells
            if cell
        ]
        vanished = [int(number) for number in metrics.get("vanished_classes", [""])[-1].split()]
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        words = f"{error} is missing" if isinstance(error, KeyError) else str(error)
        raise ValueError(f"{place(part)}: {words}; {HINT}") from error
    return Run(path, key, seed, records, metrics, groups, tests, vanished)


def _identity(args: dict[str, Any]) -> tuple[RunKey, int]:
    """What tells a run from others, and its seed."""
    options, others = args["options"], args["non_default_options"]
    dataset, labels = str(options["dataset"]), str(options["noise_type"])
    if (method := options["method"]) not in list(METHODS):  # which may be of any type
        raise ValueError(f"options.method is {method!r}, none of {', '.join(METHODS)}")
    seed = _number("options.seed", options["seed"])
    setting = " ".join(
        f"{name}={value}" for name, value in sorted(others.items()) if name not in NOT_IN_SETTING
    )
    printable = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in setting)
    return RunKey(dataset, labels, printable, str(args["precision"]), method), seed


def _lookup(record: dict[str, Any], key: str) -> Any:
    """The value at "key.key"; None where there is none."""
    value: Any = record
    for part in key.split("."):
        if not isinstance(value, dict | None):
            raise ValueError(f"{key} is none, for there is {reprlib.repr(value)}")
        value = None if value is None else value.get(part)
    return value


def _number(name: str, value: Any) -> Any:
    if type(value) not in (int, float) or not abs(value) <= LARGEST:  # NaN fails too
        raise ValueError(f"{name} is {reprlib.repr(value)}, not a number")
    return value
