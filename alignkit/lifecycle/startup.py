"""Signals before a run listens to them itself: they end the process, with the usual status.

Nothing has been written at that point, so the process ends at once. An exception would be lost, or
shown as a traceback, in whatever is being imported.
"""

from __future__ import annotations

import os
import signal
import sys
from contextlib import suppress
from types import FrameType

from alignkit.lifecycle.signals import INTERRUPTS, REQUESTS, STOPPED, Interrupted

USUAL = (signal.SIG_DFL, signal.default_int_handler)
"""The handlers that Python starts with."""


def guard() -> None:
    """Listen, except to signals that this process was started to ignore."""
    for number in (*INTERRUPTS, *REQUESTS):
        if signal.getsignal(number) in USUAL:
            signal.signal(number, _end)


def release() -> None:
    """Give the signals back the effect they have in any Python program."""
    for number in (*INTERRUPTS, *REQUESTS):
        if signal.getsignal(number) is _end:
            signal.signal(number, USUAL[number == signal.SIGINT])


def finish() -> None:
    """Ignore requests to save and stop at the end of a command: it is over, and has its status.

    The interpreter takes its handlers away before it is over. Freeing the tensors of a run may take
    longer than the second after which the kernel repeats SIGXCPU, which would end the process by
    that signal, as a job that is not to be started again.
    """
    for number in REQUESTS:
        if callable(signal.getsignal(number)):
            signal.signal(number, signal.SIG_IGN)


def _end(number: int, frame: FrameType | None) -> None:
    """Say what happened and end the process; no other Python code runs any more."""
    goes_on = number in REQUESTS and _resumes()
    ended = Interrupted(signal.Signals(number).name, STOPPED if goes_on else 128 + number)
    ended.remedy = "nothing was written"
    with suppress(OSError):
        os.write(2, f"{ended}\n".encode())
    os._exit(ended.exit_status)


def _resumes() -> bool:
    """Whether the command resumes a run that has a checkpoint, which it leaves as it is."""
    words = sys.argv[1:]
    if words[:1] != ["resume"]:
        return False
    from pathlib import Path

    return any(any(Path(word, "checkpoints").glob("step_*")) for word in words[1:])
