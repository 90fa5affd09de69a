"""Signals as requests: the run stops between two steps, where it can be resumed."""

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType

NAMES = ("SIGINT", "SIGTERM", "SIGHUP")  # Ctrl-C, a scheduler, a closed terminal (not on Windows)
SIGNALS = tuple(getattr(signal, name) for name in NAMES if hasattr(signal, name))
REQUESTED = b"stopping after this step; the same signal again stops at once\n"


class Interrupted(Exception):
    """A signal has asked to stop; `status` is what to leave with."""

    def __init__(self, number: int):
        super().__init__(signal.Signals(number).name)
        self.status = 128 + number


@contextmanager
def handled_by(note: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    """Each of SIGNALS calls `note`; one that is ignored, as SIGHUP under nohup, stays ignored."""
    may_set = threading.current_thread() is threading.main_thread()
    mine = [each for each in SIGNALS if may_set and signal.getsignal(each) is not signal.SIG_IGN]
    before = {number: signal.signal(number, note) for number in mine}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class Interruption:
    """Once `note` has had a signal, `check` raises; a second signal kills."""

    def __init__(self) -> None:
        self.since = time.perf_counter()  # a run's wall time counts from here
        self.number: int | None = None

    def note(self, number: int, frame: FrameType | None) -> None:
        """The handler of a signal, see `handled_by`."""
        self.number = number
        for each in SIGNALS:
            if signal.getsignal(each) == self.note:
                signal.signal(each, signal.SIG_DFL)
        with suppress(OSError):  # a terminal that has been closed
            os.write(2, REQUESTED)  # print might be what was interrupted

    def check(self) -> None:
        """Raises Interrupted once a signal has come."""
        if self.number is not None:
            raise Interrupted(self.number)
