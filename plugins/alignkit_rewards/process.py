"""A process that works for this one: started, read line by line, and killed."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

IDLE_S = 60.0
"""A process that was waited for so long in which it did not compute is given up."""

SLICE_S = 0.5
"""It is looked this often at how much of its time a process has used. What this one is stopped
itself, between two looks, counts as one."""

_CPUCLOCK_SCHED = 2
"""Linux makes the number of a process's CPU clock from this and the process's own."""


class Process:
    """A child whose standard input and output are pipes."""

    def __init__(self, command: Sequence[str], **options: Any) -> None:
        """Start ``command``; ``options`` are those of ``Popen``. It leads a process group."""
        self.process = subprocess.Popen(  # nosec B603 # a list of words, no shell
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            bufsize=0,
            process_group=0,
            **options,
        )
        self.ended = False
        self._buffer = b""

    def write(self, data: bytes) -> None:
        """Send bytes; BrokenPipeError if the process is dead."""
        assert self.process.stdin is not None
        left = memoryview(data)
        while left:
            left = left[self.process.stdin.write(left) or 0 :]

    def line(self, timeout: float | None) -> bytes | None:
        """Read one line; ``b""`` if the process ended, None if ``timeout`` seconds ran out."""
        deadline = None if timeout is None else time.monotonic() + timeout
        while b"\n" not in self._buffer:
            left = None if deadline is None else deadline - time.monotonic()
            if not _readable(self._output, left):
                return None
            if not self._read():
                return b""
        return self._first_line()

    def line_of_work(self, limit: float) -> bytes | None:
        """Read one line; ``b""`` if the process ended, None if its own time ran out.

        That is after ``limit`` seconds of its CPU time, or ``IDLE_S`` in which it could compute and
        did not.
        """
        began, waited = self._computed(), 0.0
        while b"\n" not in self._buffer:
            if not _readable(self._output, SLICE_S):
                used = self._computed() - began
                waited += 0.0 if _stopped(self.process.pid) else SLICE_S
                if used > limit or waited - used > IDLE_S:
                    return None
            elif not self._read():
                return b""
        return self._first_line()

    @property
    def _output(self) -> int:
        assert self.process.stdout is not None
        return self.process.stdout.fileno()

    def _read(self) -> bool:
        """Read what is there; False, and the process is reaped, if it has ended."""
        assert self.process.stdout is not None
        data = self.process.stdout.read(65536)
        if not data:
            self.process.wait()
        self._buffer += data or b""
        return bool(data)

    def _first_line(self) -> bytes:
        line, _, self._buffer = self._buffer.partition(b"\n")
        return line

    def _computed(self) -> float:
        """Return the process's CPU seconds; 0 where they are not told."""
        try:
            return time.clock_gettime(~self.process.pid << 3 | _CPUCLOCK_SCHED)
        except OSError:  # it has just ended: the next read says so
            return 0.0

    @property
    def alive(self) -> bool:
        """Whether the process is still there."""
        return self.process.poll() is None

    def kill(self) -> None:
        """End the process now, with those that it started, and reap it."""
        self.ended = True
        self.kill_group()
        self.process.wait()
        for stream in (self.process.stdin, self.process.stdout):
            if stream is not None:
                stream.close()

    def kill_group(self) -> None:
        """Kill the process and those that it started; it is not reaped."""
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process.pid, signal.SIGKILL)


def _readable(descriptor: int, timeout: float | None) -> bool:
    if timeout is not None and timeout <= 0:
        return False
    poller = select.poll()  # select.select cannot take descriptors above 1023
    poller.register(descriptor, select.POLLIN | select.POLLHUP)
    return bool(poller.poll(None if timeout is None else timeout * 1000))


def _stopped(process: int) -> bool:
    """Whether a process is stopped, as by SIGSTOP."""
    try:
        stat = Path(f"/proc/{process}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return False
    return stat.rpartition(")")[2].split()[0] in ("T", "t")
