"""Where a run's directory is now: it may be moved or deleted while the run is at work."""

from __future__ import annotations

import os
from pathlib import Path

from alignkit.lifecycle.fingerprint import NAME as FINGERPRINT
from alignkit.lifecycle.manifest import NAME as MANIFEST
from alignkit.lifecycle.run_dir import METRICS, RECIPE

_NEEDED = (RECIPE, FINGERPRINT, MANIFEST)
"""What resuming needs besides metrics and a checkpoint."""


class Place:
    """A run directory that is held open, with what it takes to make it again."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._held = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        self._kept = {n: (folder / n).read_bytes() for n in _NEEDED if (folder / n).is_file()}

    def is_kept(self) -> bool:
        """Whether the directory and its metrics are still where they were."""
        try:
            here = os.stat(self.folder)
            same = os.path.samestat(here, os.fstat(self._held))
            return same and (self.folder / METRICS).is_file()
        except OSError:
            return False

    def moved_to(self) -> Path | None:
        """Return where it is now; None if it is deleted, or that cannot be told."""
        try:
            there = Path(os.readlink(f"/proc/self/fd/{self._held}"))
            same = os.path.samestat(there.stat(), os.fstat(self._held))
        except OSError:
            return None
        return there if same and (there / METRICS).is_file() else None

    def make_again(self, metrics: bytes) -> None:
        """Make the directory anew where it was, with all that resuming needs but a checkpoint."""
        self.folder.mkdir(parents=True, exist_ok=True)
        for name, content in {**self._kept, METRICS: metrics}.items():
            (self.folder / name).write_bytes(content)

    def close(self) -> None:
        """Let the directory go."""
        os.close(self._held)
