"""Finished runs, read from their folders and checked once; what follows trusts the values.

A run that is not as expected is skipped with one line, and all others are read.
"""

import re
import reprlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from utils.files import read_columns, read_json
from utils.label_sets import LABEL_SETS
from utils.methods import METHODS
from utils.run_folder.description import NOT_PART_OF_A_RUN
from utils.run_folder.folder import RunFolder

DATASETS = tuple(LABEL_SETS)
PRECISIONS = ("fp32", "tf32", "bf16")
IDENTITY = {"dataset", "noise_type", "method", "seed"}  # options that have columns of their own
NOT_IN_SETTING = {*IDENTITY, *NOT_PART_OF_A_RUN, "precision", "clean_test_freq"}
LARGEST = 10**12  # of seconds, epochs, images
HINT = "remove that folder or train the run again"


class Rule(NamedTuple):
    """What a value must be; one that is missing or null is allowed unless required."""

    words: str
    holds: Callable[[Any], bool]
    required: bool = False


def _number(low: float, high: float, words: str, *kinds: type) -> Rule:
    return Rule(
        words, lambda value: type(value) in (kinds or (int, float)) and low <= value <= high
    )


def _one_of(*names: str) -> Rule:
    return Rule(f"one of {', '.join(names)}", lambda value: value in names)


PERCENT = _number(0, 100, "a number from 0 to 100")
SHARE = _number(0, 1, "a number from 0 to 1")
SECONDS = _number(0, LARGEST, "a number of seconds")
MEMORY = _number(0, LARGEST, "a number of GiB")
WHOLE = _number(0, LARGEST, "a whole number from 0", int)
TEXT = Rule("text", lambda value: isinstance(value, str))
WORD = Rule("a word", lambda value: isinstance(value, str) and bool(re.fullmatch(r"\w+", value)))
OBJECT = Rule("an object", lambda value: isinstance(value, dict))
YES_OR_NO = Rule("true or false", lambda value: isinstance(value, bool))
PLAIN_VALUES = Rule(
    "an object of plain values",
    lambda value: (
        isinstance(value, dict)
        and all(each is None or isinstance(each, str | int | float) for each in value.values())
    ),
)
GROUPS = Rule(
    "four whole numbers",
    lambda value: isinstance(value, list) and len(value) == 4 and all(map(WHOLE.holds, value)),
)
EXPECTED: dict[str, dict[str, Rule]] = {  # by attribute of RunFolder, then by key.key
    "args": {
        "options": PLAIN_VALUES._replace(required=True),
        "options.dataset": _one_of(*DATASETS)._replace(required=True),
        "options.noise_type": WORD._replace(required=True),
        "options.method": _one_of(*METHODS)._replace(required=True),
        "options.seed": WHOLE._replace(required=True),
        "non_default_options": PLAIN_VALUES,
        "versions": PLAIN_VALUES,
        "device": TEXT,
        "precision": _one_of(*PRECISIONS)._replace(required=True),
        "compiled": YES_OR_NO,
        "commit": TEXT,
    },
    "training": {
        "epochs": WHOLE._replace(required=True),
        "tipping_point": WHOLE,
        "fallback": YES_OR_NO,
        "group_sizes": GROUPS,
        "group_wrong": GROUPS,
        "estimated_noise_rate": SHARE,
        "true_noise_rate": SHARE,
        "clean_test_accuracy": PERCENT,
    },
    "timing": {"wall_seconds": SECONDS, "peak_memory_gib": MEMORY},
    "learning": {
        "last": OBJECT,
        "last.accuracy": PERCENT,
        "best_val": OBJECT,
        "best_val.accuracy": PERCENT,
    },
    "detection_metrics": {"precision": SHARE, "recall": SHARE, "f1": SHARE},
}


class RunKey(NamedTuple):
    """What runs that differ in nothing but the seed have in common."""

    dataset: str
    labels: str
    setting: str  # the options that are not at their defaults; "" where all are
    precision: str
    method: str


class Run(NamedTuple):
    """A finished run: its folder, its records by attribute of RunFolder, and metrics.csv."""

    folder: RunFolder
    records: dict[str, dict[str, Any]]
    metrics: dict[str, list[str]]  # cells by column

    def value(self, file: str, key: str) -> Any:
        """A value that EXPECTED names; None where there is none."""
        return _lookup(self.records[file], key)

    @property
    def name(self) -> str:
        """The folder's name."""
        return self.folder.path.name

    @property
    def seed(self) -> int:
        """The random seed."""
        return self.records["args"]["options"]["seed"]

    @property
    def key(self) -> RunKey:
        """All that tells this run from others but for its seed."""
        args = self.records["args"]
        options = args["options"]
        return RunKey(
            options["dataset"],
            options["noise_type"],
            _setting(args["non_default_options"]),
            args["precision"],
            options["method"],
        )


def read_runs(results: Path) -> tuple[list[Run], list[str]]:
    """The finished runs of a results folder by name, and a line for each one that is skipped."""
    runs: dict[tuple[RunKey, int], Run] = {}
    skipped = []
    for path in sorted(results.iterdir()):
        try:
            folder = RunFolder(path)
            if not (folder.args.is_file() and folder.training.is_file()):
                continue
            run = _read_run(folder)
            first = runs.setdefault((run.key, run.seed), run)
            if first is not run:
                raise ValueError(f"{path}: the same run as {first.folder}; move one of them away")
        except (ValueError, OSError) as error:
            skipped.append(f"skipped: {' '.join(str(error).split())}")
    return list(runs.values()), skipped


def _read_run(folder: RunFolder) -> Run:
    """Raises ValueError or OSError naming the file, the value and what to do."""
    records = {}
    for file, rules in EXPECTED.items():
        path: Path = getattr(folder, file)
        records[file] = read_json(path) if path.exists() else {}
        for key, rule in rules.items():
            _check(path, key, _lookup(records[file], key), rule)
    if "non_default_options" not in records["args"]:
        raise ValueError(
            f"{folder.args}: has no non_default_options, as runs of older versions; train it again "
            "or move it away"
        )
    metrics = read_columns(folder.metrics) if folder.metrics.exists() else {}
    for column, pattern in (
        ("epoch", r"\d{1,9}"),
        ("clean_test_accuracy", r"(\d{1,2}(\.\d+)?|100(\.0+)?)?"),
        ("vanished_classes", r"[\d ]*"),
    ):
        rule = Rule("as the training writes it", re.compile(pattern).fullmatch, required=True)
        for cell in metrics.get(column, []):
            _check(folder.metrics, column, cell, rule)
    return Run(folder, records, metrics)


def _check(path: Path, key: str, value: Any, rule: Rule) -> None:
    if rule.required if value is None else not rule.holds(value):
        there = "missing" if value is None else reprlib.repr(value)
        raise ValueError(f"{path}: {key} is {there}; it should be {rule.words}; {HINT}")


def _lookup(record: Any, key: str) -> Any:
    """The value at "key.key"; None where there is none."""
    for part in key.split("."):
        record = record.get(part) if isinstance(record, dict) else None
    return record


def _setting(non_default_options: dict[str, Any]) -> str:
    """name=value of the options that make it another experiment, by name."""
    words = (
        f"{name}={value}"
        for name, value in sorted(non_default_options.items())
        if name not in NOT_IN_SETTING
    )
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in " ".join(words))
