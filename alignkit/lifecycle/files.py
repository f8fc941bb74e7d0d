"""Files that are either the old ones or the new ones, whatever happens in between."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
from pathlib import Path
from typing import Any

from alignkit.errors import shown

UNWRITABLE = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG)
"""Errors of a disk that is full, over its quota or read-only, and of a limit on file sizes."""


def write_whole(path: Path, text: str) -> None:
    """Replace ``path`` in one step: written beside it, flushed to the disk, renamed."""
    partial = path.with_name(f".{path.name}.partial")
    with partial.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(partial, path)
    sync_folder(path.parent)


def write_json(path: Path, value: Any) -> None:
    """Write a value as indented JSON; see :func:`write_whole`."""
    write_whole(path, json.dumps(value, indent=2) + "\n")


def no_room(folder: Path, error: OSError) -> str:
    """Return what to say when nothing more can be written to ``folder``."""
    free = f"{shutil.disk_usage(folder).free:,} bytes are free there"
    said = f"cannot write to {shown(folder)}: {error.strerror}; {free}"
    return f"{said}. What was saved before is whole"


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
