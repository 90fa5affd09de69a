"""One process at a time in a run folder."""

import errno
import fcntl
import json
import os
import platform
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

NAME = "lock"
WITHOUT_LOCKS = (errno.ENOTSUP, errno.ENOSYS, errno.ENOLCK)  # some network file systems


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the folder's lock; the system lets go of it whatever becomes of the process.

    Raises ValueError, naming the process and the host of who holds it, and OSError where the
    folder cannot be written to.
    """
    path = folder / NAME
    try:
        file = _acquire(path)
        os.ftruncate(file, 0)
        holder = {"pid": os.getpid(), "host": platform.node()}
        os.pwrite(file, json.dumps(holder).encode(), 0)
    except OSError as error:
        raise OSError(f"{path}: cannot be written ({error.strerror})") from error
    try:
        yield
    finally:
        if _is(path, file):
            path.unlink()  # before it is let go of: see `_acquire`
        os.close(file)


def _acquire(path: Path) -> int:
    """A descriptor that holds the lock on the file which has that name."""
    while True:
        file = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            holder = _read(file)
            os.close(file)
            raise ValueError(
                f"{path.parent}: another process is training this run ({holder}); wait for it, or "
                "stop it and give the same command again"
            ) from error
        except OSError as error:
            if error.errno not in WITHOUT_LOCKS:
                raise
            print(
                f"{path}: this file system has no locks; see to it that no second process trains "
                "this run",
                file=sys.stderr,
            )
            return file
        if _is(path, file):
            return file
        os.close(file)  # its holder has just removed it: there may be a new one


def _is(path: Path, file: int) -> bool:
    """Whether the file of that name is the opened one."""
    try:
        return os.path.samestat(os.fstat(file), path.stat())
    except FileNotFoundError:
        return False


def _read(file: int) -> str:
    try:
        holder = json.loads(os.pread(file, 4096, 0))
        return f"process {int(holder['pid'])} on {holder['host']}"
    except (ValueError, TypeError, KeyError):  # it is just being written
        return "which has not yet said its name"
