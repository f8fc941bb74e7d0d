"""Compare two settings seed by seed, estimate how many seeds are needed, find collapsed seeds.

Two runs with the same seed get the same questions in the same order, so their difference varies
less than either result: a paired t test (Student 1908) needs fewer seeds.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, median, stdev

from alignkit.run_data.groups import Group
from alignkit.run_data.runs import RunData
from alignkit.run_data.student import quantile, two_sided

POWER, LEVEL = 0.8, 0.05
"""Power and significance level for which the number of seeds is computed."""
MOST = 10_000
"""Larger numbers of seeds are not reported."""
UNFINISHED = ("running", "interrupted", "failed")
"""Statuses of runs whose last value is that of some step on the way."""
LOST = 0.5
"""A run collapsed if it ended below this share of its best value, or of the other seeds' median."""


@dataclass(frozen=True)
class Paired:
    """The difference of two settings in one metric, over the seeds that both have."""

    name: str
    """The setting that is compared with the reference."""
    reference: str
    seeds: tuple[int, ...]
    difference: float
    """Mean over seeds of the final value minus the reference's."""
    low: float
    """Lower bound of the 95 % confidence interval by Student's t; infinite with one seed, or with
    differences that are all equal and not 0: they have no spread to judge the mean by."""
    high: float
    """Its upper bound."""
    p: float | None
    """Two-sided p-value of the paired t test; None where the bounds are infinite."""
    needed: int | None
    """Seeds needed to detect this difference, given its spread, with 80 % power at the 5 % level;
    None if that is unknown or more than 10,000."""


def compare(
    g: Group, reference: Group, metric: str, without: frozenset[int] = frozenset()
) -> Paired | None:
    """Compare over the seeds that both have, except those in ``without``; None if there are none.

    Runs that did not end do not count. Also None if the data or the number of questions per step
    differ: equal seeds then do not mean equal questions.
    """
    ours, theirs = finals(g, metric), finals(reference, metric)
    seeds = tuple(sorted((ours.keys() & theirs.keys()) - without))
    if not seeds or _order(g) != _order(reference):
        return None
    differences = [ours[seed] - theirs[seed] for seed in seeds]
    mean = fmean(differences)
    if len(seeds) < 2 or (mean and _all_equal(differences)):
        return Paired(g.name, reference.name, seeds, mean, -math.inf, math.inf, None, None)
    spread, df = stdev(differences), len(seeds) - 1
    error = spread / math.sqrt(len(seeds))
    half = quantile(1 - LEVEL / 2, df) * error
    return Paired(
        name=g.name,
        reference=reference.name,
        seeds=seeds,
        difference=mean,
        low=mean - half,
        high=mean + half,
        p=two_sided(mean / error, df) if error else float(mean == 0),
        needed=seeds_needed(mean, spread),
    )


def _all_equal(values: Sequence[float]) -> bool:
    """Whether numbers, each a difference of two, are equal but for rounding."""
    return max(values) - min(values) <= 1e-9 * max(map(abs, values))


def seeds_needed(difference: float, spread: float) -> int | None:
    """Return the smallest n with n >= ((t_0.975 + t_0.8) spread / difference)².

    The quantiles t are Student's with n - 1 degrees of freedom. With n pairs, a test at the 5 %
    level detects a true ``difference`` with 80 % power, if the pairs' differences have the standard
    deviation ``spread``. None if the difference is 0, or for more than 10,000 pairs.
    """
    if not difference:
        return None
    ratio = (spread / difference) ** 2

    def enough(n: int) -> bool:
        t = quantile(1 - LEVEL / 2, n - 1) + quantile(POWER, n - 1)
        return n >= t * t * ratio

    if not enough(MOST):
        return None
    low, high = 1, MOST  # enough(high), and not enough(low) or low == 1
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high


def finals(g: Group, metric: str) -> dict[int, float]:
    """Return the last value of a metric by seed, of the runs that ended, where it is finite."""
    ended = (run for run in g.runs if run.status not in UNFINISHED and run.lost(metric) is None)
    found = ((run.seed, run.series(metric)) for run in ended)
    return {seed: series[-1][1] for seed, series in found if seed is not None and series}


def _order(g: Group) -> tuple[object, ...]:
    """Return what determines, besides the seed, which questions each step uses."""
    plan = g.plan
    size, of = plan.get("rollout_batch_size"), plan.get("group_size", 1)
    asked = size // of if isinstance(size, int) and isinstance(of, int) and of else None
    alone = plan.get("train_batch_size") if asked is None else None
    return plan.get("use"), _frozen(plan.get("data")), asked, alone


def _frozen(table: object) -> object:
    if isinstance(table, Mapping):
        return tuple(sorted((str(key), _frozen(value)) for key, value in table.items()))
    return repr(table)


def collapsed(g: Group, metric: str) -> dict[int, str]:
    """Return the seeds that collapsed, each with a description; larger values must be better.

    A seed collapsed if a sweep stopped the run as diverged, if its last value is no finite number,
    if it is less than half of its best, or less than half of the median of the other seeds' last
    values (two or more).
    """
    last = finals(g, metric)
    found = {}
    for run in g.runs:
        if run.seed is not None and (how := _how(run, metric, last)):
            found[run.seed] = how
    return found


def _how(run: RunData, metric: str, last: Mapping[int, float]) -> str:
    if run.status == "diverged":
        return run.reason or "diverged"
    if (lost := run.lost(metric)) is not None:
        return f"{metric} was no finite number at step {lost}"
    series = run.series(metric)
    if not series:
        return ""
    step, best = max(series, key=lambda point: point[1])
    end = series[-1][1]
    if end < LOST * best:
        return f"{metric} fell from {best:.3g} at step {step} to {end:.3g}"
    others = [value for seed, value in last.items() if seed != run.seed]
    if run.status not in UNFINISHED and len(others) > 1 and end < LOST * median(others):
        return f"{metric} ended at {end:.3g}, the other seeds at {median(others):.3g} (median)"
    return ""


def all_pairs(
    groups: Sequence[Group], metric: str, reference: Group
) -> Iterator[tuple[Paired, Paired | None]]:
    """Yield each comparison with the reference, and the same without collapsed seeds.

    The second is None if no seed of either setting collapsed.
    """
    for g in groups:
        if g is reference or (found := compare(g, reference, metric)) is None:
            continue
        lost = frozenset({*collapsed(g, metric), *collapsed(reference, metric)} & {*found.seeds})
        yield found, compare(g, reference, metric, lost) if lost else None
