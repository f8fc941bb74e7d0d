"""Write to stdout and stderr safely, also if they are closed, full, or a pipe without a reader."""

from __future__ import annotations

import errno
import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TextIO, cast


class Guarded:
    """A text stream that drops further output after a write has failed.

    The command continues, because its results, such as a run directory, matter more than its
    output.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self.failure: OSError | None = None
        """The error of the write that failed."""

    def write(self, text: str) -> int:
        """Write ``text``, or drop it after a failure."""
        self._try(lambda: self._stream.write(text))
        return len(text)

    def writelines(self, lines: Any) -> None:
        """Write each of ``lines``."""
        self.write("".join(lines))

    def flush(self) -> None:
        """Flush the stream's buffer."""
        self._try(self._stream.flush)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def _try(self, write: Any) -> None:
        if self.failure is not None:
            return
        try:
            write()
        except OSError as error:
            self.failure = error
            _into_nothing(self._stream)


@contextmanager
def guarded() -> Iterator[None]:
    """Guard stdout and stderr while a command runs; exit with status 1 if output was lost.

    Characters that the encoding lacks are written as escapes. Output to a closed stream is
    discarded, and files opened later do not get its descriptor. A reader that closes the pipe, as
    ``head`` does, is not an error; any other failure is reported on stderr.
    """
    _fill_closed()
    before = sys.stdout, sys.stderr
    streams = [Guarded(_tolerant(stream)) for stream in before]
    sys.stdout, sys.stderr = (cast(TextIO, stream) for stream in streams)
    status: Any = 0
    try:
        yield
    except SystemExit as end:
        status = end.code
    finally:
        for stream in streams:
            stream.flush()
        sys.stdout, sys.stderr = before
    sys.exit(_lost(streams[0]) if status in (0, None) else status)


def _lost(out: Guarded) -> int:
    """Report why output was lost; return the exit status."""
    if out.failure is None or out.failure.errno == errno.EPIPE:
        return 0
    print(f"cannot write to stdout: {out.failure.strerror}", file=sys.stderr, flush=True)
    return 1


def _fill_closed() -> None:
    """Redirect closed standard descriptors to the null device."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # gets the lowest free number, which is this one


def _tolerant(stream: TextIO | None) -> TextIO:
    if stream is None:  # Python found its descriptor closed
        return open(os.devnull, "w", encoding="utf-8")
    if isinstance(stream, io.TextIOWrapper):
        stream.reconfigure(errors="backslashreplace")
    return stream


def _into_nothing(stream: TextIO) -> None:
    """Redirect a stream's descriptor to the null device, so that its buffer can be flushed."""
    try:
        number = stream.fileno()
    except (OSError, ValueError):
        return
    nothing = os.open(os.devnull, os.O_WRONLY)
    if nothing != number:  # it gets the number of a descriptor that was closed
        os.dup2(nothing, number)
        os.close(nothing)
