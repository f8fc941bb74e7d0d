"""Advantages normalised over the whole rollout batch, not per prompt (REINFORCE++).

Paper: Hu et al. 2025, arXiv:2501.03262, "global advantage normalization".
Equation: A = (a - mean of a over the batch) / (standard deviation of a over the batch + eps), where
a is the reward minus its group's mean ("with baseline") or the reward itself.

Deviations from the paper:

- Each response counts once in the mean and the standard deviation. In the paper advantages are per
  token, so a long response counts more.
- No KL penalty in the reward; that is the algorithm's ``[reference]`` table.
- The paper leaves open how the standard deviation is estimated; here it divides by B - 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from alignkit import AlignkitError
from alignkit.protocols import SampledBatch
from alignkit_advantages.ops import centred, in_groups, over


@dataclass(frozen=True, slots=True)
class BatchStandardized:
    """:func:`batch_std`, which also takes a batch whose groups differ in size."""

    eps: float
    baseline: bool

    def __call__(self, rewards: Tensor, /, *, group_size: int) -> Tensor:
        """Map (B,) to (B,)."""
        return batch_std(rewards, group_size, self.eps, baseline=self.baseline)

    def weigh(self, batch: SampledBatch, /) -> Tensor:
        """Map the rewards of a batch to (B,)."""
        sizes = set(batch.group_sizes)
        if len(sizes) == 1:
            return self(batch.rewards, group_size=sizes.pop())
        return uneven_batch_std(batch.rewards, batch.group_sizes, self.eps, baseline=self.baseline)


def uneven_batch_std(
    rewards: Tensor, sizes: Sequence[int], eps: float, *, baseline: bool
) -> Tensor:
    """Return :func:`batch_std` of consecutive groups of ``sizes`` responses: (B,) to (B,)."""
    groups = torch.split(rewards, list(sizes)) if baseline else [rewards]
    if sum(len(group) > 1 for group in groups) == 0:
        raise AlignkitError(
            "advantage 'batch_std' has no two responses to compare; raise group_size, or with one "
            'response per prompt set baseline = "none"'
        )
    values = torch.cat([centred(group[None])[0] for group in groups])
    return over(values, values.std(correction=1) + eps)


def batch_std(rewards: Tensor, group_size: int, eps: float, *, baseline: bool = True) -> Tensor:
    """Return the normalised advantages: (B,) to (B,); zeros if all are equal.

    AlignkitError if there is only one response, or one per group and a ``baseline``.
    """
    least = group_size if baseline else len(rewards)
    if least < 2:
        raise AlignkitError(
            f"advantage 'batch_std' has {least} response to compare and needs at least 2; raise "
            'group_size, or with one response per prompt set baseline = "none"'
        )
    groups = in_groups(rewards, group_size)  # (B / group_size, group_size)
    # Once every group has mean 0, so has the batch.
    values = centred(groups) if baseline else centred(groups.reshape(1, -1))
    return over(values, values.std(correction=1) + eps).flatten()
