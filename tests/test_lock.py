"""A run folder belongs to one process at a time; two processes are in test_faults.py."""

import errno
import fcntl
from pathlib import Path

import pytest

from utils.lock import HOLDER, LOCK, locked


def test_a_lock_is_released_after_errors(tmp_path: Path):
    for _ in range(2):
        with pytest.raises(ZeroDivisionError), locked(tmp_path):
            raise ZeroDivisionError
    assert not (tmp_path / HOLDER).exists()


@pytest.mark.parametrize("exists", [True, False])
def test_a_symbolic_link_is_refused(tmp_path: Path, exists: bool):
    target = tmp_path / "precious"
    if exists:
        target.write_text("as it was")
    (tmp_path / LOCK).symlink_to(target)
    with pytest.raises(ValueError, match=f"{tmp_path / LOCK}.* symbolic link"), locked(tmp_path):
        pass
    assert target.exists() == exists
    assert not exists or target.read_text() == "as it was"


@pytest.mark.parametrize("code", [errno.ENOTSUP, errno.ENOSYS, errno.ENOLCK])
def test_file_systems_without_locks(tmp_path: Path, code: int, monkeypatch, capsys):
    def refuse(*_: object) -> None:
        raise OSError(code, "no locks here")

    (tmp_path / LOCK).touch()  # left from elsewhere; it must not be taken for a holder's
    monkeypatch.setattr(fcntl, "flock", refuse)
    for _ in range(2):
        with locked(tmp_path):
            assert (tmp_path / HOLDER).exists()
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2 and all(f"{tmp_path}: this file system has no locks" in x for x in lines)


def test_folders_that_cannot_be_written_to(tmp_path: Path):
    folder = tmp_path / "file"
    folder.touch()
    with pytest.raises(OSError, match="cannot be written") as error, locked(folder):
        pass
    assert str(folder / LOCK) in str(error.value) and "Errno" not in str(error.value)
