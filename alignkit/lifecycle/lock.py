"""Ensure one run at a time in a directory."""

from __future__ import annotations

import fcntl
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from alignkit.errors import AlignkitError, shown

LOCK = ".lock"


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Make the directory if need be and lock it; AlignkitError if another process holds it.

    The lock belongs to the process (POSIX): it ends when the process does, however that happens,
    and workers that outlive the process do not keep it.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = (folder / LOCK).open("a+", encoding="utf-8")
    except OSError as error:
        what = "write in" if folder.is_dir() else "make"
        raise AlignkitError(f"cannot {what} {shown(folder)}: {error.strerror}") from error
    with file:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError):
            file.seek(0)
            holder = file.read().strip() or "another process"
            raise AlignkitError(f"{shown(folder)} is in use by {holder}") from None
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}\n")
        file.flush()
        yield
