"""The options of `learning.py`, `detection.py` and `benchmark.py`."""

import argparse
from collections.abc import Mapping
from pathlib import Path

from utils.options.parser import (
    USAGE,
    LabelSets,
    OneLineParser,
    RunParser,
    add_batch_size,
    add_debug,
    add_device_options,
    add_net,
)
from utils.options.values import count, path


def learning_parser(label_sets: Mapping[str, LabelSets]) -> RunParser:
    """The options of `learning.py`."""
    parser = RunParser(label_sets, description="Measure the clean test accuracy of a run.")
    add_device_options(parser, compiles=False)
    _add_run_dir(parser)
    return parser


def detection_parser(label_sets: Mapping[str, LabelSets]) -> RunParser:
    """The options of `detection.py`."""
    parser = RunParser(label_sets, description="Measure how well a run found the wrong labels.")
    _add_run_dir(parser)
    parser.add_argument(
        "--prediction",
        type=path,
        metavar="FILE",
        help="boolean .npy to evaluate in place of the run's, one entry for each training image "
        "(true: label flagged as wrong)",
    )
    return parser


def benchmark_parser() -> OneLineParser:
    """The options of `benchmark.py`."""
    parser = OneLineParser(
        usage=USAGE,
        description="Time loader, step and scoring on this machine against a straightforward "
        "version, and against what the machine can do.",
    )
    add_device_options(parser)
    group = parser.add_argument_group("benchmark")
    add_net(group)
    group.add_argument(
        "--quick", action="store_true", help="narrow networks, short timings: under a minute"
    )
    add_batch_size(group)
    group.add_argument(
        "--rounds", type=count, default=5, metavar="NUMBER", help="number of timings of each"
    )
    group.add_argument(
        "--json",
        type=path,
        default=Path("results/benchmark.json"),
        metavar="FILE",
        help="file to write",
    )
    add_debug(parser)
    return parser


def _add_run_dir(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--run_dir", type=path, metavar="FOLDER", help="run folder, wherever it is")
