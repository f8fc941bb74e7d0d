"""Rewards to advantages as pure functions; groups are consecutive blocks of the batch.

Shapes: B responses, in B / group_size groups of group_size responses to the same prompt.
"""

from __future__ import annotations

import torch
from torch import Tensor

from alignkit import AlignkitError


def group_std(rewards: Tensor, group_size: int, eps: float, *, centre: bool = True) -> Tensor:
    """Return (r - mean) / (std + eps) within each group: (B,) to (B,).

    arXiv:2402.03300 sec. 4.1.2; r / (std + eps) without ``centre``. The standard deviation
    divides by group_size - 1. A group of equal rewards offers no comparison and gives exact zeros,
    centred or not: neither its rewards nor the rounding in their mean is multiplied by 1 / eps.
    """
    if group_size < 2:
        raise AlignkitError(
            "advantage 'group_std' needs group_size of at least 2 to have a standard deviation, "
            f"got {group_size}; raise group_size or use advantage 'none'"
        )
    groups = in_groups(rewards, group_size)  # (B / group_size, group_size)
    std = groups.std(dim=1, correction=1, keepdim=True)  # (B / group_size, 1)
    values = centred(groups) if centre else torch.where(constant(groups), 0, groups)
    return over(values, std + eps).flatten()


def group_mean(rewards: Tensor, group_size: int) -> Tensor:
    """Return r - mean within each group: (B,) to (B,). arXiv:2503.20783 sec. 3.2."""
    return centred(in_groups(rewards, group_size)).flatten()


def none(rewards: Tensor, group_size: int) -> Tensor:
    """Return a copy of the rewards: (B,) to (B,)."""
    return in_groups(rewards, group_size).flatten().clone()


def centred(groups: Tensor) -> Tensor:
    """Subtract each row's mean; rows of equal numbers become exact zeros."""
    return torch.where(constant(groups), 0, groups - groups.mean(dim=1, keepdim=True))


def constant(groups: Tensor) -> Tensor:
    """Whether each row holds equal numbers, (rows, 1) bool."""
    return (groups == groups[:, :1]).all(dim=1, keepdim=True)


def over(values: Tensor, scale: Tensor) -> Tensor:
    """Divide, with zero over zero being zero."""
    return torch.where(values == 0, 0, values / scale)


def in_groups(rewards: Tensor, group_size: int) -> Tensor:
    """Cut (B,) into (B / group_size, group_size) consecutive groups."""
    if rewards.ndim != 1 or not rewards.is_floating_point():
        raise ValueError(
            f"rewards must be a (B,) floating-point tensor, got {tuple(rewards.shape)} "
            f"{rewards.dtype}"
        )
    if group_size < 1 or len(rewards) % group_size:
        raise ValueError(f"{len(rewards)} rewards do not divide into groups of {group_size}")
    return rewards.view(-1, group_size)
