"""What an optimizer step reports: sums over its micro-batches, and the metrics made of them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor


@dataclass(slots=True)
class StepMetrics:
    """Sums over the micro-batches of one step."""

    tokens: int
    """Response tokens that are computed."""
    loss: float = 0.0
    sums: dict[str, float] = field(
        default_factory=lambda: {"token_entropy": 0.0}  # nosec B105 # no password
    )
    log_ratios: list[Tensor] = field(default_factory=list)
    """log π - log π_old of the tokens computed, (n,) for each micro-batch."""

    def add(self, scalar: Tensor, metrics: Mapping[str, Tensor | None], mask: Tensor) -> None:
        """Add a micro-batch's loss, and what its (B, T) or (B, 1) metrics hold under ``mask``."""
        self.loss += float(scalar.detach())
        for name, values in metrics.items():
            if values is not None:
                kept = torch.where(mask, values.detach(), 0)  # (B, 1) broadcasts to (B, T)
                total = float(kept.sum(dtype=torch.float64))
                self.sums[name] = self.sums.get(name, 0.0) + total

    def compare(self, logprobs: Tensor, old_logprobs: Tensor, mask: Tensor) -> None:
        """Note how far a micro-batch's log-probs are from the old ones, all (B, T)."""
        self.log_ratios.append((logprobs - old_logprobs)[mask].float().cpu())

    def means(self) -> dict[str, float]:
        """Return means over the computed response tokens; 0 where there is no token."""
        return {name: total / max(self.tokens, 1) for name, total in self.sums.items()}

    def ratios(self) -> dict[str, float]:
        """Return the 99th percentiles (nearest rank) of π/π_old and its inverse, if known."""
        if not self.log_ratios:
            return {}
        ordered = torch.cat(self.log_ratios).sort().values  # (n,)
        rank = math.ceil(0.99 * len(ordered)) - 1
        return {
            "ratio_p99": math.exp(min(float(ordered[rank]), 700.0)),
            "ratio_inverse_p99": math.exp(min(-float(ordered[len(ordered) - 1 - rank]), 700.0)),
        }
