"""One run in a folder at a time."""

from __future__ import annotations

import errno
import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

LOCK = "run.lock"
# Folders that this process trains in: the system's locks know processes, not threads.
_here: set[Path] = set()


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keep other calls out of a run's folder meanwhile. A process that is killed leaves no lock behind.

    Where the system or the file system has no POSIX locks, or the folder cannot be written to, nobody is kept out.

    Raises:
        ValueError: if another call is at work in the folder.
    """
    path = (folder / LOCK).resolve()
    if path in _here:
        raise ValueError(f"out: another call of this process is training in {str(folder)!r}; choose another folder")
    _here.add(path)
    try:
        file = _take(path, folder)
        try:
            yield
        finally:
            if file is not None:
                path.unlink(missing_ok=True)
                os.close(file)
    finally:
        _here.discard(path)


def _take(path: Path, folder: Path) -> int | None:
    """A file descriptor that holds the lock; None where there can be none."""
    try:
        # Not flock: its locks are inherited, and a worker may outlive its killed parent by seconds.
        from fcntl import LOCK_EX, LOCK_NB, lockf
    except ImportError:
        return None
    while True:
        try:
            file = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        except OSError:
            return None
        try:
            lockf(file, LOCK_EX | LOCK_NB)
        except OSError as error:
            who = os.read(file, 1000).decode(errors="replace").strip()
            os.close(file)
            if error.errno not in (errno.EACCES, errno.EAGAIN):
                return None
            raise ValueError(
                f"out: another call is training in {str(folder)!r} ({who}); wait until it ends, or choose another "
                "folder"
            ) from None
        try:
            same = os.stat(path).st_ino == os.fstat(file).st_ino
        except FileNotFoundError:
            same = False
        if same:
            os.ftruncate(file, 0)
            os.write(file, f"process {os.getpid()} on {platform.node()}\n".encode())
            return file
        # Its holder took the file away in between.
        os.close(file)
