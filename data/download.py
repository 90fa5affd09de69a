"""Published files: fetched once, however many processes ask, and named only when verified."""

import errno
import fcntl
import hashlib
import os
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.client import HTTPException
from pathlib import Path
from urllib.error import HTTPError

import torch

PAUSES = (1.0, 4.0, 16.0)  # seconds before each further attempt
TIMEOUT = 30.0  # seconds without a byte
WORTH_WAITING_FOR = (408, 429)  # of the answers below 500
OURS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM)  # errors of the disk


def fetch(url: str, path: Path, sha256: str) -> None:
    """Download `url` to `path`; a file that is not whole and verified is never given that name.

    Raises OSError, naming address, file, checksum and folder, when it cannot be had.
    """
    for partial in path.parent.glob(f"{path.name}.{'?' * 32}.partial"):
        partial.unlink(missing_ok=True)  # of a process that was killed: see `one_at_a_time`
    for pause in (*PAUSES, None):
        try:
            _attempt(url, path, sha256)
            return
        except (OSError, HTTPException, RuntimeError) as error:
            if isinstance(error, HTTPError):
                error.close()  # it holds the connection
            if pause is None or _is_final(error):
                raise OSError(
                    f"cannot download {url} ({_reason(error)}); put that file, SHA-256 {sha256}, "
                    f"as {path.name} into {path.parent} by hand"
                ) from error
            print(f"{url}: {_reason(error)}; again in {pause:g} s", file=sys.stderr)
            time.sleep(pause)


def _is_final(error: Exception) -> bool:
    """Whether the same would happen again."""
    if isinstance(error, HTTPError):
        return error.code < 500 and error.code not in WORTH_WAITING_FOR
    return isinstance(error, OSError) and error.errno in OURS


def _attempt(url: str, path: Path, sha256: str) -> None:
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(TIMEOUT)  # torch's function has no such option
    try:
        bar = sys.stderr.isatty()
        torch.hub.download_url_to_file(url, str(path), sha256, progress=bar)
    finally:
        socket.setdefaulttimeout(before)


def _reason(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def digest(path: Path) -> str:
    """The SHA-256 sum of a file, in hexadecimal."""
    sha256 = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(2**20):
            sha256.update(block)
    return sha256.hexdigest()


@contextmanager
def one_at_a_time(folder: Path) -> Iterator[None]:
    """Make the folder, and wait until no other process fetches anything into it."""
    folder.mkdir(parents=True, exist_ok=True)
    file = os.open(folder / ".lock", os.O_RDWR | os.O_CREAT, 0o666)
    try:
        with suppress(OSError):  # on a file system without locks two might fetch the same
            fcntl.flock(file, fcntl.LOCK_EX)
        yield
    finally:
        os.close(file)
