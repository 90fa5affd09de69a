"""A plain account of every run, and which of them look wrong: `python -m utils.account results/`.

Exit status 1 where one looks wrong, 2 for wrong input.
"""

import sys
from pathlib import Path
from typing import Any

from utils.files import read_columns
from utils.options import OneLineParser
from utils.report import duration
from utils.summary import as_markdown, as_text, group_runs, read_runs

EARLIEST, LATEST = 5, 60  # epochs between which a tipping point on CIFAR can be expected
HEADING = (
    "data set",
    "labels",
    "setting",
    "method",
    "seed",
    "tipping epoch",
    "groups 1 to 4: images (% wrong)",
    "noise rate: estimated, true %",
    "best clean test % (epoch)",
    "last clean test %",
    "lost classes",
    "wall time",
)


def account(run: dict[str, Any]) -> list[str]:
    """What became of one run, from "tipping epoch" on."""
    training = run["training.json"]
    metrics = read_columns(run["folder"] / "metrics.csv")
    tests = [
        (float(accuracy), epoch)
        for accuracy, epoch in zip(
            metrics.get("clean_test_accuracy", ()), metrics.get("epoch", ()), strict=False
        )
        if accuracy
    ]
    best = max(tests, default=None, key=lambda test: test[0])
    tipping = "-" if run["args.json"]["options"]["method"] == "ce" else "never"
    if training.get("tipping_point") is not None:
        tipping = str(training["tipping_point"])
    groups = "-"
    if "group_wrong" in training:
        groups = ", ".join(
            f"{size} ({100 * wrong / max(size, 1):.1f})"
            for size, wrong in zip(training["group_sizes"], training["group_wrong"], strict=True)
        )
    noise = [training.get(f"{kind}_noise_rate") for kind in ("estimated", "true")]
    lost = metrics.get("vanished_classes", [""])[-1]
    return [
        tipping,
        groups,
        "-" if None in noise else ", ".join(f"{100 * rate:.1f}" for rate in noise),
        f"{best[0]:.2f} ({best[1]})" if best else "-",
        f"{tests[-1][0]:.2f}" if tests else "-",
        lost or "none",
        duration(run.get("timing.json", {}).get("wall_seconds")),
    ]


def doubts(runs: list[dict[str, Any]]) -> list[str]:
    """What looks wrong, a line each: tipping points, and accuracies below the baseline's."""
    baseline = {
        (dataset, labels, options, run["args.json"]["options"]["seed"]): last_accuracy(run)
        for (dataset, labels, options, method), group in group_runs(runs).items()
        for run in group
        if method == "ce"
    }
    lines = []
    for (dataset, labels, options, method), group in group_runs(runs).items():
        for run in group if method == "bkd" else ():
            tipping = run["training.json"].get("tipping_point")
            if dataset.startswith("cifar") and not (tipping and EARLIEST <= tipping <= LATEST):
                came = "never came" if tipping is None else f"came in epoch {tipping}"
                lines.append(
                    f"{run['folder']}: the tipping point {came}; expected is {EARLIEST} to {LATEST}"
                )
            own = last_accuracy(run)
            other = baseline.get((dataset, labels, options, run["args.json"]["options"]["seed"]))
            if own is not None and other is not None and own < other:
                lines.append(
                    f"{run['folder']}: ends at {own:.2f} % clean test accuracy, below the "
                    f"baseline's {other:.2f} %"
                )
    return lines


def last_accuracy(run: dict[str, Any]) -> float | None:
    """Clean test accuracy after the last epoch, in percent."""
    return run["training.json"].get("clean_test_accuracy")


def main() -> None:
    """Print the account, and on stderr what looks wrong."""
    parser = OneLineParser(prog="utils.account", description=__doc__)
    parser.add_argument("results", type=Path, help="folder of run folders")
    parser.add_argument("--markdown", action="store_true", help="as a Markdown table")
    args = parser.parse_args()
    try:
        if not args.results.is_dir():
            raise ValueError(f"{args.results}: no such results folder")
        runs = read_runs(args.results)
        if not runs:
            raise ValueError(f"{args.results}: holds no finished run; train one first")
        rows = [list(HEADING)]
        for (dataset, labels, options, method), group in group_runs(runs).items():
            for run in group:
                seed = str(run["args.json"]["options"]["seed"])
                named = [dataset, labels, options or "default", method, seed]
                rows.append(named + account(run))
        lines = doubts(runs)
    except (ValueError, OSError) as error:
        parser.error(str(error))
    print((as_markdown if args.markdown else as_text)(rows))
    for line in lines:
        print(line, file=sys.stderr)
    sys.exit(bool(lines))


if __name__ == "__main__":
    main()
