"""Metrics of many runs in one JSON Lines file."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Literal

from alignkit import AlignkitError
from alignkit_trackers.delivered import Delivered

if TYPE_CHECKING:
    from alignkit.protocols import Run


class JsonlTracker:
    """Appends a row per step; see :class:`alignkit_trackers.Jsonl`."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: IO[str] | None = None
        self._name = ""

    def start(self, run: Run, /) -> None:
        """Open the file, making its folder; AlignkitError if that cannot be done."""
        self._name = run.name
        place = hashlib.sha256(str(self._path).encode()).hexdigest()[:8]
        self._delivered = Delivered(run, f"jsonl-{place}")
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._file = self._path.open("a", encoding="utf-8")
        except OSError as error:
            raise AlignkitError(f"tracker jsonl cannot write {self._path}: {error}") from error

    def log(self, step: int, metrics: Mapping[str, float], /) -> None:
        """Append one row; numbers that are not finite become null."""
        assert self._file is not None, "log() before start()"
        if self._delivered.has(step):
            return
        finite = {name: v if math.isfinite(v) else None for name, v in metrics.items()}
        self._file.write(json.dumps({"run": self._name, "step": step} | finite) + "\n")
        self._file.flush()  # whole lines, so that runs can share the file
        self._delivered.note(step)

    def rollouts(self, step: int, name: str, rows: Sequence[Mapping[str, Any]], /) -> None:
        """Leave samples to the run directory, which holds them already."""

    def close(self, status: Literal["done", "failed"], /) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()
