"""Every bad input to a script: one line on stderr with a hint, status 2, nothing written."""

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

PARSERS = {training: training_parser(), learning: learning_parser(), detection: detection_parser()}


def snapshot(folder: Path) -> dict[str, bytes | None]:
    """Everything below a folder but the logs."""
    paths = (path for path in folder.rglob("*") if path.suffix != ".log")
    return {str(path): path.read_bytes() if path.is_file() else None for path in paths}


@pytest.fixture
def told(tmp_path: Path, capsys: pytest.CaptureFixture) -> Callable[..., str]:
    """Call a script; the one line that it says. Below `tmp_path` nothing may change."""

    def call(script: ModuleType, *words: object) -> str:
        before = snapshot(tmp_path)
        capsys.readouterr()
        device = [] if script is detection else ["--device", TEST_DEVICE]
        with pytest.raises(SystemExit) as exit_:
            run_script(script.main, PARSERS[script].parse_args([*device, *map(str, words)]))
        said = capsys.readouterr().err
        assert exit_.value.code == 2
        assert said.count("\n") == 1 and "Traceback" not in said and "error: " in said, said
        assert snapshot(tmp_path) == before
        return said

    return call


MISSING = "digits_worst_seed_0: no such run folder; train it first"


@pytest.mark.parametrize(
    ("script", "words", "value", "hint"),
    [
        (training, "--limit_train 2000", "--limit_train 2000", "1297 training images"),
        (training, "--limit_train 63", "--limit_train 63", "smaller --batch_size"),
        (training, "--limit_train 4 --batch_size 4", "--limit_train 4", "another --seed"),
        (training, "--batch_size 16", "--batch_size 16: gives a batch of one", "choose another"),
        (training, "--batch_size 1", "--batch_size 1: gives a batch of one", "choose another"),
        (training, "--device tpu", "--device tpu", "choose auto, cpu, cuda"),
        (training, "--precision tf32 --device cpu", "tf32", "choose auto, fp32 or bf16"),
        (training, "--checkpoint_freq 0", "0", "a whole number from 1"),
        (training, "--lr 1e30 --n_epoch 1 --measure_steps 5", "loss is", "nan"),
        (training, f"--width {3 * 10**6}", "error: ", "out of memory"),
        (learning, "", "new", MISSING),
        (detection, "", "new", MISSING),
    ],
)
def test_options_that_do_not_go_together(script, words: str, value: str, hint: str, told, tmp_path):
    said = told(script, "--dataset", "digits", *words.split(), "--results_dir", tmp_path / "new")
    assert value in said and hint in said


@pytest.mark.parametrize(
    ("name", "size", "message"),
    [
        ("own.pt", None, "check --noise_path"),
        (LABEL_FILES["cifar10"].name, 1000, "remove it to download it again"),
    ],
)
def test_label_files(name: str, size: int | None, message: str, made_up_cifar, told, tmp_path):
    path = made_up_cifar.folder / name
    if size:
        path.write_bytes(made_up_cifar.label_file.read_bytes()[:size])
    words = ["--data_dir", made_up_cifar.folder, "--results_dir", tmp_path]
    said = told(training, *words, *(["--noise_path", path] if name == "own.pt" else []))
    assert str(path) in said and message in said


@pytest.mark.parametrize("script", [training, learning, detection])
def test_a_damaged_archive(script: ModuleType, made_up_cifar: MadeUpCifar, told, tmp_path: Path):
    (made_up_cifar.folder / "cifar-10-batches-py" / "data_batch_2").write_bytes(b"cut off")
    archive = made_up_cifar.folder / "cifar-10-python.tar.gz"
    archive.write_bytes(b"not what was published")
    (made_up_cifar.folder / ".lock").touch()
    (tmp_path / "cifar10_worst_seed_0").mkdir()
    said = told(script, "--data_dir", made_up_cifar.folder, "--results_dir", tmp_path)
    assert str(archive) in said and "remove it to download it again" in said


def test_results_where_no_folder_can_be(told, tmp_path: Path):
    (tmp_path / "file").write_text("in the way")
    said = told(training, "--dataset", "digits", "--results_dir", tmp_path / "file")
    assert str(tmp_path / "file") in said and "choose another --results_dir" in said


@pytest.fixture
def run_copy(digits_run: Namespace, tmp_path: Path) -> tuple[Path, list[object]]:
    own = RunFolder.of(digits_run).path
    folder = shutil.copytree(own, tmp_path / own.name)
    return folder, ["--dataset", "digits", "--noise_type", "rand1", "--results_dir", tmp_path]


@pytest.mark.parametrize(
    ("name", "old", "new", "message"),
    [
        ("teacher.pth.tar", None, None, "train it again with --restart"),
        ("args.json", b'"width": 16', b'"width": 64', "has --width 16, the data set and the run"),
    ],
)
def test_networks(name: str, old: bytes | None, new: bytes, message: str, run_copy, told):
    folder, words = run_copy
    path = folder / name
    path.write_bytes(path.read_bytes().replace(old, new)) if old else path.unlink()
    said = told(learning, *words)
    assert str(folder / "teacher.pth.tar") in said and message in said


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
def test_damaged_args(script: ModuleType, content: bytes, message: str, run_copy, told):
    folder, words = run_copy
    (folder / "args.json").write_bytes(content)
    said = told(script, *words)
    assert str(folder) in said and message in said


def huge_npy() -> bytes:
    """A header that asks for more memory than there is."""
    header = b"{'descr': '<f8', 'fortran_order': False, 'shape': (10000000000000,)}"
    header += b" " * (117 - len(header)) + b"\n"
    return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header


NOT_WHOLE = "not a whole .npy"
FLAG_DAMAGES: dict[str, tuple[object, str]] = {
    "gone": (lambda path: None, "no such file; HINT"),
    "a pipe": (os.mkfifo, "not a file; HINT"),
    "short": (np.zeros(1296, dtype=bool), "shape (1296,)"),
    "numbers": (np.zeros(1297), "type float64"),
    "two columns": (np.zeros((1297, 2), dtype=bool), "shape (1297, 2)"),
    "text": (b"1\n0\n1\n", NOT_WHOLE),
    "empty": (b"", NOT_WHOLE),
    "huge": (huge_npy(), NOT_WHOLE),
    "pickle": (pickle.dumps(Hostile()), NOT_WHOLE),
}


@pytest.mark.parametrize("given", [False, True], ids=["detection.npy", "--prediction"])
@pytest.mark.parametrize("what", FLAG_DAMAGES)
def test_flags(what: str, given: bool, run_copy, told: Callable, tmp_path: Path):
    folder, words = run_copy
    content, message = FLAG_DAMAGES[what]
    path = tmp_path / "flags.npy" if given else folder / "detection.npy"
    path.unlink(missing_ok=True)
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif isinstance(content, np.ndarray):
        np.save(path, content)
    else:
        content(path)
    said = told(detection, *words, *(["--prediction", path] if given else []))
    message = message.replace("HINT", "check --prediction" if given else "train the run first")
    assert str(path) in said and message in said


@pytest.mark.parametrize("finished", [False, True])
def test_labels_changed_since_the_run_began(finished: bool, made_up_cifar, told, tmp_path):
    words = ["--data_dir", made_up_cifar.folder, "--noise_path", made_up_cifar.label_file]
    words += ["--results_dir", tmp_path / "results", "--width", 2, "--n_epoch", 1]
    args = training_options(*words)
    for _ in range(2):  # with the same labels it is that run
        assert training.main(args)["epochs"] == 1
        if not finished:
            RunFolder.of(args).training.unlink()
    changed = np.roll(made_up_cifar.labels, 1)
    content = {"clean_label": made_up_cifar.clean_labels, "worse_label": changed}
    torch.save(content, made_up_cifar.label_file)
    said = told(training, *words)
    assert "other labels in --noise_path" in said and "--restart" in said


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
