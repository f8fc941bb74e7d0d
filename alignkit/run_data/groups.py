"""Group runs that differ only in their seed, and summarise each group.

The standard error over n seeds is the sample standard deviation (ddof 1) divided by √n. With one
seed it is the standard error over evaluation examples, if the run logged it. That one is usually
smaller, so an estimate records which of the two it has.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import fmean, stdev
from typing import Any, Literal

from alignkit.run_data.runs import RunData, find

ACCURACY = "eval/answer_reward"
Point = tuple[int, float]
"""Step and value."""


@dataclass
class Group:
    """Runs with the same settings, one per seed."""

    name: str
    runs: list[RunData] = field(default_factory=list)

    @property
    def plan(self) -> Mapping[str, Any]:
        """The resolved recipe of the first run."""
        return self.runs[0].plan

    def status(self) -> str:
        """Return how the runs ended: ``done``, or each other status with its count."""
        counts: dict[str, int] = {}
        for run in self.runs:
            counts[run.status] = counts.get(run.status, 0) + 1
        if len(self.runs) == 1 or len(counts) == 1:
            return next(iter(counts))
        return ", ".join(f"{n} {status}" for status, n in counts.items())

    def metrics(self) -> list[str]:
        """Return the metrics of all runs, in order of appearance."""
        return list(dict.fromkeys(name for run in self.runs for name in run.metrics()))


def load(folders: Iterable[Path]) -> list[Group]:
    """Read and group the runs at or below the directories; see :func:`runs.find`."""
    return group(find(folders))


def group(runs: Iterable[RunData]) -> list[Group]:
    """Group the runs of each sweep variant; other runs are grouped if their plans are equal.

    Two runs with equal plans and seeds differ in something else, such as code or machine, so they
    go into different groups.
    """
    groups: dict[str, list[Group]] = {}
    for run in runs:
        alike = groups.setdefault(_setting(run), [])
        free = [g for g in alike if run.seed not in {r.seed for r in g.runs}]
        if not free:
            free = [Group(run.variant)]
            alike += free
        free[0].runs.append(run)
    found = [g for alike in groups.values() for g in alike]
    for g in found:
        g.runs.sort(key=lambda run: (run.seed is None, run.seed or 0))
    _make_names_unique(found)
    return found


def _setting(run: RunData) -> str:
    if run.path.name.startswith("seed_"):
        return str(run.path.parent)
    if not run.plan:
        return str(run.path)
    return json.dumps({k: v for k, v in run.plan.items() if k != "seed"}, sort_keys=True)


def _make_names_unique(groups: Sequence[Group]) -> None:
    names = [g.name for g in groups]
    for g in groups:
        if names.count(g.name) > 1:
            parts = g.runs[0].path.parts
            seeded = parts[-1].startswith("seed_")
            g.name = "/".join(parts[-3:-1] if seeded else parts[-2:])
    seen: dict[str, int] = {}
    for g in groups:
        seen[g.name] = seen.get(g.name, 0) + 1
        if seen[g.name] > 1:
            g.name = f"{g.name} ({seen[g.name]})"


@dataclass(frozen=True)
class Estimate:
    """A mean with its standard error."""

    value: float
    se: float | None
    """None if it is not known."""
    n: int
    """Number of runs."""
    over: Literal["seeds", "examples"] = "seeds"
    """Whether the standard error is over seeds or over evaluation examples."""
    step: float | None = None
    """For best values: the mean of the steps at which they were logged."""

    def text(self, digits: int = 3) -> str:
        """Return ``0.712 ± 0.010``.

        >>> Estimate(0.7123, 0.01, 3).text()
        '0.712 ± 0.010'
        """
        error = "" if self.se is None else f" ± {self.se:.{digits}f}"
        return f"{self.value:.{digits}f}{error}"


def estimate(values: Sequence[float], logged_se: float | None = None) -> Estimate | None:
    """Return mean and standard error of one value per run; None if there are no values.

    >>> estimate([1.0, 3.0])  # deviation √2 over √2
    Estimate(value=2.0, se=1.0, n=2, over='seeds', step=None)
    """
    if not values:
        return None
    if len(values) > 1:
        return Estimate(fmean(values), stdev(values) / math.sqrt(len(values)), len(values))
    return Estimate(values[0], logged_se, 1, "seeds" if logged_se is None else "examples")


def final(g: Group, metric: str) -> Estimate | None:
    """Return the last logged value of a metric."""
    return _estimate(g, metric, _points(g, metric, lambda series: series[-1]))


def first(g: Group, metric: str) -> Estimate | None:
    """Return the first logged value of a metric: before training, for evaluations."""
    return _estimate(g, metric, _points(g, metric, lambda series: series[0]))


def _points(g: Group, metric: str, pick: Callable[[Sequence[Point]], Point]) -> list[Point]:
    """Return the point picked from each run that logged the metric."""
    return [pick(series) for run in g.runs if (series := run.series(metric))]


def _estimate(g: Group, metric: str, points: Sequence[Point]) -> Estimate | None:
    """Estimate from one point per run; with one run, its error is the one logged at that step."""
    errors = {k: v for run in g.runs for k, v in run.series(f"{metric}_se")}
    lone = errors.get(points[0][0]) if len(points) == 1 and len(g.runs) == 1 else None
    return estimate([value for _, value in points], lone)


def best(g: Group, metric: str, largest: bool = True) -> Estimate | None:
    """Return the mean over runs of each run's best logged value of a metric.

    The best of several noisy evaluations is biased; :func:`final` is not.
    """
    pick = max if largest else min
    chosen = _points(g, metric, lambda series: pick(series, key=lambda point: point[1]))
    found = _estimate(g, metric, chosen)
    return found and replace(found, step=fmean(step for step, _ in chosen))


def differences(groups: Sequence[Group]) -> dict[str, list[str]]:
    """Map the dotted key of each plan value that differs to its text in each group."""
    flat = [flatten(g.plan) for g in groups]
    keys = list(dict.fromkeys(k for plan in flat for k in plan if k != "seed"))
    table = {k: [_shown(plan.get(k)) for plan in flat] for k in keys}
    return {k: values for k, values in table.items() if len(set(values)) > 1}


def flatten(table: Any, prefix: str = "") -> dict[str, Any]:
    """Return a nested table as dotted keys to plain values.

    >>> flatten({"a": {"b": 1}, "c": [{"d": 2}], "e": [1, 2]})
    {'a.b': 1, 'c.0.d': 2, 'e': [1, 2]}
    """
    if isinstance(table, list) and any(isinstance(item, dict) for item in table):
        table = dict(enumerate(table))
    if not isinstance(table, dict):
        return {prefix: table}
    found: dict[str, Any] = {}
    for key, value in table.items():
        found |= flatten(value, f"{prefix}.{key}" if prefix else str(key))
    return found


def _shown(value: Any) -> str:
    if value is None:
        return "–"
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return Path(text).name if isinstance(value, str) and text.startswith("/") else text


def phases(g: Group) -> dict[str, float]:
    """Return mean seconds per run in each phase (``time/…``); "other" is the rest of the run."""
    names = [m for m in g.metrics() if m.startswith("time/")]
    means = {m: fmean(sum(v for _, v in run.series(m)) for run in g.runs) for m in names}
    found = {m.removeprefix("time/"): s for m, s in means.items() if s > 0}
    other = fmean(run.seconds for run in g.runs) - sum(found.values())
    return found | {"other": other} if found and other > 0 else found
