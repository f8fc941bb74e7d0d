"""Calls that need W&B's own process, which may be stopped or slow: no run waits for it for ever."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

from alignkit import AlignkitError

POLL = 0.5
"""Seconds between two looks at the process while a call takes its time."""
STOPPED_FOR = 10.0
"""Seconds that the process may be stopped, as by SIGSTOP, while a call waits for it."""


def patiently(call: Callable[[], object], limit: float) -> None:
    """Make a call that ends within ``limit`` seconds.

    Raises what it raises; AlignkitError where it takes longer, or W&B's process is stopped. The
    process is then ended: it would be waited for again when Python ends.
    """
    raised: list[BaseException] = []
    thread = threading.Thread(target=_keep, args=(call, raised), daemon=True)
    thread.start()
    began = running = time.monotonic()
    while thread.is_alive():
        thread.join(POLL)
        now = time.monotonic()
        if not _stopped():
            running = now
        if thread.is_alive() and (now - running > STOPPED_FOR or now - began > limit):
            _end()
            word = "is stopped" if now > running else f"took more than {limit:g} s"
            raise AlignkitError(f"W&B's process {word}; it was ended, and what it had is on disk")
    if raised:
        raise raised[0]


def _keep(call: Callable[[], object], raised: list[BaseException]) -> None:
    try:
        call()
    except BaseException as error:  # noqa: BLE001 - raised again by the thread that waits
        raised.append(error)


def _stopped() -> bool:
    """Whether a process of W&B's that this one started is stopped, as far as Linux tells."""
    return any(state == "T" for _, state in _children())


def _end() -> None:
    for number, _ in _children():
        with suppress(ProcessLookupError):
            os.kill(number, signal.SIGKILL)


def _children() -> Iterator[tuple[int, str]]:
    """Yield number and state of each process of W&B's that this process started."""
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            state, parent, *_ = stat.read_text().rpartition(")")[2].split()
            if int(parent) == os.getpid() and b"wandb" in stat.with_name("cmdline").read_bytes():
                yield int(stat.parent.name), state
