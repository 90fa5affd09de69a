"""README's tables are those of the committed result files."""

from pathlib import Path

from tests.made_up_run import made_up_run
from utils.markers import begin_marker, end_marker, marked_texts
from utils.summary import as_markdown, read_runs, table

TOP = Path(__file__).parents[1]


def disagreements(text: str, results: Path) -> list[str]:
    """The names of the tables between markers that are not what results/NAME gives."""
    return [
        name
        for name, shown in marked_texts(text).items()
        if not (results / name).is_dir() or shown != as_markdown(table(read_runs(results / name)))
    ]


def test_tables_are_those_of_the_committed_results():
    text = (TOP / "README.md").read_text(encoding="utf-8")
    assert marked_texts(text)
    assert disagreements(text, TOP / "docs" / "results") == []


def test_a_table_that_disagrees_is_noticed(tmp_path: Path):
    made_up_run(tmp_path / "digits")
    right = as_markdown(table(read_runs(tmp_path / "digits")))
    assert "91.25" in right

    def readme(name: str, shown: str) -> str:
        return f"Before\n\n{begin_marker(name)}\n\n{shown}\n\n{end_marker(name)}\n\nAfter\n"

    assert disagreements(readme("digits", right), tmp_path) == []
    assert disagreements(readme("digits", right.replace("91.25", "91.26")), tmp_path) == ["digits"]
    assert disagreements(readme("other", right), tmp_path) == ["other"]
    assert disagreements(readme("digits", ""), tmp_path) == ["digits"]
    assert disagreements("no markers", tmp_path) == []
