"""The ``[checkpoint]`` table that training algorithms share. Imports no torch.

An algorithm takes it by a keyword-only argument of its ``build``::

    checkpoint: Annotated[CheckpointPlan, CheckpointTable] | None = None
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field

from alignkit.component import Params

UNITS = {"d": 86400, "h": 3600, "m": 60, "s": 1}
DURATION = re.compile(r"(?=\d)" + "".join(rf"(?:(\d+(?:\.\d+)?){unit})?" for unit in UNITS))


def seconds(text: str) -> float:
    """Return a duration in seconds; ValueError for anything but such as "3h50m" or "90s".

    >>> seconds("3h50m"), seconds("1.5h"), seconds("90s")
    (13800.0, 5400.0, 90.0)
    """
    found = DURATION.fullmatch(text.strip())
    total = (
        sum(float(n) * size for n, size in zip(found.groups(), UNITS.values(), strict=True) if n)
        if found
        else 0.0
    )
    if total <= 0:
        raise ValueError(f'{text!r} is no duration; write one such as "3h50m", "15m" or "90s"')
    return total


def _duration(text: str) -> str:
    seconds(text)
    return text


Duration = Annotated[str, AfterValidator(_duration)]


@dataclass(frozen=True, slots=True)
class CheckpointPlan:
    """When to save a run's state, how much of it to keep, and when to stop."""

    every: int | str = "15m"
    """Steps (0 = never), or a duration."""
    keep_last: int = 2
    keep_best: int = 0
    metric: str = "eval/answer_reward"
    goal: Literal["max", "min"] = "max"
    keep_every: int = 0
    """Steps between models that stay, in ``models/``; 0 = none."""
    stop_after: str | None = None

    def keeps(self, step: int, part: int) -> bool:
        """Whether the model stays as it is after ``step``, or ``part`` of the next."""
        return part == 0 and step > 0 and self.keep_every > 0 and step % self.keep_every == 0

    def due(self, step: int, part: int, waited: float) -> bool:
        """Whether to save after ``step``, or ``part`` of the next, ``waited`` s after the last."""
        if isinstance(self.every, str):
            return waited >= seconds(self.every)
        return part == 0 and step > 0 and self.every > 0 and step % self.every == 0


class CheckpointTable(Params[CheckpointPlan]):
    """Saved states of the run, to resume it from; besides, it is saved whenever a signal or
    ``stop_after`` ends it."""

    harmless = True

    every: Annotated[int, Field(ge=0)] | Duration = "15m"
    """Steps between saved states, or a duration such as "15m" or "1h"; 0 = only when the run is
    ended before its end. What a run loses that is killed without warning."""

    keep_last: Annotated[int, Field(ge=1)] = 2
    """Newest states kept. With 2 there is one to go back to when a file is damaged."""

    keep_best: Annotated[int, Field(ge=0)] = 0
    """States kept besides whose evaluation was best; each is saved when it is evaluated, with a
    folder ``model`` that ``from_pretrained`` loads."""

    metric: str = "eval/answer_reward"
    """What keep_best goes by."""

    goal: Literal["max", "min"] = "max"
    """Whether more or less of ``metric`` is better."""

    keep_every: Annotated[int, Field(ge=0)] = 0
    """Steps between models that stay, whatever becomes of the states: folders ``models/step_…``
    that ``from_pretrained`` loads; 0 = none. Equal to ``eval.every``, one for each evaluation."""

    stop_after: Duration | None = None
    """Save and stop, with exit status 75, so long after this process began: less than the time
    limit of a batch job, such as "3h50m" of 4 hours. ``alignkit resume`` counts anew."""

    def build(self) -> CheckpointPlan:
        return CheckpointPlan(**self.model_dump())

    def check(self, tables: Mapping[str, Any]) -> Iterable[tuple[str, str]]:
        default = type(self).model_fields["metric"].default
        if self.metric != default and not self.keep_best:
            yield "metric", "nothing goes by it; set keep_best to 1 or more"
