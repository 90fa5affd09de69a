"""What is in a run folder, but not of that run or no file at all: one line, no figure."""

import os
from pathlib import Path

import pytest

from tests.made_up_run import edit_json, made_up_run
from utils.files import read_arrays, read_columns, read_json
from utils.options.training import training_parser
from utils.run_folder.description import Description
from utils.run_folder.folder import RunFolder
from utils.summary import __main__ as summary


@pytest.mark.parametrize("read", [read_json, read_columns, read_arrays])
def test_what_is_no_regular_file_is_named_and_not_waited_for(read, tmp_path: Path):
    os.mkfifo(tmp_path / "pipe")
    for place in (tmp_path, tmp_path / "pipe"):
        with pytest.raises(ValueError, match=f"^{place}: not a .*; check that path"):
            read(place)


def test_errors_of_the_system_have_no_number(tmp_path: Path, capsys: pytest.CaptureFixture):
    with pytest.raises(SystemExit) as ended:
        summary.main(["--into", str(tmp_path / "nothing.md")])
    words = f"{tmp_path}/nothing.md: No such file or directory; check that path, its permissions"
    assert ended.value.code == 2 and words in capsys.readouterr().err


@pytest.mark.parametrize("name", ["options", "non_default_options", "class_counts"])
def test_a_record_of_other_kinds_of_values_is_refused(name: str, tmp_path: Path):
    folder = RunFolder(made_up_run(tmp_path).folder)
    edit_json(folder.args, **{name: 5})
    with pytest.raises(ValueError, match="args.json: does not name a run"):
        folder.finished_run(Description.of(training_parser().parse_args([])))
    with pytest.raises(ValueError, match="args.json: does not name a run"):
        folder.check_data(["class 0"])
    folder.args.write_text("{}")
    with pytest.raises(ValueError, match="holds a run with other options"):
        folder.finished_run(Description.of(training_parser().parse_args(["--seed", "3"])))
