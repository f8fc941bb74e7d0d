"""Curves: which metrics share a chart, and mean and band over seeds at each step."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev

from alignkit.run_data.groups import Group
from alignkit.run_data.runs import RunData

BAND = 1.96
"""Standard errors from the mean to the edge of a band: 95 % of a normal distribution."""
MOST_POINTS, FEWEST_POINTS = 600, 40
"""Points per curve kept for drawing: a chart is no wider, and with fewer it tells little."""
PAGE_POINTS = 200_000
"""Points of all curves of a page, about: a browser draws them all."""


@dataclass(frozen=True)
class Chart:
    """One chart: metrics that share an axis, told apart by the dash of the line."""

    title: str
    metrics: tuple[str, ...]
    labels: tuple[str, ...] = ("",)
    """What each metric is called in the legend of dashes."""
    section: str = "Other metrics"
    unit: str = ""


_LENGTHS = ("response_length", "response_length_correct", "response_length_incorrect")
_ALWAYS = (
    Chart("Held-out accuracy", ("eval/answer_reward",), section="Accuracy"),
    Chart("Held-out format reward", ("eval/format_reward",), section="Accuracy"),
    Chart("Held-out reward", ("eval/reward",), section="Accuracy"),
    Chart(
        "Held-out responses",
        ("eval/n_correct", "eval/n_format_only", "eval/n_neither"),
        ("right", "right format only", "neither"),
        section="Accuracy",
        unit="count",
    ),
    Chart("Training reward", ("train/reward",), section="Training reward"),
    Chart("Training answer reward", ("train/answer_reward",), section="Training reward"),
    Chart("Training format reward", ("train/format_reward",), section="Training reward"),
    Chart("Loss", ("train/loss",), section="Optimisation"),
    Chart("Gradient norm", ("train/grad_norm",), section="Optimisation", unit="before clipping"),
    Chart("Clip fraction", ("train/clip_fraction",), section="Optimisation", unit="of tokens"),
    Chart("Learning rate", ("train/lr",), section="Optimisation"),
    Chart("Token entropy, training", ("train/token_entropy",), section="Entropy", unit="nats"),
    Chart("Token entropy, held out", ("eval/token_entropy",), section="Entropy", unit="nats"),
    Chart("Response length, training", ("train/response_length",), section="Length", unit="tokens"),
    Chart(
        "Response length, held out",
        tuple(f"eval/{name}" for name in _LENGTHS),
        ("all", "right", "wrong"),
        section="Length",
        unit="tokens",
    ),
)
SECTIONS = (*dict.fromkeys(chart.section for chart in _ALWAYS), "More accuracy", "Other metrics")


def charts(groups: Iterable[Group]) -> list[Chart]:
    """Return the charts for which there is something to draw, metrics unknown to us last."""
    logged = list(dict.fromkeys(m for g in groups for m in g.metrics()))
    left = [m for m in logged if not m.startswith("time/") and not m.endswith("_se")]
    known = [c for c in (*_ALWAYS, *_passes(left)) if set(c.metrics) & set(left)]
    known.sort(key=lambda c: SECTIONS.index(c.section))
    drawn = {m for c in known for m in c.metrics}
    more = [_unknown(m) for m in left if m not in drawn]
    return [*known, *sorted(more, key=lambda c: SECTIONS.index(c.section))]


def _passes(logged: Iterable[str]) -> Iterator[Chart]:
    """Yield a chart of the training groups' pass@k for the least, a middle and the largest k."""
    found = (re.fullmatch(r"train/pass@(\d+)", metric) for metric in logged)
    if ks := sorted(int(match[1]) for match in found if match):
        few = tuple(dict.fromkeys((ks[0], ks[len(ks) // 2], ks[-1])))
        names = tuple(f"train/pass@{k}" for k in few)
        labels = tuple(f"k = {k}" for k in few)
        yield Chart("Training pass@k", names, labels, section="Training reward")


def _unknown(metric: str) -> Chart:
    accuracy = re.fullmatch(r"eval/([^/]+/answer_reward|(.+/)?(pass|majority)@\d+)", metric)
    return Chart(metric, (metric,), section="More accuracy" if accuracy else "Other metrics")


@dataclass(frozen=True)
class Single:
    """A metric of one run, by step."""

    step: list[int]
    time: list[float]
    value: list[float]


@dataclass(frozen=True)
class Curve:
    """A metric of a group: mean and band over the seeds that logged it, by step."""

    step: list[int]
    time: list[float]
    """Mean wall-clock seconds at which the step ended."""
    mean: list[float]
    low: list[float]
    """Mean less 1.96 standard errors; the mean itself where there is none."""
    high: list[float]
    least: list[float]
    """Smallest value of a seed."""
    most: list[float]
    n: list[int]
    """Runs behind each point."""
    seeds: list[Single]
    """Each run's own values, where there are several runs."""


def points_of(curves: int) -> int:
    """Return the points kept of each curve where a page holds so many of them."""
    return min(MOST_POINTS, max(FEWEST_POINTS, PAGE_POINTS // max(curves, 1)))


def curve(g: Group, metric: str, most: int = MOST_POINTS) -> Curve | None:
    """Return the curve of a metric, None if no run logged a finite value.

    Of more than ``most`` steps so many are kept, evenly spaced.
    """
    series = [(run.clock, dict(run.series(metric))) for run in g.runs]
    steps = _thinned(sorted(set().union(*(found for _, found in series))), most)
    if not steps:
        return None
    logged = _logged_errors(g.runs, metric)
    values = [[found[s] for _, found in series if s in found] for s in steps]
    means = [fmean(v) for v in values]
    errors = [BAND * _error(v, logged.get(s, 0.0)) for s, v in zip(steps, values, strict=True)]
    return Curve(
        step=steps,
        time=[fmean(clock[s] for clock, found in series if s in found) for s in steps],
        mean=means,
        low=[m - e for m, e in zip(means, errors, strict=True)],
        high=[m + e for m, e in zip(means, errors, strict=True)],
        least=[min(v) for v in values],
        most=[max(v) for v in values],
        n=[len(v) for v in values],
        seeds=[_single(run, metric, most) for run in g.runs] if len(g.runs) > 1 else [],
    )


def _single(run: RunData, metric: str, most: int) -> Single:
    values, clock = dict(run.series(metric)), run.clock
    steps = _thinned(list(values), most)
    return Single(steps, [clock[s] for s in steps], [values[s] for s in steps])


def _error(values: Sequence[float], logged: float) -> float:
    return stdev(values) / math.sqrt(len(values)) if len(values) > 1 else logged


def _logged_errors(runs: Sequence[RunData], metric: str) -> dict[int, float]:
    """Return the standard errors over examples, which stand in where there is one seed."""
    return dict(runs[0].series(f"{metric}_se")) if len(runs) == 1 else {}


def _thinned(steps: Sequence[int], most: int) -> list[int]:
    """Keep at most ``most`` steps, evenly spaced, the first and the last among them."""
    if len(steps) <= most:
        return list(steps)
    stride = (len(steps) - 1) / (most - 1)
    return [steps[round(i * stride)] for i in range(most)]
