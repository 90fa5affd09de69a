"""One process at work on a run folder: lock, log, signals, resuming, bookkeeping of epochs."""

import argparse
import time
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import torch

from utils.console import duration, logged_to, progress_bar, say
from utils.devices import peak_memory_gib
from utils.files import remove_partial_files, write_json
from utils.labels import Labels
from utils.lock import locked
from utils.plots.draw import try_plots
from utils.run_folder.checkpoint import Checkpoint
from utils.run_folder.description import Description
from utils.run_folder.epoch_log import EpochLog
from utils.run_folder.folder import RunFolder
from utils.run_folder.interruption import Interrupted, Interruption, handled_by
from utils.run_folder.tensorboard import TensorBoard
from utils.seeding import Randomness


class Session:
    """A context: entered, it holds the run folder's lock, and a signal stops it between two steps.

    On leaving it by a signal the checkpoint is written, and SystemExit raised with 128 + the
    signal's number; a loss or weights that are not finite become a ValueError.
    """

    def __init__(
        self,
        folder: RunFolder,
        args: argparse.Namespace,
        description: Description,
        labels: Labels,
        training: Any,
        generator: torch.Generator,
        interruption: Interruption,
    ):
        """`args`: see `utils.options.training`; `training`: all that it changes, models/build.py.

        `generator`: of batches and augmentation.
        """
        self.folder, self.args, self.description = folder, args, description
        self.interruption, self.stack = interruption, ExitStack()
        self.epoch, self.best_val, self.seconds_before = 0, -1.0, 0.0
        self.record: dict[str, Any] = {"tipping_point": None, "best_val_epoch": None}
        self.statistics, self.randomness = training.statistics, Randomness(generator)
        # What all folds judge together says which classes are lost.
        self.log = EpochLog(folder.metrics, labels, args.method, warn=not args.folds)
        self.tensorboard = TensorBoard(folder.tensorboard, args.tensorboard)
        parts = {**training.parts(), "session": self, "log": self.log}
        parts["randomness"] = self.randomness
        self.checkpoint = Checkpoint(folder.checkpoint, description, parts)

    def __enter__(self) -> "Session":
        replaced = self.folder.replace() if self.args.restart else None
        self.folder.make()
        with ExitStack() as stack:
            stack.enter_context(locked(self.folder.path))
            stack.enter_context(logged_to(self.folder.log("training")))
            stack.enter_context(handled_by(self.interruption.note))
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

    def resume(self) -> dict[str, Any] | None:
        """Restore the run from its checkpoint, or begin it; returns the record of a finished one.

        Raises ValueError where the folder holds another run; see `RunFolder.finished_run`.
        """
        if record := self.folder.finished_run(self.description):
            say(f"{self.folder}: this run is finished")
            return record
        where = f"{self.folder}: {self.description.machine}"
        if not self.checkpoint.path.exists():
            write_json(self.folder.args, self.description.record())
            say(where)
            return None
        versions = self.checkpoint.load()
        say(where)
        if versions:
            say(f"started with other versions ({versions}): the last bits may differ")
        say(f"resuming from epoch {self.epoch}, step {self.statistics.steps}")
        return None

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
        return self.seconds_before + time.perf_counter() - self.interruption.since

    def epochs(self, count: int) -> Iterator[int]:
        """The epochs that are left, from the one under way; each is over when the next is asked."""
        self.first, self.began = self.epoch, time.perf_counter()
        how = {"quiet": self.args.quiet, "desc": "run", "unit": "epoch"}
        bar = self.stack.enter_context(progress_bar(self.epoch, count, **how))
        while self.epoch < count:
            self.epoch_began = time.perf_counter()
            yield self.epoch
            self.epoch += 1
            self.statistics.reset()
            self.randomness.mark()
            bar.update()
            if self.epoch % self.args.checkpoint_freq == 0 and self.epoch < count:
                self.checkpoint.save()
        bar.close()

    def due(self, every: int) -> bool:
        """Whether what is done every so many epochs is due after this one; the last always is."""
        return (self.epoch + 1) % every == 0 or self.epoch + 1 == self.args.n_epoch

    def batches(self, loader: Any) -> Iterator[Any]:
        """The batches that are left of the epoch under way."""
        done, desc = self.statistics.steps, f"epoch {self.epoch}"
        how = {"quiet": self.args.quiet, "miniters": self.args.print_freq, "mininterval": 0}
        how |= {"desc": desc, "unit": "batch", "leave": False, "position": 1}
        yield from progress_bar(done, len(loader), iterable=loader.after(done), **how)

    def log_epoch(self, stats: Any, predicted: Any, seen: Any, *, naive: bool, lr: float) -> None:
        """Log what the epoch measured; see `EpochLog.add`."""
        now = time.perf_counter()
        each = (now - self.began) / (self.epoch + 1 - self.first)
        left = duration(each * (self.args.n_epoch - self.epoch - 1))
        times = f"{now - self.epoch_began:.1f} s, {left} left"
        self.log.add(self.epoch, stats, predicted, seen, naive=naive, lr=lr, times=times)
        self.tensorboard.scalars(self.log.rows[-1])

    def is_best(self) -> bool:
        """Whether the epoch just logged has the best noisy validation accuracy so far."""
        val = self.log.rows[-1]["noisy_val_accuracy"]
        if val is None or val <= self.best_val:
            return False
        self.best_val, self.record["best_val_epoch"] = val, self.epoch
        return True

    def draw(self) -> None:
        """Plots of the run so far."""
        if not self.args.no_plots:
            try_plots(self.folder.path)

    def finish(self) -> dict[str, Any]:
        """Write what is left when all epochs are over; returns training.json."""
        last = self.log.rows[-1]
        names = ("noisy_val_accuracy", "memorized_share", "planted_memorized", "visibility")
        names += ("clean_test_accuracy",)
        record = self.record | {"epochs": self.args.n_epoch} | {name: last[name] for name in names}
        memory = peak_memory_gib(self.description.machine.device)
        timing = {"wall_seconds": self.seconds(), "peak_memory_gib": memory}
        write_json(self.folder.timing, timing)
        self.draw()
        write_json(self.folder.training, record)
        self.checkpoint.path.unlink(missing_ok=True)
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
