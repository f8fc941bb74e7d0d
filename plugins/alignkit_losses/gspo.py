"""Group sequence policy optimisation: one importance ratio for the whole response (GSPO).

Paper: Zheng et al. 2025, arXiv:2507.18071, section 4.1, equations 5 and 7.
Equation, per response: -min(s A, clip(s, 1 - ε, 1 + ε) A), s = (π_θ(y) / π_old(y))^(1 / |y|), the
geometric mean of the ratios of its tokens.

Deviations from the paper:

- The response's loss is repeated at each of its tokens; the normalizer ``masked_mean`` averages
  them, so that each response counts once as in equation 5. Other normalizers weigh long responses
  more.
- With an advantage for each token it is GSPO-token, section 4.3: the ratio has
  the same value, and its gradient reaches each token's own log-prob alone.
- One ε for both bounds; section 5.1 uses 3e-4 below and 4e-4 above.
"""

from __future__ import annotations

import torch
from torch import Tensor

from alignkit.protocols import LossOutput
from alignkit_losses.ops import approx_kl, check_shapes, clipped_surrogate


def gspo(
    logprobs: Tensor, old_logprobs: Tensor, advantages: Tensor, mask: Tensor, cliprange: float
) -> LossOutput:
    """Return -min(s A, clip(s, 1 - ε, 1 + ε) A) at every token of a response.

    s = exp(mean over the response's tokens of logprobs - old_logprobs), one ratio per response:
    arXiv:2507.18071 eqs. 5 and 7. Shapes as for grpo_clip, ``mask`` (B, T) bool;
    ``clip_fraction`` is the share of tokens in responses whose clipped branch is the smaller.
    """
    check_shapes(logprobs, advantages, old_logprobs)
    log_ratio = torch.where(mask, logprobs - old_logprobs, 0)  # (B, T)
    mean = log_ratio.sum(1, keepdim=True) / mask.sum(1, keepdim=True).clamp(min=1)  # (B, 1)
    ratio = mean.exp()
    if advantages.shape == logprobs.shape:
        ratio = ratio.detach() * (log_ratio - log_ratio.detach()).exp()  # (B, T)
    per_token, clipped = clipped_surrogate(ratio, advantages, cliprange, cliprange)
    metrics = {"clip_fraction": clipped, "approx_kl": approx_kl(log_ratio)}
    return LossOutput(per_token=per_token.expand_as(logprobs), metrics=metrics)
