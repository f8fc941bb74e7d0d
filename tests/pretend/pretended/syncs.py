"""Where the host waits for the device: each such place in the code under test, counted."""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
_OURS = (f"{ROOT}/alignkit/", f"{ROOT}/plugins/")

FOUND: Counter[tuple[str, str]] = Counter()
"""How often the host waited, by what for and ``file:line function`` of the code under test."""

_capture = False


class CaptureError(RuntimeError):
    """What waits for the device cannot be recorded into a CUDA graph."""


def note(what: str) -> None:
    """Count that the host waits for the device."""
    if _capture:
        raise CaptureError(f"operation not permitted when stream is capturing: {what}")
    FOUND[what, _place()] += 1


def capturing(begins: bool) -> None:
    """From now on refuse syncs, or count them again."""
    global _capture  # noqa: PLW0603 - there is one device
    _capture = begins


def table() -> str:
    """Return what was counted, the most frequent first."""
    return "\n".join(f"{n:4d}  {what:30s} {at}" for (what, at), n in FOUND.most_common())


def _place() -> str:
    frame = sys._getframe(2)
    while frame is not None:
        path = frame.f_code.co_filename
        if path.startswith(_OURS):
            name = path.removeprefix(f"{ROOT}/").removeprefix("plugins/")
            return f"{name}:{frame.f_lineno} {frame.f_code.co_name}"
        frame = frame.f_back  # type: ignore[assignment]
    return "elsewhere"
