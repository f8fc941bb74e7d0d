"""Rules on a run's metrics that report problems while they can still be fixed.

A rule looks at the row of each step. Once its level has been passed for a number of steps in a row,
it warns once or stops the run, and reports what was seen, since which step, what usually causes it
and what to change. Rules on metrics that a run does not log report nothing.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from copy import copy
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from alignkit.errors import AlignkitError

if TYPE_CHECKING:
    from alignkit.protocols import Run

Action = Literal["warn", "stop", "off"]
Side = Literal["above", "below", "below its start times"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """One problem to watch for."""

    name: str
    """Key of the recipe's table [watch] that sets what to do about it."""
    metric: str
    level: float
    """In the metric's unit; for "below its start times" a share of the first steps' mean."""
    side: Side
    action: Action
    cause: str
    remedy: str
    only_with: str = ""
    """A metric that must be logged too for the rule to apply."""


def bound(rule: Rule, start: float | None) -> float | None:
    """Return the value not to be passed; None as long as the start is unknown."""
    if rule.side != "below its start times":
        return rule.level
    return None if start is None else rule.level * start


def passed(rule: Rule, value: float, limit: float) -> bool:
    """Whether ``value`` is on the wrong side of ``limit``; NaN is not."""
    return value > limit if rule.side == "above" else value < limit


@dataclass
class Streak:
    """What one rule has seen so far."""

    rule: Rule
    steps: int
    """Steps in a row that the level must be passed."""
    start_steps: int
    """Steps whose mean is the start."""
    count: int = 0
    since: int = 0
    told: bool = False
    first: list[float] = field(default_factory=list)

    def see(self, step: int, metrics: Mapping[str, float]) -> str:
        """Take one row; return the message that is due after it, else ""."""
        rule, value = self.rule, metrics.get(self.rule.metric)
        if value is None or math.isnan(value) or (rule.only_with and rule.only_with not in metrics):
            return ""
        start = sum(self.first) / len(self.first) if len(self.first) == self.start_steps else None
        limit = bound(rule, start)
        if start is None:
            self.first.append(value)
        if limit is None or not passed(rule, value, limit):
            self.count = 0
            return ""
        self.count += 1
        self.since = step if self.count == 1 else self.since
        if self.count < self.steps or self.told:
            return ""
        self.told = True
        return message(rule, value=value, limit=limit, step=step, since=self.since)


def message(rule: Rule, *, value: float, limit: float, step: int, since: int) -> str:
    """Describe what was seen, since when, the usual cause, and what to do."""
    side = "above" if rule.side == "above" else "below"
    of_start = f" ({rule.level:g} of its start)" if rule.side == "below its start times" else ""
    return (
        f"watch: {rule.metric} is {value:.4g} at step {step} and has been {side} {limit:.4g}"
        f"{of_start} since step {since}.\n"
        f"  Usual cause: {rule.cause}.\n"
        f"  Try: {rule.remedy}.\n"
        f'  This rule: [watch] {rule.name} = "{rule.action}" (or "warn", "stop", "off").'
    )


class Watcher:
    """Applies rules to every row that a run logs; a tracker, to be attached after the others."""

    def __init__(
        self,
        rules: Sequence[Rule] = (),
        *,
        steps: int = 1,
        start_steps: int = 1,
        nonfinite: int = 5,
    ) -> None:
        """``nonfinite`` optimizer steps in a row without a finite loss stop the run; 0 = never."""
        self.nonfinite = nonfinite
        active = [rule for rule in rules if rule.action != "off"]
        self._streaks = [Streak(rule, steps, start_steps) for rule in active]
        self._run: Run | None = None

    def advised(self, remedies: Mapping[str, str]) -> Watcher:
        """Return one whose rules, by name, also advise to set an algorithm's own keys."""
        made = copy(self)
        made._streaks = [replace(s, rule=_advised(s.rule, remedies)) for s in self._streaks]
        return made

    def start(self, run: Run, /) -> None:
        """Process what a resumed run had logged, without reporting anything."""
        self._run = run
        for row in _logged(run.dir / "metrics.jsonl"):
            list(self.see(int(row.pop("step")), row))

    def see(self, step: int, metrics: Mapping[str, float]) -> Iterator[tuple[Rule, str]]:
        """Yield each rule that has something to report after this row, and its message."""
        for streak in self._streaks:
            if said := streak.see(step, metrics):
                yield streak.rule, said

    def log(self, step: int, metrics: Mapping[str, float], /) -> None:
        """Warn if a rule says so; AlignkitError if one says to stop."""
        found = list(self.see(step, metrics))
        for _, said in found:
            if self._run is not None:
                self._run.say(said)
        stopping = [rule for rule, _ in found if rule.action == "stop"]
        if stopping:
            names = ", ".join(f"{r.metric} ({r.name})" for r in stopping)
            raise AlignkitError(f"stopped by [watch] at step {step}: {names}; see above")

    def rollouts(self, step: int, name: str, rows: Sequence[Mapping[str, Any]], /) -> None:
        """Do nothing: the rules are about metrics."""

    def close(self, status: Literal["done", "failed"], /) -> None:
        """Nothing to close."""


def _advised(rule: Rule, remedies: Mapping[str, str]) -> Rule:
    more = remedies.get(rule.name)
    return replace(rule, remedy=f"{rule.remedy}; or {more}") if more else rule


UNWATCHED = Watcher()
"""For an algorithm that is put together by hand: no rule about metrics."""


def _logged(path: Path) -> Iterator[dict[str, float]]:
    """Yield the complete rows of a run's metrics, without their null values."""
    if not path.is_file():
        return
    with path.open(encoding="utf-8") as file:
        for line in file:
            try:
                row = json.loads(line)
            except ValueError:  # a line cut off by a crash
                continue
            yield {name: value for name, value in row.items() if value is not None}
