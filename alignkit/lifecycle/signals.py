"""Signals and time limits end a run at a point where nothing is half done."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, Literal

INTERRUPTS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""End the run; its exit status is 128 + the signal's number."""
REQUESTS = (signal.SIGUSR1, signal.SIGUSR2, signal.SIGXCPU)
"""Signals by which batch systems announce pre-emption and time limits: save, stop, status 75."""
STOPPED = 75
"""Exit status of a run that stopped to be resumed: EX_TEMPFAIL of sysexits.h."""
ONE = 0.1
"""Seconds within which equal signals count as one: ``timeout`` sends its signal twice."""


class Interrupted(KeyboardInterrupt):
    """A run was asked to end. Not an Exception, so that no handler for those catches it."""

    def __init__(self, cause: str, exit_status: int) -> None:
        super().__init__(cause)
        self.cause = cause
        self.exit_status = exit_status
        self.number = 0
        """The signal's; 0 = none, as of a time limit."""
        self.remedy = "nothing was saved"
        """How to resume the run, for the message."""

    def __str__(self) -> str:
        """Describe why the run ended and how to resume it."""
        return f"{self.state} by {self.cause}; {self.remedy}"

    @property
    def state(self) -> Literal["interrupted", "stopped"]:
        """The run's status in the manifest."""
        return "stopped" if self.exit_status == STOPPED else "interrupted"

    def without_checkpoint(self) -> None:
        """Note that there is none: a job that starts anew after ``STOPPED`` would never end."""
        if self.exit_status == STOPPED:
            self.exit_status = 128 + self.number if self.number else 1


class Signals:
    """Turns the first signal into :class:`Interrupted`.

    A second one of ``INTERRUPTS`` ends the process at once. One of ``REQUESTS`` does not: what it
    asks for is being done, and the kernel repeats SIGXCPU every second until the process is over.
    """

    def __init__(self) -> None:
        self.pending: Interrupted | None = None
        """What came in."""
        self._at = 0.0
        self._taken = False
        self.deferring = 0
        """Blocks that hold :class:`Interrupted` back at the moment."""
        self._before: dict[int, Any] = {}
        """The handlers in whose place it listens."""
        self._timer: threading.Timer | None = None
        self._limit = ""
        self.held = False
        """Whether signals only become ``pending``, as until several ranks raise one together."""
        self.patience = ONE
        """Seconds after which another signal ends the process at once."""

    @contextmanager
    def installed(self, *, held: bool = False) -> Iterator[None]:
        """Listen while the block runs; does nothing outside the main thread.

        ``held``: until a block within it that is installed too, what arrives is not raised; both
        end where the inner one does. Signals that this process was started to ignore, as under
        nohup, stay ignored.
        """
        if not self._before and threading.current_thread() is threading.main_thread():
            for listened in (*INTERRUPTS, *REQUESTS):
                if signal.getsignal(listened) is not signal.SIG_IGN:
                    self._before[listened] = signal.signal(listened, self._receive)
        self.held = held
        try:
            self.poll()
            yield
        finally:
            if self._timer:
                self._timer.cancel()
            repeats = REQUESTS if self.pending and self.pending.state == "stopped" else ()
            while self._before:
                number, handler = self._before.popitem()
                signal.signal(number, _already_told if number in repeats else handler)

    @contextmanager
    def deferred(self) -> Iterator[None]:
        """Delay :class:`Interrupted` while the block runs, until its end or :meth:`poll`."""
        self.deferring += 1
        try:
            yield
        finally:
            self.deferring -= 1
        if not self.deferring:
            self.poll()

    def poll(self) -> None:
        """Raise what arrived while it was delayed."""
        if self.pending and not self._taken and not self.held:
            raise self.pending

    def take(self) -> None:
        """Record that the caller handles the interruption, so that it is not raised again."""
        self._taken = True

    def stop_in(self, seconds: float, limit: str) -> None:
        """Interrupt after that many seconds of a monotonic clock; ``limit`` tells why."""
        self._timer = threading.Timer(seconds, self._expire, [limit])
        self._timer.daemon = True
        self._timer.start()

    def interrupt(self, cause: str) -> None:
        """Do what SIGTERM would do, without a signal."""
        self._arrive(Interrupted(cause, 128 + signal.SIGTERM))

    def _arrive(self, interrupted: Interrupted) -> None:
        self._at, self.pending = time.monotonic(), interrupted
        if not (self.deferring or self.held):
            raise interrupted

    def _expire(self, limit: str) -> None:
        self._limit = limit
        main = threading.main_thread().ident
        if main is not None and signal.getsignal(signal.SIGUSR1) == self._receive:
            signal.pthread_kill(main, signal.SIGUSR1)  # wakes whatever the main thread waits for
        elif self.pending is None:
            self.pending = Interrupted(limit, STOPPED)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if self.pending is None:
            status = STOPPED if number in REQUESTS else 128 + number
            interrupted = Interrupted(self._limit or signal.Signals(number).name, status)
            interrupted.number = 0 if self._limit else number
            self._arrive(interrupted)
        elif number in INTERRUPTS and time.monotonic() - self._at > self.patience:
            os._exit(128 + number)


def _already_told(number: int, frame: FrameType | None) -> None:
    """Do nothing: the process ends as it was asked to. A later run listens again."""
