"""Replace folders atomically: they are either the old or the new ones, whatever happens."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from alignkit.lifecycle.files import sync_folder


def sync_tree(folder: Path) -> None:
    """Flush every file below ``folder``, and the folders, to the disk."""
    for place, _, names in os.walk(folder):
        for name in names:
            sync_folder(Path(place) / name)
        sync_folder(Path(place))


def put(made: Path, target: Path) -> None:
    """Rename the folder ``made`` to ``target``, replacing what may be there."""
    if target.exists():
        discard(target)
    os.rename(made, target)
    sync_folder(target.parent)


def discard(folder: Path) -> None:
    """Delete a folder, after renaming it, so that a half-deleted one no longer has its name."""
    trash = folder.with_name(f".{folder.name}.trash")
    shutil.rmtree(trash, ignore_errors=True)
    os.rename(folder, trash)
    shutil.rmtree(trash)
