"""What an optimizer step minimises, and for which of its rows it has to be computed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from alignkit.component import made_by
from alignkit.engine.learning.correction import truncated_importance, with_gap
from alignkit.engine.learning.reference import penalised
from alignkit.engine.learning.reference_table import Reference
from alignkit.engine.tokens import TrainRow
from alignkit.protocols import LossType, Normalizer


@dataclass(frozen=True, slots=True)
class Surrogate:
    """A loss, with its known properties."""

    loss: LossType
    zero_without_advantage: bool
    """Whether a response without advantage adds exactly zero to the loss and its gradient."""

    @classmethod
    def of(cls, loss: LossType) -> Surrogate:
        """Take what the parameters that built ``loss`` declare; assume nothing of other losses."""
        params = made_by(loss)
        return cls(loss, params is not None and params.zero_without_advantage)

    def monitored(self) -> Surrogate:
        """Also log how far trainer and rollout backend disagree."""
        return Surrogate(with_gap(self.loss), self.zero_without_advantage)

    def truncated(self, cap: float) -> Surrogate:
        """Weight each token by min(π_old / π_rollout, ``cap``)."""
        return Surrogate(truncated_importance(self.loss, cap), self.zero_without_advantage)

    def penalised(self, reference: Reference) -> Surrogate:
        """Add the reference's KL penalty; k2 and k3 push responses without advantage too."""
        loss = penalised(self.loss, reference.beta, reference.estimator)
        return Surrogate(loss, self.zero_without_advantage and reference.estimator == "k1")


@dataclass(frozen=True, slots=True)
class Objective:
    """What one optimizer step minimises."""

    surrogate: Surrogate
    normalizer: Normalizer
    temperature: float = 1.0
    """The temperature at which responses are sampled and log-probs are computed."""

    @classmethod
    def of(cls, loss: LossType, normalizer: Normalizer, temperature: float = 1.0) -> Objective:
        """Return the objective of a loss alone."""
        return cls(Surrogate.of(loss), normalizer, temperature)

    def computed(self, rows: Sequence[TrainRow]) -> Sequence[TrainRow]:
        """Leave out rows that add exactly zero, except those kept for the metrics."""
        if not self.surrogate.zero_without_advantage:
            return rows
        return [row for row in rows if row.pushes or row.measured]
