"""The three scripts and run.sh, end to end."""

import json
import os
import re
import signal
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import numpy as np
import pytest
import torch

import blind_knowledge_dist_training as training
import detection
import learning
from models import noise_split
from tests.conftest import NOISE, MadeUpCifar, training_options
from utils.options import detection_parser, learning_parser, parse_options
from utils.runs import run_folder

TOP = Path(__file__).parents[1]


def evaluate(script, *words: object) -> dict:
    parser = learning_parser() if script is learning else detection_parser()
    return script.main(parse_options(parser, [str(word) for word in words]))


def name_of(args) -> list[object]:
    """The words that name a run to the evaluation scripts."""
    names = ("dataset", "noise_type", "seed", "method", "results_dir", "data_dir")
    return [word for name in names for word in (f"--{name}", getattr(args, name))]


def call(*words: object) -> subprocess.CompletedProcess:
    command = [sys.executable, *map(str, words)]
    return subprocess.run(command, cwd=TOP, capture_output=True, text=True, timeout=300)


@pytest.mark.parametrize(
    ("made_up_cifar", "noise_type", "method"),
    [("cifar10", "worse", "bkd"), ("cifar10", "worse", "ce"), ("cifar100", "noisy100", "bkd")],
    indirect=["made_up_cifar"],
)
def test_planted_noise_is_found_in_made_up_archives(
    made_up_cifar: MadeUpCifar,
    noise_type: str,
    method: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
):
    # So short a run has no peak of its own: let epoch 5 be it. With the student attached to the
    # target, the robust phase lets classes vanish on so few images.
    monkeypatch.setattr(noise_split, "tipping_point", lambda curve: 5 if len(curve) == 8 else None)
    words = ["--data_dir", made_up_cifar.folder, "--noise_path", made_up_cifar.label_file]
    words += ["--dataset", made_up_cifar.dataset, "--noise_type", noise_type, "--method", method]
    words += ["--results_dir", tmp_path / "results", "--width", 4, "--n_epoch", 12]
    words += ["--batch_size", 25, "--lr", 0.02, "--detach_student_target"]
    args = training_options(*words)
    record = training.main(args)
    assert record["tipping_point"] == (5 if method == "bkd" else None)
    name = "cifar10_worst" if noise_type == "worse" else "cifar100_noisy100"
    folder = tmp_path / "results" / (f"{name}_seed_0" + ("_ce" if method == "ce" else ""))
    assert folder == run_folder(args)
    learnt = evaluate(learning, *name_of(args))
    found = evaluate(detection, *name_of(args))  # the label file is remembered by the run
    assert learnt["last"]["accuracy"] > 40 and learnt["last"]["epoch"] == 11
    assert found["images"] == 500
    assert found["wrong"] == (made_up_cifar.labels != made_up_cifar.clean_labels).sum()
    assert found["precision"] > 2 * NOISE and found["recall"] > 0.2
    assert found["roc_auc"] > 0.8 and found["average_precision"] > 2 * NOISE
    assert json.loads((folder / "learning.json").read_text()) == learnt
    assert json.loads((folder / "detection.json").read_text()) == found
    assert sum(row["wrong"] for row in found["per_class"]) == found["wrong"]
    assert ("cuts" in found) == (method == "bkd")
    assert len((folder / "suspects.csv").read_text().splitlines()) == 501
    recorded = json.loads((folder / "args.json").read_text())
    assert recorded["precision"] in ("fp32", "bf16") and recorded["options"]["precision"] == "auto"
    assert recorded["options"]["width"] == 4 and recorded["versions"]["torch"] == torch.__version__


def test_training_on_all_images(made_up_cifar: MadeUpCifar, tmp_path: Path):
    words = ["--data_dir", made_up_cifar.folder, "--noise_type", "clean", "--val_ratio", 0]
    words += ["--results_dir", tmp_path, "--width", 2, "--n_epoch", 1, "--limit_train", 500]
    args = training_options(*words)
    training.main(args)
    found = evaluate(detection, *name_of(args))
    assert found["images"] == 500 and found["wrong"] == 0 and found["roc_auc"] is None


def test_digits_reach_what_the_trials_did(digits_run, capsys):
    learnt, found = (evaluate(script, *name_of(digits_run)) for script in (learning, detection))
    assert learnt["last"]["accuracy"] > 96 and learnt["test_images"] == 500
    assert found["precision"] > 0.9 and 0.4 < found["recall"] < 0.9
    assert found["roc_auc"] > 0.95
    out = capsys.readouterr().out.splitlines()
    assert f"Best test acc selected by val is {learnt['last']['accuracy']:.2f}" in out
    assert out[-3:] == [
        f"precision is {found['precision']:.4f}",
        f"recall is {found['recall']:.4f}",
        f"The f-score is {found['f1']:.4f}",
    ]


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
    assert "nothing is learnt from the test images" in learnt["statistic"]
    assert f"statistic: {learnt['statistic']}" in out
    assert out[-1] == f"Best test acc selected by val is {learnt['last']['accuracy']:.2f}"
    assert max(map(len, out)) <= 130


def test_detection_shows_the_trade_off_between_the_cuts(digits_run, capsys):
    found = evaluate(detection, *name_of(digits_run))
    out = capsys.readouterr().out.splitlines()
    first, second, third = found["cuts"]
    assert [found[name] for name in ("flagged", "precision", "recall", "f1")] == [
        first[name] for name in ("flagged", "precision", "recall", "f1")
    ]
    assert first["recall"] < second["recall"] < third["recall"]
    assert first["below"] < second["below"] < third["below"]
    for row in found["cuts"]:
        (line,) = [line for line in out if line.lstrip().startswith(f"{row['flag']} ")][:1]
        figures = [f"{row[name]:.3f}" for name in ("below", "precision", "recall", "f1")]
        assert [word for word in line.split() if word.count(".") == 1] == figures
        assert f" {row['flagged']} " in line
    assert sum("by definition all below Otsu's threshold" in line for line in out) == 1


def test_cuts_that_flag_the_same_images_are_not_told_twice(capsys):
    row = {"flagged": 5, "precision": 0.6, "recall": 0.5, "f1": 0.545}
    rows = [
        row | {"flag": "group 4", "below": 0.2},
        row | {"flag": "groups 3 and 4", "below": 0.3},
        row | {"flag": "groups 2 to 4", "below": 0.9, "flagged": 7, "precision": 0.5},
    ]
    detection.report_cuts(rows)
    _, first, second, third, _ = capsys.readouterr().out.splitlines()
    assert "0.600" in first and "0.500" in third and "same" not in first + third
    assert second.endswith("5 the same images as group 4") and "0.600" not in second


def test_the_best_validation_networks_are_evaluated_and_named(digits_run, capsys):
    learnt = evaluate(learning, *name_of(digits_run))
    best = learnt["best_val"]
    record = json.loads((run_folder(digits_run) / "training.json").read_text())
    assert best["epoch"] == record["best_val_epoch"]
    assert f"{best['accuracy']:.2f} %  networks of the best noisy" in capsys.readouterr().out


def test_a_folder_of_two_checkpoints_alone_is_evaluated(digits_run, tmp_path: Path):
    own = run_folder(digits_run)
    for name in ("teacher.pth.tar", "student.pth.tar"):
        (tmp_path / name).write_bytes((own / name).read_bytes())
    learnt = evaluate(learning, "--dataset", "digits", "--run_dir", tmp_path)
    assert learnt["last"] == evaluate(learning, *name_of(digits_run))["last"]
    assert learnt["best_val"] is None


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda folder: (folder / "student.pth.tar").unlink(), "no such network"),
        (lambda folder: (folder / "student.pth.tar").write_bytes(b"PK\x03\x04"), "not a readable"),
        (lambda folder: torch.save({"a": 1}, folder / "teacher.pth.tar"), "no 'state_dict'"),
        (
            lambda folder: torch.save({"state_dict": {"a": 1}}, folder / "teacher.pth.tar"),
            "not the weights",
        ),
    ],
)
def test_broken_checkpoints_are_named(digits_run, tmp_path: Path, damage, message: str):
    for name in ("teacher.pth.tar", "student.pth.tar"):
        (tmp_path / name).write_bytes((run_folder(digits_run) / name).read_bytes())
    damage(tmp_path)
    with pytest.raises((ValueError, FileNotFoundError), match=message) as error:
        evaluate(learning, "--dataset", "digits", "--run_dir", tmp_path)
    assert "pth.tar" in str(error.value) and "\n" not in str(error.value)
    assert not (tmp_path / "learning.json").exists()


def test_networks_for_other_data_are_refused(digits_run, made_up_cifar, tmp_path: Path):
    for name in ("teacher.pth.tar", "student.pth.tar"):
        (tmp_path / name).write_bytes((run_folder(digits_run) / name).read_bytes())
    words = ("--run_dir", tmp_path, "--data_dir", made_up_cifar.folder)
    with pytest.raises(ValueError, match=r"has channels 1, the data set and the run have 3"):
        evaluate(learning, *words)


def test_only_the_scored_images_count_but_all_with_another_prediction(tmp_path: Path, capsys):
    words = ("--dataset", "digits", "--n_epoch", 2, "--limit_train", 200, "--results_dir", tmp_path)
    args = training_options(*words)
    training.main(args)
    found = evaluate(detection, *name_of(args))
    assert found["images"] == 200 and found["guess"] is True
    out = capsys.readouterr().out
    assert "200 of 1297 images" in out and "a guess" in out
    flags = np.zeros(1297, dtype=bool)
    flags[:3] = True
    np.save(tmp_path / "other.npy", flags)
    before = (run_folder(args) / "detection.json").read_text()
    other = evaluate(detection, *name_of(args), "--prediction", tmp_path / "other.npy")
    assert other["images"] == 1297 and other["flagged"] == 3
    assert (run_folder(args) / "detection.json").read_text() == before


def test_damaged_scores_are_named(digits_run, tmp_path: Path):
    for path in run_folder(digits_run).iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    whole = (tmp_path / "predictions.npz").read_bytes()
    middle = len(whole) // 2
    damaged = [b"", whole[:middle], whole[:middle] + b"x" * 64 + whole[middle + 64 :]]
    for content in damaged:
        (tmp_path / "predictions.npz").write_bytes(content)
        with pytest.raises(ValueError, match=r"predictions\.npz: not a whole"):
            evaluate(detection, *name_of(digits_run), "--run_dir", tmp_path)


def test_a_run_folder_of_another_run_is_refused(digits_run):
    folder = run_folder(digits_run)
    for script, option, value in (
        (learning, "method", "ce"),
        (detection, "seed", "3"),
        (detection, "noise_type", "worst"),
    ):
        words = ["--dataset", "digits", "--noise_type", "rand1", "--run_dir", folder]
        with pytest.raises(ValueError, match=rf"--{option} .*, not {value}"):
            evaluate(script, *words, f"--{option}", value)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (np.zeros(1296, dtype=bool), r"shape \(1296,\)"),
        (np.zeros((1297, 1), dtype=bool), r"shape \(1297, 1\)"),
        (np.zeros(1297), "type float64"),
        (np.array([None] * 1297), "not a whole .npy"),
        ("text", "not a whole .npy"),
        (None, "no such file"),
    ],
)
def test_other_predictions_must_be_one_boolean_an_image(tmp_path: Path, flags, message: str):
    path = tmp_path / "flags.npy"
    if isinstance(flags, str):
        path.write_text(flags)
    elif flags is not None:
        np.save(path, flags)
    with pytest.raises((ValueError, FileNotFoundError), match=message) as error:
        evaluate(detection, "--dataset", "digits", "--prediction", path)
    assert str(path) in str(error.value)


def test_a_run_on_other_labels_is_noticed(digits_run, tmp_path: Path):
    for name in ("detection.npy", "predictions.npz"):
        (tmp_path / name).write_bytes((run_folder(digits_run) / name).read_bytes())
    words = ("--dataset", "digits", "--noise_type", "worst", "--run_dir", tmp_path)
    with pytest.raises(ValueError, match="trained on other labels"):
        evaluate(detection, *words)


def test_a_missing_run_is_one_line_and_status_2(tmp_path: Path):
    for script in ("learning.py", "detection.py"):
        done = call(script, "--dataset", "digits", "--results_dir", tmp_path)
        assert done.returncode == 2 and done.stdout == ""
        assert done.stderr.count("\n") == 1 and "train it first" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_guess_has_its_own_exit_status(tmp_path: Path):
    words = ("--dataset", "digits", "--n_epoch", 1, "--limit_train", 100, "--results_dir", tmp_path)
    done = call("blind_knowledge_dist_training.py", *words)
    assert done.returncode == training.NO_TIPPING_POINT, done.stderr
    assert done.stderr == ""  # no progress bar where stderr is no terminal


def test_run_sh_goes_from_data_to_table_and_repeats_nothing(tmp_path: Path):
    environment = os.environ | {
        "PYTHON": sys.executable,
        "RESULTS_DIR": str(tmp_path / "results"),
        "SEEDS": "0",
        "LABEL_SETS": "rand1",
        "METHODS": "bkd",
    }

    def demo(*words: str) -> subprocess.CompletedProcess:
        command = ["bash", str(TOP / "run.sh"), "demo", "--n_epoch", "4", "--no_pictures", *words]
        return subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300
        )

    first = demo()
    assert first.returncode == 0, first.stdout + first.stderr
    folder = tmp_path / "results" / "digits_rand1_seed_0"
    logs = {stage: (folder / f"{stage}.log").read_text() for stage in stages()}
    for stage, last_line in stages().items():
        assert re.search(last_line, logs[stage]), logs[stage]
    assert re.search(r"^digits +rand1 +n_epoch=4 +bkd +1 +\d\d\.\d\d ", first.stdout, re.MULTILINE)
    assert "never" in first.stdout

    again = demo()
    assert again.returncode == 0 and "finished" in again.stdout
    assert logs == {stage: (folder / f"{stage}.log").read_text() for stage in stages()}
    other = demo("--lr", "0.5")
    assert other.returncode == 2 and "--lr 0.02 there, 0.5 here" in other.stdout


def stages() -> dict[str, str]:
    """What each stage's log must hold."""
    return {
        "training": r"epoch   3 .* clean test \d+\.\d\d % \d+\.\d s, 0:00 left\n",
        "learning": r"Best test acc selected by val is \d+\.\d\d\n$",
        "detection": r"The f-score is \d\.\d{4}\n$",
    }


@pytest.mark.skipif(torch.cuda.is_available(), reason="with CUDA the challenge just runs")
@pytest.mark.skipif(
    not (Path.home() / "data" / "cifar-10-batches-py").is_dir(), reason="needs CIFAR-10"
)
def test_run_sh_stops_without_cuda_and_says_how_long_it_would_take(tmp_path: Path):
    environment = os.environ | {"PYTHON": sys.executable, "RESULTS_DIR": str(tmp_path / "results")}
    environment.pop("ALLOW_CPU", None)
    done = subprocess.run(
        ["bash", str(TOP / "run.sh"), "challenge", "--width", "2"],
        env=environment | {"SEEDS": "0 1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 1, done.stdout + done.stderr
    assert re.search(r"300 epochs of 352 steps would take about \d+\.\d\d hours", done.stdout)
    assert "6 such runs" in done.stdout and not (tmp_path / "results").exists()


@pytest.fixture
def stand_in(tmp_path: Path) -> str:
    """A python for run.sh in which the three scripts take no time: tests/stand_in.py."""
    path = tmp_path / "python"
    path.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{TOP}/tests/stand_in.py" "$@"\n')
    path.chmod(0o755)
    return str(path)


def test_run_sh_measures_stops_where_something_looks_wrong_and_packs(tmp_path: Path, stand_in: str):
    results = tmp_path / "results"
    environment = os.environ | {"PYTHON": stand_in, "RESULTS_DIR": str(results), "ALLOW_CPU": "1"}
    environment |= {"STAGES": "bkd ce departures"}

    def measure(**more: str) -> subprocess.CompletedProcess:
        return subprocess.run(
            ["bash", str(TOP / "run.sh"), "measure", "--n_epoch", "7"],
            env=environment | more,
            capture_output=True,
            text=True,
            timeout=300,
        )

    first = measure()
    assert first.returncode == 2 and "the tipping point never came" in first.stderr
    assert "a run looks wrong, see above; look into that first" in first.stderr
    assert (results / "kept.tar.gz").exists() and not (results / "masked_mean").exists()
    assert not list(results.glob("challenge/*_ce"))

    second = measure(GO_ON="1")
    assert second.returncode == 0, second.stderr
    assert second.stdout.count("this run is finished") == 3
    assert second.stdout.splitlines()[-1].startswith(f"to keep: {results / 'kept.tar.gz'};")
    with tarfile.open(results / "kept.tar.gz") as archive:
        names = set(archive.getnames())
    runs = {f"challenge/cifar10_{labels}_seed_0" for labels in ("aggre", "rand1", "worst")}
    runs |= {f"{run}_ce" for run in runs}
    runs |= {f"{name}/cifar10_worst_seed_0" for name in ("detached_target", "masked_mean")}
    for run in runs:
        assert {f"kept/results/{run}/learning.json", f"kept/logs/{run}/detection.log"} <= names
        assert f"kept/{run.split('/')[0]}.md" in names
        options = json.loads((results / run / "args.json").read_text())["options"]
        assert options["n_epoch"] == 7 and options["method"] == ("ce" if "_ce" in run else "bkd")
        assert options["detach_student_target"] == run.startswith("detached_target")
        assert options["masked_mean"] == run.startswith("masked_mean")
    assert {path.parent for path in results.glob("*/*/args.json")} == {results / r for r in runs}


def test_run_sh_runs_several_at_a_time_and_goes_on_after_a_failure(tmp_path: Path, stand_in: str):
    results = tmp_path / "results"
    (results / "digits_aggre_seed_0_ce").mkdir(parents=True)
    (results / "digits_aggre_seed_0_ce" / "teacher.pth.tar").write_bytes(b"of unknown origin")
    environment = os.environ | {
        "PYTHON": stand_in,
        "RESULTS_DIR": str(results),
        "LABEL_SETS": "aggre rand1",
        "SEEDS": "0 1",
        "METHODS": "ce",
        "JOBS": "" if (os.cpu_count() or 1) > 1 else "2",  # "": as many as there are cores
    }
    done = subprocess.run(
        ["bash", str(TOP / "run.sh"), "demo", "--n_epoch", "1"],
        env=environment,
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 2 and "failed: aggre/ce/seed 0\n" in done.stderr
    assert "unknown origin" in (results / "digits_aggre_seed_0_ce" / "training.log").read_text()
    lines = done.stdout.splitlines()
    starts, ends = (
        [number for number, line in enumerate(lines) if re.search(words, line)]
        for words in (
            ": started$",
            r": finished, Best test acc selected by val is \d+\.\d+, The f-score is 0\.\d+$",
        )
    )
    assert len(starts) == 4 and len(ends) == 3
    failed = next(line for line in lines if line.startswith("aggre/ce/seed 0: failed: "))
    assert "unknown origin" in failed and failed.endswith(f"; its logs are in {results}")
    assert starts[:2] == [0, 1]  # before any has ended
    assert not any("epoch" in line for line in lines[: ends[-1]])  # these lines are in the logs
    for name in ("aggre_seed_1", "rand1_seed_0", "rand1_seed_1"):
        folder = results / f"digits_{name}_ce"
        assert "The f-score is" in (folder / "detection.log").read_text()
        assert re.search(r"epoch   0 .*clean test", (folder / "training.log").read_text())
    assert re.search(r"^digits +aggre .* ce +1 ", done.stdout, re.MULTILINE)
    assert re.search(r"^digits +rand1 .* ce +2 ", done.stdout, re.MULTILINE)


@pytest.mark.parametrize(
    ("jobs", "which", "status"), [("1", signal.SIGINT, 130), ("2", signal.SIGTERM, 143)]
)
def test_run_sh_hands_a_signal_on_and_goes_on_afterwards(
    jobs: str, which: int, status: int, tmp_path: Path
):
    environment = os.environ | {"PYTHON": sys.executable, "RESULTS_DIR": str(tmp_path)}
    environment |= {"SEEDS": "0 1", "LABEL_SETS": "rand1", "METHODS": "ce", "JOBS": jobs}
    environment |= {"OMP_NUM_THREADS": "1"}
    demo = ["bash", str(TOP / "run.sh"), "demo", "--n_epoch", "10", "--no_pictures"]
    words = [*demo, "--checkpoint_freq", "99"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    process = subprocess.Popen(
        words,
        env=environment,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # if it is ignored here
        **pipes,
    )
    logs = [tmp_path / f"digits_rand1_seed_{seed}_ce" / "training.log" for seed in range(int(jobs))]
    log = logs[0]
    end = time.monotonic() + 200
    while not all(each.exists() and "epoch   1" in each.read_text() for each in logs):
        assert time.monotonic() < end and process.poll() is None
        time.sleep(0.05)
    process.send_signal(which)
    said, _ = process.communicate(timeout=100)
    assert process.returncode == status
    assert said.count("the same command goes on from there\n") == int(jobs)
    assert "the same command goes on from there" in log.read_text()
    assert (log.parent / "checkpoint.pt").exists() and not (log.parent / "learning.log").exists()
    if jobs == "2":
        assert len(list(tmp_path.glob("*/checkpoint.pt"))) == 2  # both have written theirs
        return
    assert not (tmp_path / "digits_rand1_seed_1_ce").exists()  # nothing more was begun
    environment["SEEDS"] = "0"  # the other would only take time
    # How often a checkpoint is written is not part of a run.
    done = subprocess.run(demo, env=environment, text=True, timeout=300, **pipes)
    assert done.returncode == 0 and "going on from epoch" in log.read_text()
    assert not (log.parent / "checkpoint.pt").exists()
    assert (log.parent / "detection.json").exists()


HEAVY = ("torch", "torchvision", "numpy", "sklearn", "scipy", "tqdm", "PIL", "matplotlib")


@pytest.mark.parametrize(
    "script", ["blind_knowledge_dist_training", "learning", "detection", "benchmark"]
)
@pytest.mark.parametrize(("words", "status"), [(["--help"], 0), (["--width", "none"], 2)])
def test_help_and_wrong_options_import_nothing_heavy(
    script: str, words: list[str], status: int, tmp_path: Path
):
    for name in HEAVY:
        (tmp_path / f"{name}.py").write_text("raise SystemExit('imported')")
    environment = os.environ | {"PYTHONPATH": str(tmp_path)}
    command = [sys.executable, str(TOP / f"{script}.py"), *words]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == status, done.stderr
    assert ("usage" in done.stdout) if status == 0 else ("--width" in done.stderr)


def test_detection_needs_no_network():
    code = "import sys, detection; print([name for name in sys.modules if name[:6] == 'models'])"
    assert call("-c", code).stdout == "[]\n"


def test_the_quick_benchmark_measures_all_it_says(tmp_path: Path):
    words = ("--quick", "--rounds", 1, "--json", tmp_path / "there" / "figures.json")
    done = call("benchmark.py", *words)
    assert done.returncode == 0, done.stdout + done.stderr
    record = json.loads((tmp_path / "there" / "figures.json").read_text())
    for part in ("(a) loader", "(b) training step", "(c) scoring", "(d) epoch", "(e) matrix"):
        assert part in done.stdout
    seconds = record["seconds"]
    assert all(0 < row["low"] <= row["median"] <= row["high"] for row in seconds.values())
    # 16 channels, not 64: about a sixteenth of the full-size network's 0.557 G multiply-adds.
    assert record["step_operations"] == pytest.approx(6 * 2 * 128 * 0.557e9 / 16, rel=0.02)
    assert record["epoch_seconds"] == pytest.approx(352 * seconds["step"]["median"])
    assert record["run_seconds"] > 300 * record["epoch_seconds"]
    assert record["step_over_floor"] > 0.5 and record["machine"]["torch"] == torch.__version__


@pytest.mark.parametrize("jobs", ["0", "two", "-1"])
def test_run_sh_refuses_wrong_numbers_of_jobs(jobs: str):
    done = subprocess.run(
        ["bash", str(TOP / "run.sh"), "demo"],
        env=os.environ | {"JOBS": jobs},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 2 and f"JOBS={jobs}" in done.stderr


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["train"], "unknown command 'train'"),
        (["demo", "--seed", "3"], "--seed: say SEEDS="),
        (["demo", "--results_dir=there"], "say RESULTS_DIR="),
    ],
)
def test_run_sh_refuses_what_it_does_not_know(words: list[str], message: str):
    command = ["bash", str(TOP / "run.sh"), *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2 and message in done.stderr


def test_run_sh_finds_a_python_whose_path_has_spaces(tmp_path: Path):
    wrapper = tmp_path / "a b" / "python"
    wrapper.parent.mkdir()
    wrapper.write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
    wrapper.chmod(0o755)
    done = subprocess.run(
        ["bash", str(TOP / "run.sh"), "setup"],
        env=os.environ | {"PYTHON": str(wrapper)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.stdout == f"{wrapper}\n" and done.returncode == 0
