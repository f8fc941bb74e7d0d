"""Advantages normalised over the whole rollout batch, not per prompt (REINFORCE++).

Paper: Hu et al. 2025, arXiv:2501.03262, "global advantage normalization".
Equation: A = (a - mean of a over the batch) / (standard deviation of a over the batch + eps), where
a is the reward less its group's mean ("with baseline") or the reward itself.

Deviations from the paper:

- Each response counts once in the mean and the standard deviation. The paper's advantages are
  per token, so there a long response counts more.
- No KL penalty in the reward; that is the algorithm's ``[reference]`` table.
- The paper leaves open how the standard deviation is estimated; here it divides by B - 1.
"""

from __future__ import annotations

from torch import Tensor

from alignkit import AlignkitError
from alignkit_advantages.ops import centred, in_groups, over


def batch_std(rewards: Tensor, group_size: int, eps: float, *, baseline: bool = True) -> Tensor:
    """Return the normalised advantages: (B,) to (B,); zeros if all are equal.

    AlignkitError if there is but one response, or one a group and a ``baseline``.
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
