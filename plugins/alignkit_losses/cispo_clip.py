"""CISPO: REINFORCE weighted by a clipped importance ratio that carries no gradient.

Paper: MiniMax 2025 (MiniMax-M1), arXiv:2506.13585, section 3.1, equations 4 and 5.
Equation, per token: -sg(clip(r, 1 - ε_low, 1 + ε_high)) A log π_θ, with r = π_θ / π_old and sg the
stop-gradient. With grpo_clip, tokens beyond the bound lose their gradient; here every token keeps
its gradient, and the bound limits the token's weight.

Deviations from the paper:

- The mean over all tokens of the batch is the normalizer ``token_mean``, not part of the loss.
- The paper tunes ε_high and gives no value; 4 here is a choice. As in the paper there is no lower
  bound by default: ratios are positive, so ε_low = 1 sets none.
"""

from __future__ import annotations

from torch import Tensor

from alignkit.protocols import LossOutput
from alignkit_losses.ops import approx_kl, check_shapes


def cispo_clip(
    logprobs: Tensor, old_logprobs: Tensor, advantages: Tensor, eps_low: float, eps_high: float
) -> LossOutput:
    """Return -sg(clip(r, 1 - ε_low, 1 + ε_high)) A log π with r = exp(logprobs - old_logprobs).

    arXiv:2506.13585 eqs. 4 and 5. ``logprobs``, ``old_logprobs`` (B, T);
    ``advantages`` (B, 1) or (B, T). Metrics, (B, T) each: ``clip_fraction``, 1 where a
    bound changes a token's weight; ``approx_kl``, r - 1 - log r.
    """
    check_shapes(logprobs, advantages, old_logprobs)
    log_ratio = (logprobs - old_logprobs).detach()  # (B, T)
    ratio = log_ratio.exp()
    weight = ratio.clamp(1 - eps_low, 1 + eps_high)  # (B, T)
    metrics = {
        "clip_fraction": (weight != ratio).to(ratio.dtype),
        "approx_kl": approx_kl(log_ratio),
    }
    return LossOutput(per_token=-weight * advantages * logprobs, metrics=metrics)
