"""Replace files atomically: they are either the old or the new ones, whatever happens."""

from __future__ import annotations

import errno
import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

UNWRITABLE = (
    errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG, errno.EACCES, errno.EPERM,
)  # fmt: skip
"""Errors of a disk that is full, over its quota or read-only, of a limit on file sizes, and of
folders that may not be written."""


def write_whole(path: Path, text: str) -> None:
    """Replace ``path`` in one step: written beside it, flushed to the disk, renamed."""
    with beside(path) as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    sync_folder(path.parent)


@contextmanager
def beside(path: Path) -> Iterator[IO[str]]:
    """Open a new file that replaces ``path`` at the block's end, if that is reached.

    A link at either name is replaced, not followed: the folder may be somebody else's.
    """
    partial = path.with_name(f".{path.name}.partial")
    partial.unlink(missing_ok=True)
    with partial.open("x", encoding="utf-8", newline="") as file:
        yield file
    os.replace(partial, path)


def write_json(path: Path, value: Any) -> None:
    """Write a value as indented JSON; see :func:`write_whole`."""
    write_whole(path, json.dumps(value, indent=2) + "\n")


def sync_folder(folder: Path) -> None:
    """Flush a folder's entries, or a file, to the disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def file_sum(path: Path) -> str:
    """Return the SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
