"""A run on a rank that follows rank 0: it computes, and writes and prints nothing."""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from alignkit.errors import AlignkitError, RunFailed
from alignkit.lifecycle import ranks
from alignkit.lifecycle.signals import Interrupted, Signals
from alignkit.protocols import Algorithm, Tracker
from alignkit.security.secrets import redact_text


class FollowingRun:
    """An :class:`alignkit.protocols.Run` whose folder and start rank 0 tells to the engine."""

    def __init__(self, plan: Mapping[str, Any]) -> None:
        self.dir = Path()
        self.plan = plan
        self.printer: Callable[[str], None] = lambda text: None
        self.total_steps: int | None = None
        self.resumed = False
        self.first_step = 0
        self.checkpoint: Path | None = None
        self.profiled = False
        self.signals = Signals()
        self._started = time.monotonic()

    @property
    def name(self) -> str:
        """Name of the run directory."""
        return self.dir.name

    def elapsed(self) -> float:
        """Return the seconds since this process began the run."""
        return time.monotonic() - self._started

    def say(self, text: str) -> None:
        """Print nothing: rank 0 does."""

    def attach(self, trackers: Iterable[Tracker]) -> None:
        """Start no tracker: rank 0 does."""

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Log nothing: rank 0 has the same row."""

    def rows(self, step: int, name: str, rows: Sequence[Mapping[str, Any]]) -> None:
        """Write nothing: rank 0 has the same rows."""

    def logged_bytes(self) -> int:
        """Return 0: the file is rank 0's."""
        return 0

    def sync_metrics(self) -> None:
        """Flush nothing."""


def follow(algorithm: Algorithm, plan: Mapping[str, Any]) -> FollowingRun:
    """Carry out this rank's part of a run.

    Raises RunFailed when the run fails, Interrupted when a signal or a time limit ended it.
    """
    run = FollowingRun(plan)
    try:
        with run.signals.installed():
            algorithm.run(run)
    except Interrupted as interrupted:
        interrupted.remedy = "see rank 0"
        raise
    except AlignkitError as error:
        raise RunFailed(str(error)) from error
    except Exception as error:
        raise RunFailed(redact_text(traceback.format_exc())) from error
    return run


def say_of(error: BaseException) -> str:
    """Return what this rank says of what ended it; "" where another one, or it before, has.

    A rank that follows says what happened on it alone, under its number.
    """
    said = redact_text(str(error)) or "interrupted"
    if not ranks.follows():
        return said
    told = isinstance(error, KeyboardInterrupt) or getattr(error.__cause__, "told", False)
    return "" if told else f"rank {ranks.rank()}: {said}"
