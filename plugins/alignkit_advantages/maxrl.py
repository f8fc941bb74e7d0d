"""Maximum-likelihood reinforcement learning: rare successes weigh more (MaxRL).

Paper: arXiv:2602.02710, the estimator over the successes among n responses.
Equation, for n responses to a prompt with rewards of 0 and 1: A_i = (r_i - m) / m, m the mean of
the r_j. Without the centring, r_i / m gives the gradient of the log-likelihood of a success,
estimated from the n m successes. Subtracting the mean is a control variate.

Deviations from the paper:

- ``eps`` is added to the mean, so that a group without a success gives zeros.
- Rewards between 0 and 1 and above 1 are accepted; for these it is not a likelihood.
"""

from __future__ import annotations

from torch import Tensor

from alignkit import AlignkitError
from alignkit_advantages.ops import centred, in_groups, over


def maxrl(rewards: Tensor, group_size: int, eps: float, *, centre: bool = True) -> Tensor:
    """Return (r - mean) / (mean + eps) within each group: (B,) to (B,).

    arXiv:2602.02710; r / (mean + eps) without ``centre``. The estimator is meant for rewards
    that are not negative; a group of zeros gives zeros.
    """
    groups = in_groups(rewards, group_size)  # (B / group_size, group_size)
    if bool((groups < 0).any()):
        raise AlignkitError(
            "advantage 'maxrl' divides by the mean reward of a group and needs rewards of at "
            "least 0; use advantage 'group_std' or 'group_mean' with this reward"
        )
    mean = groups.mean(dim=1, keepdim=True)  # (B / group_size, 1)
    return over(centred(groups) if centre else groups, mean + eps).flatten()
