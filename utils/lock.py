"""One process at a time in a folder: filelock's lock, and a note that says who holds it."""

import errno
import json
import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from utils.console import say
from utils.files import write_json

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

LOCK = ".lock"  # stays there: to remove it would let two processes hold locks of one name
HOLDER = "lock.json"  # while it is held
WITHOUT_LOCKS = (errno.ENOTSUP, errno.ENOSYS, errno.ENOLCK)  # some network file systems


@contextmanager
def locked(folder: Path, *, wait: bool = False) -> Iterator[None]:
    """Hold the folder's lock; the system releases it however the process ends.

    Raises ValueError, naming process and host of the holder, unless it shall `wait`, and OSError
    where the folder cannot be written to. On a file system without locks a line says so.
    """
    if (folder / LOCK).is_symlink():
        raise ValueError(f"{folder / LOCK}: a symbolic link, not a lock; remove it")
    # filelock's soft lock, its fallback, would mistake a lock file that was left for a holder's.
    lock = FileLock(folder / LOCK, timeout=-1 if wait else 0, fallback_to_soft=False)
    try:
        lock.acquire()
    except Timeout as error:
        raise ValueError(
            f"{folder}: another process works in this folder ({_holder(folder)}); wait for it, or "
            "stop it and give the same command again"
        ) from error
    except (OSError, NotImplementedError) as error:
        if isinstance(error, OSError) and error.errno not in WITHOUT_LOCKS:
            raise OSError(f"{folder / LOCK}: cannot be written ({error.strerror})") from error
        say(f"{folder}: this file system has no locks; let no second process work in this folder")
    try:
        write_json(folder / HOLDER, {"pid": os.getpid(), "host": platform.node()})
        yield
    finally:
        (folder / HOLDER).unlink(missing_ok=True)
        lock.release()


def is_locked(folder: Path) -> bool:
    """Whether a process holds the folder's lock.

    Asking does not disturb one that takes it, but on Windows, where it is taken for a moment.
    """
    if not (folder / HOLDER).exists():
        return False
    if fcntl is None:
        try:
            with FileLock(folder / LOCK, timeout=0, fallback_to_soft=False):
                return False
        except OSError as error:
            return isinstance(error, Timeout)
    with suppress(OSError), open(folder / LOCK) as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def _holder(folder: Path) -> str:
    try:
        holder = json.loads((folder / HOLDER).read_bytes())
        return f"process {int(holder['pid'])} on {holder['host']}"
    except (OSError, ValueError, TypeError, KeyError):  # it is being written
        return "not yet named"
