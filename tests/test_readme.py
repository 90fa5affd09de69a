"""README against the code: the tables are those of the committed results, the commands work."""

import re
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from tests import benchmark
from utils.label_sets import LABEL_SETS
from utils.options.evaluation import detection_parser, learning_parser
from utils.options.parser import OneLineParser
from utils.options.sweep import split_words, sweep_parser
from utils.options.training import OWN_DEFAULTS, training_parser
from utils.plots.__main__ import make_parser as plots_parser
from utils.review.clean import make_parser as clean_parser
from utils.summary.__main__ import make_parser as summary_parser
from utils.summary.markers import marked_texts
from utils.summary.runs import read_runs
from utils.summary.table import as_markdown, table

TOP = Path(__file__).parents[1]
TEXT = (TOP / "README.md").read_text(encoding="utf-8")
PARSERS = {
    "blind_knowledge_dist_training.py": training_parser(LABEL_SETS),
    "learning.py": learning_parser(LABEL_SETS),
    "detection.py": detection_parser(LABEL_SETS),
    "-m tests.benchmark": benchmark.make_parser(),
    "-m utils.plots": plots_parser(),
    "-m utils.summary": summary_parser(),
    "-m utils.sweep": sweep_parser(),
    "-m utils.clean": clean_parser(),
}


def commands() -> list[tuple[str, list[str]]]:
    """All commands in README that start Python: the script or module, and the words behind it."""
    joined = TEXT.replace("\\\n", " ")
    found = re.findall(r"(?:^    |`)python ((?:-m )?\S+)([^`\n#]*)", joined, re.MULTILINE)
    return [(script.strip("`"), shlex.split(words)) for script, words in found]


def test_tables_are_those_of_the_committed_results():
    results = TOP / "docs" / "results"
    shown = marked_texts(TEXT) | marked_texts((TOP / "docs" / "ablation.md").read_text())
    assert set(shown) == {folder.name for folder in results.iterdir()}
    for name, text in shown.items():
        runs, skipped = read_runs(results / name)
        assert skipped == []
        assert text == as_markdown(table(runs)), name


def test_there_is_a_command_for_each_script():
    assert {script for script, _ in commands()} >= set(PARSERS)


@pytest.mark.parametrize(("script", "words"), commands(), ids=lambda part: str(part))
def test_commands_are_understood(script: str, words: list[str]):
    own, training = split_words(words)
    PARSERS[script].parse_args([word for word in own if word != "…"])
    PARSERS["blind_knowledge_dist_training.py"].parse_args(training)


def test_the_defaults_of_some_runs_are_all_there():
    rows = dict(re.findall(r"^\| `(--[^`]*)` \| `(--[^`]*)` \|$", TEXT, re.MULTILINE))

    def words(options: Mapping[str, Any]) -> str:
        return " ".join(f"--{name} {value}" for name, value in options.items())

    assert rows == {words(own.runs): words(own.defaults) for own in OWN_DEFAULTS}


def option_rows() -> dict[str, str]:
    """The option table: each option's default as it stands there."""
    rows = {}
    cells = r"^\| (`--\w+`(?:, `--\w+`)*) \| ([^|]*)\|"
    for names, defaults in re.findall(cells, TEXT, re.MULTILINE):
        options = re.findall(r"--\w+", names)
        values = [value.strip(" `") for value in defaults.split(",")]
        rows |= dict(zip(options, values, strict=True))
    return rows


def test_the_option_table_is_that_of_the_training_script():
    parser: OneLineParser = PARSERS["blind_knowledge_dist_training.py"]
    defaults = parser.defaults_of("cifar10", "preact18", "bkd")
    rows = option_rows()
    assert set(rows) | {"--debug"} == {f"--{name}" for name in defaults}
    for option, shown in rows.items():
        default = defaults[option.removeprefix("--")]
        if isinstance(default, Path):
            assert default == Path(shown).expanduser(), option
        elif isinstance(default, bool) or default is None:
            assert shown == ("off" if default is False else ""), option
        elif isinstance(default, float):
            assert float(shown) == default, option
        else:
            assert shown == str(default), option
