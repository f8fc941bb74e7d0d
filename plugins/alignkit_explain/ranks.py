"""Estimate the memory of each rank of a run, with the policy replicated or cut over the ranks.

A rank that replicates holds what one process does, but samples and learns from its share. Of a
policy that is cut (FSDP2), it holds a part of weights, gradients and optimizer, all weights once
more to sample from, and while it learns, some layers whole: those that are gathered just then.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from alignkit.abilities import parallel_of
from alignkit.estimate import Estimate, estimate
from alignkit.footprint import (
    ACTIVATIONS,
    BUCKET,
    CACHE,
    COPIES,
    FILE,
    GRADIENTS,
    HEAD,
    OPTIMIZER,
    WEIGHTS,
    WHILE_LEARNING,
    WHILE_SAMPLING,
    ModelSizes,
)
from alignkit.recipe import Node

WHOLE = "whole copy of the weights, to sample from"
GATHERED = "layers gathered from all ranks, and their gradients"
EXCHANGE = "gradients on their way between ranks"

SHARE = 0.6
"""Share of a card's memory above which ``parallel = "auto"`` cuts the policy: 16 bytes a weight."""


@dataclass(frozen=True)
class OnRanks:
    """How many ranks there are, and where."""

    ranks: int
    nodes: int = 1

    @property
    def parts(self) -> int:
        """Ranks among which a policy is cut: those of a node; nodes hold copies."""
        return self.ranks // self.nodes


@dataclass(frozen=True)
class Held:
    """What a rank holds."""

    parallel: str
    """"replicate" or "shard"."""
    memory: Mapping[str, float]
    """Maximum bytes, by purpose."""

    saving: float = 0.0
    """Bytes of the CPU's memory in which a rank writes its parts to a checkpoint."""
    on_card: bool = False
    """Whether the policy is on a card, whose memory saving does not take."""

    @property
    def learning(self) -> float:
        """Bytes while it learns. Gradients are exchanged when activations have been freed."""
        passes = {ACTIVATIONS, COPIES, HEAD}
        found = self._sum(set(self.memory) - WHILE_SAMPLING - passes - {EXCHANGE})
        return found + max(self._sum(passes), self._sum({EXCHANGE}))

    @property
    def sampling(self) -> float:
        """Bytes while it samples."""
        return self._sum(set(self.memory) - WHILE_LEARNING - {GATHERED, EXCHANGE})

    @property
    def writing(self) -> float:
        """Bytes while it writes a checkpoint of a policy that is cut."""
        kept = set(self.memory) - WHILE_LEARNING - WHILE_SAMPLING - {CACHE, GATHERED, EXCHANGE}
        return self._sum(kept) + (0.0 if self.on_card else self.saving)

    @property
    def total(self) -> float:
        """Maximum bytes: those of the phase that needs most."""
        return max(self.learning, self.sampling, self.writing)

    def _sum(self, purposes: set[str]) -> float:
        return sum(size for name, size in self.memory.items() if name in purposes)


def held(root: Node, on: OnRanks, card: float | None = None) -> list[Held]:
    """Return what each rank holds, replicated and cut; [] if the policy's sizes are not known.

    An adapter's policy is never cut, nor one whose layers are not known.
    """
    found = estimate(root, card, on.ranks)
    if found is None:
        return []
    ways = [Held("replicate", _replicated(found))]
    if found.sizes.layer and not found.sizes.adapted:
        own = _cut(found, on)
        saving = 2.0 * min(FILE, own[WEIGHTS] + own[OPTIMIZER])
        ways.append(Held("shard", own, saving, found.sizes.on_gpu))
    return ways


def chosen(root: Node, found: Estimate) -> str:
    """Return which of the two ways the recipe means; "auto" depends on the card's memory."""
    policies = [node for node in root.walk() if node.kind == "policy"]
    wanted = parallel_of(policies[0].params) if policies else "replicate"
    if wanted != "auto":
        return wanted
    card = found.sizes.card
    return "shard" if card and 16 * found.sizes.parameters > SHARE * card else "replicate"


def _replicated(found: Estimate) -> dict[str, float]:
    """Add the copies of the gradients that are exchanged in one go.

    A tensor that is larger than the others of a go together is by itself, and copied only if it is
    to be added in another type.
    """
    sizes = found.sizes
    narrow = sizes.trained_number < 4
    several = min(sizes.trained, BUCKET) * (8 if narrow else 4)
    alone = 4 * sizes.embedding if narrow and not sizes.adapted else 0
    return {**found.memory, EXCHANGE: float(max(several, alone))}


def _cut(found: Estimate, on: OnRanks) -> dict[str, float]:
    own = dict(found.memory)
    for purpose in (WEIGHTS, GRADIENTS, OPTIMIZER):
        own[purpose] = own.get(purpose, 0.0) / on.parts
    own[GATHERED] = gathered(found.sizes)
    own[WHOLE] = found.memory[WEIGHTS]
    return own


def gathered(sizes: ModelSizes) -> float:
    """Return the bytes of what is gathered at once in a backward pass.

    What lies outside the layers stays gathered, with its gradient. Of the layers it is the one
    that is computed, with its gradient, and the next, which is gathered meanwhile.
    """
    outside = sizes.parameters - sizes.layers * sizes.layer
    return float(sizes.number * (2 * outside + 3 * sizes.layer))
