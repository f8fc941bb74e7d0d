"""Runs Python that nobody has read: no network, no files, bounded time, memory and output.

Each call is one process, which :mod:`alignkit_environments.jail` has give up all else before the
code begins. It starts in some 50 ms.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import IO, Literal

JAIL = Path(__file__).with_name("jail.py")
FLAGS = ("-s", "-S", "-P", "-B")
"""No packages, no paths but the standard library's, nothing written."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """What one call may take."""

    seconds: float = 5.0
    """By the clock."""
    memory_mb: int = 256
    """Address space, 2**20 bytes."""
    output: int = 4000
    """Characters that are kept of what is printed."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a call."""

    how: Literal["done", "failed", "time", "output"]
    """"done": all of it ran; "failed": it raised, or ended before its end; "time", "output": it was
    ended at that bound."""
    text: str
    """What was printed, errors included, up to the bound."""


def run(parts: Sequence[str], bounds: Bounds, *, seed: int = 0) -> Outcome:
    """Run pieces of code one after the other, in one process and name space.

    Each begins where the one before has not raised. Module ``random`` is seeded.
    """
    word = secrets.token_hex(16)
    process = _started(bounds, seed)
    try:
        sent = json.dumps(list(parts)) + f"\n{word}\n"
        text, ended = _read(process, sent.encode(), bounds)
    finally:
        _end(process)
    if ended:
        return Outcome(ended, text[: bounds.output])
    done = process.returncode == 0 and text.rstrip("\n").endswith(word)
    text = text.rstrip("\n").removesuffix(word) if done else text
    return Outcome("done" if done else "failed", text[: bounds.output])


@cache
def problem() -> str:
    """Return why code cannot be sandboxed on this machine, with a remedy; "" if it can."""
    if not sys.platform.startswith("linux"):
        return "running code that a model wrote needs Linux, whose kernel keeps it in"
    found = run(["print(6 * 7)"], Bounds(seconds=20.0))
    if found == Outcome("done", "42\n"):
        return ""
    return (
        "running code that a model wrote needs Landlock and seccomp (Linux 5.13, x86_64 or "
        f"aarch64); a trial said: {found.text.strip()[-200:] or found.how}"
    )


def _started(bounds: Bounds, seed: int) -> subprocess.Popen[bytes]:
    limits = {
        "memory": bounds.memory_mb * 2**20,
        "seconds": bounds.seconds,
        "seed": seed,
    }
    return subprocess.Popen(  # nosec B603 # a list of words, no shell
        [os.path.realpath(sys.executable), *FLAGS, str(JAIL), json.dumps(limits)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        cwd="/",
        env={"PYTHONHASHSEED": "0", "PYTHONIOENCODING": "utf-8:backslashreplace"},
        start_new_session=True,
    )


def _read(
    process: subprocess.Popen[bytes], sent: bytes, bounds: Bounds
) -> tuple[str, Literal["", "time", "output"]]:
    """Send the code and read what is printed, up to the bounds; return it and which was met."""
    assert process.stdin is not None
    assert process.stdout is not None
    deadline = time.monotonic() + bounds.seconds
    most = 4 * bounds.output + 1000  # bytes; a character has four at most
    got = bytearray()
    with selectors.DefaultSelector() as ready:
        ready.register(_unblocked(process.stdin), selectors.EVENT_WRITE)
        ready.register(_unblocked(process.stdout), selectors.EVENT_READ)
        while (left := deadline - time.monotonic()) > 0:
            for key, _ in ready.select(left):
                if key.fileobj is process.stdin:
                    sent = _written(process.stdin, sent)
                    if not sent:  # first out of the selector: a fork may hold on to a closed pipe
                        ready.unregister(process.stdin)
                        _close(process.stdin)
                elif piece := os.read(process.stdout.fileno(), 2**16):
                    got += piece
                else:
                    _wait(process, deadline)
                    return _text(got), ""
            if len(got) > most:
                return _text(got), "output"
    return _text(got), "time"


def _unblocked(pipe: IO[bytes]) -> IO[bytes]:
    os.set_blocking(pipe.fileno(), False)
    return pipe


def _written(pipe: IO[bytes], data: bytes) -> bytes:
    """Write what the pipe takes; return the rest, nothing where nobody reads it any more."""
    try:
        return data[os.write(pipe.fileno(), data) :]
    except BrokenPipeError:
        return b""


def _close(pipe: IO[bytes] | None) -> None:
    if pipe is not None:
        with contextlib.suppress(BrokenPipeError):
            pipe.close()


def _wait(process: subprocess.Popen[bytes], deadline: float) -> None:
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(max(deadline - time.monotonic(), 0.1))


def _end(process: subprocess.Popen[bytes]) -> None:
    """End the process and close its pipes."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    _close(process.stdin)
    _close(process.stdout)


def _text(got: bytearray) -> str:
    return got.decode("utf-8", "replace")
