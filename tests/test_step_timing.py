"""What is said before the first epoch, and the number of threads: a run is the same without."""

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

import blind_knowledge_dist_training as training
import detection
from models.fast import step_timing
from tests.conftest import training_options
from tests.own_images import write_folder
from tests.test_training_step import threads
from utils.files import read_json
from utils.options.evaluation import detection_parser
from utils.run_folder import epoch_log
from utils.run_folder.description import Description
from utils.run_folder.folder import RunFolder

FOLDS = ("--n_epoch", 3, "--width", 4, "--batch_size", 16, "--folds", 2)


def run(tmp_path: Path, results: str) -> tuple[RunFolder, Description]:
    where = ("--images", tmp_path / "pets", "--data_dir", tmp_path / "data")
    words = ("--dataset", "folder", *where, "--results_dir", tmp_path / results, *FOLDS)
    args = training_options(*words)
    training.main(args)
    return RunFolder.of(args), Description.of(args)


def test_timing_changes_no_bit_and_counts_all_folds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
):
    write_folder(tmp_path / "pets", count=12, test=0)
    folder, description = run(tmp_path, "timed")
    said = capsys.readouterr().out
    assert "\n6 epochs of 2 steps in 2 folds: about " in said.split("epoch   0")[0]
    assert said.count("epochs of 2 steps") == 1
    detection.main(detection_parser().parse_args(["--run_dir", str(folder)]))
    for words in (said, capsys.readouterr().out):  # the posterior is the result, not the split
        assert "the robust phase has not begun" in words and "fallback" not in words
    so_far = []
    monkeypatch.setattr(training, "foretell", lambda *parts: so_far.append(parts[2:]))
    monkeypatch.setattr(epoch_log, "newly_vanished", lambda rows: [0])
    other, _ = run(tmp_path, "plain")
    assert "any more" not in capsys.readouterr().out  # the folds together say what is lost
    for each, same in ((folder, other), (folder.fold(1), other.fold(1))):
        assert each.metrics.read_bytes() == same.metrics.read_bytes()
        assert read_json(each.args)["threads"] == torch.get_num_threads()
    weights = [torch.load(each.network("student"), weights_only=True) for each in (folder, other)]
    for one, two in zip(*(state["state_dict"].values() for state in weights), strict=True):
        assert torch.equal(one, two)
    go_on, restart = SimpleNamespace(restart=False), SimpleNamespace(restart=True)
    assert folder.progress(go_on, description) is None
    folder.training.unlink()
    run(tmp_path, "timed")
    assert so_far == [(None, 0), (torch.get_num_threads(), 6)]
    assert folder.progress(restart, description) == (None, 0)


@pytest.mark.parametrize(
    ("seconds", "began_with", "environment", "expected"),
    [
        ({1: 1.0, 2: 0.6}, None, {}, 2),
        ({1: 1.0, 2: 0.95}, None, {}, 1),  # not worth it
        ({1: 1.0, 2: 4.0}, None, {}, 1),
        ({1: 1.0, 2: 0.6}, 1, {}, 1),  # a run keeps those it began with
        ({1: 1.0, 2: 4.0}, None, {"OMP_NUM_THREADS": "2"}, 2),
        ({}, 1, {}, 1),  # the loss is not finite
    ],
)
@threads(2)
def test_the_faster_number_of_threads(
    seconds: dict, began_with: int | None, environment: dict, expected: int, monkeypatch, capsys
):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    said = []

    class Timing(step_timing.Timing):
        def __init__(self, begin: object, count: int):
            self.threads = count
            torch.set_num_threads(count)

        def add(self, count: int) -> None:
            if not seconds:
                raise FloatingPointError
            self.step_seconds, self.steps = seconds[self.threads], 1

    monkeypatch.setattr(step_timing, "Timing", Timing)
    monkeypatch.setattr(step_timing, "say_time", lambda *parts: said.append(parts[1].threads))
    step_timing.foretell(None, None, began_with, 0)
    assert torch.get_num_threads() == expected and said == [expected] * bool(seconds)


def test_times_in_two_digits():
    times = [step_timing.roughly(each) for each in (0.4, 66, 89, 95, 1199, 7560, 100_000)]
    assert times == ["0 s", "66 s", "89 s", "1.6 min", "20 min", "2.1 h", "28 h"]
