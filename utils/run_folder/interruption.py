"""Signals as requests: the run stops between two steps, where it can be resumed."""

import os
import signal
import threading
import time
from contextlib import suppress
from types import FrameType
from typing import Any

NAMES = ("SIGINT", "SIGTERM", "SIGHUP")  # Ctrl-C, a scheduler, a closed terminal (not on Windows)
SIGNALS = tuple(getattr(signal, name) for name in NAMES if hasattr(signal, name))
REQUESTED = b"stopping after this step; the same signal again stops at once\n"


class Interrupted(Exception):
    """A signal has asked to stop; `status` is what to leave with."""

    def __init__(self, number: int):
        super().__init__(signal.Signals(number).name)
        self.status = 128 + number


class Interruption:
    """While it is entered, the first signal is noted and `check` raises; the second one kills."""

    def __init__(self) -> None:
        self.since = time.perf_counter()  # a run's wall time counts from here
        self.number: int | None = None
        self.before: dict[int, Any] = {}

    def __enter__(self) -> "Interruption":
        if threading.current_thread() is threading.main_thread():  # no other may set handlers
            # One that is ignored, as SIGHUP under nohup, stays ignored.
            mine = [each for each in SIGNALS if signal.getsignal(each) is not signal.SIG_IGN]
            self.before = {number: signal.signal(number, self._note) for number in mine}
        return self

    def __exit__(self, *error: object) -> None:
        for number, handler in self.before.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.number = number
        for each in self.before:
            signal.signal(each, signal.SIG_DFL)
        with suppress(OSError):  # a terminal that has been closed
            os.write(2, REQUESTED)  # print might be what was interrupted

    def check(self) -> None:
        """Raises Interrupted once a signal has come."""
        if self.number is not None:
            raise Interrupted(self.number)
