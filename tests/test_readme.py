"""README and docs against the code: commands are understood, tables and last lines are real."""

import re
import shlex
from pathlib import Path

import pytest

from docs.detection.compare_with_cleanlab import make_parser as cleanlab_parser
from tests import benchmark
from utils.options.evaluation import detection_parser, learning_parser
from utils.options.sweep import split_words, sweep_parser
from utils.options.training import training_parser
from utils.plots.__main__ import make_parser as plots_parser
from utils.review.__main__ import make_parser as review_parser
from utils.review.clean import make_parser as clean_parser
from utils.summary.__main__ import make_parser as summary_parser
from utils.summary.table import COLUMNS

TOP = Path(__file__).parents[1]
REPORT = "utils/run_folder/detection_report.py"
FILES = [TOP / "README.md", *sorted((TOP / "docs").glob("*.md"))]
PAGES = {file.name: file.read_text(encoding="utf-8") for file in FILES}
README = PAGES["README.md"]
PARSERS = {
    "blind_knowledge_dist_training.py": training_parser(),
    "learning.py": learning_parser(),
    "detection.py": detection_parser(),
    "-m tests.benchmark": benchmark.make_parser(),
    "-m utils.plots": plots_parser(),
    "-m utils.summary": summary_parser(),
    "-m utils.sweep": sweep_parser(),
    "-m utils.clean": clean_parser(),
    "-m utils.review": review_parser(),
    "-m docs.detection.compare_with_cleanlab": cleanlab_parser(),
}


def commands() -> list[tuple[str, list[str]]]:
    """All commands that start Python: the script or module, and the words after it."""
    joined = "\n".join(PAGES.values()).replace("\\\n", " ")
    found = re.findall(r"(?:^    |`)python ((?:-m )?[\w./]+)([^`\n#]*)", joined, re.MULTILINE)
    return [(script, shlex.split(words)) for script, words in found]


def test_there_is_a_command_for_each_script():
    assert {script for script, _ in commands()} >= set(PARSERS)


@pytest.mark.parametrize(("script", "words"), commands(), ids=lambda part: str(part))
def test_commands_are_understood(script: str, words: list[str]):
    own, training = split_words(words)
    PARSERS[script].parse_args([word for word in own if word != "--help"])
    PARSERS["blind_knowledge_dist_training.py"].parse_args(training)


def test_the_readme_stays_short():
    lines = README.splitlines()
    assert len(lines) <= 150
    assert len(README.split()) <= 1500
    assert next(n for n, line in enumerate(lines, 1) if line.startswith("    bash run.sh")) < 40


@pytest.mark.parametrize("name", PAGES)
def test_lines_have_at_most_120_columns(name: str):
    made = r"(?s)(<!-- results \S+ begin -->).*?(?=<!-- results \S+ end -->)"  # by a command
    assert [line for line in re.sub(made, "", PAGES[name]).splitlines() if len(line) > 120] == []


@pytest.mark.parametrize("name", PAGES)
def test_links_lead_somewhere(name: str):
    links = re.findall(r"\]\((?!https?:)([^)#]+)(?:#[^)]*)?\)", PAGES[name])
    folder = TOP if name == "README.md" else TOP / "docs"
    assert [link for link in links if not (folder / link).exists()] == []


def test_the_last_lines_are_in_the_scripts_words():
    shown = re.search(r"^    data set .*?  n  (.*)$", README, re.MULTILINE)
    assert shown and re.sub(" {2,}", "  ", shown[1]) in "  ".join(each.heading for each in COLUMNS)
    printed = "".join((TOP / name).read_text() for name in ("learning.py", REPORT))
    for words in ("Best test acc selected by val", "precision", "recall", "The f-score"):
        assert f'"{words} is {{' in printed
        assert re.search(rf"^    {words} is [\d.]+$", README, re.MULTILINE)
