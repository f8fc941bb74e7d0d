"""Rewards, advantages, token losses and their aggregation as the 2026 edition names them.

Shapes: N = responses of a rollout batch, B = responses of a micro-batch, T = tokens. Masks may be
bool or 0/1 of any dtype; values under a mask of 0 never count, including infinities and NaN.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from alignkit.protocols import StepTotals
from alignkit_cs336.checks import RewardFunction, judged, one_of, positive, rewards_in_groups
from alignkit_cs336.components import make
from alignkit_cs336.steps import (
    apply_loss,
    part_means,
    share_with_signal,
    spread,
)

Baseline = Literal["mean", "none"]
AdvantageNormalizer = Literal["std", "none", "mean"]
Reweighting = Literal["none", "noclip", "grpo", "gspo"]
LossNormalization = Literal["sequence", "constant"]

_LOSSES = {
    "none": "losses/reinforce",
    "noclip": "losses/no_clip",
    "grpo": "losses/grpo_clip",
    "gspo": "losses/gspo",
}
_CLIPPING = ("grpo", "gspo")
_SCALED = {"std": "advantages/group_std", "mean": "advantages/maxrl"}


def compute_rollout_rewards(
    reward_fn: RewardFunction,
    rollout_responses: Sequence[str],
    repeated_ground_truths: Sequence[str],
) -> tuple[Tensor, dict[str, float]]:
    """Return the reward of every response, (N,) float32, and their statistics.

    The metadata holds mean, std, max and min of the rewards, and the mean of every part the reward
    function returned: ``mean_reward``, ``mean_format_reward``, ``mean_answer_reward``, ….
    """
    parts = judged(reward_fn, rollout_responses, repeated_ground_truths)
    raw = torch.tensor([part["reward"] for part in parts], dtype=torch.float32)  # (N,)
    return raw, spread(raw) | part_means(parts)


def compute_group_normalized_rewards(
    raw_rewards: Tensor,
    group_size: int,
    baseline: Baseline = "mean",
    advantage_eps: float = 1e-6,
    advantage_normalizer: AdvantageNormalizer = "std",
) -> tuple[Tensor, dict[str, float]]:
    """Return advantages (N,) and statistics of the rewards (N,); groups are consecutive.

    ``baseline`` "mean" subtracts the group's mean. ``advantage_normalizer`` "std" divides by the
    group's standard deviation (ddof 1) plus ``advantage_eps``, "mean" by its mean plus
    ``advantage_eps`` (MaxRL, arXiv:2602.02710; rewards of at least 0). A group of equal rewards has
    no deviation to be divided by, and with "std" its advantages are 0 for either baseline. The
    metadata holds mean, std, max and min of the rewards, and ``signal``, the share of groups whose
    rewards differ.
    """
    one_of("baseline", baseline, ("mean", "none"))
    one_of("advantage_normalizer", advantage_normalizer, ("std", "none", "mean"))
    raw = rewards_in_groups(raw_rewards, group_size)
    _check_division(raw, group_size, advantage_normalizer, advantage_eps)
    advantage = _advantage(baseline, advantage_normalizer, float(advantage_eps))
    advantages = advantage(raw, group_size=group_size)  # (N,)
    return advantages, spread(raw) | {"signal": share_with_signal(raw, group_size)}


def _check_division(raw: Tensor, group_size: int, normalizer: str, eps: float) -> None:
    if not (eps >= 0 and math.isfinite(eps)):
        raise ValueError(f"advantage_eps must be a finite number of at least 0, got {eps}")
    if normalizer == "std" and group_size < 2:
        raise ValueError(
            f"advantage_normalizer 'std' needs group_size of at least 2, got {group_size}: one "
            "reward has no deviation; use advantage_normalizer 'none'"
        )
    if normalizer == "mean" and bool((raw < 0).any()):
        raise ValueError(
            "advantage_normalizer 'mean' divides by the mean reward of a group and needs rewards "
            f"of at least 0, got {float(raw.min())}; use 'std' or 'none'"
        )


def _advantage(baseline: str, normalizer: str, eps: float) -> Any:
    if normalizer in _SCALED:
        return make("advantage", _SCALED[normalizer], baseline=baseline, eps=eps)
    return make("advantage", "advantages/group_mean" if baseline == "mean" else "advantages/none")


def compute_policy_gradient_loss(
    raw_rewards_or_advantages: Tensor,
    policy_log_probs: Tensor,
    importance_reweighting_method: Reweighting = "none",
    old_log_probs: Tensor | None = None,
    cliprange: float | None = None,
    response_mask: Tensor | None = None,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Return the loss of every token, (B, T), and its metrics, (B, T) each, detached.

    ``raw_rewards_or_advantages`` are (B,) or (B, 1), log-probs (B, T). "none" is -A log p, "noclip"
    -r A with r = p / p_old, "grpo" -min(r A, clip(r) A) per token, "gspo" the same with one ratio
    per response, the geometric mean over its tokens in ``response_mask`` (all tokens if not given).
    ``clip_fraction`` is 1 where the clipped branch is the smaller one, so 0 without clipping.
    """
    method = importance_reweighting_method
    check_reweighting(method, old_log_probs, cliprange)
    parameters = {"cliprange": cliprange} if method in _CLIPPING else {}
    output = apply_loss(
        _LOSSES[method],
        policy_log_probs,
        raw_rewards_or_advantages,
        None if method == "none" else old_log_probs,
        response_mask,
        **parameters,
    )
    metrics = {"clip_fraction": torch.zeros_like(policy_log_probs), **output.metrics}
    shape = policy_log_probs.shape
    return output.per_token, {name: x.detach().expand(shape) for name, x in metrics.items()}


def check_reweighting(method: str, old_log_probs: Tensor | None, cliprange: float | None) -> None:
    """Refuse an unknown method, and a method without what it reads."""
    one_of("importance_reweighting_method", method, tuple(_LOSSES))
    if method != "none" and old_log_probs is None:
        raise ValueError(f"importance_reweighting_method {method!r} needs old_log_probs")
    if method in _CLIPPING:
        if cliprange is None:
            raise ValueError(f"importance_reweighting_method {method!r} needs cliprange")
        positive("cliprange", cliprange)


def aggregate_loss_across_microbatch(
    per_token_policy_gradient_loss: Tensor,
    mask: Tensor,
    loss_normalization: LossNormalization = "sequence",
    normalization_constant: float | None = None,
) -> Tensor:
    """Return the losses (B, T) as one scalar, the mean over the B responses.

    A response counts with the mean over its tokens in ``mask`` ("sequence"; one without a token
    counts as 0), or with their sum over ``normalization_constant`` ("constant").
    """
    totals = StepTotals(responses=len(mask), tokens=int(mask.sum()))
    normalizer = make_normalizer(loss_normalization, normalization_constant)
    loss: Tensor = normalizer(per_token_policy_gradient_loss, mask.bool(), totals=totals)
    return loss


def make_normalizer(loss_normalization: str, constant: float | None) -> Any:
    """Return the normalizer of that name; ValueError for an unknown one, or a missing constant."""
    one_of("loss_normalization", loss_normalization, ("sequence", "constant"))
    if loss_normalization == "sequence":
        return make("normalizer", "normalizers/masked_mean")
    if constant is None or not constant > 0:
        raise ValueError(
            f"loss_normalization 'constant' needs a normalization_constant above 0, got {constant}"
        )
    positive("normalization_constant", constant)
    return make("normalizer", "normalizers/masked_normalize", constant=float(constant))
