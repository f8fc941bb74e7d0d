"""What to say where something cannot be written. Loaded for this only."""

from __future__ import annotations

import errno
import os
import resource
from collections.abc import Callable, Iterable
from pathlib import Path

from alignkit.errors import shown

REMEDIES = {errno.ENOSPC: "free some", errno.EDQUOT: "free some", errno.EFBIG: "raise that limit"}
"""What to do, by the error's number; for all others, as of a read-only disk, make it writable."""

FILES = 16
"""Files that a checkpoint or a model may have. What was half written is gone when this is asked,
so that a disk that takes no more files may take a few again."""


def no_room(folder: Path, error: OSError) -> str:
    """Return the message for when nothing more can be written to ``folder``."""
    found = _hindrance(folder, error, lambda size: f"{size:,} bytes")
    return _said(f"to {shown(folder)}", error, found)


def no_room_for_checkpoint(folder: Path, error: OSError, need: int) -> str:
    """Return the message for when a checkpoint of ``need`` bytes does not fit into ``folder``."""
    found = _hindrance(folder if folder.exists() else folder.parent, error, _size)
    met = f"it takes {_size(need)}, and {found}" if found else ""
    return _said(f"a checkpoint to {shown(folder)}", error, met)


def remedy(error: OSError) -> str:
    """Return what the user can do about it."""
    return REMEDIES.get(error.errno or 0, "make it writable")


def _said(what: str, error: OSError, found: str) -> str:
    said = f"cannot write {what}: {error.strerror or error}"
    return f"{said}{found and '; '}{found}. What was saved before is whole"


def _hindrance(folder: Path, error: OSError, size: Callable[[int], str]) -> str:
    """Return the bound that was met, ``""`` where the error says all there is to say."""
    if error.errno == errno.EFBIG:
        limit = resource.getrlimit(resource.RLIMIT_FSIZE)[0]
        most = f"more than {size(limit)}" if limit >= 0 else "that much"
        return f"no file may have {most} here (ulimit -f)"
    if error.errno != errno.ENOSPC:
        return ""
    disk = os.statvfs(folder)
    if disk.f_files and disk.f_favail < FILES:
        return f"room for {disk.f_favail} more files is left there, of whatever size (df -i)"
    return f"{size(disk.f_bavail * disk.f_frsize)} are free there"


def _size(count: int) -> str:
    """Return a number of bytes in readable form."""
    units: Iterable[tuple[str, int]] = (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10))
    for unit, factor in units:
        if count >= factor:
            return f"{count / factor:.1f} {unit}"
    return f"{count} bytes"
