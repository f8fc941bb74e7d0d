"""Estimate how a step's time is split on several ranks, from a run of one process.

Sampling, judging and learning are divided among the ranks. What is added: bytes that ranks send
each other, at the bandwidth between them, and waiting for the rank that has most to do.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import NormalDist, fmean, pstdev

from alignkit import recipe
from alignkit.errors import AlignkitError, RecipeError, shown
from alignkit.estimate import Estimate, estimate
from alignkit.plugins import Registry
from alignkit.run_data.runs import RunData
from alignkit_explain.ranks import OnRanks

LINK = {"cpu": 1e9, "card": 20e9, "node": 10e9}
"""Bytes a second that a rank sends or receives: by gloo within a machine, between cards, between
nodes. Assumed, not measured, unless a bandwidth is given."""


@dataclass(frozen=True)
class Speed:
    """What one process achieves, by a run of one."""

    learn: float
    """Floating-point operations a second, as :func:`learned` counts them."""
    sample: float
    """Floating-point operations a second, as :func:`sampled` counts them."""
    judge: float
    """Seconds for a response."""
    length: float
    """Tokens of a response, the mean."""
    spread: float
    """Standard deviation of a response's length, in means."""


def sampled(found: Estimate, length: float) -> float:
    """Return the operations of sampling a step's responses: 2 N a token; N parameters."""
    return 2.0 * found.sizes.parameters * length * found.workload.responses


def learned(found: Estimate, length: float) -> float:
    """Return the operations of learning from a step's responses, each once per epoch."""
    done = found.workload
    passes = 2 + (2 + found.sizes.backward) * done.epochs  # the first two: old log-probs
    return float(found.sizes.parameters * passes * length * done.responses)


def speed(run: RunData, registry: Registry) -> Speed:
    """Return how fast one process was; AlignkitError for a run that does not tell."""
    lengths = [value for _, value in run.series("train/response_length")]
    try:
        found = estimate(recipe.load(run.path / "recipe.toml", registry))
    except RecipeError:  # its plugins or its policy are gone, or it is no run at all
        found = None
    seconds = {name: _mean(run, name) for name in ("rollout", "update", "reward")}
    many = run.manifest.get("hardware", {}).get("ranks", 1)
    whole = found and lengths and found.workload.responses
    if many > 1 or not (found and whole and seconds["rollout"] and seconds["update"]):
        raise AlignkitError(
            f"{shown(run.path)} cannot tell how the time is split on several ranks: give a run of "
            "one process, of grpo or expert_iteration"
        )
    length = fmean(lengths)
    return Speed(
        learn=learned(found, length) / seconds["update"],
        sample=sampled(found, length) / seconds["rollout"],
        judge=seconds["reward"] / found.workload.responses,
        length=length,
        spread=_spread(run),
    )


def split(
    found: Estimate, at: Speed, on: OnRanks, parallel: str, bandwidth: float | None = None
) -> dict[str, float]:
    """Return the seconds of a step on each rank, by what they are spent on, without evaluations.

    ``found`` is the estimate for one process, ``bandwidth`` bytes a second between ranks.
    """
    link = bandwidth or _link(found, on)
    length = min(at.length, found.workload.length or at.length)
    sample = sampled(found, length) / at.sample / on.ranks
    learn = learned(found, length) / at.learn / on.ranks
    sync, exchange = _sent(found, on, length, parallel)
    waits = sample * _longest(on.ranks) * at.spread / math.sqrt(_each(found, on))
    waits += learn / (2 * max(1.0, _each(found, on) / found.workload.updates))
    return {
        "sampling": sample,
        "judging": at.judge * found.workload.responses / on.ranks,
        "learning": learn,
        "exchange of weights and gradients": exchange / link,
        "gathering of weights to sample from": sync / link,
        "waiting": waits if on.ranks > 1 else 0.0,
    }


def _sent(found: Estimate, on: OnRanks, length: float, parallel: str) -> tuple[float, float]:
    """Return the bytes that a rank receives in a step: for sampling, and for learning."""
    sizes, updates = found.sizes, found.workload.updates
    others, wide = (on.ranks - 1) / on.ranks, sizes.trained * max(sizes.trained_number, 4)
    if parallel == "replicate":  # a ring: each number goes round twice
        return 0.0, 2 * others * wide * updates
    weights = (on.parts - 1) / on.parts * sizes.parameters * sizes.number
    tokens = found.workload.responses * found.workload.epochs * length / on.ranks
    passes = max(updates, math.ceil(tokens / max(found.workload.micro_batch, 1)))
    return weights, passes * (2 * weights + others * wide)  # forwards, backwards, gradients


def _link(found: Estimate, on: OnRanks) -> float:
    if on.nodes > 1:
        return LINK["node"]
    return LINK["card" if found.sizes.on_gpu else "cpu"]


def _each(found: Estimate, on: OnRanks) -> float:
    """Return the responses of a rank in a step."""
    return max(1.0, found.workload.responses / on.ranks)


def _longest(ranks: int) -> float:
    """Return how far the largest of so many normal numbers is above their mean, in deviations.

    Blom 1958: the expected largest lies at the quantile (n - 0.375) / (n + 0.25).

    >>> [round(_longest(n), 2) for n in (1, 2, 4)]
    [0.0, 0.59, 1.05]
    """
    return NormalDist().inv_cdf((ranks - 0.375) / (ranks + 0.25)) if ranks > 1 else 0.0


def _mean(run: RunData, phase: str) -> float:
    """Return the mean seconds of a phase in a step, without the first, which warms up."""
    values = [value for step, value in run.series(f"time/{phase}") if step > 0]
    return fmean(values[1:] or values) if values else 0.0


def _spread(run: RunData) -> float:
    """Return the standard deviation of response lengths, in means; 1 where none were saved."""
    lengths = [n for path in run.samples("rollouts").values() for n in _lengths(path)]
    return pstdev(lengths) / fmean(lengths) if lengths and any(lengths) else 1.0


def _lengths(path: Path) -> list[float]:
    rows: list[Mapping[str, float]] = [
        json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()
    ]
    return [row["response_length"] for row in rows if "response_length" in row]
