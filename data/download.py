"""Published files: downloaded once, however many processes ask, and named only when verified."""

import errno
import hashlib
import os
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPException
from pathlib import Path
from urllib.error import HTTPError

import torch

from utils.console import say
from utils.files import remove_partial_files
from utils.lock import locked

PAUSES = (1.0, 4.0, 16.0)  # seconds before each further attempt
TIMEOUT = 30.0  # seconds without a byte
TEMPORARY = (408, 429)  # of the HTTP statuses below 500
DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM)


def fetch(url: str, path: Path, sha256: str) -> None:
    """Download `url` to `path`; a file that is not whole and verified is never given that name.

    Call it under `one_at_a_time`. Raises OSError, naming URL, file, checksum and folder, when the
    download fails.
    """
    remove_partial_files(path.parent, f"{path.name}.")
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
            say(f"{url}: {_reason(error)}; next attempt in {pause:g} s")
            time.sleep(pause)


def _is_final(error: Exception) -> bool:
    """Whether another attempt would fail in the same way."""
    if isinstance(error, HTTPError):
        return error.code < 500 and error.code not in TEMPORARY
    return isinstance(error, OSError) and error.errno in DISK_ERRORS


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
    """Make the folder, and wait until no other process downloads anything into it."""
    folder.mkdir(parents=True, exist_ok=True)
    if not os.access(folder, os.W_OK | os.X_OK):
        raise PermissionError(errno.EACCES, "cannot be written to", str(folder))
    with locked(folder, wait=True):
        yield


@contextmanager
def naming_folder(data_dir: Path) -> Iterator[None]:
    """Turn the system's errors into an OSError of one line that names the folder and its option."""
    try:
        yield
    except OSError as error:
        if error.errno is None:  # it was raised here, with words of its own
            raise
        no_folder = isinstance(error, (FileExistsError, NotADirectoryError))
        reason = "not a folder" if no_folder else error.strerror
        if error.filename and Path(error.filename) != data_dir:
            reason = f"{reason}: {error.filename}"
        raise OSError(
            f"--data_dir {data_dir}: cannot be used ({reason}); choose another"
        ) from error
