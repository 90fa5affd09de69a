"""Windows and macOS: all commands where what these lack is hidden."""

import os
from pathlib import Path

from tests.conftest import TOP, call

HIDING = """
import multiprocessing.reduction, os, signal, sys
import filelock  # has a lock of Windows' own
multiprocessing.reduction.HAVE_SEND_HANDLE = False  # no forkserver
sys.modules |= {"fcntl": None, "resource": None}
for place, names in ((os, "killpg sched_getaffinity waitid"),
                     (signal, "SIGHUP SIGUSR1 SIGUSR2 pthread_sigmask")):
    for name in names.split():
        delattr(place, name)
"""
PARTS = """
from unittest.mock import Mock
import numpy as np
from PIL import Image
from data.own_images import reading
from utils.lock import is_locked, locked
from utils.sweep.local import Machine
from pathlib import Path
Image.fromarray(np.zeros((40, 40, 3), "B")).save("a.png")
reading.FEW = 0
assert next(reading.read_images([Path("a.png")], 32, 2)).pixels.shape == (32, 32, 3)
with locked(Path()):
    assert is_locked(Path())
Path("lock.json").touch()  # left by a process that was killed
assert not is_locked(Path())
machine, child = Machine(1, []), Mock()
machine.children.add(child)
for machine.signal in (2, 2):
    machine._hand_signal_on()
child.terminate.assert_called_once_with()
child.kill.assert_called_once_with()
"""


def test_all_commands_run_without_what_other_systems_lack(tmp_path: Path):
    (tmp_path / "sitecustomize.py").write_text(HIDING)
    path = os.pathsep.join((str(tmp_path), str(TOP)))
    folder = "r/digits_rand1_seed_0"

    def module(name: str, *words: str) -> tuple[int, str]:
        done = call("-m", f"utils.{name}", *words, cwd=tmp_path, PYTHONPATH=path)
        assert "Traceback" not in done.stderr, done.stderr
        return done.returncode, done.stdout + done.stderr

    sweep = ("sweep", "--dataset", "digits", "--noise_types", "rand1", "--results_dir", "r")
    own = ("--", "--n_epoch", "1", "--width", "4", "--limit_train", "200", "--no_plots")
    status, said = module(*sweep, *own)  # the three scripts
    assert status == 0 and "rand1/bkd/seed 0: finished, test accuracy" in said, said
    status, said = module(*sweep, "--slurm", "gpu", *own)
    assert status == 2 and said.count("\n") == 1 and "--slurm: this system has not" in said
    assert module("plots", folder)[0] == 0
    assert module("summary", "r", "--html", "page.html") == (0, "page.html\n")
    status, said = module("clean", folder, "--take", "flagged", "--out", "out.csv")
    assert status == 2 and "has no suspects.csv with a manifest.csv" in said
    done = call("-c", PARTS, cwd=tmp_path, PYTHONPATH=path)
    words = "SIGINT: ending 1; here they cannot be asked for a checkpoint, the last one counts\n"
    assert (done.returncode, done.stdout, done.stderr) == (0, "", words)
