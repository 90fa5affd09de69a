"""What happens to runs: killed, stopped, started twice, changed, out of disk, out of numbers."""

import errno
import fcntl
import os
import random
import re
import shutil
import signal
import socket
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import blind_knowledge_dist_training as training
from tests import lives
from tests.conftest import Hostile, devices, training_options
from tests.lives import Life, live, only_run, sums, wait_until
from tests.test_training import tips_at
from utils.files import PARTIAL, read_columns, read_json, write_json
from utils.lock import HOLDER, LOCK, locked
from utils.run_folder.description import Description
from utils.run_folder.folder import RunFolder
from utils.run_folder.interruption import Interruption, handled_by
from utils.run_folder.session import Session

STEPS = 21  # of an epoch of digits: 1297 images in batches of 64
DIGITS = ("--dataset", "digits", "--noise_type", "rand1", "--n_epoch", 12, "--checkpoint_freq", 1)
DIGITS += ("--noisy_val_freq", 3, "--clean_test_freq", 4)
SMALL = ("--dataset", "digits", "--n_epoch", 3, "--limit_train", 192, "--width", 4)
SMALL += ("--checkpoint_freq", 1, "--noisy_val_freq", 1)
COMPACT = "--net compact --width 4 --n_epoch 8 --method"
KILLS = 30


def whole(folder: Path, status: int, *words: object) -> dict[str, str]:
    """The digests of a run that nothing happened to."""
    left, said = live(folder / "results", *words)
    assert left == status, said
    return sums(only_run(folder / "results"))


@pytest.fixture(scope="module")
def whole_run(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return whole(tmp_path_factory.mktemp("whole"), 0, *DIGITS)


@pytest.fixture(scope="module")
def whole_small_run(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return whole(tmp_path_factory.mktemp("whole"), training.IN_DOUBT, *SMALL)


@pytest.fixture(scope="module")
def stopped_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    results = tmp_path_factory.mktemp("stopped") / "results"
    status, said = live(results, *SMALL, fate=(lives.signal_at_step, 4, signal.SIGTERM))
    assert status == 128 + signal.SIGTERM, said
    return results


@pytest.fixture
def stopped(stopped_once: Path, tmp_path: Path) -> Path:
    """Results folder with a run that was stopped after two steps of its second epoch."""
    return shutil.copytree(stopped_once, tmp_path / "results")


def test_a_run_killed_thirty_times_ends_as_if_nothing_had_been(tmp_path: Path, whole_run: dict):
    results, chance = tmp_path / "results", random.Random(1)
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
    assert read_columns(folder / "metrics.csv")["epoch"] == [str(epoch) for epoch in range(12)]
    assert {path.name for path in folder.iterdir()} == {*whole_run, *lives.DIFFERENT}


@pytest.mark.cuda
def test_runs_on_cuda_end_in_many_ways_and_resume(tmp_path: Path):
    words = (*SMALL, "--device", "cuda", "--deterministic")
    expected = whole(tmp_path, training.IN_DOUBT, *words)
    for fate, status in (
        ((lives.signal_at_step, 4, signal.SIGKILL), -signal.SIGKILL),
        ((lives.signal_at_step, 1, signal.SIGTERM), 128 + signal.SIGTERM),
        ((lives.kill_at_write, 2, False), -signal.SIGKILL),
    ):
        left, said = live(tmp_path / "cut", *words, fate=fate)
        assert left == status, said
    status, said = live(tmp_path / "cut", *words)
    assert status == training.IN_DOUBT and "resuming from epoch" in said, said
    assert sums(only_run(tmp_path / "cut")) == expected


def test_signals_lose_not_one_step(tmp_path: Path, whole_run: dict):
    results, chance, done = tmp_path / "results", random.Random(2), 0
    for number, status in [(signal.SIGTERM, 143), (signal.SIGINT, 130), (signal.SIGHUP, 129)] * 2:
        step = chance.randrange(2 * STEPS - 2)
        left, said = live(results, *DIGITS, fate=(lives.signal_at_step, step, number))
        assert left == status, said
        done += step + 1
        epoch, steps = divmod(done, STEPS)
        places = [(epoch, steps)] if steps else [(epoch, 0), (epoch - 1, STEPS)]  # after scoring?
        assert any(f"in epoch {e} after {s} of {STEPS} steps" in said for e, s in places), said
        assert "the same command resumes from there" in said
        assert (only_run(results) / "checkpoint.pt").exists()
    status, said = live(results, *DIGITS)
    assert status == 0 and f"resuming from epoch {done // STEPS}, step {done % STEPS}" in said
    assert sums(only_run(results)) == whole_run


def test_the_second_signal_ends_it_at_once(tmp_path: Path):
    flag = tmp_path / "flag"
    life = Life(tmp_path / "results", SMALL, (lives.wait_at_step, 4, flag))
    wait_until(flag.exists)
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
        with handled_by(Interruption().note):
            assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
            assert signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL
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


def test_a_kill_at_any_write_loses_nothing(tmp_path: Path, whole_small_run: dict):
    """Before each; a kill after one differs only after the last, where it is tidying up."""

    def killed_at(number: int, after: bool = False) -> bool:
        results = tmp_path / f"{number} {after}"
        if live(results, *SMALL, fate=(lives.kill_at_write, number, after))[0] != -signal.SIGKILL:
            return False
        status, said = live(results, *SMALL)
        assert status == training.IN_DOUBT and after == ("is finished" in said), said
        assert after or not list(only_run(results).glob(f".*{PARTIAL}"))
        found = sums(only_run(results))
        left = {"checkpoint.pt", "lock.json"} if after else set()
        assert {name: found[name] for name in found.keys() - left} == whole_small_run, number
        return True

    writes = next(number for number in range(100) if not killed_at(number))
    assert writes > len(whole_small_run)  # every file was written at least once
    assert killed_at(writes - 1, after=True)


def checked_runs(folder: Path, batches: tuple[int, ...], *words: object) -> list[int]:
    """In this process: a run stopped before those batches, of whatever pass, and resumed each time.

    The epochs in which it stopped; its folder must be as that of a run without a break. A negative
    batch counts from the end.
    """
    check, calls = Interruption.check, []
    args = training_options(*words, "--results_dir", folder / "whole")

    def stop(self: Interruption) -> None:
        calls.append(1)
        if len(calls) in stops:
            self.number = signal.SIGTERM
        check(self)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Interruption, "check", lambda self: calls.append(1))
        training.main(args)
        expected, stops = sums(RunFolder.of(args).path), [range(len(calls))[b] + 1 for b in batches]
        calls.clear()
        args = training_options(*words, "--results_dir", folder / "cut")
        patch.setattr(Interruption, "check", stop)
        for _ in stops:
            with pytest.raises(SystemExit) as stopped:
                training.main(args)
            assert stopped.value.code == 143
        training.main(args)
    assert sums(RunFolder.of(args).path) == expected
    said = RunFolder.of(args).log("training").read_text()
    return [int(epoch) for epoch in re.findall(r"SIGTERM in epoch (\d+)", said)]


@devices
@pytest.mark.parametrize(
    "words",
    [
        "--width 4",
        *(f"{COMPACT} {each}" for each in ("bkd", "bkd+ --mixup 0.5 --strong_views 0.5", "ce")),
    ],
)
def test_augmented_and_compact_runs_resume(device, words, made_up_cifar, tmp_path, monkeypatch):
    """In the warm-up, before and after the tipping point, by which images and rate change."""
    tips_at(monkeypatch, 3)  # found after epoch 5
    data = ["--data_dir", made_up_cifar.folder, "--noise_path", made_up_cifar.label_file]
    data += ["--batch_size", 50, "--device", device]
    data += ["--deterministic"] if device == "cuda" else []
    if COMPACT in words:
        stopped = checked_runs(tmp_path, (4, 35, 75), *data, *words.split())
        assert stopped[0] == 0 < stopped[1] < 5 < stopped[2]
    else:
        assert checked_runs(tmp_path, (4,), *data, *words.split(), "--n_epoch", 2) == [0]


@pytest.mark.parametrize("method", ["bkd", "bkd+", "ce"])
def test_a_stop_in_the_last_scoring_after_all_epochs(method: str, tmp_path: Path, monkeypatch):
    tips_at(monkeypatch, 3)
    words = ["--dataset", "digits", "--method", method, "--n_epoch", 7, "--limit_train", 200]
    words += ["--ema_decay", 0.9] if method == "bkd+" else []
    assert checked_runs(tmp_path, (-1,), *words) == [7]


def test_a_second_process_is_told_of_the_first(tmp_path: Path, whole_small_run: dict):
    results, flag = tmp_path / "results", tmp_path / "flag"
    first = Life(results, SMALL, (lives.wait_at_step, 4, flag))
    wait_until(flag.exists)
    before = sums(only_run(results))
    status, said = live(tmp_path / "results", *SMALL)
    assert status == 2 and said.count("\n") == 1
    assert f"process {first.process.pid} on {socket.gethostname()}" in said
    assert str(only_run(results)) in said
    assert live(results, *SMALL, "--restart")[0] == 2  # nor is it moved away
    assert sums(only_run(results)) == before and not (results / "replaced").exists()
    first.process.kill()
    first.end()
    assert (only_run(results) / "lock.json").exists()  # a dead one's is taken over
    status, said = live(results, *SMALL)
    assert status == training.IN_DOUBT and "resuming from epoch 1" in said
    assert sums(only_run(results)) == whole_small_run


def test_a_full_disk_loses_nothing(stopped: Path, whole_small_run: dict):
    folder = only_run(stopped)
    before = sums(folder)["checkpoint.pt"]
    size = (folder / "checkpoint.pt").stat().st_size
    status, said = live(stopped, *SMALL, fate=(lives.limit_file_size, size // 2))
    assert status == 2
    assert said.splitlines()[-1].startswith(f"training.py: error: {folder / 'checkpoint.pt'}: ")
    assert "File too large" in said and "Traceback" not in said
    assert sums(folder)["checkpoint.pt"] == before and (folder / "args.json").exists()
    assert not list(folder.glob(f".*{PARTIAL}"))
    live(stopped, *SMALL)
    assert sums(folder) == whole_small_run


def test_a_vanished_folder_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    args, log_epoch = training_options(*SMALL, "--results_dir", tmp_path), Session.log_epoch
    folder = RunFolder.of(args).path

    def remove_folder(*arguments: object, **more: object) -> None:
        shutil.rmtree(folder)
        log_epoch(*arguments, **more)

    monkeypatch.setattr(Session, "log_epoch", remove_folder)
    with pytest.raises(OSError, match="cannot be written") as error:
        training.main(args)
    assert str(folder) in str(error.value) and "No such file" in str(error.value)


@pytest.mark.parametrize(
    ("fate", "message"),
    [
        # In the last step of epoch 1, in the first of epoch 2, and there with a signal after it.
        ((0,), "epoch 1, after its last step: there are weights that are not"),
        ((1,), "epoch 2, step 1: the loss is nan"),
        ((1, signal.SIGTERM), "epoch 2, networks: numbers that are not finite"),
    ],
)
def test_lost_numbers_overwrite_nothing(stopped: Path, whole_small_run: dict, fate, message: str):
    checkpoint = only_run(stopped) / "checkpoint.pt"
    before = checkpoint.read_bytes()
    status, said = live(stopped, *SMALL, fate=(lives.lose_a_number, *fate))
    last = said.splitlines()[-1]
    assert status == 2 and "Traceback" not in said
    assert message in last and f"the last good checkpoint is {checkpoint}" in last
    assert "--lr" in last
    assert (checkpoint.read_bytes() == before) == ("epoch 1" in message)
    live(stopped, *SMALL)
    assert sums(only_run(stopped)) == whole_small_run


def test_another_command_names_what_differs_and_restart_moves_it_replaced(stopped: Path):
    folder = only_run(stopped)
    log = folder / "training.log"
    before, logged = sums(folder), log.read_text()
    status, said = live(stopped, *SMALL, "--lr", 0.5, "--alpha1", 0.2)
    assert status == 2 and said.count("\n") == 1 and "--restart" in said
    assert "--lr 0.02 there, 0.5 here" in said and "--alpha1 0.3 there, 0.2 here" in said
    assert sums(folder) == before
    changed = ("--checkpoint_freq", 7, "--quiet", "--lr", 0.5, "--restart")
    status, said = live(stopped, *SMALL, *changed)
    assert status == training.IN_DOUBT, said
    replaced = stopped / "replaced" / f"{folder.name}_1"
    assert sums(replaced) == before and str(replaced) in said and "resuming" not in said
    assert (replaced / log.name).read_text().startswith(logged)
    assert log.read_text().startswith(f"{folder}: the run that was here is now ")
    assert log.read_text().count("epoch   0 naive") == 1 and "fallback" in log.read_text()
    live(stopped, *SMALL, "--restart")
    assert {path.name[-2:] for path in replaced.parent.iterdir()} == {"_1", "_2"}


TENSOR = "teacher.layer1.0.conv1.weight"
PARTS: dict[str, Callable[[dict, dict], object]] = {  # of the whole and of its parts
    "without a tensor": lambda _, parts: parts["networks"].pop(TENSOR),
    "a tensor too many": lambda _, parts: parts["networks"].update(more=torch.zeros(3)),
    "misshapen": lambda _, parts: parts["networks"].update({TENSOR: torch.zeros(1, 4, 3, 3)}),
    "another size": lambda _, parts: parts["statistics"].update(agreement=torch.zeros(191)),
    "without a part": lambda _, parts: parts.pop("monitor"),
    "of another seed": lambda whole, _: whole["run"].update({"--seed": 7}),
    "of another device": lambda whole, _: whole["run"].update(device="tpu"),
    "text for a number": lambda _, parts: parts["session"].update(epoch="many"),
    "empty": lambda whole, _: whole.clear(),
    "code": lambda whole, _: whole.update(run=Hostile()),
}


@pytest.mark.parametrize("what", PARTS)
def test_a_checkpoint_that_does_not_fit_is_refused(what: str, tmp_path, stopped: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = only_run(stopped) / "checkpoint.pt"
    content = torch.load(path, weights_only=True)
    assert content["versions"]["torch"] == torch.__version__
    PARTS[what](content, content["parts"])
    torch.save(content, path)
    before = sums(path.parent)
    with pytest.raises(ValueError) as error:
        training.main(training_options(*SMALL, "--results_dir", stopped))
    assert str(path) in str(error.value) and "--restart" in str(error.value)
    assert "\n" not in str(error.value)
    assert ("(--seed 7 there, 0 here)" in str(error.value)) == (what == "of another seed")
    assert sums(path.parent) == before and not (tmp_path / "hostile").exists()


def test_a_run_that_another_process_has_just_finished_is_left_alone(tmp_path, monkeypatch, capsys):
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


def description_of(*words: object, record: dict | None = None) -> list[str]:
    return Description.of(training_options(*words)).differs_from(record)


def test_an_option_that_a_record_lacks_had_its_default():
    record = {"options": vars(training_options()) | {"warp": 0.0}, "non_default_options": {}}
    del record["options"]["mixup"], record["options"]["target"]
    assert description_of(record=record) == []
    assert description_of("--mixup", 0.5, record=record) == ["--mixup 0.0 there, 0.5 here"]
    assert description_of("--method", "bkd+", record=record) != []
    # One of no name today counts where it was chosen.
    record["non_default_options"]["warp"] = record["options"]["warp"] = 0.3
    assert description_of(record=record) == ["--warp 0.3 there, None here"]


def test_runs_of_versions_with_other_options_are_finished_and_resumed(stopped: Path, capsys):
    """One option that was there is gone today, one of today's was not there."""
    folder, words = RunFolder(only_run(stopped)), (*SMALL, "--results_dir", stopped)
    record, checkpoint = read_json(folder.args), torch.load(folder.checkpoint, weights_only=True)
    for options, prefix in ((record["options"], ""), (checkpoint["run"], "--")):
        del options[f"{prefix}ensemble_momentum"]
        options[f"{prefix}warp"] = 0.0
    checkpoint["parts"]["guidance"] = checkpoint["parts"].pop("robust_phase")  # its former name
    write_json(folder.args, record)
    torch.save(checkpoint, folder.checkpoint)
    for said in ("resuming from epoch 1", "this run is finished"):
        assert training.main(training_options(*words))["epochs"] == 3
        assert said in capsys.readouterr().out
    with pytest.raises(ValueError, match=r"--ensemble_momentum 0\.7 there, 0\.5 here"):
        training.main(training_options(*words, "--ensemble_momentum", 0.5))
    assert read_json(folder.args)["options"]["warp"] == 0.0


def test_a_lock_is_released_after_errors(tmp_path: Path):
    for _ in range(2):
        with pytest.raises(ZeroDivisionError), locked(tmp_path):
            raise ZeroDivisionError
    assert not (tmp_path / HOLDER).exists()


@pytest.mark.parametrize("exists", [True, False])
def test_a_symbolic_link_is_refused(tmp_path: Path, exists: bool):
    target = tmp_path / "precious"
    if exists:
        target.write_text("as it was")
    (tmp_path / LOCK).symlink_to(target)
    with pytest.raises(ValueError, match=f"{tmp_path / LOCK}.* symbolic link"), locked(tmp_path):
        pass
    assert target.exists() == exists
    assert not exists or target.read_text() == "as it was"


@pytest.mark.parametrize("code", [errno.ENOTSUP, errno.ENOSYS, errno.ENOLCK])
def test_file_systems_without_locks(tmp_path: Path, code: int, monkeypatch, capsys):
    def refuse(*_: object) -> None:
        raise OSError(code, "no locks here")

    (tmp_path / LOCK).touch()  # left from elsewhere; it must not be taken for a holder's
    monkeypatch.setattr(fcntl, "flock", refuse)
    for _ in range(2):
        with locked(tmp_path):
            assert (tmp_path / HOLDER).exists()
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2 and all(f"{tmp_path}: this file system has no locks" in x for x in lines)


def test_folders_that_cannot_be_written_to(tmp_path: Path):
    folder = tmp_path / "file"
    folder.touch()
    with pytest.raises(OSError, match="cannot be written") as error, locked(folder):
        pass
    assert str(folder / LOCK) in str(error.value) and "Errno" not in str(error.value)
