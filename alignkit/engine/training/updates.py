"""Optimizer steps from a step's rows: π_old is taken at the first, for free where it can be.

Nothing is kept here: what an update returns is kept by the frame, so that a resumed step goes
through the same updates again without computing those it has made.
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
        """Do one optimizer step, exact whatever is cut or left out; return its metrics."""
        if batch.of.old != "present" or batch.only:
            return self._frame.update(lambda: self.learner.step(batch.rows, objective))
        metrics, others, own = self._frame.update(lambda: self._first(batch, objective))
        batch.of.note_old(batch.others, others)
        batch.of.note_old(batch.at, own)
        return metrics

    def _first(
        self, batch: Batch, objective: Objective
    ) -> tuple[Metrics, list[Tensor | None], list[Tensor | None]]:
        """Do the first update from some rows; return π_old's log-probs of the others and of its.

        It sees its own rows as π_old does, so their log-probs cost nothing.
        """
        later = [batch.of.rows[i] for i in batch.others]
        others = self.learner.old_logprobs(later, objective) if later else []
        metrics, own = self.learner.first_step(batch.rows, objective)
        return metrics, others, own
