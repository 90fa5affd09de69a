"""Finished runs kept as evidence: all their numbers in two files, no images, no networks."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from utils.files import check_replaceable, write_text
from utils.manifest import csv_text
from utils.summary.runs import CURVES, RUNS, Run, read_runs

PLACES = {"data_dir", "results_dir", "run_dir"}  # on the machine it ran on
FILES = {"noise_path", "images", "manifest"}  # of which the name is kept


def keep(runs: Iterable[Run], group: Path, force: bool = False) -> None:
    """Merge runs into a kept group: one of the same name is replaced, all others stay.

    `force`: also over curves that are no group's.
    Raises ValueError or OSError naming the file; a group that cannot be read whole stays as it is.
    """
    if group.exists() and not group.is_dir():
        raise ValueError(f"--keep {group}: not a folder; choose another")
    group.mkdir(parents=True, exist_ok=True)
    others = {each.name for each in group.glob("[!.]*")} - {RUNS, CURVES}
    if others and not (force or (group / RUNS).exists()):
        hint = "choose a new folder, or --force"
        raise ValueError(f"--keep {group}: is no group, for it holds {min(others)}; {hint}")
    kept, damaged = read_runs(group)
    if damaged:
        raise ValueError(damaged[0].removeprefix("skipped: "))
    check_replaceable(group / CURVES, "run,epoch", force)
    by_name = {run.name: run for run in (*kept, *runs)}
    merged = [by_name[name] for name in sorted(by_name)]
    write_text(group / CURVES, _curves(merged))
    write_text(group / RUNS, "".join(f"{_line(run)}\n" for run in merged))


def _line(run: Run) -> str:
    records = {name: record for name, record in run.records.items() if record}
    records["args"] = records["args"] | {
        part: _without_places(records["args"][part]) for part in ("options", "non_default_options")
    }
    return json.dumps({"run": run.name, **records}, separators=(",", ":"))


def _without_places(options: dict[str, Any]) -> dict[str, Any]:
    return {
        name: Path(value).name if name in FILES and isinstance(value, str) else value
        for name, value in options.items()
        if name not in PLACES
    }


def _curves(runs: Iterable[Run]) -> str:
    columns = list(dict.fromkeys(column for run in runs for column in run.metrics))
    lines = [["run", *columns]]
    for run in runs:
        blank = [""] * len(run.metrics.get("epoch", ()))
        cells = [run.metrics.get(column) or blank for column in columns]
        lines += [[run.name, *row] for row in zip(*cells, strict=True)]
    return csv_text(lines)
