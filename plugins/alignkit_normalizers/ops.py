"""Per-token losses to a scalar, as pure functions.

All divide by counts of the whole optimizer step, so that micro-batches add up to the step;
all ignore the values at masked positions, including infinities and NaN; a response without tokens
contributes zero.

Shapes: ``per_token`` (B, T), ``mask`` (B, T) bool, True at tokens that count.
"""

from __future__ import annotations

import torch
from torch import Tensor

from alignkit.protocols import StepTotals


def masked_mean(per_token: Tensor, mask: Tensor, /, *, totals: StepTotals) -> Tensor:
    """Return Σ_i (mean of response i's tokens) / responses of the step."""
    sums = _masked(per_token, mask).sum(dim=1)  # (B,)
    means = sums / mask.sum(dim=1).clamp(min=1)  # (B,)
    return means.sum() / max(totals.responses, 1)


def masked_normalize(
    per_token: Tensor, mask: Tensor, /, *, totals: StepTotals, constant: float
) -> Tensor:
    """Return Σ_i (sum of response i's tokens / constant) / responses of the step."""
    sums = _masked(per_token, mask).sum(dim=1) / constant  # (B,)
    return sums.sum() / max(totals.responses, 1)


def token_mean(per_token: Tensor, mask: Tensor, /, *, totals: StepTotals) -> Tensor:
    """Return the sum over all tokens / tokens of the step."""
    return _masked(per_token, mask).sum() / max(totals.tokens, 1)


def _masked(per_token: Tensor, mask: Tensor) -> Tensor:
    """Put zeros where the mask is False; a product would let inf and NaN through."""
    if per_token.ndim != 2 or mask.shape != per_token.shape or mask.dtype != torch.bool:
        raise ValueError(
            "a normalizer takes (B, T) losses and a bool mask of the same shape, got "
            f"{tuple(per_token.shape)} and {tuple(mask.shape)} {mask.dtype}"
        )
    return torch.where(mask, per_token, 0)
