"""What a tracker received before its run was resumed, so that it does not receive it twice."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from alignkit.security.names import checked_name

if TYPE_CHECKING:
    from alignkit.protocols import Run


class Delivered:
    """The last step of a run whose row was sent, kept in the run directory."""

    def __init__(self, run: Run, tracker: str) -> None:
        """``tracker`` names the file; a run that is not resumed starts a new one."""
        folder = run.dir / ".trackers"
        folder.mkdir(exist_ok=True)
        self.path = folder / checked_name(tracker, "a tracker", room=16)
        self._last = _number(self.path) if run.resumed else None

    def has(self, step: int) -> bool:
        """Whether the row of ``step`` was sent before the run was resumed."""
        return self._last is not None and step <= self._last

    def note(self, step: int) -> None:
        """Record that the row of ``step`` was sent; survives the process, if not the machine."""
        partial = self.path.with_name(f"{self.path.name}.partial")
        partial.write_text(f"{step}\n", encoding="utf-8")
        os.replace(partial, self.path)


def _number(path: Path) -> int | None:
    try:
        return int(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
