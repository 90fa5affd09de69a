"""What happens to runs: killed, stopped, started twice, out of disk, out of numbers."""

import csv
import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import blind_knowledge_dist_training as training
from tests import lives
from tests.conftest import devices, training_options
from tests.lives import Life, live, only_run, sums
from tests.test_training import tips_at
from utils.files import PARTIAL
from utils.run_folder.checkpoint import Checkpoint
from utils.run_folder.folder import RunFolder
from utils.run_folder.interruption import Interruption
from utils.run_folder.session import Session

STEPS = 21  # of an epoch of digits: 1297 images in batches of 64
DIGITS = ("--dataset", "digits", "--noise_type", "rand1", "--n_epoch", 12, "--checkpoint_freq", 1)
DIGITS += ("--noisy_val_freq", 3, "--clean_test_freq", 4)
SMALL = ("--dataset", "digits", "--n_epoch", 3, "--limit_train", 192, "--width", 4)
SMALL += ("--checkpoint_freq", 1, "--noisy_val_freq", 1)
KILLS = 30


@pytest.fixture(scope="module")
def whole_run(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The digests of a run that nothing happened to."""
    results = tmp_path_factory.mktemp("whole") / "results"
    status, said = live(results, *DIGITS)
    assert status == 0, said
    return sums(only_run(results))


@pytest.fixture(scope="module")
def whole_small_run(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    results = tmp_path_factory.mktemp("whole") / "results"
    status, said = live(results, *SMALL)
    assert status == training.NO_TIPPING_POINT, said
    return sums(only_run(results))


def epochs_of(folder: Path) -> list[int]:
    with open(folder / "metrics.csv", newline="") as file:
        return [int(row["epoch"]) for row in csv.DictReader(file)]


def test_a_run_killed_thirty_times_ends_as_if_nothing_had_been(tmp_path: Path, whole_run: dict):
    results, chance = tmp_path / "results", lives.chances(1)
    statuses = []
    for _ in range(KILLS):
        step, seconds = chance.randrange(STEPS + 9), chance.uniform(0, 0.05)
        statuses.append(live(results, *DIGITS, fate=(lives.kill_soon_after_step, step, seconds))[0])
    assert statuses == [-signal.SIGKILL] * KILLS
    assert not (only_run(results) / "training.json").exists()
    status, said = live(results, *DIGITS)
    assert status == 0 and "resuming from epoch" in said
    folder = only_run(results)
    assert sums(folder) == whole_run
    assert epochs_of(folder) == list(range(12))
    assert {path.name for path in folder.iterdir()} == {*whole_run, *lives.DIFFERENT}


def test_signals_lose_not_one_step(tmp_path: Path, whole_run: dict):
    results, chance, done = tmp_path / "results", lives.chances(2), 0
    for number, status in [(signal.SIGTERM, 143), (signal.SIGINT, 130), (signal.SIGHUP, 129)] * 2:
        step = chance.randrange(2 * STEPS - 2)
        left, said = live(results, *DIGITS, fate=(lives.signal_at_step, step, number))
        assert left == status, said
        done += step + 1
        epoch, steps = divmod(done, STEPS)
        place = f"in epoch {epoch} after {steps} of {STEPS} steps"
        if steps == 0:  # before or after the scoring of the epoch
            place = place, f"in epoch {epoch - 1} after {STEPS} of {STEPS} steps"
        assert any(each in said for each in ([place] if steps else place)), (done, said)
        assert "the same command resumes from there" in said
        assert (only_run(results) / "checkpoint.pt").exists()
    status, said = live(results, *DIGITS)
    assert status == 0 and f"resuming from epoch {done // STEPS}, step {done % STEPS}" in said
    assert sums(only_run(results)) == whole_run


def test_the_second_signal_ends_it_at_once(tmp_path: Path):
    flag = tmp_path / "flag"
    life = Life(tmp_path / "results", SMALL, (lives.wait_at_step, 4, flag))
    wait_for(flag)
    os.kill(life.process.pid, signal.SIGTERM)
    wait_until(lambda: "stopping after this step" in life.said())  # else the two would be one
    time.sleep(0.5)
    assert life.process.is_alive()
    os.kill(life.process.pid, signal.SIGTERM)
    assert life.end(10) == -signal.SIGTERM


def test_an_ignored_signal_stays_ignored():
    """As SIGHUP under nohup."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with Interruption() as interruption:
            assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
            os.kill(os.getpid(), signal.SIGHUP)
            interruption.check()
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_closed_terminal_costs_no_step(tmp_path: Path, whole_small_run: dict):
    """The system closes it first: neither of both outputs can be written to any more."""
    status, _ = live(tmp_path / "results", *SMALL, fate=(lives.hang_up_at_step, 4))
    assert status == 128 + signal.SIGHUP
    assert (only_run(tmp_path / "results") / "checkpoint.pt").exists()
    status, said = live(tmp_path / "results", *SMALL)
    assert "resuming from epoch 1" in said
    assert sums(only_run(tmp_path / "results")) == whole_small_run


def wait_for(flag: Path) -> None:
    wait_until(flag.exists)


def wait_until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_a_kill_at_any_write_loses_nothing(tmp_path: Path, whole_small_run: dict, after: bool):
    for number in range(100):
        results = tmp_path / str(number)
        status, said = live(results, *SMALL, fate=(lives.kill_at_write, number, after))
        if status != -signal.SIGKILL:
            break
        status, said = live(results, *SMALL)
        assert status == training.NO_TIPPING_POINT or "is finished" in said, said
        if "is finished" not in said:
            assert not list(only_run(results).glob(f".*{PARTIAL}"))
        found = sums(only_run(results))
        for name in ("checkpoint.pt", "lock.json"):  # killed between the last write and tidying up
            found.pop(name, None)
        assert found == whole_small_run, number
    assert number > len(whole_small_run)  # every file was written at least once


def test_the_baseline_resumes_too(tmp_path: Path):
    words = (*SMALL, "--method", "ce")
    assert live(tmp_path / "whole", *words)[0] == 0
    for step in (1, 3, 1):
        status, said = live(
            tmp_path / "cut", *words, fate=(lives.signal_at_step, step, signal.SIGTERM)
        )
        assert status == 143, said
    assert live(tmp_path / "cut", *words)[0] == 0
    assert sums(only_run(tmp_path / "cut")) == sums(only_run(tmp_path / "whole"))


def train_with_a_break(results: Path, *words: object, batch: int = 4) -> Path:
    """In this process: stopped before that batch, of whatever pass it is, then resumed."""
    args = training_options(*words, "--results_dir", results)
    check, calls = Interruption.check, iter(range(10**9))

    def stop_once(self: Interruption) -> None:
        if next(calls) == batch:
            self.number = signal.SIGTERM
        check(self)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Interruption, "check", stop_once)
        with pytest.raises(SystemExit) as stopped:
            training.main(args)
        assert stopped.value.code == 143
        training.main(args)
    return RunFolder.of(args).path


@devices
def test_augmented_images_in_the_middle_of_an_epoch(device: str, tmp_path: Path, made_up_cifar):
    words = ["--data_dir", made_up_cifar.folder, "--noise_path", made_up_cifar.label_file]
    words += ["--width", 4, "--n_epoch", 2, "--batch_size", 50, "--device", device]
    words += ["--deterministic"] if device == "cuda" else []
    args = training_options(*words, "--results_dir", tmp_path / "whole")
    training.main(args)
    folder = train_with_a_break(tmp_path / "cut", *words)
    assert sums(folder) == sums(RunFolder.of(args).path)
    torch.use_deterministic_algorithms(False)


@devices
@pytest.mark.parametrize("method", ["bkd", "bkd+", "ce"])
@pytest.mark.parametrize("batch", [4, 35, 71])
def test_compact_networks_resume_in_each_phase(
    device: str, method: str, batch: int, made_up_cifar, tmp_path: Path, monkeypatch
):
    """In the warm-up, before and after the tipping point, by which images and rate change."""
    tips_at(monkeypatch, 3)  # found after 66 batches
    words = ["--data_dir", made_up_cifar.folder, "--noise_path", made_up_cifar.label_file]
    words += ["--net", "compact", "--width", 4, "--n_epoch", 8, "--batch_size", 50]
    words += ["--method", method, "--device", device]
    words += ["--mixup", 0.5] if method == "bkd+" else []
    words += ["--deterministic"] if device == "cuda" else []
    args = training_options(*words, "--results_dir", tmp_path / "whole")
    training.main(args)
    folder = train_with_a_break(tmp_path / "cut", *words, batch=batch)
    assert sums(folder) == sums(RunFolder.of(args).path)
    torch.use_deterministic_algorithms(False)


@pytest.mark.parametrize("method", ["bkd", "bkd+", "ce"])
def test_a_stop_in_the_last_scoring_behind_all_epochs(method: str, tmp_path: Path, monkeypatch):
    tips_at(monkeypatch, 3)
    words = ["--dataset", "digits", "--method", method, "--n_epoch", 7, "--limit_train", 200]
    words += ["--ema_decay", 0.9] if method == "bkd+" else []
    args = training_options(*words, "--results_dir", tmp_path / "whole")
    check, calls = Interruption.check, []

    def count(self: Interruption) -> None:
        calls.append(1)
        check(self)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Interruption, "check", count)
        training.main(args)
    folder = train_with_a_break(tmp_path / "cut", *words, batch=len(calls) - 1)
    assert "resuming from epoch 7, step 0" in (folder / "training.log").read_text()
    assert sums(folder) == sums(RunFolder.of(args).path)


def test_a_second_process_is_told_of_the_first(tmp_path: Path, whole_small_run: dict):
    results, flag = tmp_path / "results", tmp_path / "flag"
    first = Life(results, SMALL, (lives.wait_at_step, 4, flag))
    wait_for(flag)
    before = sums(only_run(results))
    status, said = live(tmp_path / "results", *SMALL)
    assert status == 2 and said.count("\n") == 1
    assert f"process {first.process.pid} on {lives.host()}" in said
    assert live(results, *SMALL, "--restart")[0] == 2  # nor is it moved away
    assert sums(only_run(results)) == before and not (results / "replaced").exists()
    first.process.kill()
    first.end()
    assert (only_run(results) / "lock.json").exists()  # a dead one's is taken over
    status, said = live(results, *SMALL)
    assert status == training.NO_TIPPING_POINT and "resuming from epoch 1" in said
    assert sums(only_run(results)) == whole_small_run


def test_a_full_disk_loses_nothing(tmp_path: Path, whole_small_run: dict):
    results = tmp_path / "results"
    live(results, *SMALL, fate=(lives.signal_at_step, 4, signal.SIGTERM))
    folder = only_run(results)
    before = sums(folder)
    size = (folder / "checkpoint.pt").stat().st_size
    status, said = live(results, *SMALL, fate=(lives.limit_file_size, size // 2))
    assert status == 2
    assert said.splitlines()[-1].startswith(f"training.py: error: {folder / 'checkpoint.pt'}: ")
    assert "File too large" in said and "Traceback" not in said
    kept = ("checkpoint.pt", "args.json")
    assert {name: sums(folder)[name] for name in kept if name in before} == {
        name: before[name] for name in kept if name in before
    }
    assert not list(folder.glob(f".*{PARTIAL}"))
    live(results, *SMALL)
    assert sums(folder) == whole_small_run


@pytest.fixture
def tiny_disk(tmp_path: Path):
    """A folder on a disk of its own, with room for half a run."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=600k", "tmpfs", str(folder)]
    try:
        done = subprocess.run(command, capture_output=True)
    except OSError:
        pytest.skip("no mount command")
    if done.returncode:
        pytest.skip("file systems cannot be mounted here")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_disk_that_fills_up(tiny_disk: Path, whole_small_run: dict):
    status, said = live(tiny_disk / "results", *SMALL)
    assert status == 2 and "No space left on device" in said and "Traceback" not in said
    folder = only_run(tiny_disk / "results")
    assert str(folder) in said.splitlines()[-1]
    (tiny_disk / "results.log").unlink()
    subprocess.run(["mount", "-o", "remount,size=20m", str(tiny_disk)], check=True)
    live(tiny_disk / "results", *SMALL)
    assert sums(folder) == whole_small_run


def test_a_vanished_folder_is_named(tmp_path: Path):
    results, flag = tmp_path / "results", tmp_path / "flag"
    life = Life(results, SMALL, (lives.wait_at_step, 1, flag))
    wait_for(flag)
    life.process.kill()
    life.end()

    log_epoch = Session.log_epoch

    def remove_folder(*arguments: object, **more: object) -> None:
        for path in folder.iterdir():
            path.unlink()
        folder.rmdir()
        log_epoch(*arguments, **more)

    folder = only_run(results)
    args = training_options(*SMALL, "--results_dir", results)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Session, "log_epoch", remove_folder)
        with pytest.raises(OSError, match="cannot be written") as error:
            training.main(args)
    assert str(folder) in str(error.value) and "No such file" in str(error.value)


@pytest.mark.parametrize(
    ("fate", "message"),
    [
        # In the last step of epoch 1, in the first of epoch 2, and there with a signal behind it.
        ((lives.lose_a_number, 0), "epoch 1, after its last step: there are weights that are not"),
        ((lives.lose_a_number, 1), "epoch 2, step 1: the loss is nan"),
        ((lives.lose_a_number_and_stop, 1), "epoch 2, networks: numbers that are not finite"),
    ],
)
def test_numbers_that_are_lost_overwrite_nothing(
    tmp_path: Path, whole_small_run: dict, fate: tuple, message: str
):
    results = tmp_path / "results"
    live(results, *SMALL, fate=(lives.signal_at_step, 4, signal.SIGTERM))
    checkpoint = only_run(results) / "checkpoint.pt"
    before = checkpoint.read_bytes()
    status, said = live(results, *SMALL, fate=fate)
    last = said.splitlines()[-1]
    assert status == 2 and "Traceback" not in said
    assert message in last and f"the last good checkpoint is {checkpoint}" in last
    assert "--lr" in last
    assert (checkpoint.read_bytes() == before) == ("epoch 1" in message)
    live(results, *SMALL)
    assert sums(only_run(results)) == whole_small_run


def test_another_command_names_what_differs_and_restart_moves_it_replaced(tmp_path: Path):
    results = tmp_path / "results"
    live(results, *SMALL, fate=(lives.signal_at_step, 4, signal.SIGTERM))
    folder = only_run(results)
    before = sums(folder)
    status, said = live(results, *SMALL, "--lr", 0.5, "--alpha1", 0.2)
    assert status == 2 and said.count("\n") == 1 and "--restart" in said
    assert "--lr 0.02 there, 0.5 here" in said and "--alpha1 0.3 there, 0.2 here" in said
    assert sums(folder) == before
    status, said = live(
        results, *SMALL, "--checkpoint_freq", 7, "--quiet", "--lr", 0.5, "--restart"
    )
    assert status == training.NO_TIPPING_POINT, said
    replaced = results / "replaced" / f"{folder.name}_1"
    assert sums(replaced) == before and str(replaced) in said and "resuming" not in said
    live(results, *SMALL, "--restart")
    assert {path.name for path in replaced.parent.iterdir()} == {
        f"{folder.name}_{n}" for n in (1, 2)
    }


def test_a_finished_run_says_so_and_does_nothing(tmp_path: Path):
    results = tmp_path / "results"
    live(results, *SMALL)
    folder = only_run(results)
    before = {path: path.stat().st_mtime_ns for path in [folder, *folder.iterdir()]}
    status, said = live(results, *SMALL)
    assert status == training.NO_TIPPING_POINT and said.endswith("this run is finished\n")
    assert before == {path: path.stat().st_mtime_ns for path in [folder, *folder.iterdir()]}


def spoil(content: dict, what: str) -> dict:
    """A checkpoint that is wrong in one way."""
    networks, statistics = content["parts"]["networks"], content["parts"]["statistics"]
    name = "teacher.layer1.0.conv1.weight"
    if what == "without a tensor":
        del networks[name]
    elif what == "with a tensor too many":
        networks["teacher.more"] = torch.zeros(3)
    elif what == "misshapen":
        networks[name] = networks[name][:1]
    elif what == "another size":
        statistics["agreement"] = statistics["agreement"][:-1]
    elif what == "without a part":
        del content["parts"]["monitor"]
    elif what == "of another seed":
        content["run"]["--seed"] = 7
    elif what == "of another device":
        content["run"]["device"] = "tpu"
    elif what == "text for a number":
        content["parts"]["session"]["epoch"] = "many"
    elif what == "empty":
        content.clear()
    return content


WAYS = ["without a tensor", "with a tensor too many", "misshapen", "a flipped bit"]
WAYS += ["another size", "without a part", "of another seed", "of another device"]
WAYS += ["text for a number", "empty", "cut off", "a page", "code", "nothing"]


class Hostile:
    """Would make a file if it were unpickled."""

    def __reduce__(self) -> tuple:
        return os.system, ("touch hostile",)


@pytest.mark.parametrize("what", WAYS)
def test_a_checkpoint_that_does_not_fit_is_refused(
    what: str, tmp_path: Path, stopped_run: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    path = only_run(stopped_run) / "checkpoint.pt"
    good = path.read_bytes()
    if what == "cut off":
        path.write_bytes(good[: len(good) // 2])
    elif what == "a page":
        path.write_bytes(b"<!DOCTYPE html>\n<title>404</title>")
    elif what == "nothing":
        path.write_bytes(b"")
    elif what == "a flipped bit":  # in the middle of the numbers
        path.write_bytes(
            good[: len(good) // 2] + bytes([good[len(good) // 2] ^ 1]) + good[len(good) // 2 + 1 :]
        )
    elif what == "code":
        torch.save({"run": Hostile(), "parts": {}}, path)
    else:
        torch.save(spoil(torch.load(path, weights_only=True), what), path)
    before = sums(path.parent)
    args = training_options(*SMALL, "--results_dir", stopped_run)
    with pytest.raises(ValueError) as error:
        training.main(args)
    assert str(path) in str(error.value) and "--restart" in str(error.value)
    assert "\n" not in str(error.value)
    assert sums(path.parent) == before and not (tmp_path / "hostile").exists()
    path.write_bytes(good)


@pytest.fixture(scope="module")
def stopped_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Results folder with a run that was stopped after two steps of its second epoch."""
    results = tmp_path_factory.mktemp("stopped") / "results"
    live(results, *SMALL, fate=(lives.signal_at_step, 4, signal.SIGTERM))
    return results


def test_a_checkpoint_holds_the_versions_it_was_made_with(stopped_run: Path):
    content = torch.load(only_run(stopped_run) / "checkpoint.pt", weights_only=True)
    assert content["versions"]["torch"] == torch.__version__


def test_what_is_not_finite_is_never_saved(tmp_path: Path):
    layer = torch.nn.Linear(2, 2)
    checkpoint = Checkpoint(tmp_path / "checkpoint.pt", {}, {"networks": layer}, {})
    checkpoint.save()
    good = checkpoint.path.read_bytes()
    layer.weight.data[0, 0] = float("inf")
    with pytest.raises(FloatingPointError, match="networks"):
        checkpoint.save()
    assert checkpoint.path.read_bytes() == good


def test_a_run_that_another_process_has_just_finished_is_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
):
    args = training_options(*SMALL, "--results_dir", tmp_path)
    make, record = RunFolder.make, {}

    def finish_it_first(folder: RunFolder) -> None:
        monkeypatch.setattr(RunFolder, "make", make)
        record.update(training.main(args))
        record["sums"] = sums(folder.path)

    monkeypatch.setattr(RunFolder, "make", finish_it_first)
    training.main(args)
    assert "this run is finished" in capsys.readouterr().out
    assert sums(RunFolder.of(args).path) == record["sums"]
