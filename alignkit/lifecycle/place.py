"""Whether a run's directory is where it was; :mod:`recovery` finds it again if it is not."""

from __future__ import annotations

import os
from pathlib import Path

from alignkit.lifecycle.fingerprint import NAME as FINGERPRINT
from alignkit.lifecycle.manifest import NAME as MANIFEST
from alignkit.lifecycle.run_dir import METRICS, RECIPE

_NEEDED = (RECIPE, FINGERPRINT, MANIFEST)
"""What resuming needs besides metrics and a checkpoint."""


class Place:
    """A run directory that is held open, with what is needed to create it again."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.held = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        self.kept = {n: (folder / n).read_bytes() for n in _NEEDED if (folder / n).is_file()}

    def is_kept(self) -> bool:
        """Whether the directory and its metrics are still where they were."""
        try:
            here = os.stat(self.folder)
            same = os.path.samestat(here, os.fstat(self.held))
            return same and (self.folder / METRICS).is_file()
        except OSError:
            return False

    def close(self) -> None:
        """Close the directory."""
        os.close(self.held)
