"""Dual clip: a clipped ratio that is also bounded where the advantage is negative.

Paper: Ye et al. 2020, arXiv:1912.09729, the dual-clip PPO objective.
Equation, per token, with r = π_θ / π_old and c > 1:
-min(r A, clip(r, 1 - ε, 1 + ε) A) where A >= 0, and
-max(min(r A, clip(r, 1 - ε, 1 + ε) A), c A) where A < 0.
The ordinary minimum is unbounded there: a response that has become much likelier since it was
sampled would push the weights without limit. Beyond a ratio of c it has no gradient.

Deviations from the paper:

- The policy term alone: no value function and no entropy bonus.
- One advantage per response, from its group; the paper has one per time step, from a critic.
"""

from __future__ import annotations

import torch
from torch import Tensor

from alignkit.protocols import LossOutput
from alignkit_losses.ops import approx_kl, check_shapes, clipped_surrogate


def dual_clip(
    logprobs: Tensor, old_logprobs: Tensor, advantages: Tensor, cliprange: float, c: float
) -> LossOutput:
    """Return the loss per token (B, T); ``logprobs``, ``old_logprobs`` (B, T).

    ``advantages`` (B, 1) or (B, T). Metrics, (B, T) each: ``clip_fraction``, 1 where a token gets
    no gradient because of either clip; ``dual_clip_fraction``, where it is because of the second
    one; ``approx_kl``, r - 1 - log r.
    """
    check_shapes(logprobs, advantages, old_logprobs)
    log_ratio = logprobs - old_logprobs  # (B, T)
    once, clipped = clipped_surrogate(log_ratio.exp(), advantages, cliprange, cliprange)
    bound = -c * advantages  # above any loss worth learning from
    beyond = (advantages < 0) & (once > bound)  # (B, T)
    per_token = torch.where(beyond, bound, once)
    metrics = {
        "clip_fraction": clipped.maximum(beyond.to(clipped.dtype)),
        "dual_clip_fraction": beyond.to(clipped.dtype),
        "approx_kl": approx_kl(log_ratio),
    }
    return LossOutput(per_token=per_token, metrics=metrics)
