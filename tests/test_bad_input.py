"""Every bad input: one line on stderr with the value and a hint, exit status 2, nothing written.

Options out of range are in test_options.py, label files in test_label_files.py, checkpoints in
test_faults.py; here the scripts themselves are given such things.
"""

from utils.startup import run_script

import os
import pickle
import shutil
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

import blind_knowledge_dist_training as training
import detection
import learning
from data.cifar_n import LABEL_FILES
from tests.conftest import TEST_DEVICE, Hostile, MadeUpCifar, training_options
from utils.options.evaluation import detection_parser, learning_parser
from utils.options.training import training_parser
from utils.run_folder.folder import RunFolder

PARSERS = {
    training: training_parser(),
    learning: learning_parser(),
    detection: detection_parser(),
}


def snapshot(folder: Path) -> dict[str, bytes | None]:
    """Everything below a folder but the logs."""
    paths = sorted(path for path in folder.rglob("*") if path.suffix != ".log")
    return {str(path): path.read_bytes() if path.is_file() else None for path in paths}


def told(
    script: ModuleType, words: list[object], folder: Path, capsys: pytest.CaptureFixture
) -> str:
    """The one line that the script says; below `folder` nothing may change."""
    before = snapshot(folder)
    capsys.readouterr()
    device = [] if script is detection else ["--device", TEST_DEVICE]
    with pytest.raises(SystemExit) as exit_:
        run_script(script.main, PARSERS[script].parse_args([*device, *map(str, words)]))
    said = capsys.readouterr().err
    assert exit_.value.code == 2
    assert said.count("\n") == 1 and "Traceback" not in said and "error: " in said, said
    assert snapshot(folder) == before
    return said


@pytest.mark.parametrize(
    ("words", "value", "hint"),
    [
        ("--dataset digits --limit_train 2000", "--limit_train 2000", "1297 training images"),
        ("--dataset digits --limit_train 63", "--limit_train 63", "smaller --batch_size"),
        ("--dataset digits --limit_train 4 --batch_size 4", "--limit_train 4", "another --seed"),
        ("--dataset digits --batch_size 16", "--batch_size 16", "choose another"),
        ("--dataset digits --device tpu", "--device tpu", "choose auto, cpu, cuda"),
        ("--dataset digits --device cuda:77", "--device cuda:77", "choose auto, cpu, cuda"),
        ("--dataset digits --precision tf32 --device cpu", "tf32", "choose auto, fp32 or bf16"),
        ("--dataset digits --checkpoint_freq 0", "0", "a whole number from 1"),
        ("--dataset digits --lr 1e30 --n_epoch 1 --measure_steps 5", "loss is", "nan"),
    ],
)
def test_training_options_that_do_not_go_together(
    words: str, value: str, hint: str, tmp_path: Path, capsys
):
    said = told(training, [*words.split(), "--results_dir", tmp_path / "new"], tmp_path, capsys)
    assert value in said and hint in said


def label_content(made_up: MadeUpCifar, **changes: object) -> dict[str, object]:
    return {"clean_label": made_up.clean_labels, "worse_label": made_up.labels} | changes


LABEL_FILE_DAMAGES: dict[str, tuple[Callable[[MadeUpCifar], object], str]] = {
    "missing": (lambda _: None, "check --noise_path"),
    "code": (lambda _: {"clean_label": Hostile()}, "not a readable label file"),
    "of other images": (lambda it: label_content(it, clean_label=it.labels), "clean labels"),
}


@pytest.mark.parametrize("what", LABEL_FILE_DAMAGES)
def test_label_files(what: str, made_up_cifar: MadeUpCifar, tmp_path: Path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    damage, message = LABEL_FILE_DAMAGES[what]
    content, path = damage(made_up_cifar), tmp_path / "own.pt"
    if content is not None:
        torch.save(content, path)
    words = ["--data_dir", made_up_cifar.folder, "--noise_path", path, "--results_dir", tmp_path]
    said = told(training, words, tmp_path, capsys)
    assert str(path) in said and message in said


def test_a_half_downloaded_label_file(made_up_cifar: MadeUpCifar, tmp_path: Path, capsys):
    path = made_up_cifar.folder / LABEL_FILES["cifar10"].name
    path.write_bytes(made_up_cifar.label_file.read_bytes()[:1000])
    words = ["--data_dir", made_up_cifar.folder, "--results_dir", tmp_path]
    said = told(training, words, tmp_path, capsys)
    assert str(path) in said and "remove it to download it again" in said


@pytest.mark.parametrize("script", [training, learning, detection])
def test_a_damaged_archive(script: ModuleType, made_up_cifar: MadeUpCifar, tmp_path: Path, capsys):
    (made_up_cifar.folder / "cifar-10-batches-py" / "data_batch_2").write_bytes(b"cut off")
    archive = made_up_cifar.folder / "cifar-10-python.tar.gz"
    archive.write_bytes(b"not what was published")
    (made_up_cifar.folder / ".lock").touch()
    (tmp_path / "cifar10_worst_seed_0").mkdir()
    words = ["--data_dir", made_up_cifar.folder, "--results_dir", tmp_path]
    said = told(script, words, tmp_path, capsys)
    assert str(archive) in said and "remove it to download it again" in said


def test_results_where_no_folder_can_be(tmp_path: Path, capsys):
    (tmp_path / "file").write_text("in the way")
    words = ["--dataset", "digits", "--results_dir", tmp_path / "file"]
    said = told(training, words, tmp_path, capsys)
    assert str(tmp_path / "file") in said and "choose another --results_dir" in said


@pytest.fixture
def run_copy(digits_run: Namespace, tmp_path: Path) -> tuple[Path, list[object]]:
    """A copy of a finished run, and the words that name it to the evaluation scripts."""
    folder = tmp_path / RunFolder.of(digits_run).path.name
    shutil.copytree(RunFolder.of(digits_run).path, folder)
    return folder, ["--dataset", "digits", "--noise_type", "rand1", "--results_dir", tmp_path]


def misshape(path: Path) -> None:
    content = torch.load(path, weights_only=True)
    content["state_dict"][FIRST] = content["state_dict"][FIRST][1:]
    torch.save(content, path)


FIRST = "layer1.0.conv1.weight"


@pytest.mark.parametrize("name", ["teacher.pth.tar", "student.pth.tar"])
@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (Path.unlink, "train it again with --restart"),
        (lambda path: torch.save({"state_dict": Hostile()}, path), "not a readable"),
        (misshape, FIRST),
    ],
    ids=["gone", "code", "misshapen"],
)
def test_networks(
    damage: Callable[[Path], object], message: str, name: str, run_copy, tmp_path: Path, capsys
):
    folder, words = run_copy
    damage(folder / name)
    said = told(learning, words, tmp_path, capsys)
    assert str(folder / name) in said and message in said


def test_a_run_of_another_width(run_copy, tmp_path: Path, capsys):
    folder, words = run_copy
    args = folder / "args.json"
    args.write_text(args.read_text().replace('"width": 16', '"width": 64'))
    said = told(learning, words, tmp_path, capsys)
    assert "has --width 16, the data set and the run have 64" in said


@pytest.mark.parametrize("script", [learning, detection])
@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"{", "not JSON"),
        (b"[1]", "no JSON object"),
        (b"\xff\xfe", "not JSON"),
        (b"[" * 100_000, "not JSON"),
        (b'{"options": {"dataset": "cifar10"}}', "--dataset cifar10, not digits"),
        (b'{"options": 3}', "does not name a run"),
    ],
)
def test_damaged_args(
    script: ModuleType, content: bytes, message: str, run_copy, tmp_path: Path, capsys
):
    folder, words = run_copy
    (folder / "args.json").write_bytes(content)
    said = told(script, words, tmp_path, capsys)
    assert str(folder) in said and message in said


def huge_npy() -> bytes:
    """A header that asks for more memory than there is."""
    header = b"{'descr': '<f8', 'fortran_order': False, 'shape': (10000000000000,)}"
    header += b" " * (117 - len(header)) + b"\n"
    return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header


FLAG_DAMAGES: dict[str, tuple[object, str]] = {
    "gone": (None, "no such file"),
    "short": (np.zeros(1296, dtype=bool), "shape (1296,)"),
    "numbers": (np.zeros(1297), "type float64"),
    "two columns": (np.zeros((1297, 2), dtype=bool), "shape (1297, 2)"),
    "text": (b"1\n0\n1\n", "not a whole .npy"),
    "empty": (b"", "not a whole .npy"),
    "huge": (huge_npy(), "not a whole .npy"),
    "pickle": (pickle.dumps(Hostile()), "not a whole .npy"),
}


@pytest.mark.parametrize("given", [False, True], ids=["detection.npy", "--prediction"])
@pytest.mark.parametrize("what", FLAG_DAMAGES)
def test_flags(what: str, given: bool, run_copy, tmp_path: Path, capsys):
    folder, words = run_copy
    content, message = FLAG_DAMAGES[what]
    path = tmp_path / "flags.npy" if given else folder / "detection.npy"
    path.unlink(missing_ok=True)
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content is not None:
        np.save(path, content)
    said = told(detection, [*words, *(["--prediction", path] if given else [])], tmp_path, capsys)
    assert str(path) in said and message in said


def test_a_prediction_that_is_no_file(tmp_path: Path, capsys):
    path = tmp_path / "flags.npy"
    words = ["--dataset", "digits", "--prediction", path]
    for message in ("no such file; check --prediction", "not a file; check --prediction"):
        said = told(detection, words, tmp_path, capsys)
        assert f"{path}: {message}" in said
        path.exists() or os.mkfifo(path)


@pytest.mark.parametrize("finished", [False, True])
def test_labels_that_have_changed_since_the_run_began(
    finished: bool, made_up_cifar: MadeUpCifar, tmp_path: Path, capsys
):
    words = ["--data_dir", made_up_cifar.folder, "--noise_path", made_up_cifar.label_file]
    words += ["--results_dir", tmp_path / "results", "--width", 2, "--n_epoch", 1]
    args = training_options(*words)
    for _ in range(2):  # with the same labels it is that run
        assert training.main(args)["epochs"] == 1
        if not finished:
            RunFolder.of(args).training.unlink()
    changed = np.roll(made_up_cifar.labels, 1)
    torch.save(label_content(made_up_cifar, worse_label=changed), made_up_cifar.label_file)
    said = told(training, words, tmp_path, capsys)
    assert "other labels behind --noise_path" in said and "--restart" in said


@pytest.mark.parametrize("script", [learning, detection])
def test_a_missing_run(script: ModuleType, tmp_path: Path, capsys):
    said = told(script, ["--dataset", "digits", "--results_dir", tmp_path], tmp_path, capsys)
    assert "digits_worst_seed_0: no such run folder; train it first" in said


@pytest.mark.parametrize(
    ("error", "script", "said"),
    [
        (torch.OutOfMemoryError("CUDA out of memory.\nTried 20 GiB"), training, " on cpu"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory"), training, " on cpu"),
        (MemoryError(), training, " on cpu"),
        (MemoryError(), detection, ""),  # has no --device
    ],
)
def test_out_of_memory_names_what_helps(error: Exception, script: ModuleType, said: str, capsys):
    def main(args: Namespace) -> None:
        raise error

    with pytest.raises(SystemExit) as exit_:
        run_script(main, PARSERS[script].parse_args(["--device", "cpu"] if said else []))
    line = capsys.readouterr().err
    assert exit_.value.code == 2 and line.count("\n") == 1
    assert f"error: out of memory{said}" in line
    assert ("--batch_size" in line and "--width" in line) == bool(said)


def test_too_large_a_network_is_out_of_memory(tmp_path: Path, capsys):
    words = ["--dataset", "digits", "--width", 10**7, "--results_dir", tmp_path]
    assert "out of memory" in told(training, words, tmp_path, capsys)


def test_our_own_mistakes_keep_their_traceback():
    def main(args: Namespace) -> None:
        raise RuntimeError("not of the input")

    with pytest.raises(RuntimeError, match="not of the input"):
        run_script(main, PARSERS[training].parse_args([]))
