"""Estimate the memory that a recipe needs, by phase, from its tables' own estimates.

Learning and sampling alternate: if an engine sleeps meanwhile, the larger phase counts.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from alignkit.footprint import (
    LIBRARIES,
    PURPOSES,
    WHILE_LEARNING,
    WHILE_SAMPLING,
    ModelSizes,
    Workload,
    size,
)
from alignkit.recipe import Node, nodes

PROCESS = 0.4e9
"""Bytes of a process that has imported torch and transformers, on a CPU."""
CONTEXT = 0.6e9
"""Bytes of GPU memory taken by CUDA and its libraries; an estimate."""


@dataclass(frozen=True)
class Estimate:
    """What a recipe needs, as far as it can be estimated before it runs."""

    sizes: ModelSizes
    workload: Workload
    memory: Mapping[str, float]
    """Maximum bytes, by purpose."""
    elsewhere: bool
    """Whether there is a rollout backend that does not give its needs."""

    @property
    def learning(self) -> float:
        """Bytes while the policy learns, on its device."""
        return self._without(WHILE_SAMPLING)

    @property
    def sampling(self) -> float:
        """Bytes while responses are sampled, on the policy's device."""
        return self._without(WHILE_LEARNING)

    @property
    def total(self) -> float:
        """Maximum bytes: those of the phase that needs more."""
        return max(self.learning, self.sampling)

    def _without(self, purposes: frozenset[str]) -> float:
        return sum(size for purpose, size in self.memory.items() if purpose not in purposes)


def estimate(root: Node, card: float | None = None, ranks: int = 1) -> Estimate | None:
    """Return the estimate for a recipe; None if its policy's sizes are not known.

    ``card`` is the memory, in bytes, of the GPU for the policy. Without it, libraries are counted
    as on a CPU. With several ``ranks`` it is that of one of them, which holds the whole policy and
    samples its share of the responses; ``workload`` is that of all.
    """
    tables = [node for child in root.children.values() for node in nodes(child)]
    first = sorted(tables, key=lambda node: node.key != ("policy",))  # before a teacher
    told = (n.params.sizes(n.tables()) for n in first if n.kind == "policy")
    sizes = next(filter(None, told), None)
    if sizes is None:
        return None
    if card is not None:
        sizes = replace(sizes, on_gpu=True, card=card)
    workload = root.params.workload(root.tables()) or Workload()
    own = replace(workload, at_once=-(-workload.at_once // ranks))
    memory: dict[str, float] = {}
    elsewhere = False
    for node in (root, *tables):
        taken = node.params.memory(node.tables(), sizes, own)
        memory |= {purpose: size for purpose, size in taken.items() if size is not None}
        elsewhere |= node.kind == "rollout_backend" and not taken
    memory[LIBRARIES] = memory.get(LIBRARIES, 0) + (PROCESS if card is None else CONTEXT)
    order = [*PURPOSES, *memory]
    ordered = dict(sorted(memory.items(), key=lambda item: order.index(item[0])))
    return Estimate(sizes, workload, ordered, elsewhere)


def told(found: Estimate) -> list[str]:
    """Return lines on memory: in total, by phase if responses are sampled too, by purpose."""
    lines = [f"memory, at most: {size(found.total)}"]
    if any(purpose in WHILE_SAMPLING for purpose in found.memory):
        lines[0] += f" ({size(found.learning)} learning, {size(found.sampling)} sampling)"
    lines += [f"    {size(value)} {name}" for name, value in found.memory.items()]
    return [*lines, "    and what the rollout engine takes"] if found.elsewhere else lines
