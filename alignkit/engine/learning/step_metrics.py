"""What an optimizer step reports: sums over its micro-batches, and the metrics made of them.

A metric is the mean over all response tokens of the step. Rows that are not computed, since they
have no advantage, are stood for by those rows without advantage that are.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from alignkit.engine.ranks import Ranks
from alignkit.engine.tokens import TrainRow


@dataclass(slots=True)
class StepMetrics:
    """Sums over the micro-batches of one step."""

    tokens: float
    """Response tokens that the sums stand for."""
    idle_weight: float = 1.0
    """How many tokens without advantage a computed one stands for."""
    loss: float = 0.0
    sums: dict[str, float] = field(
        default_factory=lambda: {"token_entropy": 0.0}  # nosec B105 # no password
    )
    log_ratios: list[Tensor] = field(default_factory=list)
    """log π - log π_old of the tokens computed, (n,) for each micro-batch."""
    weights: list[Tensor] = field(default_factory=list)
    """How many tokens each of them stands for, (n,)."""

    @classmethod
    def of(cls, rows: Sequence[TrainRow], computed: Sequence[TrainRow]) -> StepMetrics:
        """Start a step on ``rows``, of which some are ``computed``."""
        pushing, idle = _tokens(rows)
        _, seen = _tokens(computed)
        if not seen:
            return cls(pushing)
        return cls(pushing + idle, idle / seen)

    def add(
        self,
        scalar: Tensor,
        metrics: Mapping[str, Tensor | None],
        mask: Tensor,
        *,
        idle: bool = False,
    ) -> None:
        """Add a micro-batch's loss, and what its (B, T) or (B, 1) metrics hold under ``mask``.

        ``idle`` says that its rows have no advantage.
        """
        weight = self.idle_weight if idle else 1.0
        self.loss += float(scalar.detach())
        for name, values in metrics.items():
            if values is not None:
                kept = torch.where(mask, values.detach(), 0)  # (B, 1) broadcasts to (B, T)
                total = float(kept.sum(dtype=torch.float64))
                self.sums[name] = self.sums.get(name, 0.0) + weight * total

    def compare(
        self, logprobs: Tensor, old_logprobs: Tensor, mask: Tensor, *, idle: bool = False
    ) -> None:
        """Note how far a micro-batch's log-probs are from the old ones, all (B, T)."""
        found = (logprobs - old_logprobs)[mask].float().cpu()
        self.log_ratios.append(found)
        self.weights.append(torch.full_like(found, self.idle_weight if idle else 1.0))

    def join(self, group: Ranks) -> None:
        """Add what the other ranks measured; all have the same numbers then."""
        if group.size == 1:
            return
        ratios = list(zip(self.log_ratios, self.weights, strict=True))
        found = group.gather((self.loss, self.sums, ratios))
        self.loss = sum(loss for loss, _, _ in found)
        names = [name for _, sums, _ in found for name in sums]
        self.sums = {n: sum(sums.get(n, 0.0) for _, sums, _ in found) for n in names}
        both = [pair for _, _, ratios in found for pair in ratios]
        self.log_ratios, self.weights = [r for r, _ in both], [w for _, w in both]

    def means(self) -> dict[str, float]:
        """Return means over the step's response tokens; 0 where there is no token."""
        return {name: total / max(self.tokens, 1) for name, total in self.sums.items()}

    def ratios(self) -> dict[str, float]:
        """Return the 99th percentiles (nearest rank) of π/π_old and its inverse, if known."""
        if not self.log_ratios:
            return {}
        found, weights = torch.cat(self.log_ratios), torch.cat(self.weights)  # (n,)
        return {
            "ratio_p99": math.exp(min(_p99(found, weights), 700.0)),
            "ratio_inverse_p99": math.exp(min(_p99(-found, weights), 700.0)),
        }


def _p99(values: Tensor, weights: Tensor) -> float:
    """Return the least of ``values`` (n,) that 99 % of the weight is not above (nearest rank)."""
    ordered, order = values.sort()
    share = weights[order].cumsum(0, dtype=torch.float64)  # (n,)
    rank = int((share < 0.99 * share[-1]).sum())
    return float(ordered[rank])


def _tokens(rows: Sequence[TrainRow]) -> tuple[int, int]:
    """Return the trained tokens of the rows that have an advantage, and of the others."""
    pushing = sum(len(row.trained_ids) for row in rows if row.pushes)
    return pushing, sum(len(row.trained_ids) for row in rows) - pushing
