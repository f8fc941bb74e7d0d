"""Evaluation alone: one row of metrics at step 0, and a row per response in ``eval/``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from alignkit.engine.training.loop import Parts

if TYPE_CHECKING:
    from alignkit.run import Run


@dataclass(kw_only=True)
class EvaluateRun:
    """The parts of an evaluation."""

    parts: Parts

    def run(self, run: Run) -> Mapping[str, float]:
        """Evaluate every set once."""
        with self.parts.open(run) as training:
            return training.first_row()
