"""Evaluation alone: one row of metrics at step 0, and a row per response in ``eval/``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from alignkit.engine.bookkeeping import seed_everything
from alignkit.engine.eval_table import EvalPlan
from alignkit.engine.evaluation import Evaluator
from alignkit.engine.rollouts import serving
from alignkit.protocols import Policy, PromptTemplate, RewardFn, RolloutBackend, Tracker

if TYPE_CHECKING:
    from alignkit.run import Run
    from alignkit_algorithms.evaluate_table import Evaluate


@dataclass(kw_only=True)
class EvaluateRun:
    """The parts of an evaluation."""

    keys: Evaluate
    policy: Policy
    backend: RolloutBackend
    prompt: PromptTemplate | None
    reward: RewardFn | None
    plan: EvalPlan
    trackers: Sequence[Tracker] = field(default=())

    def __post_init__(self) -> None:
        self.evaluator = Evaluator(
            self.plan,
            policy=self.policy,
            backend=self.backend,
            prompt=self.prompt,
            reward=self.reward,
            token_budget=self.keys.token_budget,
        )

    def run(self, run: Run) -> Mapping[str, float]:
        """Evaluate every set once."""
        run.attach(self.trackers)
        seed_everything(self.keys.seed)
        with serving(self.backend, self.policy):
            metrics = self.evaluator.run(run, 0)
        run.log(0, metrics)
        return metrics
