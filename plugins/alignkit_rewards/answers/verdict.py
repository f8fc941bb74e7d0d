"""The verdict on one answer, and the conventions by which it is reached."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Percent = Literal["either", "sign", "value"]
Rough = Literal["decimals", "accepted", "refused"]
SeveralBoxes = Literal["listed", "last", "agree"]


@dataclass(frozen=True, slots=True)
class Conventions:
    """Choices on which graders may reasonably differ; see :class:`alignkit_rewards.Graded`."""

    percent: Percent = "either"
    rounding: int = 6
    list_order: Literal["free", "kept"] = "free"
    unsimplified: bool = True
    decimal_comma: bool = False
    rough: Rough = "decimals"
    several_boxes: SeveralBoxes = "listed"
    unit_conversion: bool = False


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether an answer is right, and why."""

    correct: bool
    why: str
    """"exact", "number", "text", "expression" … of a match; "different", "unparsed",
    "no answer", "timed out", "out of memory", "crashed" of a miss."""
