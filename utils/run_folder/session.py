"""One process at work on a run folder: lock, log, signals, resuming, bookkeeping of epochs."""

import argparse
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from typing import Any, NamedTuple

import torch

from utils.console import ProgressBars, logged_to, say
from utils.devices import Machine, peak_memory_gib
from utils.files import remove_partial_files, write_json, write_text
from utils.lock import locked
from utils.metrics import accuracy
from utils.plots.draw import write_plots
from utils.run_folder.checkpoint import Checkpoint
from utils.run_folder.epoch_log import EpochLog, absent_classes, newly_vanished
from utils.run_folder.folder import RunFolder, identity
from utils.run_folder.interruption import Interrupted, Interruption
from utils.run_folder.tensorboard import TensorBoard
from utils.seeding import Randomness

WARNINGS_SAID = 10


class Truth(NamedTuple):
    """What each epoch's predictions are compared with."""

    class_names: list[str]
    train_clean: torch.Tensor  # true labels, -1 where unknown
    train_labels: torch.Tensor  # given ones
    val_labels: torch.Tensor  # given ones
    test_labels: torch.Tensor | None  # clean ones, of own images given ones

    def agreed_wrong(self, prediction: torch.Tensor) -> float | None:
        """Percentage of wrong labels among the given ones that a prediction [N] agrees with.

        None where no true label is known.
        """
        known = self.train_clean >= 0
        if not known.any():
            return None
        agreed = (prediction == self.train_labels) & known
        wrong = agreed & (self.train_labels != self.train_clean)
        return 100 * (wrong.sum().item() / max(agreed.sum().item(), 1))


class Session:
    """A context: entered, it holds the run folder's lock, and a signal stops it between two steps.

    On leaving it by a signal the checkpoint is written, and SystemExit raised with 128 + the
    signal's number; a loss or weights that are not finite become a ValueError.
    """

    def __init__(self, folder: RunFolder, args: argparse.Namespace):
        """The wall time starts here. `args`: see `utils.options.training`."""
        self.folder, self.args = folder, args
        self.start, self.seconds_before = time.perf_counter(), 0.0
        self.interruption, self.stack = Interruption(), ExitStack()
        self.epoch, self.best_val = 0, -1.0
        self.record: dict[str, Any] = {"tipping_point": None, "best_val_epoch": None}

    def __enter__(self) -> "Session":
        replaced = self.folder.replace() if self.args.restart else None
        self.folder.make()
        with ExitStack() as stack:
            stack.enter_context(locked(self.folder.path))
            stack.enter_context(logged_to(self.folder.log("training")))
            stack.enter_context(self.interruption)
            remove_partial_files(self.folder.path)
            self.stack = stack.pop_all()
        if replaced:
            say(f"{self.folder}: the run that was here is now {replaced}")
        return self

    def __exit__(self, kind: Any, error: BaseException | None, traceback: Any) -> None:
        try:
            if isinstance(error, Interrupted):
                self.stop(error)
            if isinstance(error, FloatingPointError):
                raise error
        except FloatingPointError as lost:
            there = self.folder.checkpoint.exists()
            last = f"the last good checkpoint is {self.folder.checkpoint}"
            converted = ValueError(
                f"epoch {self.epoch}, {lost}; {last if there else 'there is no checkpoint yet'}; "
                "try a smaller --lr with --restart"
            )
            self.stack.__exit__(ValueError, converted, traceback)
            raise converted from lost
        except BaseException as raised:
            self.stack.__exit__(type(raised), raised, traceback)
            raise
        self.stack.__exit__(kind, error, traceback)

    def tell_warnings(self, lines: Sequence[str]) -> None:
        """Say the first of the images' warnings; all are in a file of the run folder."""
        if not lines:
            return
        write_text(self.folder.image_warnings, "".join(f"{line}\n" for line in lines))
        for line in lines[:WARNINGS_SAID]:
            say(f"warning: {line}")
        more = len(lines) - WARNINGS_SAID
        if more > 0:
            say(f"warning: and {more} more; all are listed in {self.folder.image_warnings}")

    def finished(self, description: dict[str, Any]) -> dict[str, Any] | None:
        """The record of the run where it is finished; see `RunFolder.finished_run`."""
        record = self.folder.finished_run(description)
        if record:
            say(f"{self.folder}: this run is finished")
        return record

    def resume(
        self,
        description: dict[str, Any],
        machine: Machine,
        truth: Truth,
        statistics: Any,
        generator: torch.Generator,
        **parts: Any,
    ) -> None:
        """Restore the parts from the checkpoint where there is one, else write args.json.

        `description`: see `utils.run_folder.folder.describe`. `statistics` of the epoch under way,
        `generator` of batches and augmentation, and `parts`: all that training changes.
        """
        self.device = machine.device
        self.truth, self.statistics, self.randomness = truth, statistics, Randomness(generator)
        self.log = EpochLog(self.folder.metrics)
        self.tensorboard = TensorBoard(self.folder.tensorboard, self.args.tensorboard)
        parts |= {"session": self, "statistics": statistics}
        parts |= {"log": self.log, "randomness": self.randomness}
        run = identity(description, machine.device.type)
        self.checkpoint = Checkpoint(self.folder.checkpoint, run, parts, description["versions"])
        if not self.checkpoint.path.exists():
            write_json(self.folder.args, description)
            say(f"{self.folder}: {machine}")
            return
        versions = self.checkpoint.load()
        say(f"{self.folder}: {machine}")
        if versions:
            say(f"started with other versions ({versions}): the last bits may differ")
        say(f"resuming from epoch {self.epoch}, step {self.statistics.steps}")

    def state_dict(self) -> dict[str, Any]:
        """What this object itself adds to a checkpoint."""
        state = {"epoch": self.epoch, "best_val": self.best_val, "record": self.record}
        return state | {"seconds": self.seconds()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        self.epoch, self.record = int(state["epoch"]), dict(state["record"])
        self.best_val, self.seconds_before = float(state["best_val"]), float(state["seconds"])

    def seconds(self) -> float:
        """Wall time of the run so far, in all processes."""
        return self.seconds_before + time.perf_counter() - self.start

    def epochs(self, count: int) -> Iterator[int]:
        """The epochs that are left, from the one under way; each is over when the next is asked."""
        self.first, self.began = self.epoch, time.perf_counter()
        self.bars = ProgressBars(count, self.epoch, self.args.print_freq, self.args.quiet)
        self.stack.callback(self.bars.close)
        while self.epoch < count:
            self.epoch_began = time.perf_counter()
            yield self.epoch
            self.epoch += 1
            self.statistics.reset()
            self.randomness.mark()
            self.bars.epoch_done()
            if self.epoch % self.args.checkpoint_freq == 0 and self.epoch < count:
                self.checkpoint.save()
        self.bars.close()

    def batches(self, loader: Any) -> Iterator[Any]:
        """The batches that are left of the epoch under way."""
        done = self.statistics.steps
        return self.bars.batches(loader.after(done), self.epoch, done, len(loader))

    def log_epoch(
        self,
        stats: Any,
        val: torch.Tensor | None,
        test: torch.Tensor | None,
        *,
        naive: bool,
        lr: float,
    ) -> None:
        """Log what the epoch measured, and warn of classes that vanished.

        `stats`: see models/epoch_statistics.py. `val`, `test`: predictions [N], where made.
        `naive`: before the tipping point.
        """
        truth, blind = self.truth, self.args.method != "ce"
        phase = ("naive" if naive else "robust") if blind else "ce"
        predictions = [each for each in (stats.prediction, val, test) if each is not None]
        # Before the robust phase a class may simply not have been learnt yet.
        robust = predictions if phase == "robust" else []
        vanished = absent_classes(robust, len(truth.class_names))
        now = time.perf_counter()
        each = (now - self.began) / (self.epoch + 1 - self.first)
        self.log.add(
            seconds=now - self.epoch_began,
            left=each * (self.args.n_epoch - self.epoch - 1),
            epoch=self.epoch,
            phase=phase,
            lr=lr,
            loss=stats.loss,
            naive_loss=stats.naive_loss,
            compensation_loss=stats.compensation_loss if blind else None,
            student_confidence=stats.confidence if blind else None,
            noisy_val_accuracy=None if val is None else accuracy(val, truth.val_labels),
            clean_test_accuracy=None if test is None else accuracy(test, truth.test_labels),
            agreed_wrong=truth.agreed_wrong(stats.prediction),
            vanished_classes=" ".join(map(str, vanished)),
        )
        self.tensorboard.scalars(self.log.rows[-1])
        for k in newly_vanished(self.log.rows):
            name = truth.class_names[k]
            say(f"warning: epoch {self.epoch}: no image is predicted as {name!r} any more")

    def is_best(self) -> bool:
        """Whether the epoch just logged has the best noisy validation accuracy so far."""
        val = self.log.rows[-1]["noisy_val_accuracy"]
        if val is None or val <= self.best_val:
            return False
        self.best_val, self.record["best_val_epoch"] = val, self.epoch
        return True

    def draw(self) -> None:
        """Plots of the run so far; that one cannot be drawn is no reason to end the run."""
        if self.args.no_plots:
            return
        try:
            write_plots(self.folder.path, say)
        except (ValueError, OSError) as error:
            say(f"warning: not all plots are drawn: {error}")

    def finish(self) -> dict[str, Any]:
        """Write what is left when all epochs are over; returns training.json."""
        last = self.log.rows[-1]
        accuracies = {name: last[name] for name in ("noisy_val_accuracy", "clean_test_accuracy")}
        record = self.record | {"epochs": self.args.n_epoch, **accuracies}
        memory = peak_memory_gib(self.device)
        timing = {"wall_seconds": self.seconds(), "peak_memory_gib": memory}
        write_json(self.folder.timing, timing)
        self.draw()
        write_json(self.folder.training, record)
        self.checkpoint.remove()
        return record

    def stop(self, interrupted: Interrupted) -> None:
        """Write the checkpoint, say how to resume, and leave with the signal's exit status."""
        self.checkpoint.save()
        again = "the same command without --restart" if self.args.restart else "the same command"
        say(
            f"{interrupted} in epoch {self.epoch} after {self.statistics.steps} of "
            f"{len(self.statistics.losses)} steps; {again} resumes from there"
        )
        raise SystemExit(interrupted.status)
