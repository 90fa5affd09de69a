"""Kept groups of runs, and the tables and numbers that are made from the committed ones."""

import ast
import json
import re
from pathlib import Path

import pytest

from tests.made_up_run import edit_json, made_up_run
from utils.files import read_columns, read_json
from utils.summary.__main__ import main, marked_table
from utils.summary.kept import keep
from utils.summary.label_set_table import label_set_table
from utils.summary.markers import marked_texts
from utils.summary.runs import CURVES, RUNS, read_runs
from utils.summary.table import as_markdown, table

TOP = Path(__file__).parents[1]
RESULTS = TOP / "docs" / "results"
GROUPS = sorted(path.parent.name for path in RESULTS.glob(f"*/{RUNS}"))
PAGES = [TOP / "README.md", *sorted((TOP / "docs").glob("*.md"))]
OTHER_TABLES = {path.stem for path in (TOP / "docs" / "detection").glob("*.json")}
SCRIPTS = ("blind_knowledge_dist_training.py", "learning.py", "detection.py")


def marked(page: Path) -> dict[str, str]:
    """The tables of a page that utils.summary makes."""
    texts = marked_texts(page.read_text(encoding="utf-8"))
    return {name: text for name, text in texts.items() if name not in OTHER_TABLES}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_tables_are_those_of_the_committed_results(page: Path):
    for name, text in marked(page).items():
        assert text == marked_table(RESULTS, name), f"python -m utils.summary {RESULTS} --into"


def test_each_committed_group_is_shown_and_explained():
    shown = {group for page in PAGES for name in marked(page) for group in name.split(",")}
    explained = (RESULTS / "README.md").read_text(encoding="utf-8")
    for group in GROUPS:
        assert group in shown, f"{group}: no table in README.md or docs/*.md"
        assert f"| {group} |" in explained, f"{group}: no line in docs/results/README.md"


def quoted(script: str) -> list[str]:
    """The numbers with decimals in a script's docstring: its claims (no number of arXiv's)."""
    text = ast.get_docstring(ast.parse((TOP / script).read_text(encoding="utf-8"))) or ""
    return re.findall(r"(?<![\d.])\d{1,3}\.\d+(?![\d.])", text)


def test_numbers_in_a_scripts_docstring_are_in_the_tables_of_the_committed_results():
    tables = [marked_table(RESULTS, name) for name in (*GROUPS, ",".join(GROUPS))]
    numbers = set(re.findall(r"\d+\.\d+", "".join(tables)))
    assert len(quoted(SCRIPTS[0])) >= 2, "the training script says what it reaches"
    for script in SCRIPTS:
        assert set(quoted(script)) <= numbers, script


def test_what_is_kept_gives_the_same_table_and_names_no_place(tmp_path: Path, capsys):
    results, group = tmp_path / "results", tmp_path / "docs" / "digits"
    made_up_run(results, "--dataset", "digits", "--data_dir", tmp_path, name="a")
    own = ("--noise_path", tmp_path / "own.pt", "--seed", 3)
    folder = made_up_run(results, *own, name="b", timing=None).folder
    (results / "unfinished").mkdir()
    assert main([str(results), "--keep", str(group)]) == 0
    assert capsys.readouterr().out == f"{group}\n"
    assert sorted(path.name for path in group.iterdir()) == [CURVES, RUNS]
    a, b = (json.loads(line) for line in (group / RUNS).read_text().splitlines())
    assert "timing" in a and "timing" not in b and "data_dir" not in a["args"]["options"]
    assert b["args"]["options"]["noise_path"] == "own.pt"
    files = {"training": "training", "learning": "learning", "detection_metrics": "detection"}
    for run in (a, b):
        for record, file in files.items():
            assert run[record] == read_json(results / run["run"] / f"{file}.json")
    curves = read_columns(group / CURVES)
    rows = [row for row, name in enumerate(curves.pop("run")) if name == "b"]
    of_b = {column: [cells[row] for row in rows] for column, cells in curves.items()}
    assert of_b == read_columns(folder / "metrics.csv")
    assert not any(str(tmp_path) in path.read_text() for path in group.iterdir())
    here, there = (as_markdown(table(read_runs(place)[0])) for place in (group, results))
    assert here == there.replace(str(tmp_path / "own.pt"), "own.pt")
    assert main([str(group), "--checks"]) == 0
    assert main([str(group), "--html", str(tmp_path / "index.html")]) == 0
    assert "python -m utils.plots" not in (tmp_path / "index.html").read_text()  # no run folders


def test_keeping_replaces_runs_of_the_same_name_and_leaves_the_others(tmp_path: Path):
    group, results = tmp_path / "group", tmp_path / "results"
    for seed in (0, 1):
        made_up_run(results, "--seed", seed, epochs=3)
    keep(read_runs(results)[0], group)
    edit_json(results / "run_1" / "training.json", clean_test_accuracy=50)
    made_up_run(results, "--seed", 2, curves={"new": list("abcdefghijkl")})
    keep([run for run in read_runs(results)[0] if run.seed], group)
    runs, skipped = read_runs(group)
    assert skipped == [] and [run.name for run in runs] == ["run_0", "run_1", "run_2"]
    assert [run.value("training", "clean_test_accuracy") for run in runs] == [71, 50, 71]
    assert [len(run.metrics["epoch"]) for run in runs] == [3, 3, 12]
    assert runs[0].metrics["new"] == [""] * 3 and runs[2].metrics["new"][-1] == "l"


@pytest.mark.parametrize("line", ["{", "[]", '{"run": 1}', '{"run": "c", "args": {}}'])
def test_a_damaged_line_is_skipped_and_never_kept_away(tmp_path: Path, capsys, line: str):
    results, group = tmp_path / "results", tmp_path / "group"
    made_up_run(results)
    keep(read_runs(results)[0], group)
    with open(group / RUNS, "a", encoding="utf-8") as file:
        file.write(f"{line}\n")
    before = (group / RUNS).read_bytes()
    assert main([str(group)]) == 2
    out, err = capsys.readouterr()
    assert err.count("\n") == 1 and f"skipped: {group / RUNS}, line 2" in err and "91.25" in out
    with pytest.raises(SystemExit):
        main([str(results), "--keep", str(group)])
    assert (group / RUNS).read_bytes() == before


def test_the_short_table_has_a_row_for_each_method_and_columns_for_label_sets(tmp_path: Path):
    def add(labels: str, seed: int, accuracy: float, final: float | None, *words: object) -> None:
        made_up_run(
            tmp_path,
            *("--noise_type", labels, "--seed", seed, *words),
            learning={"last": {"accuracy": accuracy}},
            detection_metrics={} if final is None else {"detections": {"final": {"f1": final}}},
        )

    for seed in (0, 1):
        add("aggre", seed, 90 + seed, 0.8)
        add("worst", seed, 80, None if seed else 0.8, "--width", 8)  # a record of an older version
    add("worst", 0, 70, 0.6, "--method", "ce")
    add("clean", 0, 99, 0.1)
    rows = label_set_table({"small_nets": read_runs(tmp_path)[0]})
    assert " ".join(rows[0]) == "networks method n aggre acc. % F1 rand1 acc. % F1 worst acc. % F1"
    assert rows[1:] == [
        ["small nets", "bkd", "2", "90.50 ± 0.71", "0.600 / 0.800", "-", "-", "-", "-"],
        ["small nets", "bkd width=8", "2", "-", "-", "-", "-", "80.00 ± 0.00", "0.600"],
        ["small nets", "ce", "1", "-", "-", "-", "-", "70.00", "0.600"],
    ]


def test_tables_go_between_their_markers_and_nothing_else_changes(tmp_path: Path, capsys):
    groups, page = tmp_path / "results", tmp_path / "README.md"
    for group in ("a", "b"):
        made_up_run(tmp_path / group)
        keep(read_runs(tmp_path / group)[0], groups / group)
    text = "".join(f"±{n}\n<!-- results {n} begin -->{{}}<!-- results {n} end -->\n" for n in NAMES)
    page.write_text(text.format(*["old"] * len(NAMES)), encoding="utf-8")
    expected = text.format(*(f"\n\n{marked_table(groups, name)}\n\n" for name in NAMES))
    for _ in range(2):  # the second time it stays as it is
        assert main([str(groups), "--into", str(page)]) == 0
        assert page.read_text(encoding="utf-8") == expected
    assert capsys.readouterr().out == f"{page}\n{page}\n"
    assert marked_table(groups, "a").count("\n") == 2 and "| b | bkd |" in expected


NAMES = ("a", "b,a", "published")


@pytest.mark.parametrize(
    "text",
    [
        "<!-- results a begin -->",
        "<!-- results a end --><!-- results a begin -->",
        "<!-- results a begin --><!-- results a end -->" * 2,
        "<!-- results c begin --><!-- results c end -->",
    ],
)
def test_wrong_markers_are_one_line_and_no_file_is_touched(tmp_path: Path, capsys, text: str):
    made_up_run(tmp_path / "runs")
    keep(read_runs(tmp_path / "runs")[0], tmp_path / "groups" / "a")
    good, bad = tmp_path / "good.md", tmp_path / "bad.md"
    good.write_text("<!-- results a begin -->old<!-- results a end -->")
    bad.write_text(text)
    with pytest.raises(SystemExit) as exit_:
        main([str(tmp_path / "groups"), "--into", str(good), str(bad)])
    error = capsys.readouterr().err
    assert exit_.value.code == 2 and error.count("\n") == 1 and f"{bad}: " in error
    assert "old" in good.read_text() and bad.read_text() == text
