"""Leave-one-out baseline (RLOO).

Paper: Ahmadian et al. 2024, arXiv:2402.14740, the REINFORCE leave-one-out estimator.
Equation, for n responses to a prompt: A_i = r_i - (sum of r_j over j ≠ i) / (n - 1). The baseline
of a response does not depend on it, so the gradient is unbiased.

Deviations from the paper:

- The reward is used as it is. The paper's includes a KL penalty; here that is the algorithm's
  ``[reference]`` table.
- The paper treats a response as one action; here the loss and normalizer say how its tokens
  are added up. ``reinforce`` with ``masked_normalize`` sums them, as the paper does.
"""

from __future__ import annotations

from torch import Tensor

from alignkit import AlignkitError
from alignkit_advantages.ops import centred, in_groups


def rloo(rewards: Tensor, group_size: int) -> Tensor:
    """Return each reward minus the mean of the others in its group: (B,) to (B,).

    AlignkitError if a group has only one response.
    """
    if group_size < 2:
        raise AlignkitError(
            "advantage 'rloo' compares a response with the others in its group and needs "
            f"group_size of at least 2, got {group_size}; raise group_size or use advantage 'none'"
        )
    groups = in_groups(rewards, group_size)  # (B / group_size, group_size)
    # r - (n mean - r) / (n - 1) = (r - mean) n / (n - 1), exactly 0 where all are equal.
    return (centred(groups) * (group_size / (group_size - 1))).flatten()
