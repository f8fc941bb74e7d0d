"""Train for the best of k responses rather than for each one (pass@k training).

Paper: Chen et al. 2025, arXiv:2508.10751, the analytical derivation.
Let S be a set of k of the n responses to a prompt, all such sets equally likely, and let R(S) be
the maximum of r over S.
Equation: A_i = (E[R(S) | i in S] - E[R(S)]) / (standard deviation of R(S)).
With rewards of 0 and 1 and w wrong responses, E[R] = 1 - C(w, k) / C(n, k), its deviation is
sqrt(E[R] (1 - E[R])), and E[R | i in S] is 1 for a right response and
1 - C(w - 1, k - 1) / C(n - 1, k - 1) for a wrong one: the paper's closed form.

Derivation for any rewards, sorted so that r_0 <= … <= r_(n-1): r_j is the maximum of the subsets
made of j and k - 1 of the j below it. Of the C(n - 1, k - 1) subsets with i, that is
C(i, k - 1) for j = i, and for j > i, where i is one of those below, C(j - 1, k - 2). Each subset
has k members, so the mean over i of E[R | i in S] is E[R].

Deviations from the paper:

- Rewards may be any numbers, since the maximum is taken; the paper's are 0 and 1.
- Nothing is added to the standard deviation. Where every choice of k has the same best reward,
  the advantages are zero, exactly.
"""

from __future__ import annotations

from math import comb

import torch
from torch import Tensor

from alignkit import AlignkitError
from alignkit_advantages.ops import in_groups


def pass_at_k(rewards: Tensor, group_size: int, k: int) -> Tensor:
    """Return the advantages: (B,) to (B,). AlignkitError unless 2 <= k < group_size."""
    if not 2 <= k < group_size:
        raise AlignkitError(
            f"advantage 'pass_at_k' draws k of a group's responses and needs 2 <= k < group_size, "
            f"got k = {k} and group_size = {group_size}; lower k or raise group_size"
        )
    groups = in_groups(rewards, group_size).double()  # (G, n), G groups of n responses
    values, order = groups.sort(dim=1)  # (G, n)
    same = values[:, k - 1 : k] == values[:, -1:]  # (G, 1): the least R(S) is the greatest
    values = values - values[:, :1]
    given = values @ best_weights(group_size, k).T  # (G, n): E[R(S) | i in S]
    mean = given.mean(dim=1, keepdim=True)  # (G, 1): E[R(S)]
    chances = [comb(j, k - 1) / comb(group_size, k) for j in range(group_size)]  # j is the best
    best = torch.tensor(chances, dtype=torch.float64).unsqueeze(1)  # (n, 1)
    std = ((values - mean).square() @ best).sqrt()  # (G, 1)
    advantages = torch.where(same, 0, (given - mean) / std)  # (G, n), sorted
    return torch.empty_like(groups).scatter(1, order, advantages).flatten().to(rewards.dtype)


def best_weights(n: int, k: int) -> Tensor:
    """Return (n, n): entry (i, j) is the probability that j is the best of k given i is in."""
    weights = torch.zeros(n, n, dtype=torch.float64)
    for i in range(n):
        weights[i, i] = comb(i, k - 1) / comb(n - 1, k - 1)
        for j in range(i + 1, n):
            weights[i, j] = comb(j - 1, k - 2) / comb(n - 1, k - 1)
    return weights
