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
    """Return a duration such as "3h50m" or "90s" in seconds; ValueError for anything else.

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
    """When to save checkpoints, how many to keep, and when to stop."""

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
        """Whether to save now: after ``step``, or ``part`` of the next one.

        ``waited`` is the time since the last checkpoint, in seconds.
        """
        if isinstance(self.every, str):
            return waited >= seconds(self.every)
        return part == 0 and step > 0 and self.every > 0 and step % self.every == 0


class CheckpointTable(Params[CheckpointPlan]):
    """Checkpoints, from which the run can be resumed. One is also saved whenever a signal or
    ``stop_after`` ends the run."""

    harmless = True

    every: Annotated[int, Field(ge=0)] | Duration = "15m"
    """Steps between checkpoints, or a duration such as "15m" or "1h"; 0 = only when the run is
    ended early. A run that is killed without warning loses at most this much work."""

    keep_last: Annotated[int, Field(ge=1)] = 2
    """Number of newest checkpoints to keep. With 2, there is another if one is damaged."""

    keep_best: Annotated[int, Field(ge=0)] = 0
    """Number of checkpoints with the best evaluation to keep in addition. Each is saved when it is
    evaluated, with a folder ``model`` that ``from_pretrained`` loads."""

    metric: str = "eval/answer_reward"
    """Metric by which keep_best chooses."""

    goal: Literal["max", "min"] = "max"
    """Whether larger or smaller values of ``metric`` are better."""

    keep_every: Annotated[int, Field(ge=0)] = 0
    """Steps between models that stay, whatever becomes of the states: folders ``models/step_…``
    that ``from_pretrained`` loads; 0 = none. Equal to ``eval.every``, one for each evaluation."""

    stop_after: Duration | None = None
    """Save and stop, with exit status 75, this long after the process started. Choose it shorter
    than the time limit of a batch job, such as "3h50m" for 4 hours. ``alignkit resume`` starts a
    new count."""

    def build(self) -> CheckpointPlan:
        return CheckpointPlan(**self.model_dump())

    def check(self, tables: Mapping[str, Any]) -> Iterable[tuple[str, str]]:
        default = type(self).model_fields["metric"].default
        if self.metric != default and not self.keep_best:
            yield "metric", "nothing goes by it; set keep_best to 1 or more"
