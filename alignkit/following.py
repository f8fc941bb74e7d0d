"""Carry out the part of a rank that follows: rank 0 leads the run, writes and prints."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from alignkit.errors import Said
from alignkit.execution import Run, built
from alignkit.lifecycle import determinism
from alignkit.lifecycle.signals import Interrupted
from alignkit.protocols import Tracker
from alignkit.recipe import Node
from alignkit.security.recorded import without_secrets


class Follower(Run):
    """A run that writes and prints nothing; rank 0 tells the engine what its directory is."""

    def __init__(self, plan: Mapping[str, Any]) -> None:
        with TemporaryDirectory() as folder:  # gone at once: what is open needs no name
            super().__init__(Path(folder), plan)

    def say(self, text: str) -> None:
        """Print nothing."""

    def attach(self, trackers: Iterable[Tracker]) -> None:
        """Start none of the trackers."""

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Write nothing."""

    def stay(self) -> None:
        """Leave it to rank 0 to see whether the directory is there."""

    def rows(self, step: int, name: str, rows: Sequence[Mapping[str, Any]]) -> None:
        """Write nothing."""


class ToldByRank0(Said, Interrupted):
    """What ended the run; rank 0 prints it."""


def follow(node: Node, *, deterministic: bool = False) -> Run:
    """Carry out this rank's part of a run; the same errors as ``execution.execute``."""
    if deterministic or determinism.demanded():
        determinism.demand()
    algorithm, run = built(node), Follower(without_secrets(node))
    try:
        with run.signals.installed():
            algorithm.run(run)
    except Interrupted as error:
        raise ToldByRank0(error.cause, error.exit_status) from error
    finally:
        run.close("done")
    return run
