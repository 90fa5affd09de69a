"""The comparison with cleanlab; what needs that package is skipped without it."""

import json
from pathlib import Path

import numpy as np
import pytest

from docs.detection import compare_with_cleanlab
from docs.detection.compare_with_cleanlab import FILTERS, out_of_fold, table, train_folds
from utils.files import read_json
from utils.run_folder.folder import RunFolder
from utils.run_folder.predictions import Predictions
from utils.summary.markers import marked_texts
from utils.summary.table import as_markdown

IMAGES, CLASSES, FOLDS = 300, 4, 3


def predictions(seed: int = 0, **changes: np.ndarray | None) -> Predictions:
    """A finished run: a fifth of the labels is wrong, and the networks mostly see it."""
    generator = np.random.default_rng(0)
    true = generator.integers(0, CLASSES, IMAGES)
    wrong = generator.random(IMAGES) < 0.2
    label = np.where(wrong, (true + 1) % CLASSES, true)
    noise = np.random.default_rng(seed + 1)
    odds = np.exp(3 * np.eye(CLASSES)[true] + noise.normal(0, 1, (2, IMAGES, CLASSES)))
    teacher, student = odds / odds.sum(2, keepdims=True)
    agreement = teacher * student / (teacher * student).sum(1, keepdims=True)
    return Predictions(
        np.arange(IMAGES),
        label,
        np.array([f"class {k}" for k in range(CLASSES)]),
        true_label=true,
        final_agreement=agreement[np.arange(IMAGES), label],
        final_prediction=agreement.argmax(1),
        teacher_probabilities=teacher,
        student_probabilities=student,
    )._replace(**changes)


def write_run(folder: Path, predicted: Predictions) -> Path:
    run = RunFolder(folder)
    run.make()
    predicted.write(run.predictions)
    run.timing.write_text(json.dumps({"wall_seconds": 7.0}))
    return folder


def fold_of(tmp_path: Path, fold: int) -> Path:
    """A run that has held out every third image."""
    held_out = np.arange(IMAGES) % FOLDS == fold
    return write_run(tmp_path / f"fold_{fold}", predictions(fold + 1, held_out=held_out))


def test_each_image_has_the_probabilities_of_the_fold_that_held_it_out(tmp_path: Path):
    result = out_of_fold(predictions(), [fold_of(tmp_path, fold) for fold in range(FOLDS)])
    for row in (0, 1, 2, 150):
        assert np.allclose(result[row], predictions(row % FOLDS + 1).teacher_probabilities[row])
    other = write_run(tmp_path / "other", predictions(index=np.arange(IMAGES) + 1))
    with pytest.raises(ValueError, match="other images"):
        out_of_fold(predictions(), [other])


def test_folds_hold_out_each_image_once(tmp_path: Path):
    words = ("--dataset", "digits", "--width", "2", "--n_epoch", "1", "--seed", "7", "--no_plots")
    held_out = []
    for fold in train_folds(FOLDS, tmp_path, words):
        scored = Predictions.read(RunFolder(fold).predictions)
        assert len(scored.index) == 1297  # all are scored
        held_out.append(scored.index[scored.held_out])
    assert sorted(np.concatenate(held_out)) == [*range(1297)]


def test_against_cleanlab(tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch):
    pytest.importorskip("cleanlab")
    trained = []

    def train(*arguments: object) -> list[Path]:
        trained.append(arguments)
        return [fold_of(tmp_path, fold) for fold in range(FOLDS)]

    monkeypatch.setattr(compare_with_cleanlab, "train_folds", train)
    run = write_run(tmp_path / "run", predictions())
    text = tmp_path / "text.md"
    text.write_text("<!-- results made_up begin -->\n<!-- results made_up end -->\n")
    words = [str(run), "--json", str(tmp_path / "made_up.json"), "--into", str(text)]
    words += ["--folds", "3", "--results_dir", str(tmp_path), "--", "--n_epoch", "14"]
    assert compare_with_cleanlab.main(words) == 0
    assert trained == [(3, tmp_path, ["--n_epoch", "14"])]
    record = json.loads((tmp_path / "made_up.json").read_text())
    rows = {(row["probabilities"], row["found_by"]): row for row in record["rows"]}
    assert len(rows) == len(record["rows"]) == 1 + 2 * (len(FILTERS) + 3) + 3
    assert record["training_seconds"] == [7.0, 21.0] and record["images"] == IMAGES
    own = rows["this run's", "final"]
    assert own["f1"] > 0.9 and own["roc_auc"] > 0.9
    # On the mean of both networks the plain rule is cleanlab's too.
    same = rows["this run's", "cleanlab, filter predicted_neq_given"]
    assert same["f1"] == pytest.approx(own["f1"], abs=0.05)
    assert all(row["f1"] > 0.5 for row in record["rows"] if "f1" in row)
    ranked = [row for row in record["rows"] if "average_precision" in row]
    assert len(ranked) == 1 + 3 + 3 + 3
    assert all(row["average_precision"] > 0.8 for row in ranked)
    assert rows["3 folds'", "cleanlab, filter both"]["flagged"] > 0
    assert capsys.readouterr().out.strip() in text.read_text()


def test_tables_are_those_of_the_committed_metrics():
    docs = Path(__file__).parents[1] / "docs"
    shown = marked_texts((docs / "detection.md").read_text(encoding="utf-8"))
    assert set(shown) == {path.stem for path in (docs / "detection").glob("*.json")} != set()
    for name, text in shown.items():
        assert text == as_markdown(table(read_json(docs / "detection" / f"{name}.json"))), name


def test_runs_that_cannot_be_compared_are_told_in_one_line(tmp_path: Path, capsys):
    partly = write_run(tmp_path / "partly", predictions(true_label=predictions().true_label - 1))
    unknown = write_run(tmp_path / "run", predictions(true_label=None))
    for folder in (tmp_path / "nowhere", unknown, partly):
        with pytest.raises(SystemExit) as ended:
            compare_with_cleanlab.main([str(folder), "--json", str(tmp_path / "made_up.json")])
        error = capsys.readouterr().err
        assert ended.value.code == 2 and error.count("\n") == 1 and str(folder) in error
    assert not (tmp_path / "made_up.json").exists()


def test_a_file_that_is_no_earlier_output_is_kept_without_force(tmp_path: Path, capsys):
    file, nowhere = tmp_path / "notes.json", str(tmp_path / "nowhere")
    earlier = Path(compare_with_cleanlab.__file__).with_name("digits_worst.json").read_text()
    for content, words, refused in (("{}", [], True), ("{}", ["--force"], False), (earlier, [], 0)):
        file.write_text(content)
        with pytest.raises(SystemExit) as ended:
            compare_with_cleanlab.main([nowhere, "--json", str(file), *words])
        error = capsys.readouterr().err
        assert ended.value.code == 2 and file.read_text() == content
        assert ("exists and is no earlier output" in error) == bool(refused)
        assert (nowhere in error) != bool(refused)
