"""Estimate a recipe's memory and time from what its components say of themselves.

Each table tells what it takes (``Params.memory``), the policy's the sizes of the model, the
algorithm's the work. Added to that is what Python, torch and transformers take themselves. Work is
counted in floating-point operations: 2 N to compute a token forwards, 4 N backwards; N parameters.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

from alignkit import recipe
from alignkit.errors import AlignkitError, RecipeError, shown
from alignkit.footprint import PURPOSES, ModelSizes, Workload, size
from alignkit.lifecycle.cpus import usable_cpus
from alignkit.plugins import Registry
from alignkit.recipe import Node, nodes
from alignkit.run_data.runs import RunData, duration, find

PHASES = ("rollout", "reward", "update", "sync")
CORE = 9e9
"""Operations a second on one CPU core, seen on the embedded default (AVX-512, float32)."""
PROCESS = 0.4e9
"""Bytes of a process that has imported torch and transformers, on a CPU."""


@dataclass(frozen=True)
class Estimate:
    """What a recipe will take, as far as it can be told before it runs."""

    sizes: ModelSizes
    workload: Workload
    memory: Mapping[str, float]
    """Bytes at most, by what they are for."""
    elsewhere: bool
    """Whether a rollout backend samples that does not say what it takes."""

    @property
    def total(self) -> float:
        """Bytes in all."""
        return sum(self.memory.values())

    def work(self, length: float) -> float | None:
        """Return the floating-point operations of all steps; None where they are not known.

        Each response of ``length`` tokens is sampled and scored once and learnt from once an
        epoch. Prompts and evaluations are not counted.
        """
        done = self.workload
        passes = 2 + 2 + (2 + self.sizes.backward) * done.epochs
        known = done.responses and done.steps and done.micro_batch
        total = self.sizes.parameters * passes * length * done.responses * done.steps
        return float(total) if known else None


def estimate(root: Node) -> Estimate | None:
    """Return the estimate of a recipe; None where its policy's sizes are not known."""
    tables = [node for child in root.children.values() for node in nodes(child)]
    told = (n.params.sizes(n.tables()) for n in tables if n.kind == "policy")
    sizes = next(told, None)
    if sizes is None:
        return None
    workload = root.params.workload(root.tables()) or Workload()
    memory: dict[str, float] = {}
    elsewhere = False
    for node in (root, *tables):
        taken = node.params.memory(node.tables(), sizes, workload)
        memory |= {purpose: size for purpose, size in taken.items() if size is not None}
        elsewhere |= node.kind == "rollout_backend" and not taken
    order = [*PURPOSES, *memory]
    ordered = dict(sorted(memory.items(), key=lambda item: order.index(item[0])))
    return Estimate(sizes, workload, ordered | {"Python and libraries": PROCESS}, elsewhere)


def rate(run: RunData, registry: Registry) -> tuple[float, float]:
    """Return what a run got done, in operations a second, and its mean tokens a response.

    Raises AlignkitError for a run that did not log what that takes.
    """
    lengths = [value for _, value in run.series("train/response_length")]  # one a step
    spent = sum(v for name in PHASES for _, v in run.series(f"time/{name}"))
    try:
        found = estimate(recipe.load(run.path / "recipe.toml", registry))
    except RecipeError:  # its plugins or its policy are gone, or it is no run at all
        found = None
    done = found and lengths and found.work(fmean(lengths))
    if not (found and done and spent):
        raise AlignkitError(
            f"{shown(run.path)} cannot tell how long a run takes: it logged no response lengths "
            "or times, or its policy is gone; give a run of grpo or expert_iteration"
        )
    return done * len(lengths) / found.workload.steps / spent, fmean(lengths)


def text(root: Node, like: Path | None, registry: Registry) -> list[str]:
    """Return lines on memory and time; ``like`` holds a run that says how fast this machine is."""
    run = next(iter(find([like]))) if like else None
    found = estimate(root)
    if found is None:
        return ["not known: the policy is in no folder yet, or not of a kind that is understood"]
    lines = [f"parameters: {found.sizes.parameters:,}", f"memory, at most: {size(found.total)}"]
    lines += [f"    {size(value)} {name}" for name, value in found.memory.items()]
    if found.elsewhere:
        lines.append("    and what the rollout engine takes")
    return [*lines, f"time: {_time(found, run, registry)}"]


def _time(found: Estimate, like: RunData | None, registry: Registry) -> str:
    speed, length = rate(like, registry) if like else (None, found.workload.length)
    amount = found.work(length)
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
