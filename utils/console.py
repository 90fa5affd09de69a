"""Lines for people: on the terminal above the progress bars, and into the log of a run folder."""

import errno
import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TextIO

from tqdm import tqdm

LOGGER = logging.getLogger("blind_knowledge_distillation")


class ConsoleHandler(logging.Handler):
    """stdout, for errors stderr; tqdm takes its bars away meanwhile."""

    def emit(self, record: logging.LogRecord) -> None:
        file = sys.stderr if record.levelno >= logging.ERROR else sys.stdout
        try:
            encoding = getattr(file, "encoding", None) or "utf-8"  # of a terminal, perhaps latin-1
            text = self.format(record).encode(encoding, "backslashreplace").decode(encoding)
            tqdm.write(text, file=file)
            file.flush()
        except BrokenPipeError:  # nobody reads on, as with head
            discard(file)
            sys.exit(141)
        except OSError as error:  # a full disk, or (EIO) a terminal that has been closed
            discard(file)
            if error.errno != errno.EIO and file is sys.stdout:
                say(f"warning: stdout cannot be written ({error.strerror})", logging.ERROR)


class LogFileHandler(logging.FileHandler):
    """A file that may fill its disk: the run continues without it, and one line says so."""

    def handleError(self, record: logging.LogRecord) -> None:
        LOGGER.removeHandler(self)
        reason = getattr(sys.exc_info()[1], "strerror", None) or sys.exc_info()[1]
        say(f"warning: {self.baseFilename}: cannot be written ({reason}); the log ends here")


def discard(stream: TextIO) -> None:
    """Nobody reads it any more: what is written to it goes nowhere, also at the end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


for _name in ("stdout", "stderr"):
    if getattr(sys, _name) is None:  # closed before the start; its number would go to another file
        setattr(sys, _name, os.fdopen(os.open(os.devnull, os.O_WRONLY), "w"))
if getattr(sys.stdout, "errors", "") == "strict":  # else a name may end a command that is done
    sys.stdout.reconfigure(errors="backslashreplace")
LOGGER.setLevel(logging.INFO)
LOGGER.propagate = False
LOGGER.addHandler(ConsoleHandler())


def say(line: str, level: int = logging.INFO) -> None:
    """Print a line at once, above the bars if there are any, and log it where a log is open."""
    LOGGER.log(level, line.encode(errors="backslashreplace").decode())  # strange file names


def what_of(error: Exception) -> str:
    """What an error says, on one line; the system's errors name file and cause, not a number."""
    if isinstance(error, OSError) and error.errno is not None and error.strerror:
        where = error.filename or "stdout or a file"  # streams do not know their names
        return f"{where}: {error.strerror}; check that path, its permissions and its disk"
    return " ".join(str(error).split())


def duration(seconds: float) -> str:
    """Hours, minutes and seconds, as 1:02:03 or 2:03."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


@contextmanager
def logged_to(path: Path) -> Iterator[None]:
    """Append to that file whatever is said meanwhile, and the error that ends it, if any.

    Raises OSError naming the file.
    """
    try:
        handler = LogFileHandler(path, encoding="utf-8")
    except OSError as error:
        raise OSError(f"{path}: cannot be written ({error.strerror})") from error
    LOGGER.addHandler(handler)
    try:
        yield
    except Exception as error:  # told to the console by who catches it
        handler.handle(
            LOGGER.makeRecord("", logging.ERROR, "", 0, f"error: {what_of(error)}", (), None)
        )
        raise
    finally:
        LOGGER.removeHandler(handler)
        with suppress(OSError):  # on a full disk, of which `handleError` has said something
            handler.close()


def progress_bar(done: int, total: int, *, quiet: bool = False, **how: Any) -> tqdm:
    """tqdm's bar of which so many are `done`; none where stderr is no terminal, or if `quiet`."""
    disable = True if quiet else None
    return tqdm(initial=done, total=total, disable=disable, dynamic_ncols=True, **how)
