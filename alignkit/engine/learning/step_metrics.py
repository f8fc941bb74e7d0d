"""What an optimizer step reports: sums over its micro-batches, and metrics computed from them.

A metric is the mean over all response tokens of the step. Rows without advantage that are not
computed are represented by those that are.

Sums stay on the losses' device and are read once, at the end of the step, because reading a number
from a CUDA device waits for all queued work.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from alignkit.engine.ranks import Ranks
from alignkit.engine.tokens import TrainRow, on_host, onto


@dataclass(slots=True)
class StepMetrics:
    """Sums over the micro-batches of one step."""

    tokens: float
    """Number of response tokens that the sums represent."""
    idle_weight: float = 1.0
    """How many tokens without advantage each computed one represents."""
    sums: dict[str, float] = field(default_factory=dict)
    """Sum of each metric over the tokens, once it is read."""
    log_ratios: Tensor = field(default_factory=lambda: torch.zeros(0))
    """log π - log π_old of the tokens computed, (n,), once they are read."""
    weights: list[Tensor] = field(default_factory=list)
    """How many tokens each of them represents, (n,) in total."""
    _loss: Tensor = field(default_factory=lambda: torch.zeros((), dtype=torch.float64))
    _sums: dict[str, Tensor] = field(default_factory=dict)
    _compared: list[tuple[list[int], Tensor]] = field(default_factory=list)

    @classmethod
    def of(cls, rows: Sequence[TrainRow], computed: Sequence[TrainRow]) -> StepMetrics:
        """Start a step on ``rows``, of which ``computed`` are computed."""
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
        """Add a micro-batch's loss, and its (B, T) or (B, 1) metrics where ``mask`` is True.

        ``idle`` says that its rows have no advantage.
        """
        weight = self.idle_weight if idle else 1.0
        self._loss = self._loss + scalar.detach().double()
        for name, values in metrics.items():
            if values is not None:
                kept = torch.where(mask, values.detach(), 0)  # (B, 1) broadcasts to (B, T)
                total = weight * kept.sum(dtype=torch.float64)
                self._sums[name] = self._sums[name] + total if name in self._sums else total

    def compare(
        self,
        rows: Sequence[TrainRow],
        logprobs: Tensor,
        old_logprobs: Tensor,
        *,
        idle: bool = False,
    ) -> None:
        """Record the difference of a micro-batch's log-probs from the old ones, both (B, T)."""
        counts = [len(row.trained_ids) for row in rows]
        self._compared.append((counts, (logprobs - old_logprobs).float()))
        self.weights.append(torch.full((sum(counts),), self.idle_weight if idle else 1.0))

    def read(self, norm: Tensor) -> tuple[float, float]:
        """Return the step's loss and ``norm``, and read all sums with them."""
        loss = onto(norm.device, self._loss) if self._loss.device != norm.device else self._loss
        scalars = [loss, norm.double(), *self._sums.values()]
        apart = [differences.double() for _, differences in self._compared]
        first, *found = on_host([torch.stack(scalars), *apart])
        value, size, *totals = first.tolist()
        self.sums = dict(zip(self._sums, totals, strict=True))
        pairs = zip(self._compared, found, strict=True)
        kept = [row[:n] for (counts, _), x in pairs for n, row in zip(counts, x, strict=True)]
        self.log_ratios = torch.cat([self.log_ratios, *kept]).float()
        return value, size

    def join(self, group: Ranks, loss: float) -> float:
        """Add what the other ranks measured, which all have then; return the step's loss."""
        if group.size == 1:
            return loss
        weights = torch.cat([torch.empty(0), *self.weights])
        found = group.gather((loss, self.sums, self.log_ratios, weights))
        names = [name for _, sums, _, _ in found for name in sums]
        self.sums = {n: sum(sums.get(n, 0.0) for _, sums, _, _ in found) for n in names}
        self.log_ratios = torch.cat([ratios for _, _, ratios, _ in found])
        self.weights = [weights for _, _, _, weights in found]
        return sum(value for value, _, _, _ in found)

    def means(self) -> dict[str, float]:
        """Return means over the step's response tokens; 0 where there is no token."""
        sums = {"token_entropy": 0.0, **self.sums}  # nosec B105 # no password
        return {name: total / max(self.tokens, 1) for name, total in sums.items()}

    def ratios(self) -> dict[str, float]:
        """Return the 99th percentiles (nearest rank) of π/π_old and its inverse, if known."""
        if not self.log_ratios.numel():
            return {}
        found, weights = self.log_ratios, torch.cat(self.weights)  # (n,)
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
