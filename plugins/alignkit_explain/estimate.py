"""Estimate a recipe's memory and time from what its components report.

Memory is computed by :func:`alignkit.estimate.estimate` from what each table reports. Work is
counted in floating-point operations: 2 N to compute a token forwards, 4 N backwards; N parameters.
"""

from __future__ import annotations

from pathlib import Path
from statistics import fmean

from alignkit import recipe
from alignkit.errors import AlignkitError, RecipeError, shown
from alignkit.estimate import Estimate, estimate, told
from alignkit.lifecycle.cpus import usable_cpus
from alignkit.plugins import Registry
from alignkit.recipe import Node
from alignkit.run_data.runs import RunData, duration, find

PHASES = ("rollout", "reward", "update", "sync")
CORE = 9e9
"""Operations a second on one CPU core, seen on the embedded default (AVX-512, float32)."""


def work(found: Estimate, length: float) -> float | None:
    """Return the floating-point operations of all steps; None where they are not known.

    Each response of ``length`` tokens is sampled and scored once and trained on once per epoch.
    Prompts and evaluations are not counted.
    """
    done = found.workload
    passes = 2 + 2 + (2 + found.sizes.backward) * done.epochs
    known = done.responses and done.steps and done.micro_batch
    total = found.sizes.parameters * passes * length * done.responses * done.steps
    return float(total) if known else None


def rate(run: RunData, registry: Registry) -> tuple[float, float]:
    """Return the operations per second a run achieved, and its mean tokens per response.

    Raises AlignkitError for a run that did not log what this needs.
    """
    lengths = [value for _, value in run.series("train/response_length")]  # one a step
    spent = sum(v for name in PHASES for _, v in run.series(f"time/{name}"))
    try:
        found = estimate(recipe.load(run.path / "recipe.toml", registry))
    except RecipeError:  # its plugins or its policy are gone, or it is no run at all
        found = None
    done = found and lengths and work(found, fmean(lengths))
    if not (found and done and spent):
        raise AlignkitError(
            f"{shown(run.path)} cannot tell how long a run takes: it logged no response lengths "
            "or times, or its policy is gone; give a run of grpo or expert_iteration"
        )
    return done * len(lengths) / found.workload.steps / spent, fmean(lengths)


def text(root: Node, like: Path | None, registry: Registry, card: float | None = None) -> list[str]:
    """Return lines on memory and time; ``like`` holds a run that shows this machine's speed.

    ``card`` is the memory of the policy's GPU, in bytes, where it is known.
    """
    run = next(iter(find([like]))) if like else None
    found = estimate(root, card)
    if found is None:
        return ["not known: the policy is in no folder yet, or not of a kind that is understood"]
    parameters = f"parameters: {found.sizes.parameters:,}"
    return [parameters, *told(found), f"time: {_time(found, run, registry)}"]


def _time(found: Estimate, like: RunData | None, registry: Registry) -> str:
    speed, length = rate(like, registry) if like else (None, found.workload.length)
    amount = work(found, length)
    if not amount:
        return "not known: it depends on the number and length of the rows"
    if like and speed:
        where = f"at the speed and response length of {shown(like.path)}"
        return f"{duration(amount / speed)} {where}, without evaluations"
    if found.sizes.on_gpu or found.elsewhere:
        return f"{amount:.2g} floating-point operations at most; give a run on this GPU with --like"
    cores = usable_cpus()
    guess = duration(amount / (CORE * cores))
    return f"{guess} at most, a rough guess for {cores} CPU cores; --like RUN_DIR knows better"
