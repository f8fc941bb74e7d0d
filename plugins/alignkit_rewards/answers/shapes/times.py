"""Times of day: ``7:30 PM``, ``19:30``, ``noon``."""

from __future__ import annotations

import re
from dataclasses import dataclass

from alignkit_rewards.answers.shapes.nodes import Node, Ratio, Scalar, Text

_CLOCK = re.compile(r"(\d{1,2})(?::(\d{2}))?(?::(\d{2}))?\s*(am|pm)?", re.I)
_NAMED = {"noon": (12, "pm"), "midday": (12, "pm"), "midnight": (12, "am")}


@dataclass(frozen=True, slots=True)
class Clock:
    """A time as written; ``half`` is ``am``, ``pm`` or empty."""

    hour: int
    minute: int
    second: int
    half: str

    @property
    def seconds(self) -> int:
        """Seconds since midnight; without "am" or "pm" on the 24-hour clock."""
        hour = self.hour % 12 + 12 * (self.half == "pm") if self.half else self.hour
        return (hour * 60 + self.minute) * 60 + self.second


def clock(node: Node) -> Clock | None:
    """Return the answer as a time of day, None if it cannot be one."""
    if not isinstance(node, Ratio | Scalar | Text):
        return None
    text = re.sub(r"\\(?:text|mathrm)\s*\{([^{}]*)\}|[.\s]", r"\1", node.text).lower()
    if text in _NAMED:
        hour, half = _NAMED[text]
        return Clock(hour, 0, 0, half)
    unit = node.unit if isinstance(node, Scalar) else ""
    found = _CLOCK.fullmatch(text + unit if unit in {"am", "pm"} else text)
    if not found or (isinstance(node, Scalar) and not found[4]):
        return None
    hour, minute, second = (int(found[i] or 0) for i in (1, 2, 3))
    real = minute < 60 and second < 60 and hour <= (12 if found[4] else 24)
    return Clock(hour, minute, second, found[4] or "") if real else None


def same_time(gold: Node, answer: Node) -> bool | None:
    """Return whether two times of day are equal, None if they are not both clock times.

    If the gold has "am" or "pm", the answer must agree; ``7:30`` alone can only be 7:30 AM.
    """
    left, right = clock(gold), clock(answer)
    if left is None or right is None or not (left.half or right.half):
        return None
    if left.half:
        return left.seconds == right.seconds
    written = (left.hour, left.minute, left.second) == (right.hour, right.minute, right.second)
    return written or left.seconds == right.seconds
