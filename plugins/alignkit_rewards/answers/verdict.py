"""What a grader says of one answer, and the conventions it goes by."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Percent = Literal["either", "sign", "value"]
Rough = Literal["decimals", "accepted", "refused"]
SeveralBoxes = Literal["listed", "last", "agree"]


@dataclass(frozen=True, slots=True)
class Conventions:
    """Choices on which reasonable graders differ; :class:`alignkit_rewards.Graded` says more."""

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
    """Whether an answer is right, and what decided it."""

    correct: bool
    why: str
    """"exact", "number", "text", "expression" … of a match; "different", "unparsed",
    "no answer", "timed out", "out of memory", "crashed" of a miss."""
