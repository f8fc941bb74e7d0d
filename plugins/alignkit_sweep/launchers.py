"""Where the runs of a sweep are carried out: here as child processes, or as jobs of a cluster."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from alignkit.errors import AlignkitError
from alignkit.lifecycle.run_dir import begun

POLL = 0.5
"""Seconds between looks at a job of a cluster."""
TAKEN_BACK = 143
"""Exit status of a job that was taken back, as if SIGTERM had ended it."""
MOST = 1000
"""Runs handed to a cluster at a time; it decides how many of them run side by side."""


@dataclass(frozen=True)
class Command:
    """How a run is begun, and how it is resumed."""

    begin: Sequence[str]
    """Words of the command line."""
    go_on: Sequence[str]
    """The same where the run is there already."""
    folder: Path
    """Its run directory."""
    log: Path
    """Its output is appended here."""

    def words(self) -> Sequence[str]:
        """Return the words that are due now."""
        return self.go_on if begun(self.folder) else self.begin


def refuse_ranks(name: str, value: object, several: bool) -> None:
    """Raise AlignkitError for an option of the scheduler that asks for ``several`` processes."""
    if several:
        raise AlignkitError(
            f"--job {name}={value}: a run of a sweep is one process on one node; run a recipe on "
            f"several by itself: alignkit launch RECIPE --nodes N --processes N"
        )


class Process(Protocol):
    """A run that was handed over."""

    def began(self) -> bool:
        """Whether it runs, or has run; a cluster lets it wait before."""

    def poll(self) -> int | None:
        """Return its exit status, None until it has ended."""

    def signal(self, number: int) -> None:
        """Send it a signal; one that still waits is taken back."""

    def wait(self, seconds: float) -> bool:
        """Wait for its end, at most for so long; return whether it has ended."""

    def kill(self) -> None:
        """End it at once."""


class Launcher(Protocol):
    """Starts runs."""

    room: int
    """Runs that it takes at a time."""

    def start(self, commands: Sequence[Command]) -> Sequence[Process]:
        """Start these runs; AlignkitError if they are not accepted."""


class Child:
    """A run in a child process of this one."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process

    def began(self) -> bool:
        return True

    def poll(self) -> int | None:
        return self._process.poll()

    def signal(self, number: int) -> None:
        self._process.send_signal(number)

    def wait(self, seconds: float) -> bool:
        try:
            self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            return False
        return True

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()


@dataclass
class Here:
    """Starts runs on this machine."""

    room: int
    environment: Mapping[str, str]
    keep_open: int
    """File descriptor that the children inherit."""

    def start(self, commands: Sequence[Command]) -> Sequence[Process]:
        return [Child(self._started(command)) for command in commands]

    def _started(self, command: Command) -> subprocess.Popen[bytes]:
        with command.log.open("a", encoding="utf-8") as log:
            return subprocess.Popen(  # nosec B603 # a list of words, no shell
                command.words(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=self.environment,
                pass_fds=(self.keep_open,),
            )
