"""Masked sums, advantages, policy-gradient losses and micro-batch steps of the assignment.

Shapes: B = responses of the micro-batch, S = tokens. Masks may be bool or 0/1 of any dtype;
values under a mask of 0 never count, including infinities and NaN.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from alignkit.protocols import LossInputs, LossOutput, StepTotals
from alignkit_cs336.checks import RewardFunction, judged, mask_like, positive, rewards_in_groups
from alignkit_cs336.components import make, schema

_LOSSES = {
    "no_baseline": "losses/reinforce",
    "reinforce_with_baseline": "losses/reinforce",
    "grpo_clip": "losses/grpo_clip",
    "grpo_no_clip": "losses/no_clip",
}


def masked_mean(tensor: Tensor, mask: Tensor, dim: int | None = None) -> Tensor:
    """Return the mean over the positions where ``mask`` is 1, along ``dim`` or over all.

    A slice without such a position gives NaN.
    """
    return _masked_sum(tensor, mask, dim) / _masked_sum(torch.ones_like(tensor), mask, dim)


def masked_normalize(
    tensor: Tensor, mask: Tensor, dim: int | None = None, normalize_constant: float = 1.0
) -> Tensor:
    """Return the sum over the positions where ``mask`` is 1, over ``normalize_constant``."""
    return _masked_sum(tensor, mask, dim) / normalize_constant


def _masked_sum(tensor: Tensor, mask: Tensor, dim: int | None) -> Tensor:
    kept = torch.where(mask.bool(), tensor, 0)
    return kept.sum() if dim is None else kept.sum(dim)


# ---------------------------------------------------------------- advantages


def compute_group_normalized_rewards(
    reward_fn: RewardFunction,
    rollout_responses: Sequence[str],
    repeated_ground_truths: Sequence[str],
    group_size: int,
    advantage_eps: float,
    normalize_by_std: bool,
) -> tuple[Tensor, Tensor, dict[str, float]]:
    """Return advantages (N,), raw rewards (N,), both float32, and statistics of the rewards.

    Groups are ``group_size`` consecutive responses. The advantage is the reward minus its group's
    mean, divided by (standard deviation + ``advantage_eps``) if ``normalize_by_std``; the deviation
    divides by ``group_size - 1``. The metadata holds mean, std, max and min of the rewards, the
    mean of every part the reward function returned, and ``signal``, the share of groups whose
    rewards differ.
    """
    if group_size < 2:
        raise ValueError(f"group_size must be at least 2 to compare responses, got {group_size}")
    parts = judged(reward_fn, rollout_responses, repeated_ground_truths)
    raw = torch.tensor([part["reward"] for part in parts], dtype=torch.float32)  # (N,)
    raw = rewards_in_groups(raw, group_size)
    advantage = (
        make("advantage", "advantages/group_std", eps=float(advantage_eps))
        if normalize_by_std
        else make("advantage", "advantages/group_mean")
    )
    advantages = advantage(raw, group_size=group_size)  # (N,)
    signal = {"signal": share_with_signal(raw, group_size)}
    return advantages, raw, spread(raw) | signal | part_means(parts)


def spread(raw: Tensor) -> dict[str, float]:
    """Return mean, standard deviation (ddof 1; 0 of one), maximum and minimum of rewards (N,)."""
    return {
        "mean_reward": float(raw.mean()),
        "std_reward": float(raw.std()) if len(raw) > 1 else 0.0,
        "max_reward": float(raw.max()),
        "min_reward": float(raw.min()),
    }


def part_means(parts: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Return the mean of every value that a reward function returned, as ``mean_NAME``."""
    columns = defaultdict(list)
    for part in parts:
        for name, value in part.items():
            columns[f"mean_{name}"].append(value)
    return {name: sum(values) / len(values) for name, values in columns.items()}


def share_with_signal(raw: Tensor, size: int) -> float:
    """Return the share of groups whose rewards, (N,) in groups of ``size``, differ."""
    groups = raw.view(-1, size)
    return float((groups != groups[:, :1]).any(dim=1).float().mean())


# ---------------------------------------------------------------- losses


def compute_naive_policy_gradient_loss(
    raw_rewards_or_advantages: Tensor, policy_log_probs: Tensor
) -> Tensor:
    """Return -A log p for every token: (B, 1) and (B, S) to (B, S)."""
    return apply_loss("losses/reinforce", policy_log_probs, raw_rewards_or_advantages).per_token


def compute_grpo_clip_loss(
    advantages: Tensor, policy_log_probs: Tensor, old_log_probs: Tensor, cliprange: float
) -> tuple[Tensor, dict[str, Tensor]]:
    """Return the clipped loss of every token, (B, S), and its metrics, (B, S) each.

    ``clip_fraction`` is 1 where the clipped branch is the smaller one.
    """
    output = apply_loss(
        "losses/grpo_clip", policy_log_probs, advantages, old_log_probs, cliprange=cliprange
    )
    return output.per_token, dict(output.metrics)


def compute_policy_gradient_loss(
    policy_log_probs: Tensor,
    loss_type: str,
    raw_rewards: Tensor | None = None,
    advantages: Tensor | None = None,
    old_log_probs: Tensor | None = None,
    cliprange: float | None = None,
    response_mask: Tensor | None = None,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Return the loss of every token, (B, S), and its metrics, for a loss chosen by name.

    ``loss_type`` is ``no_baseline`` (takes ``raw_rewards``), ``reinforce_with_baseline``,
    ``grpo_clip`` or ``grpo_no_clip`` (take ``advantages``), or any registered loss. A loss
    over whole responses, such as ``gspo``, needs ``response_mask`` (B, S).
    """
    weights = _weights(loss_type, raw_rewards, advantages)
    name = _LOSSES.get(loss_type, loss_type)
    parameters = _clip_parameters(name, loss_type, cliprange)
    if "old_logprobs" in schema("loss_type", name)(**parameters).needs and old_log_probs is None:
        raise ValueError(f"loss_type {loss_type!r} needs old_log_probs")
    output = apply_loss(name, policy_log_probs, weights, old_log_probs, response_mask, **parameters)
    return output.per_token, dict(output.metrics)


def _weights(loss_type: str, raw_rewards: Tensor | None, advantages: Tensor | None) -> Tensor:
    wanted = "raw_rewards" if loss_type == "no_baseline" else "advantages"
    weights = raw_rewards if loss_type == "no_baseline" else advantages
    if weights is None:
        raise ValueError(f"loss_type {loss_type!r} needs {wanted}")
    return weights


def _clip_parameters(name: str, loss_type: str, cliprange: float | None) -> dict[str, float]:
    """Return the loss's own parameters: its cliprange, where it has one."""
    if "cliprange" not in schema("loss_type", name).model_fields:
        return {}
    if cliprange is None:
        raise ValueError(f"loss_type {loss_type!r} needs cliprange")
    positive("cliprange", cliprange)
    return {"cliprange": cliprange}


def apply_loss(
    name: str,
    log_probs: Tensor,
    weights: Tensor,
    old_log_probs: Tensor | None = None,
    mask: Tensor | None = None,
    **parameters: Any,
) -> LossOutput:
    """Call a registered loss; ``weights`` are (B,) or (B, 1), the mask all ones if not given."""
    output: LossOutput = make("loss_type", name, **parameters)(
        LossInputs(
            logprobs=log_probs,
            mask=mask_like(torch.ones_like(log_probs) if mask is None else mask, log_probs),
            advantages=weights.reshape(-1, 1).to(log_probs),
            old_logprobs=old_log_probs,
        )
    )
    return output


# ---------------------------------------------------------------- micro-batch steps


def sft_microbatch_train_step(
    policy_log_probs: Tensor,
    response_mask: Tensor,
    gradient_accumulation_steps: int,
    normalize_constant: float = 1.0,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Add the gradient of one supervised micro-batch; return its loss and metadata.

    The loss is the mean over the B responses of (sum of -log p over the response /
    ``normalize_constant``), divided by ``gradient_accumulation_steps``.
    """
    normalizer = make("normalizer", "normalizers/masked_normalize", constant=normalize_constant)
    return _backward(normalizer, -policy_log_probs, response_mask, gradient_accumulation_steps, {})


def grpo_microbatch_train_step(
    policy_log_probs: Tensor,
    response_mask: Tensor,
    gradient_accumulation_steps: int,
    loss_type: str,
    raw_rewards: Tensor | None = None,
    advantages: Tensor | None = None,
    old_log_probs: Tensor | None = None,
    cliprange: float | None = None,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Add the gradient of one policy-gradient micro-batch; return its loss and metadata.

    The loss is the mean over the B responses of the mean over each response's tokens, divided
    by ``gradient_accumulation_steps``; a response without a token counts as zero. Metadata are
    means over response tokens.
    """
    per_token, metrics = compute_policy_gradient_loss(
        policy_log_probs=policy_log_probs,
        loss_type=loss_type,
        raw_rewards=raw_rewards,
        advantages=advantages,
        old_log_probs=old_log_probs,
        cliprange=cliprange,
        response_mask=response_mask,
    )
    normalizer = make("normalizer", "normalizers/masked_mean")
    return _backward(normalizer, per_token, response_mask, gradient_accumulation_steps, metrics)


def _backward(
    normalizer: Any,
    per_token: Tensor,
    response_mask: Tensor,
    steps: int,
    metrics: Mapping[str, Tensor],
) -> tuple[Tensor, dict[str, Tensor]]:
    mask = response_mask.bool()
    tokens = mask.sum()
    totals = StepTotals(responses=len(mask), tokens=int(tokens))
    loss = normalizer(per_token, mask, totals=totals) / steps
    loss.backward()
    metadata = {
        name: torch.where(mask, values, 0).sum() / tokens.clamp(min=1)
        for name, values in metrics.items()
    }
    return loss.detach(), {"response_tokens": tokens, **metadata}
