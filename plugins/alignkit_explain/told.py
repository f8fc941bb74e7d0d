"""Lines on the memory and the time of each rank."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from alignkit.estimate import estimate
from alignkit.footprint import CACHE, PURPOSES, WHILE_SAMPLING, size
from alignkit.plugins import Registry
from alignkit.recipe import Node
from alignkit.run_data.runs import find
from alignkit_explain.ranks import Held, OnRanks, chosen, held
from alignkit_explain.split import speed, split


@dataclass(frozen=True)
class Asked:
    """What an estimate is asked for."""

    on: OnRanks
    card: float | None = None
    """Bytes of each rank's card."""
    bandwidth: float | None = None
    """Bytes a second between ranks."""

    @property
    def several(self) -> bool:
        """Whether there is more than one rank."""
        return self.on.ranks > 1

    @property
    def name(self) -> str:
        """The ranks, in words."""
        nodes = f" on {self.on.nodes} nodes" if self.on.nodes > 1 else ""
        card = f", each with a card of {size(self.card)}" if self.card else ""
        return f"each of {self.on.ranks} ranks{nodes}{card}"


def on_ranks(root: Node, asked: Asked, like: Path | None, registry: Registry) -> list[str]:
    """Return lines on each rank's memory and time, replicated and cut.

    ``like`` holds a run of one process that shows this machine's speed.
    """
    found = estimate(root, asked.card)
    if found is None:
        return ["not known: the policy is in no folder yet, or not of a kind that is understood"]
    at = speed(next(iter(find([like]))), registry) if like else None
    lines = [f"parameters: {found.sizes.parameters:,}"]
    for way in held(root, asked.on, asked.card):
        own = " (this recipe)" if way.parallel == chosen(root, found) else ""
        lines += [f'parallel = "{way.parallel}"{own}', *_memory(way, asked)]
        if at is not None:
            lines += _time(split(found, at, asked.on, way.parallel, asked.bandwidth))
    if found.elsewhere:
        lines.append("and what the rollout engine takes")
    return lines if at else [*lines, "time: give a run of one process with --like"]


def _memory(way: Held, asked: Asked) -> Iterator[str]:
    share = f", {way.total / asked.card:.0%} of the card" if asked.card else ""
    phases = [f"{size(way.learning)} learning"]
    if any(purpose in WHILE_SAMPLING or purpose == CACHE for purpose in way.memory):
        phases.append(f"{size(way.sampling)} sampling")
    if way.saving and not way.on_card:
        phases.append(f"{size(way.writing)} writing a checkpoint")
    told = f" ({', '.join(phases)})" if len(phases) > 1 else ""
    yield f"    memory, at most: {size(way.total)}{told}{share}"
    order = [*PURPOSES, *way.memory]
    for purpose in sorted(way.memory, key=order.index):
        yield f"        {size(way.memory[purpose])} {purpose}"
    if way.saving and way.on_card:
        yield f"    and {size(way.saving)} of the CPU's memory while it writes a checkpoint"


def _time(spent: dict[str, float]) -> Iterator[str]:
    whole = sum(spent.values())
    yield f"    time of a step, without evaluations: {whole:.3g} s"
    for name, seconds in spent.items():
        if seconds:
            yield f"        {seconds / whole:.0%} {name}"
