"""--dataset folder through the three scripts and python -m utils.clean; what they refuse."""

import json
import os
import re
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

import blind_knowledge_dist_training as training
import detection
import learning
from models import noise_split
from tests import test_scripts
from tests.conftest import training_options
from tests.own_images import NAMES, write_folder
from utils.files import read_columns, read_json, write_array, write_text
from utils.manifest import csv_text
from utils.options.own_images import defaults_by_count
from utils.review import clean
from utils.run_folder import predictions_writer
from utils.run_folder.folder import RunFolder
from utils.run_folder.predictions import Predictions


def words_of(tmp_path: Path, *words: object) -> list[str]:
    """The words of a command line; the images are in pets/ if no other place is given."""
    places = {"images": "pets", "data_dir": "data", "results_dir": "results"}
    own = [word for name, place in places.items() for word in (f"--{name}", tmp_path / place)]
    return [*map(str, ["--dataset", "folder", *own, *words])]


def train(tmp_path: Path, *words: object, epochs: int = 12) -> tuple[dict, RunFolder]:
    small = ["--n_epoch", epochs, "--width", 4, "--batch_size", 16, "--val_ratio", 0, "--lr", 0.05]
    small += ["--augmentation", "always", "--folds", 0]
    args = training_options(*small, *words_of(tmp_path, *words))
    return training.main(args), RunFolder.of(args)


def evaluate(script: ModuleType, tmp_path: Path, *words: object) -> dict:
    return test_scripts.evaluate(script, *words_of(tmp_path, *words))


@pytest.fixture(autouse=True)
def tipping_point(monkeypatch: pytest.MonkeyPatch) -> None:
    """So short a run has none of its own: let it be epoch 5."""
    monkeypatch.setattr(noise_split, "tipping_point", lambda curve: 5 if len(curve) == 8 else None)


def test_a_folder_without_true_labels(tmp_path: Path, capsys: pytest.CaptureFixture):
    rows = write_folder(tmp_path / "pets")
    (tmp_path / "pets" / "train" / NAMES[0] / "broken.png").write_bytes(b"")
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "pets").rglob("*")}
    record, folder = train(tmp_path)
    assert folder.path.name == "folder_pets_seed_0_compact_bkd+"
    assert record["tipping_point"] == 5 and record["true_noise_rate"] is None
    out = capsys.readouterr().out
    assert "broken.png" in out and "by the true labels" not in out
    assert "the split flags" not in out and "groups 1" not in out  # these flags are no result
    assert "broken.png" in folder.image_warnings.read_text()

    wrong = {name: label != true for name, label, true in rows}
    pets = tmp_path / "pets"
    tested = {path.relative_to(pets).as_posix() for path in pets.glob("test/*/*")}
    wrong |= dict.fromkeys(tested, False)
    suspects = read_columns(folder.suspects)
    splits = dict(zip(suspects["file_name"], suspects["split"], strict=True))
    assert splits == {name: "test" if name in tested else "train" for name in wrong}
    assert folder.review.read_text(encoding="utf-8").count('"split":"test"') == len(tested) == 15
    order = ["file_name", "given_label", "suggested_label", "score", "suggested_score", "flagged"]
    assert list(suspects)[:6] == order and set(suspects["file_name"]) == set(wrong)
    assert {*suspects["given_label"], *suspects["suggested_label"]} == set(NAMES)
    scores = [float(score) for score in suspects["score"]]
    assert scores == sorted(scores)
    first = [wrong[name] for name in suspects["file_name"][: sum(wrong.values())]]
    assert np.mean(first) > 0.9  # colours are easily told apart
    pairs = zip(suspects["file_name"], suspects["flagged"], strict=True)
    flagged = [name for name, flag in pairs if flag == "1"]
    assert np.mean([wrong[name] for name in flagged]) > 0.9

    predictions = Predictions.read(folder.predictions)
    assert predictions.true_label is None and predictions.class_names.tolist() == NAMES
    assert set(read_columns(folder.metrics)["agreed_wrong"]) == {""}
    found = evaluate(detection, tmp_path)
    assert "no true labels are known: there is nothing to compare" in capsys.readouterr().out
    assert found["flagged"] == len(flagged) and found["images"] == len(wrong)
    assert found["estimated_noise_rate"] == len(flagged) / len(wrong)
    assert sum(row["flagged"] for row in found["per_class"]) == len(flagged)
    frequent = found["most_frequent"]  # three classes have six pairs
    assert sum(row["images"] for row in frequent) == len(flagged)
    assert all(row["true"] != row["predicted"] for row in frequent)
    learnt = evaluate(learning, tmp_path)
    assert learnt["test_images"] == 15 and learnt["last"]["accuracy"] > 90
    assert "by the labels given" in learnt["statistic"]
    assert "/9j/" in folder.review.read_text(encoding="utf-8")  # JPEG files in base64

    out_file = tmp_path / "corrected.csv"
    assert clean.main([str(folder), "--take", "top", str(len(scores)), "--out", str(out_file)]) == 0
    corrected = read_columns(out_file)
    assert len(corrected["label"]) == len(wrong) + 1  # the broken one
    changes = zip(corrected["file_name"], corrected["changed_from"], strict=True)
    assert {name for name, former in changes if former} == set(flagged)
    assert before == {path: path.stat().st_mtime_ns for path in (tmp_path / "pets").rglob("*")}


def test_a_manifest_with_true_labels_is_evaluated(tmp_path: Path):
    rows = write_folder(tmp_path / "pets", test=0)
    rows = [(name, label, "" if k < 10 else true) for k, (name, label, true) in enumerate(rows)]
    manifest, columns = tmp_path / "list.csv", ("file_name", "label", "true_label")
    write_text(manifest, csv_text([columns, *rows]))
    where = ["--manifest", manifest]
    record, folder = train(tmp_path, *where)
    assert folder.path.name == "folder_list_seed_0_compact_bkd+"
    assert folder.manifest.read_bytes() == manifest.read_bytes()
    wrong = [label != true for _, label, true in rows if true]
    assert record["true_noise_rate"] == pytest.approx(np.mean(wrong))
    found = evaluate(detection, tmp_path, *where)
    assert found["images"] == len(rows) - 10 and found["wrong"] == sum(wrong)
    assert found["f1"] > 0.9 and found["detections"]["final"]["f1"] == found["f1"]
    assert found["cuts"][0]["images"] == len(wrong)
    np.save(tmp_path / "none.npy", np.zeros(len(rows), dtype=bool))
    other = evaluate(detection, tmp_path, *where, "--prediction", tmp_path / "none.npy")
    assert (other["images"], other["flagged"]) == (len(rows) - 10, 0)
    with pytest.raises(ValueError, match="there are no test images"):
        evaluate(learning, tmp_path, *where)
    assert not folder.learning.exists()


def test_a_run_is_recognised_by_its_images_and_labels_wherever_they_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
):
    rows = write_folder(tmp_path / "pets", count=8, test=0)
    with monkeypatch.context() as patch:  # a full disk after all epochs
        patch.setattr(training, "save_networks", lambda *_, **more: more or os.close(-1))
        with pytest.raises(OSError, match="Bad file"):
            train(tmp_path, "--checkpoint_freq", 1)
    (tmp_path / "scratch").mkdir()
    (tmp_path / "pets").rename(tmp_path / "scratch" / "pets")
    where = ["--images", tmp_path / "scratch" / "pets"]
    record, folder = train(tmp_path, *where)
    assert "resuming from epoch 11" in capsys.readouterr().out
    assert train(tmp_path, *where)[0] == record
    assert "this run is finished" in capsys.readouterr().out
    assert evaluate(detection, tmp_path, *where)["images"] == len(rows)
    with pytest.raises(FileNotFoundError, match="pets: no such folder; name where"):
        evaluate(detection, tmp_path)
    classes = tmp_path / "scratch" / "pets" / "train"
    for name in (rows[0][0], ""):  # an image of another class; the class of another name
        source = classes.parent / name if name else classes / NAMES[2]
        target = classes / NAMES[1] / "moved.png" if name else classes / "mice"
        source.rename(target)
        with pytest.raises(ValueError, match="other images or labels"):
            train(tmp_path, *where)
        target.rename(source)
    assert read_json(folder.training) == record


def key_of(folder: RunFolder) -> str:
    """The name under which a browser keeps the decisions of a run's page."""
    return re.search('"key":"(.*?)"', folder.review.read_text(encoding="utf-8")).group(1)


def test_images_that_vanish_at_the_end_and_a_page_that_fails_cost_no_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
):
    write, ce, keys = training.write_predictions, ("--method", "ce"), set()

    def lose_images(*arguments: object) -> dict:
        for path, content in zip(sorted(Path("pets").rglob("*.png")), (b"", None), strict=False):
            path.write_bytes(content) if content is not None else path.unlink()
        return write(*arguments)

    for project in ("one", "two"):  # with the same relative paths
        write_folder(tmp_path / project / "pets", count=4, test=0)
        monkeypatch.chdir(tmp_path / project)
        with monkeypatch.context() as patch:
            patch.setattr(predictions_writer, "review_page", lambda *_: 1 / 0)
            record, folder = train(Path(), *ce)
        assert f"{folder.review}: not made (ZeroDivisionError: div" in capsys.readouterr().out
        assert train(Path(), *ce)[0] == record and "data:image/jpeg" in folder.review.read_text()
        keys.add(key_of(folder))
    monkeypatch.setattr(training, "write_predictions", lose_images)
    train(Path(), *ce, "--restart")
    assert key_of(folder) in keys and len(keys) == 2
    assert folder.review.read_text().count("data:image/jpeg") >= 12
    assert folder.training.exists() and not folder.checkpoint.exists()


def test_steps_are_measured_without_test_images(tmp_path: Path, capsys):
    write_folder(tmp_path / "pets.v2", count=8, test=0)
    words = words_of(tmp_path, "--images", tmp_path / "pets.v2", "--measure_steps", 2)
    args = training_options(*words)
    assert RunFolder.of(args).path.name == "folder_pets.v2_seed_0_compact_bkd+"
    assert training.main(args)["step_seconds"] > 0
    assert "300 epochs of 1 steps in 5 folds: about " in capsys.readouterr().out
    assert not RunFolder.of(args).path.exists()


@pytest.mark.parametrize("net", ["compact", "preact18"])
@pytest.mark.parametrize("size", [64, 96])
def test_larger_images(net: str, size: int, tmp_path: Path):
    write_folder(tmp_path / "pets", count=6, test=2)
    where = ["--net", net, "--method", "ce"]
    record, folder = train(tmp_path, *where, "--image_size", size, epochs=2)
    assert record["epochs"] == 2
    assert Predictions.read(folder.predictions).suspect_images.shape == (24, size, size, 3)
    assert evaluate(learning, tmp_path, *where)["test_images"] == 6
    assert evaluate(detection, tmp_path, *where)["images"] == 24


def test_defaults_follow_from_the_number_of_images(tmp_path: Path, capsys):
    write_folder(tmp_path / "pets", count=4, test=0)
    args = training_options(*words_of(tmp_path, "--n_epoch", 1))
    assert args.method == "bkd+" and args.net == "compact"
    assert args.batch_size is args.width is args.image_size is None
    training.main(args)
    expected = defaults_by_count("bkd+", 12)
    said = "12 images: --image_size 32 --batch_size 32 --width 32 --folds 5 --detection posterior "
    assert said in capsys.readouterr().out
    options = json.loads(RunFolder.of(args).args.read_text())
    assert options["options"] | expected | {"n_epoch": 1} == options["options"]
    assert options["non_default_options"].keys() & {*expected} == {"n_epoch"}
    presets = [(count, defaults_by_count("bkd+", count)) for count in (100, 1_000, 10_000, 100_000)]
    steps = [preset["n_epoch"] * count / preset["batch_size"] for count, preset in presets]
    assert steps == sorted(steps)


def refused(script: ModuleType, tmp_path: Path, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        evaluate(script, tmp_path)


def test_data_that_changed_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture):
    pets = tmp_path / "pets"
    write_folder(pets, count=12)
    train(tmp_path, epochs=1)
    assert "36 training images of 3 classes (" in capsys.readouterr().out  # names and counts
    for script in (learning, detection):
        evaluate(script, tmp_path)
    image = next((pets / "train" / NAMES[0]).iterdir())
    image.rename(pets / "train" / NAMES[1] / f"moved_{image.name}")
    for script in (learning, detection):
        refused(script, tmp_path, "labels or images are not those of the run")
    for split in ("train", "test"):
        (pets / split / NAMES[0]).rename(pets / split / "zebra")
    for script in (learning, detection):
        refused(script, tmp_path, "the classes are not those of the run .*zebra")


def test_flags_of_another_run_and_unfinished_runs_are_refused(tmp_path: Path, capsys):
    write_folder(tmp_path / "pets", count=12)
    _, folder = train(tmp_path, epochs=1)
    write_array(folder.detection, ~np.load(folder.detection))
    refused(detection, tmp_path, "its flags are not those of predictions.npz")
    folder.training.unlink()
    refused(detection, tmp_path, "the run is not finished")
    with pytest.raises(SystemExit):
        clean.main([str(folder), "--take", "flagged", "--out", str(tmp_path / "out.csv")])
    assert "the run is not finished" in capsys.readouterr().err
