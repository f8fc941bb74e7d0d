"""One optimizer step on a rollout batch, as the 2026 edition defines it.

Shapes: N = responses of the batch, B = responses of a micro-batch, S = tokens of the longest prompt
and response of the batch together, minus one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from alignkit.protocols import StepTotals
from alignkit_cs336.checks import RewardFunction, positive, same_length
from alignkit_cs336.estimators import (
    AdvantageNormalizer,
    Baseline,
    LossNormalization,
    Reweighting,
    check_reweighting,
    compute_group_normalized_rewards,
    compute_policy_gradient_loss,
    compute_rollout_rewards,
    make_normalizer,
)
from alignkit_cs336.scoring import get_response_log_probs, tokenize_prompt_and_output

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def grpo_train_step(
    model: nn.Module,
    tokenizer: PreTrainedTokenizerBase,
    optimizer: torch.optim.Optimizer,
    gradient_accumulation_steps: int,
    max_grad_norm: float | None,
    reward_fn: RewardFunction,
    repeated_prompts: Sequence[str],
    rollout_responses: Sequence[str],
    repeated_ground_truths: Sequence[str],
    group_size: int,
    baseline: Baseline = "mean",
    advantage_eps: float = 1e-6,
    advantage_normalizer: AdvantageNormalizer = "std",
    importance_reweighting_method: Reweighting = "none",
    old_log_probs: Tensor | None = None,
    cliprange: float | None = None,
    loss_normalization: LossNormalization = "sequence",
    normalization_constant: float | None = None,
) -> tuple[Tensor, dict[str, float]]:
    """Judge a rollout batch and make one optimizer step from it; return its loss and metadata.

    The N responses are cut into micro-batches of N / ``gradient_accumulation_steps``. Responses
    whose advantage is 0 never enter the model: loss and gradient are those of all N. Gradients are
    clipped to the global norm ``max_grad_norm`` (None: not at all), and are None when this returns.
    ``old_log_probs`` are (N, S), as get_response_log_probs gives them for the whole batch, and are
    needed with any reweighting. The loss is a detached scalar.

    The metadata holds the statistics of rewards and advantages, ``grad_norm`` before clipping,
    ``responses_trained_on``, and means over the response tokens that were trained on:
    ``clip_fraction``, ``token_entropy`` in nats, and any other metrics of the loss.
    """
    same_length(repeated_prompts=repeated_prompts, rollout_responses=rollout_responses)
    check_reweighting(importance_reweighting_method, old_log_probs, cliprange)
    if max_grad_norm is not None:
        positive("max_grad_norm", max_grad_norm)
    raw, judged = compute_rollout_rewards(reward_fn, rollout_responses, repeated_ground_truths)
    advantages, grouped = compute_group_normalized_rewards(
        raw, group_size, baseline, advantage_eps, advantage_normalizer
    )
    size = _micro_batch_size(len(raw), gradient_accumulation_steps)
    device = next(model.parameters()).device
    batch = _Batch.of(repeated_prompts, rollout_responses, tokenizer, device)
    batch.check(old_log_probs)
    normalizer = make_normalizer(loss_normalization, normalization_constant)
    optimizer.zero_grad(set_to_none=True)
    loss, sums = torch.zeros((), device=device), _Sums()
    kept = torch.nonzero(advantages != 0).flatten()  # (n,)
    for rows in torch.split(kept, size) if len(kept) else ():  # nothing would be cut into [()]
        part = batch.take(rows)
        found = get_response_log_probs(model, part.input_ids, part.labels, True)
        log_probs = found["log_probs"]  # (B, S')
        per_token, metrics = compute_policy_gradient_loss(
            advantages[rows].to(log_probs),
            log_probs,
            importance_reweighting_method,
            _rows_of(old_log_probs, rows, part.labels),
            cliprange,
            part.mask,
        )
        share = normalizer(per_token, part.mask, totals=batch.totals)
        share.backward()
        loss = loss + share.detach()
        sums.add(metrics | {"token_entropy": found["token_entropy"]}, part.mask)
    norm = _step(model, optimizer, max_grad_norm)
    counts = {"grad_norm": norm, "responses_trained_on": float(len(kept))}
    return loss, judged | grouped | counts | sums.means()


def _micro_batch_size(responses: int, steps: int) -> int:
    if steps < 1 or responses % steps:
        raise ValueError(
            f"{responses} responses do not divide into {steps} micro-batches of equal size"
        )
    return responses // steps


@dataclass(frozen=True)
class _Batch:
    """Tokens of prompts and responses, (N, S) each, padded on the right."""

    input_ids: Tensor
    labels: Tensor
    mask: Tensor
    totals: StepTotals

    @classmethod
    def of(
        cls,
        prompts: Sequence[str],
        responses: Sequence[str],
        tokenizer: PreTrainedTokenizerBase,
        device: torch.device,
    ) -> _Batch:
        found = tokenize_prompt_and_output(prompts, responses, tokenizer)
        mask = found["response_mask"]
        totals = StepTotals(responses=len(mask), tokens=int(mask.sum()))
        ids, labels = found["input_ids"].to(device), found["labels"].to(device)
        return cls(ids, labels, mask.to(device), totals)

    def check(self, old_log_probs: Tensor | None) -> None:
        """Refuse old log-probs of another batch than this one."""
        if old_log_probs is None:
            return
        shape, (rows, columns) = old_log_probs.shape, self.labels.shape
        if len(shape) != 2 or shape[0] != rows or shape[1] < columns:  # more columns are padding
            raise ValueError(
                f"old_log_probs must be {(rows, columns)}, the shape of the labels of the whole "
                f"batch, got {tuple(shape)}"
            )

    def take(self, rows: Tensor) -> _Batch:
        """Return some rows without the columns that are padding in all of them."""
        mask = self.mask[rows]
        used = torch.nonzero(mask.any(0))  # columns that some response reaches
        width = int(used.max()) + 1 if len(used) else 1
        return _Batch(
            self.input_ids[rows, :width], self.labels[rows, :width], mask[:, :width], self.totals
        )


def _rows_of(old: Tensor | None, rows: Tensor, like: Tensor) -> Tensor | None:
    """Return the old log-probs of some rows, as wide as ``like``."""
    return None if old is None else old[rows, : like.shape[1]].to(like.device)


def _step(model: nn.Module, optimizer: torch.optim.Optimizer, max_grad_norm: float | None) -> float:
    """Clip, step and clear the gradients; return their norm before clipping.

    Where no response has entered the model its gradients are 0, not missing: moments decay.
    """
    trained = [p for p in model.parameters() if p.requires_grad]
    for parameter in trained:
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
    limit = float("inf") if max_grad_norm is None else max_grad_norm
    norm = nn.utils.clip_grad_norm_(trained, limit)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return float(norm)


class _Sums:
    """Sums of metrics over response tokens, for their means."""

    def __init__(self) -> None:
        self.of: dict[str, float] = {}
        self.tokens = 0

    def add(self, metrics: Mapping[str, Tensor], mask: Tensor) -> None:
        """Add metrics, (B, T) each, at the tokens of the mask."""
        self.tokens += int(mask.sum())
        for name, values in metrics.items():
            here = float(torch.where(mask, values, 0).sum())
            self.of[name] = self.of.get(name, 0.0) + here

    def means(self) -> dict[str, float]:
        return {name: total / max(self.tokens, 1) for name, total in self.of.items()}
