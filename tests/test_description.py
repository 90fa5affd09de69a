"""A run's description: which recorded options make it another run, and which do not."""

from pathlib import Path

import pytest
import torch

import blind_knowledge_dist_training as training
from tests.conftest import training_options
from utils.files import read_json, write_json
from utils.run_folder.description import Description
from utils.run_folder.folder import RunFolder

WORDS = ("--dataset", "digits", "--n_epoch", 2, "--limit_train", 200)


def description_of(*words: object, record: dict | None = None) -> list[str]:
    return Description.of(training_options(*words)).differs_from(record)


def test_an_option_that_a_record_lacks_had_its_default():
    record = {"options": vars(training_options()) | {"lr": 0.02}, "non_default_options": {}}
    del record["options"]["mixup"], record["options"]["target"]
    assert description_of(record=record) == []
    assert description_of("--mixup", 0.5, record=record) == ["--mixup 0.0 there, 0.5 here"]
    assert description_of("--method", "bkd+", record=record) != []


def test_a_recorded_option_of_no_name_today_counts_where_it_was_chosen():
    record = {"options": vars(training_options()) | {"warp": 0.0}, "non_default_options": {}}
    assert description_of(record=record) == []
    record["non_default_options"]["warp"] = record["options"]["warp"] = 0.3
    assert description_of(record=record) == ["--warp 0.3 there, None here"]


def test_runs_of_versions_with_other_options_are_known(tmp_path: Path, monkeypatch, capsys):
    """One option that was there is gone today, one of today's was not there."""
    words = (*WORDS, "--results_dir", tmp_path)
    folder = RunFolder.of(training_options(*words))

    def stop(self: training.Session, every: int) -> bool:
        if self.epoch == 1:
            self.interruption.number = 15
            self.interruption.check()
        return False

    with monkeypatch.context() as patch:
        patch.setattr(training.Session, "due", stop)
        with pytest.raises(SystemExit):
            training.main(training_options(*words))
    record, checkpoint = read_json(folder.args), torch.load(folder.checkpoint, weights_only=True)
    for options, prefix in ((record["options"], ""), (checkpoint["run"], "--")):
        del options[f"{prefix}ensemble_momentum"]
        options[f"{prefix}warp"] = 0.0
    checkpoint["parts"]["guidance"] = checkpoint["parts"].pop("robust_phase")  # its former name
    write_json(folder.args, record)
    torch.save(checkpoint, folder.checkpoint)
    assert training.main(training_options(*words))["epochs"] == 2
    assert "resuming from epoch 1" in capsys.readouterr().out
    training.main(training_options(*words))
    assert "this run is finished" in capsys.readouterr().out
    with pytest.raises(ValueError, match=r"--ensemble_momentum 0\.7 there, 0\.5 here"):
        training.main(training_options(*words, "--ensemble_momentum", 0.5))
    assert read_json(folder.args)["options"]["warp"] == 0.0
