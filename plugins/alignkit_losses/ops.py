"""Policy-gradient surrogates as pure functions: from (B, T) log-probs to (B, T) losses.

The losses are to be minimised: each is minus the objective of the paper it cites. None of them
masks or averages; that is the normalizer's job.
"""

from __future__ import annotations

import torch
from torch import Tensor

from alignkit.protocols import LossOutput


def grpo_clip(
    logprobs: Tensor, old_logprobs: Tensor, advantages: Tensor, cliprange: float
) -> LossOutput:
    """Return -min(r A, clip(r, 1 - ε, 1 + ε) A) with r = exp(logprobs - old_logprobs).

    arXiv:2402.03300 eq. 3 without its KL term (arXiv:1707.06347 eq. 7 per token).
    ``logprobs``, ``old_logprobs`` (B, T); ``advantages`` (B, 1) or (B, T). Metrics, (B, T) each:
    ``clip_fraction``, 1 where the clipped branch is the smaller one, so that the token gets no
    gradient; ``approx_kl``, the estimate r - 1 - log r of KL(old || current).
    """
    check_shapes(logprobs, advantages, old_logprobs)
    log_ratio = logprobs - old_logprobs  # (B, T)
    per_token, clipped = clipped_surrogate(log_ratio.exp(), advantages, cliprange, cliprange)
    metrics = {"clip_fraction": clipped, "approx_kl": approx_kl(log_ratio)}
    return LossOutput(per_token=per_token, metrics=metrics)


def no_clip(logprobs: Tensor, old_logprobs: Tensor, advantages: Tensor) -> LossOutput:
    """Return -r A with r = exp(logprobs - old_logprobs), and ``approx_kl`` as grpo_clip does.

    ``logprobs``, ``old_logprobs`` (B, T); ``advantages`` (B, 1) or (B, T).
    """
    check_shapes(logprobs, advantages, old_logprobs)
    log_ratio = logprobs - old_logprobs  # (B, T)
    metrics = {"approx_kl": approx_kl(log_ratio)}
    return LossOutput(per_token=-log_ratio.exp() * advantages, metrics=metrics)


def reinforce(logprobs: Tensor, advantages: Tensor) -> LossOutput:
    """Return -A log π: ``logprobs`` (B, T), ``advantages`` (B, 1) or (B, T)."""
    check_shapes(logprobs, advantages)
    return LossOutput(per_token=-advantages * logprobs)


def require(values: Tensor | None, name: str) -> Tensor:
    """Return ``values``; ValueError if the algorithm did not pass them."""
    if values is None:
        raise ValueError(f"this loss reads {name}, which the algorithm did not provide")
    return values


def clipped_surrogate(
    ratio: Tensor, advantages: Tensor, low: float, high: float
) -> tuple[Tensor, Tensor]:
    """Return -min(r A, clip(r, 1 - low, 1 + high) A) and 1 where the clipped branch is smaller.

    ``ratio`` (B, T) or (B, 1), like both results; ``advantages`` (B, 1) or (B, T).
    """
    free = ratio * advantages
    clipped = ratio.clamp(1 - low, 1 + high) * advantages
    return -torch.minimum(free, clipped), (clipped < free).to(ratio.dtype)


def approx_kl(log_ratio: Tensor) -> Tensor:
    """Return r - 1 - log r, an estimate of KL(old || current) that is never negative."""
    return (log_ratio.exp() - 1 - log_ratio).detach()


def check_shapes(logprobs: Tensor, advantages: Tensor, *others: Tensor) -> None:
    """Refuse shapes that would broadcast into something else, and integer tensors."""
    if logprobs.ndim != 2:
        raise ValueError(f"log-probs must be (B, T), got shape {tuple(logprobs.shape)}")
    if advantages.shape not in ((len(logprobs), 1), logprobs.shape):
        raise ValueError(
            f"advantages must be ({len(logprobs)}, 1) or {tuple(logprobs.shape)}, "
            f"got shape {tuple(advantages.shape)}"
        )
    for other in others:
        if other.shape != logprobs.shape:
            raise ValueError(
                f"log-probs to compare must both be {tuple(logprobs.shape)}, "
                f"got {tuple(other.shape)}"
            )
    for tensor in (logprobs, advantages, *others):
        if not tensor.is_floating_point():
            raise TypeError(f"expected floating-point tensors, got {tensor.dtype}")
