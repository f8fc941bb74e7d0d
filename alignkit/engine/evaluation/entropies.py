"""Entropy of the policy's next-token distributions at the tokens of responses."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from alignkit.engine.forward.logprobs import cut, detached
from alignkit.engine.sampling.rollouts import Trajectory
from alignkit.engine.tokens import TrainRow, micro_batches

if TYPE_CHECKING:
    from alignkit.protocols import Policy


def mean_entropy(entropies: Sequence[torch.Tensor]) -> float:
    """Return the mean over all tokens of all responses, 0 if there is none."""
    tokens = sum(len(e) for e in entropies)
    return sum(float(e.sum(dtype=torch.float64)) for e in entropies) / max(tokens, 1)


def token_entropies(
    policy: Policy, trajectories: Sequence[Trajectory], token_budget: int
) -> list[torch.Tensor]:
    """Return the entropy (nats) of the policy's next-token distribution at each response token.

    One (T_i,) tensor per trajectory, on the CPU. The distribution is the policy's own, at
    temperature 1 and before any truncation, whatever the responses were sampled at.
    """

    def parted(some: Sequence[TrainRow]) -> list[list[int]]:
        if next(policy.model.parameters()).device.type == "cpu":  # fuller batches gain nothing
            return micro_batches([row.length for row in some], token_budget)
        return cut(policy, some, token_budget)

    rows = [
        TrainRow(t.prompt_ids, t.completion.token_ids, given=t.completion.given)
        for t in trajectories
    ]
    return detached(policy, rows, parted, entropies=True)
