"""Optimizer steps from a step's rows; the first also gives log-probs of π_old, free if possible.

Nothing is stored here: the frame keeps what an update returns, so that a resumed step repeats the
same updates without computing those already made.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from alignkit.engine.learning.learner import Learner
from alignkit.engine.learning.objective import Objective
from alignkit.engine.learning.rows import Batch
from alignkit.engine.training.loop import Frame

Metrics = Mapping[str, float]


class Updates:
    """The updates of one training."""

    def __init__(self, frame: Frame, learner: Learner) -> None:
        self._frame, self.learner = frame, learner

    def make(self, batch: Batch, objective: Objective) -> Metrics:
        """Do one optimizer step, exact even if rows are split or skipped; return its metrics."""
        if batch.of.old != "present" or batch.only:
            return self._frame.update(lambda: self.learner.step(batch.rows, objective))
        metrics, others, own = self._frame.update(lambda: self._first(batch, objective))
        batch.of.note_old(batch.others, others)
        batch.of.note_old(batch.at, own)
        return metrics

    def _first(
        self, batch: Batch, objective: Objective
    ) -> tuple[Metrics, list[Tensor | None], list[Tensor | None]]:
        """Do the first update, from some rows; return π_old's log-probs of these and the others.

        At the first update the policy still is π_old, so log-probs of its own rows cost nothing.
        """
        later = [batch.of.rows[i] for i in batch.others]
        others = self.learner.old_logprobs(later, objective) if later else []
        metrics, own = self.learner.first_step(batch.rows, objective)
        return metrics, others, own
