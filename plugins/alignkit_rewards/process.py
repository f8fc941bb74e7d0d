"""A process that works for this one: started, read line by line, and killed."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Any


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
        assert self.process.stdout is not None
        deadline = None if timeout is None else time.monotonic() + timeout
        while b"\n" not in self._buffer:
            left = None if deadline is None else deadline - time.monotonic()
            if not _readable(self.process.stdout.fileno(), left):
                return None
            data = self.process.stdout.read(65536)
            if not data:
                self.process.wait()
                return b""
            self._buffer += data
        line, _, self._buffer = self._buffer.partition(b"\n")
        return line

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
