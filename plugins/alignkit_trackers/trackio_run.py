"""A Trackio run: a local database that ``trackio show`` displays, or a Space on the Hub."""

from __future__ import annotations

import io
import os
from collections.abc import Mapping, Sequence
from contextlib import redirect_stdout
from importlib import import_module
from shlex import quote
from typing import TYPE_CHECKING, Any, Literal

from alignkit_trackers.delivered import Delivered
from alignkit_trackers.values import sample_table

if TYPE_CHECKING:
    from alignkit.protocols import Run

RENAMED = {"project": "run/project", "run": "run/run", "timestamp": "run/timestamp",
           "step": "run/step", "time": "run/seconds", "metrics": "run/metrics"}  # fmt: skip
"""Names that Trackio keeps for itself, with those that metrics get in their place."""


class TrackioTracker:
    """Logs metrics and samples; see :class:`alignkit_trackers.Trackio`."""

    def __init__(self, settings: Mapping[str, Any], samples: int) -> None:
        self._settings, self._samples = settings, samples

    def start(self, run: Run, /) -> None:
        """Open the run, or go on with the one that a resumed run had, and report how to see it."""
        os.environ.setdefault("TRACKIO_DIR", str(run.dir / "trackio"))  # read at its import
        self._trackio: Any = import_module("trackio")
        self._sent = Delivered(run, "trackio")
        with redirect_stdout(io.StringIO()):  # it tells what is said here, and opens no page
            self._run = self._trackio.init(
                **{"name": run.name, **self._settings},
                config=dict(run.plan),
                resume="allow",
                embed=False,
                auto_log_gpu=False,
                auto_log_cpu=False,
            )
        run.say(f"trackio: {self._where()}")

    def _where(self) -> str:
        if space := self._settings.get("space_id"):
            return f"https://huggingface.co/spaces/{space}"
        folder = quote(str(self._trackio.TRACKIO_DIR))
        return f"TRACKIO_DIR={folder} trackio show --project {quote(self._settings['project'])}"

    def log(self, step: int, metrics: Mapping[str, float], /) -> None:
        """Log one row; a step that was sent before the run was resumed is left out."""
        if not self._sent.has(step):
            row = {RENAMED.get(name, name): value for name, value in metrics.items()}
            self._run.log(row, step=step)
            self._sent.note(step)

    def rollouts(self, step: int, name: str, rows: Sequence[Mapping[str, Any]], /) -> None:
        """Log the first rows as a table."""
        if not self._samples or not rows or self._sent.has(step):
            return
        columns, cells = sample_table(rows, self._samples)
        self._run.log({f"{name}/samples": self._trackio.Table(columns, cells)}, step=step)

    def close(self, status: Literal["done", "failed"], /) -> None:
        """Write what is buffered, and as a value whether the run failed: runs have no state."""
        with redirect_stdout(io.StringIO()):
            self._run.log({"run/failed": float(status == "failed")})
            self._run.finish()
