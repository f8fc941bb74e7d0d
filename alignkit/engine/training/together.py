"""A training on several ranks begins where rank 0's does: same folder, checkpoint and weights."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from alignkit.abilities import parallel_of
from alignkit.engine.forward.frozen import frozen_copy
from alignkit.engine.forward.logprobs import has_linear_head
from alignkit.engine.forward.packable import can_pack, can_pad
from alignkit.engine.ranks import here
from alignkit.engine.ranks.shards import updated_of
from alignkit.engine.training.parts import Parts
from alignkit.lifecycle import ranks

if TYPE_CHECKING:
    from alignkit.protocols import Policy, Run

BYTES, SHARE = 16, 0.6
"""Bytes a weight takes in training (itself, its gradient, AdamW's two means, in float32), and the
share of a card's memory beyond which "auto" cuts the model."""


@contextmanager
def together(run: Run, parts: Parts) -> Iterator[None]:
    """Make this process one of the run's ranks while the block runs; one process is alone."""
    if ranks.size() == 1:
        yield
        return
    from alignkit.engine.ranks.joining import joined

    model = parts.policy.model
    with joined(run, next(model.parameters()).device):
        _follow(run)
        here().copy([*model.parameters(), *model.buffers()])
        if parts.optimizer is not None and _is_cut(parts):
            _cut(parts.policy)
        yield


def _is_cut(parts: Parts) -> bool:
    """Whether each rank holds a part of the model only: as asked, or as memory demands."""
    wanted = parallel_of(parts.policy)
    if updated_of(parts.policy.model):  # by masters, which every rank has
        return False
    if wanted != "auto":
        return wanted == "shard"
    weights = list(parts.policy.model.parameters())
    if weights[0].device.type != "cuda" or not parts.on_shards:
        return False
    memory = torch.cuda.get_device_properties(weights[0].device).total_memory
    return BYTES * sum(w.numel() for w in weights) > SHARE * memory


def _cut(policy: Policy) -> None:
    """Cut the model over the ranks, once it is known which passes it supports."""
    from alignkit.engine.ranks.cutting import cut

    model = policy.model
    with policy.autocast():
        if not can_pack(model):
            can_pad(model)
        has_linear_head(model)
    cut(model, frozen_copy(model, shared=True))  # what is cut goes to memory of its own


def _follow(run: Run) -> None:
    """Take over from rank 0 where the run is, and where it goes on from."""
    checkpoint = str(run.checkpoint) if run.checkpoint else None
    given: Any = here().first([str(run.dir), checkpoint, run.first_step, run.resumed])
    if ranks.follows():
        folder, found, run.first_step, run.resumed = given
        run.dir, run.checkpoint = Path(folder), Path(found) if found else None
