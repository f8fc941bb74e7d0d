"""No silent hangs: every stage that waits for the engine has a deadline and a heartbeat.

When a deadline passes, the stacks of all threads are printed to stderr and the stage ends with a
:class:`DeadlineError` that names the stage, the engine, and the stage that finished last. Code that
never returns to Python cannot be interrupted; after ``GRACE`` more seconds the process is ended.
"""

from __future__ import annotations

import ctypes
import faulthandler
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from time import monotonic
from types import FrameType
from typing import Any, TypeVar

from alignkit.errors import AlignkitError
from alignkit.security.text import printable

T = TypeVar("T")

GRACE = 30.0
"""Seconds between the interruption of a stage and the end of the process."""


class DeadlineError(AlignkitError):
    """A stage did not finish in time."""


class Watchdog:
    """Watches the stages of one backend."""

    def __init__(self, peer: Callable[[], str], heartbeat: float) -> None:
        self.peer = peer
        """Returns the name of the engine, for messages."""
        self.heartbeat = heartbeat
        """Seconds between two reports of progress."""
        self.finished = "nothing yet"
        """The last stage that succeeded."""
        self.finished_at = monotonic()
        self.on_expiry: Callable[[], str] = lambda: ""
        """Called when a deadline passes; returns more lines for the message, or ""."""
        self.on_exit: Callable[[], None] = lambda: None
        """Called before the process is ended, to kill the processes it started."""

    @contextmanager
    def stage(
        self, name: str, deadline: float, progress: Callable[[], str] = lambda: ""
    ) -> Iterator[None]:
        """Run the block as stage ``name`` for at most ``deadline`` seconds.

        ``progress`` returns a few words for the heartbeat; it is called from another thread.
        """
        with self._watched(_Watcher(self, name, deadline, progress, 0.0)):
            yield
        self.finished, self.finished_at = name, monotonic()

    def each(
        self,
        name: str,
        deadline: float,
        items: Iterable[T],
        progress: Callable[[], str] = lambda: "",
    ) -> Iterator[T]:
        """Yield ``items`` as one stage; the caller's own time between two items does not count."""
        source, spent, last = iter(items), 0.0, object()
        while True:
            start = monotonic()
            with self._watched(_Watcher(self, name, deadline, progress, spent)):
                item: Any = next(source, last)
            if item is last:
                break
            spent += monotonic() - start
            yield item
        self.finished, self.finished_at = name, monotonic()

    @contextmanager
    def _watched(self, watcher: _Watcher) -> Iterator[None]:
        try:
            with _interruptible(watcher):
                watcher.start()
                try:
                    yield
                finally:
                    watcher.done.set()
        except Exception as error:
            watcher.finish()
            if watcher.error is not None:  # errors that follow from ending the engine matter less
                raise watcher.error from error
            raise
        finally:
            watcher.finish()
        if watcher.error is not None:  # the deadline passed at the moment the block ended
            raise watcher.error


class _Watcher(threading.Thread):
    """A thread that watches one stage."""

    def __init__(
        self, watch: Watchdog, name: str, deadline: float, progress: Callable[[], str], spent: float
    ) -> None:
        """``spent`` is how many seconds of the deadline were used before."""
        super().__init__(name=f"alignkit watches {name}", daemon=True)
        self.spent = spent
        self.watch, self.stage, self.deadline, self.progress = watch, name, deadline, progress
        self.target = threading.current_thread()
        self.done = threading.Event()
        self.error: DeadlineError | None = None

    def finish(self) -> None:
        """Stop watching; an expiry in progress completes first."""
        self.done.set()
        self.join()
        if self.target is not threading.main_thread():
            _raise_in(self.target, None)  # nothing may be raised after the block

    def run(self) -> None:
        start, beat = monotonic() - self.spent, self.watch.heartbeat
        until = self.spent - self.spent % beat + beat
        while True:
            gone = monotonic() - start
            if self.done.wait(max(min(until, self.deadline) - gone, 0)):
                return
            if monotonic() - start >= self.deadline:
                break
            say(f"{self._where()}: still at work after {monotonic() - start:.0f} s")
            until += beat
        self._expire()

    def _where(self) -> str:
        progress = self.progress()
        return f"{self.stage}: {self.watch.peer()}{f', {progress}' if progress else ''}"

    def _expire(self) -> None:
        ago = monotonic() - self.watch.finished_at
        message = (
            f"{self._where()}: not finished after {self.deadline:g} s; finished last: "
            f"{self.watch.finished}, {ago:.0f} s ago. The stacks of all threads are on stderr"
        )
        faulthandler.dump_traceback(_stderr(), all_threads=True)
        more = self.watch.on_expiry()
        self.error = DeadlineError(f"{message}\n{more}" if more else message)
        if self.done.is_set():
            return
        _interrupt(self.target)
        if not self.done.wait(GRACE):
            say(f"{self.error}\n{self.stage} does not react; ending the process")
            self.watch.on_exit()
            os._exit(1)


def say(text: str) -> None:
    """Print a line about the engine."""
    print(printable(f"alignkit: vllm: {text}"), file=sys.stderr, flush=True)


def _stderr() -> Any:
    """Return a stderr with a file descriptor; under a test runner it may have none."""
    try:
        sys.stderr.fileno()
    except (AttributeError, OSError, ValueError):
        return sys.__stderr__
    return sys.stderr


@contextmanager
def _interruptible(watcher: _Watcher) -> Iterator[None]:
    """Let the watcher's signal end a wait of the main thread, with the watcher's error."""
    if watcher.target is not threading.main_thread():
        try:
            yield
        except _Interruption:
            assert watcher.error is not None
            raise watcher.error from None
        return

    def interrupted(signum: int, frame: FrameType | None) -> None:
        if watcher.error is not None and not watcher.done.is_set():
            raise watcher.error
        if watcher.error is None and callable(before):
            before(signum, frame)  # not the watcher's signal: a request to stop the run, say

    before = signal.signal(signal.SIGUSR2, interrupted)
    try:
        yield
    finally:
        watcher.finish()  # a signal it sends this late must not reach the former handler
        signal.signal(signal.SIGUSR2, before)


class _Interruption(BaseException):
    """Raised in threads other than the main one, which no signal reaches."""


def _interrupt(thread: threading.Thread) -> None:
    if thread.ident is None:
        return
    if thread is threading.main_thread():
        signal.pthread_kill(thread.ident, signal.SIGUSR2)  # also ends a system call
    else:
        _raise_in(thread, _Interruption)


def _raise_in(thread: threading.Thread, error: type[BaseException] | None) -> None:
    """Make ``thread`` raise ``error`` at its next line of Python; None cancels that."""
    ident = ctypes.c_ulong(thread.ident or 0)
    ctypes.pythonapi.PyThreadState_SetAsyncExc(
        ident, None if error is None else ctypes.py_object(error)
    )
