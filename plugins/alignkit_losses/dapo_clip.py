"""Clip-higher: a clipped ratio whose two bounds differ (DAPO).

Paper: Yu et al. 2025, arXiv:2503.14476, section 3.1, equation 8.
Equation, per token: -min(r A, clip(r, 1 - ε_low, 1 + ε_high) A), r = π_θ / π_old.

Deviations from the paper:

- Only the clipping is here. The mean over tokens is the normalizer ``token_mean``; dynamic
  sampling is ``drop_groups_without_signal`` with ``max_refills``; overlong shaping is a reward.
"""

from __future__ import annotations

from torch import Tensor

from alignkit.protocols import LossOutput
from alignkit_losses.ops import approx_kl, check_shapes, clipped_surrogate


def dapo_clip(
    logprobs: Tensor, old_logprobs: Tensor, advantages: Tensor, eps_low: float, eps_high: float
) -> LossOutput:
    """Return the loss per token (B, T); ``logprobs``, ``old_logprobs`` (B, T).

    ``advantages`` (B, 1) or (B, T). Metrics, (B, T) each: ``clip_fraction``, 1 where a token
    gets no gradient because the clipped branch is the smaller one; ``approx_kl``, r - 1 - log r.
    """
    check_shapes(logprobs, advantages, old_logprobs)
    log_ratio = logprobs - old_logprobs  # (B, T)
    per_token, clipped = clipped_surrogate(log_ratio.exp(), advantages, eps_low, eps_high)
    metrics = {"clip_fraction": clipped, "approx_kl": approx_kl(log_ratio)}
    return LossOutput(per_token=per_token, metrics=metrics)
