"""The three scripts and the benchmark, end to end."""

import json
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import blind_knowledge_dist_training as training
import detection
import learning
from models import noise_split
from tests.conftest import NOISE, TEST_DEVICE, TOP, MadeUpCifar, call, environment, train
from utils.files import read_columns, read_json
from utils.options.evaluation import detection_parser, learning_parser
from utils.run_folder.detection_report import report_cuts
from utils.run_folder.folder import RunFolder
from utils.run_folder.predictions import Predictions
from utils.summary.runs import read_runs

SCRIPTS = ("blind_knowledge_dist_training", "learning", "detection")


def evaluate(script, *words: object) -> dict:
    parser, device = detection_parser(), ()
    if script is learning:
        parser, device = learning_parser(), ("--device", TEST_DEVICE)
    return script.main(parser.parse_args([*map(str, (*device, *words))]))


def name_of(args) -> list[object]:
    """The words that name a run to the evaluation scripts."""
    names = ("dataset", "noise_type", "seed", "method", "results_dir", "data_dir")
    return [word for name in names for word in (f"--{name}", getattr(args, name))]


@pytest.mark.parametrize(
    ("made_up_cifar", "noise_type", "method"),
    [
        ("cifar10", "worse", "bkd"),
        ("cifar10", "worse", "bkd+"),
        ("cifar10", "worse", "ce"),
        ("cifar100", "noisy100", "bkd"),
    ],
    indirect=["made_up_cifar"],
)
def test_planted_noise_is_found(made_up_cifar, noise_type: str, method: str, tmp_path, monkeypatch):
    # So short a run has no peak of its own: let epoch 5 be it. With the student attached to the
    # target, the robust phase lets classes vanish on so few images.
    monkeypatch.setattr(noise_split, "tipping_point", lambda curve: 5 if len(curve) == 8 else None)
    name = ["--dataset", made_up_cifar.dataset, "--noise_type", noise_type, "--method", method]
    name += ["--data_dir", made_up_cifar.folder, "--noise_path", made_up_cifar.label_file]
    words = "--width 4 --n_epoch 10 --batch_size 25 --lr 0.02"
    words += "" if method == "ce" else " --detach_student_target"
    run, record = train(tmp_path / "results", words, *name)
    assert record["tipping_point"] == (None if method == "ce" else 5)
    folder = run.path
    labels = "cifar10_worst" if noise_type == "worse" else "cifar100_noisy100"
    assert folder.name == f"{labels}_seed_0" + ("" if method == "bkd" else f"_{method}")
    name = [*name[:-2], "--results_dir", tmp_path / "results"]  # the run remembers the label file
    learnt, found = (evaluate(script, *name) for script in (learning, detection))
    assert learnt["last"]["accuracy"] > 30 and learnt["last"]["epoch"] == 9
    assert found["images"] == 500
    assert found["wrong"] == (made_up_cifar.labels != made_up_cifar.clean_labels).sum()
    assert found["precision"] > 2 * NOISE and found["recall"] > 0.2
    assert found["roc_auc"] > 0.8 and found["average_precision"] > 2 * NOISE
    assert json.loads((folder / "learning.json").read_text()) == learnt
    assert json.loads((folder / "detection.json").read_text()) == found
    assert sum(row["wrong"] for row in found["per_class"]) == found["wrong"]
    assert ("cuts" in found) == (method != "ce")
    assert found["detection"] == ("split" if method == "bkd" else "final")
    assert list(found["detections"]) == ["split", "final", "ensemble"][method == "ce" :]
    assert found["detections"][found["detection"]].items() <= found.items()
    predictions = Predictions.read(folder / "predictions.npz")
    final, mean = predictions.final_prediction, predictions.mean_prediction
    assert found["detections"]["final"]["flagged"] == (final != predictions.label).sum()
    assert found["detections"]["ensemble"]["flagged"] == (mean != predictions.label).sum()
    # Of an image that was not trained on only the last networks know something.
    held_out = predictions.held_out
    agreements = predictions.final_agreement, predictions.mean_agreement
    assert held_out.sum() == 50 and np.array_equal(final[held_out], mean[held_out])
    assert np.array_equal(*(each[held_out] for each in agreements))
    assert not np.isclose(*(each[~held_out] for each in agreements)).all()
    if method != "ce":
        assert found["detections"]["split"]["flagged"] == (predictions.split_group == 4).sum()
    assert len((folder / "suspects.csv").read_text().splitlines()) == 501
    recorded = json.loads((folder / "args.json").read_text())
    assert recorded["precision"] in ("fp32", "bf16") and recorded["options"]["precision"] == "auto"
    assert recorded["options"]["width"] == 4 and recorded["versions"]["torch"] == torch.__version__


def test_training_on_all_images(made_up_cifar: MadeUpCifar, tmp_path: Path):
    name = ("--noise_type", "clean", "--data_dir", made_up_cifar.folder)
    train(tmp_path, "--val_ratio 0 --width 2 --n_epoch 1 --limit_train 500", *name)
    found = evaluate(detection, *name, "--results_dir", tmp_path)
    assert found["images"] == 500 and found["wrong"] == 0 and found["roc_auc"] is None


def test_digits_reach_the_committed_results(digits_run, capsys):
    """The run behind README's table, made again: what rounds differently ends a little apart."""
    own, (kept, _) = RunFolder.of(digits_run), read_runs(TOP / "docs" / "results" / "digits")
    (committed,) = [run for run in kept if run.name == own.path.name]
    learnt, found = (evaluate(script, *name_of(digits_run)) for script in (learning, detection))
    out = capsys.readouterr().out.splitlines()
    before = committed.value("learning", "last.accuracy")
    assert learnt["last"]["accuracy"] == pytest.approx(before, abs=1.5)
    for name, tolerance in {"precision": 0.1, "recall": 0.2, "f1": 0.2, "roc_auc": 0.05}.items():
        before = committed.value("detection_metrics", name)
        assert found[name] == pytest.approx(before, abs=tolerance), name
    for name in ("loss", "student_confidence"):
        curves = (read_columns(own.metrics), committed.metrics)
        first, other = ([float(cell) for cell in each[name][:3]] for each in curves)
        assert first == pytest.approx(other, abs=0.02), name
    assert f"Best test acc selected by val is {learnt['last']['accuracy']:.2f}" in out
    assert out[-3:] == [
        f"precision is {found['precision']:.4f}",
        f"recall is {found['recall']:.4f}",
        f"The f-score is {found['f1']:.4f}",
    ]


def test_the_method_beats_the_baseline_on_the_same_noise(digits_run, tmp_path: Path):
    name = ("--dataset", "digits", "--noise_type", "rand1", "--method", "ce")
    folders = RunFolder.of(digits_run), train(tmp_path, "--precision fp32", *name)[0]
    ours, theirs = (Predictions.read(folder.predictions) for folder in folders)
    assert np.array_equal(ours.label, theirs.label)
    assert np.array_equal(ours.true_label, theirs.true_label)
    names = name_of(digits_run), (*name, "--results_dir", tmp_path)
    ours, theirs = (evaluate(learning, *each)["last"]["accuracy"] for each in names)
    assert ours > theirs + 5
    ours, theirs = (evaluate(detection, *each)["f1"] for each in names)
    assert ours > theirs + 0.3


def test_learning_tells_where_the_accuracy_comes_from(digits_run, capsys):
    learnt = evaluate(learning, *name_of(digits_run))
    out = capsys.readouterr().out.splitlines()
    rows = learnt["per_class"]
    assert [row["label"] for row in rows] == [str(k) for k in range(10)]
    assert sum(row["images"] for row in rows) == learnt["test_images"] == 500
    right = sum(row["accuracy"] * row["images"] for row in rows) / 500
    assert right == pytest.approx(learnt["last"]["accuracy"])
    for row in rows:
        assert any(f"{row['label']} {row['accuracy']:6.2f}" in line for line in out)
    confused = learnt["most_confused"]
    mistakes = sum(round(row["images"] * (1 - row["accuracy"] / 100)) for row in rows)
    assert 1 <= len(confused) <= 2 and sum(row["images"] for row in confused) <= mistakes
    for row in confused:
        words = f"{row['true']} -> {row['predicted']}, {row['images']} of the {row['of']} images"
        assert sum(words in line for line in out) == 1
    best = learnt["best_val"]
    assert best["epoch"] == read_json(RunFolder.of(digits_run).training)["best_val_epoch"]
    assert any(f"{best['accuracy']:.2f} %  networks of the best noisy" in line for line in out)
    assert "nothing is learnt from the test images" in learnt["statistic"]
    assert f"statistic: {learnt['statistic']}" in out
    assert out[-1] == f"Best test acc selected by val is {learnt['last']['accuracy']:.2f}"
    assert max(map(len, out)) <= 130


def test_detection_shows_the_trade_off_between_the_cuts(digits_run, capsys):
    found = evaluate(detection, *name_of(digits_run))
    out = capsys.readouterr().out.splitlines()
    first, second, third = found["cuts"]
    for name in ("flagged", "precision", "recall", "f1"):
        assert found[name] == first[name]
    assert first["recall"] < second["recall"] < third["recall"]
    assert first["below"] < second["below"] < third["below"]
    for row in found["cuts"]:
        (line,) = [line for line in out if line.lstrip().startswith(f"{row['flag']} ")][:1]
        shown = [f"{row[name]:.3f}" for name in ("below", "precision", "recall", "f1")]
        assert [word for word in line.split() if word.count(".") == 1] == shown
        assert f" {row['flagged']} " in line
    assert sum("by definition all below Otsu's threshold" in line for line in out) == 1


def test_cuts_that_flag_the_same_images_are_not_told_twice(capsys):
    row = {"flagged": 5, "precision": 0.6, "recall": 0.5, "f1": 0.545}
    rows = [
        row | {"flag": "group 4", "below": 0.2},
        row | {"flag": "groups 3 and 4", "below": 0.3},
        row | {"flag": "groups 2 to 4", "below": 0.9, "flagged": 7, "precision": 0.5},
    ]
    report_cuts(rows)
    _, first, second, third, _ = capsys.readouterr().out.splitlines()
    assert "0.600" in first and "0.500" in third and "same" not in first + third
    assert second.endswith("5 the same images as group 4") and "0.600" not in second


def test_a_folder_of_two_checkpoints_alone_is_evaluated(digits_run, tmp_path: Path):
    own = RunFolder.of(digits_run).path
    for name in ("teacher.pth.tar", "student.pth.tar"):
        (tmp_path / name).write_bytes((own / name).read_bytes())
    learnt = evaluate(learning, "--dataset", "digits", "--run_dir", tmp_path)
    assert learnt["last"] == evaluate(learning, *name_of(digits_run))["last"]
    assert learnt["best_val"] is None


def test_a_run_folder_alone_names_its_run(digits_run, tmp_path: Path, capsys):
    """It is a run with --noise_type rand1, and the default of the option is worst."""
    own = RunFolder.of(digits_run).path
    parsers = (learning_parser(), detection_parser())
    for parser in parsers:
        args = parser.parse_args(["--run_dir", str(own)])
        for name in ("dataset", "noise_type", "seed", "method", "net"):
            assert getattr(args, name) == getattr(digits_run, name)
        assert parser.parse_args(["--run_dir", str(own), "--method", "ce"]).method == "ce"
        assert parser.parse_args(["--run_dir", str(tmp_path)]).noise_type == "worst"  # no run yet
    for content, said in (
        ("[]", "args.json: holds no JSON object"),
        ('{"options": {"dataset": "digit"}}', "argument --dataset: invalid choice: 'digit'"),
    ):
        (tmp_path / "args.json").write_text(content)
        for parser in parsers:
            with pytest.raises(SystemExit) as exit_:
                parser.parse_args(["--run_dir", str(tmp_path)])
            assert exit_.value.code == 2 and said in capsys.readouterr().err
    assert evaluate(detection, "--run_dir", own) == evaluate(detection, *name_of(digits_run))


def test_only_the_scored_images_count_but_all_with_another_prediction(tmp_path: Path, capsys):
    folder, _ = train(tmp_path, "--dataset digits --n_epoch 2 --limit_train 200")
    name = ("--dataset", "digits", "--results_dir", tmp_path)
    found = evaluate(detection, *name)
    assert found["images"] == 200 and found["fallback"] is True
    out = capsys.readouterr().out
    assert "200 of 1297 images" in out and "is a fallback" in out
    folder.predictions.unlink()  # training.json still knows
    assert evaluate(detection, *name)["fallback"] is True
    np.save(tmp_path / "other.npy", np.arange(1297) < 3)
    before = folder.detection_metrics.read_text()
    other = evaluate(detection, *name, "--prediction", tmp_path / "other.npy")
    assert other["images"] == 1297 and other["flagged"] == 3
    assert folder.detection_metrics.read_text() == before


def test_a_run_folder_of_another_run_is_refused(digits_run):
    folder = RunFolder.of(digits_run).path
    for script, option, value in (
        (learning, "method", "ce"),
        (detection, "seed", "3"),
        (detection, "noise_type", "worst"),
    ):
        words = ["--dataset", "digits", "--noise_type", "rand1", "--run_dir", folder]
        with pytest.raises(ValueError, match=rf"--{option} .*, not {value}"):
            evaluate(script, *words, f"--{option}", value)


def test_a_run_on_other_labels_is_noticed(digits_run, tmp_path: Path):
    for name in ("detection.npy", "predictions.npz"):
        (tmp_path / name).write_bytes((RunFolder.of(digits_run).path / name).read_bytes())
    words = ("--dataset", "digits", "--noise_type", "worst", "--run_dir", tmp_path)
    with pytest.raises(ValueError, match="trained on other labels"):
        evaluate(detection, *words)


def test_a_fallback_has_its_own_exit_status(tmp_path: Path):
    words = ("--dataset", "digits", "--n_epoch", 1, "--limit_train", 100, "--no_plots")
    done = call("blind_knowledge_dist_training.py", *words, "--results_dir", tmp_path)
    assert done.returncode == training.IN_DOUBT, done.stderr
    assert done.stderr == ""  # no progress bar where stderr is no terminal


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
@pytest.mark.parametrize(
    ("output", "status", "error"),
    [
        (">&-", 0, ""),
        (">&- 2>&-", 0, ""),
        ("> /dev/full", 0, "warning: stdout cannot be written (No space left on device)\n"),
        ("| true", 141, ""),
    ],
)
def test_an_output_that_cannot_be_written_leaves_no_traceback(
    output: str, status: int, error: str, digits_run, tmp_path: Path
):
    folder = shutil.copytree(RunFolder.of(digits_run).path, tmp_path / "run")
    (folder / "learning.json").unlink(missing_ok=True)
    line = f'"{sys.executable}" learning.py --run_dir "{folder}" {output}'
    line += "; exit ${PIPESTATUS[0]}"
    done = subprocess.run(["bash", "-c", line], cwd=TOP, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (status, error)
    assert (folder / "learning.json").exists() == (status == 0)


@pytest.mark.parametrize("script", SCRIPTS)
def test_a_wrong_option_ends_a_script(script: str):
    done = call(f"{script}.py", "--width", "none")
    assert done.returncode == 2 and "Traceback" not in done.stderr
    # torch may have said before that it has found no GPU
    assert done.stderr.splitlines()[-1].startswith(f"{script}.py: error: ")


@pytest.mark.parametrize("script", SCRIPTS)
def test_ctrl_c_during_the_imports_leaves_no_traceback(script: str, tmp_path: Path):
    """numpy is replaced by a module that interrupts its own import."""
    (tmp_path / "numpy.py").write_text("import os, signal\nos.kill(os.getpid(), signal.SIGINT)\n")
    done = subprocess.run(
        [sys.executable, str(TOP / f"{script}.py"), "--dataset", "digits"],
        env=environment(PYTHONPATH=str(tmp_path)),
        capture_output=True,
        timeout=60,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    assert done.returncode == -signal.SIGINT and done.stderr == b""


@pytest.mark.parametrize("script", SCRIPTS)
def test_an_old_torch_is_one_line(script: str, tmp_path: Path):
    (tmp_path / "torch-2.5.1.dist-info").mkdir()
    (tmp_path / "torch-2.5.1.dist-info" / "METADATA").write_text("Name: torch\nVersion: 2.5.1\n")
    done = call(f"{script}.py", "--help", PYTHONPATH=str(tmp_path))
    said = f"{script}.py: error: needs torch>=2.6, found 2.5.1; try bash run.sh setup\n"
    assert (done.returncode, done.stdout, done.stderr) == (2, "", said)


def test_detection_needs_no_network():
    code = "import sys, detection; print([name for name in sys.modules if name[:6] == 'models'])"
    assert call("-c", code).stdout == "[]\n"


def test_the_quick_benchmark_measures_all_it_promises(tmp_path: Path):
    path = tmp_path / "there" / "benchmark.json"
    words = ("--quick", "--rounds", 1, "--net", "compact", "--json", path)
    done = call("-m", "tests.benchmark", *words)
    assert done.returncode == 0, done.stdout + done.stderr
    rows = json.loads(path.read_text())["rows"]
    for name, (median, low, high) in rows.items():
        assert name in done.stdout and 0 < low <= median <= high
    step_ms, epoch = rows["training step, ms"][0], rows["epoch, s"][0]
    assert epoch == pytest.approx(352 * step_ms / 1e3)
    assert rows["18 epochs, 10 of them scored, min"][0] > 18 * epoch / 60
