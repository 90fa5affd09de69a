"""Evaluations refuse data, labels or flags that are not those of the run."""

from pathlib import Path

import numpy as np
import pytest

import blind_knowledge_dist_training as training
import detection
import learning
from tests.conftest import training_options
from tests.own_images import NAMES, write_folder
from utils.files import write_array
from utils.options.evaluation import detection_parser, learning_parser
from utils.review import clean
from utils.run_folder.folder import RunFolder


def trained(tmp_path: Path) -> tuple[RunFolder, list[str]]:
    """A run of one epoch on own images, and the words that name it."""
    write_folder(tmp_path / "pets", count=12)
    words = ["--dataset", "folder", "--images", str(tmp_path / "pets")]
    words += ["--data_dir", str(tmp_path / "data"), "--results_dir", str(tmp_path / "results")]
    small = ["--n_epoch", 1, "--width", 2, "--batch_size", 12, "--no_plots"]
    args = training_options(*words, *small)
    training.main(args)
    return RunFolder.of(args), words


def refused(script, parser, words: list[str], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        script.main(parser.parse_args(words))


def test_data_that_changed_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture):
    words = trained(tmp_path)[1]
    out = capsys.readouterr().out
    assert "36 training images of 3 classes (" in out  # number, names and counts
    learning.main(learning_parser().parse_args(words))
    detection.main(detection_parser().parse_args(words))
    image = next((tmp_path / "pets" / "train" / NAMES[0]).iterdir())
    image.rename(image.parents[1] / NAMES[1] / f"moved_{image.name}")
    refused(detection, detection_parser(), words, "labels or images are not those of the run")
    for split in ("train", "test"):
        (tmp_path / "pets" / split / NAMES[0]).rename(tmp_path / "pets" / split / "zebra")
    for script, parser in ((learning, learning_parser()), (detection, detection_parser())):
        refused(script, parser, words, "the classes are not those of the run .*zebra")


def test_flags_of_another_run_and_unfinished_runs_are_refused(tmp_path: Path, capsys):
    folder, words = trained(tmp_path)
    write_array(folder.detection, ~np.load(folder.detection))
    refused(detection, detection_parser(), words, "its flags are not those of predictions.npz")
    folder.training.unlink()
    refused(detection, detection_parser(), words, "the run is not finished")
    with pytest.raises(SystemExit):
        clean.main([str(folder), "--take", "flagged", "--out", str(tmp_path / "out.csv")])
    assert "the run is not finished" in capsys.readouterr().err
