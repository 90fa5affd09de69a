"""The options of `learning.py` and `detection.py`."""

import argparse
import sys
from collections.abc import Sequence
from typing import Any

from utils.files import read_json
from utils.options.parser import RunParser, add_device_options
from utils.options.values import add_options, path

RUN_DIR = {
    ("run_dir", path, None, "FOLDER"): "run folder, wherever it is; its args.json says which run "
    "it holds"
}
NAMES_A_RUN = ("dataset", "noise_type", "seed", "method", "net")


class EvaluationParser(RunParser):
    """The parser of a script that reads a run folder: `--run_dir` alone names the run."""

    def parse_args(
        self, args: Sequence[str] | None = None, namespace: Any = None
    ) -> argparse.Namespace:
        """As a `RunParser`'s, but what is not given is what the folder's args.json records."""
        words = sys.argv[1:] if args is None else list(args)
        folder = self.parse_known_args(words)[0].run_dir
        recorded: list[str] = []
        if folder and (file := folder / "args.json").exists():
            try:
                options = read_json(file).get("options")
            except (OSError, ValueError) as error:
                self.error(error)
            if isinstance(options, dict):  # if not, the script says what is wrong with the folder
                recorded = [f"--{name}={options[name]}" for name in NAMES_A_RUN if name in options]
        return super().parse_args([*recorded, *words], namespace)


def learning_parser() -> RunParser:
    """The options of `learning.py`."""
    parser = EvaluationParser(description="Measure the clean test accuracy of a run.")
    add_device_options(parser, compiles=False)
    add_options(parser, RUN_DIR)
    return parser


def detection_parser() -> RunParser:
    """The options of `detection.py`."""
    parser = EvaluationParser(description="Measure how well a run found the wrong labels.")
    words = "boolean .npy to evaluate in place of the run's, one entry for each training image"
    words += " (true: label flagged as wrong)"
    add_options(parser, RUN_DIR | {("prediction", path, None, "FILE"): words})
    return parser
