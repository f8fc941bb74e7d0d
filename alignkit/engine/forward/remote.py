"""A policy that is not in this process and only gives log-probs: a teacher behind a server."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import torch
from torch import Tensor

from alignkit.engine.ranks import here

if TYPE_CHECKING:
    from alignkit.engine.tokens import TrainRow
    from alignkit.protocols import Policy


@runtime_checkable
class Scores(Protocol):
    """A policy that only gives log-probs: a teacher or a reference, not trained, not sampled from.

    Its table is an ``OnlyScores`` of :mod:`alignkit.abilities`, so a recipe that names it in
    ``[policy]`` is refused.
    """

    def meet(self, policy: Policy, /, *, temperature: float) -> None:
        """Prepare to score what ``policy`` samples at ``temperature``; called before any scoring.

        Raises AlignkitError if its token ids are not the policy's, or it cannot be reached.
        """
        ...

    def score(self, rows: Sequence[tuple[Sequence[int], int]], /) -> list[Sequence[float]]:
        """Return the log-probs (nats) of each row's ids from an index on, each given all before it.

        A row is all its ids and that index, at least 1. Raises AlignkitError for a row that is too
        long.
        """
        ...


def remote_logprobs(teacher: Scores, rows: Sequence[TrainRow]) -> list[Tensor]:
    """Return the teacher's log-probs of each row's trained tokens, (T_i,) float32 on the CPU.

    Each rank asks for its share of the rows, and every rank gets all results.
    """
    group = here()
    mine = group.share([row.length for row in rows])
    asked = [i for i in mine if rows[i].trained_ids]
    whole = [((*rows[i].prompt_ids, *rows[i].response_ids), len(rows[i].prompt_ids)) for i in asked]
    found = {i: torch.zeros(0) for i in mine}
    for i, given in zip(asked, teacher.score(whole) if whole else [], strict=True):
        found[i] = torch.tensor(rows[i].trained_of(given), dtype=torch.float32)  # (T_i,)
    return list(group.merge(found).values())
