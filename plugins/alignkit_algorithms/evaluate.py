"""Evaluation only: one row of metrics at step 0, and a row per response in ``eval/``."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any

from pydantic import Field

from alignkit.engine.evaluation.eval_table import (
    EvalFields,
    EvalPlan,
    EvalSet,
    EvalSetTable,
    needs_data,
)
from alignkit.footprint import Workload
from alignkit.protocols import (
    Algorithm,
    Dataset,
    Environment,
    Policy,
    PromptTemplate,
    RewardFn,
    RolloutBackend,
    Tracker,
)
from alignkit_algorithms.shared import evaluated_greedily, suited, work_of


class Evaluate(EvalFields[Algorithm]):
    """Give a policy problems to answer and report how well it does; nothing is trained.

    ``[data]`` logs as ``eval/…``; each ``[sets.NAME]``, which may bring its own prompt, reward
    and sampling, as ``eval/NAME/…``.
    """

    n: Annotated[int, Field(ge=0)] = 0
    """Examples to use from [data]: a subset fixed by ``seed``. 0 = all."""

    token_budget: Annotated[int, Field(ge=1)] = 8192
    """Padded tokens per forward pass when entropies are computed. Limits memory use only."""

    def build(
        self,
        *,
        policy: Policy,
        rollout: RolloutBackend,
        data: Dataset | None = None,
        prompt: PromptTemplate | None = None,
        reward: RewardFn | None = None,
        environment: Environment | None = None,
        sets: Mapping[str, Annotated[EvalSet, EvalSetTable]] | None = None,
        trackers: Sequence[Tracker] = (),
    ) -> Algorithm:
        from alignkit.engine.training.facade import EvaluationRun
        from alignkit.engine.training.parts import Parts

        unnamed = {} if data is None else {"": self.eval_set(data, None, None, None)}
        parts = Parts(
            policy=policy,
            seed=self.seed,
            token_budget=self.token_budget,
            prompt=prompt,
            reward=reward,
            environment=environment,
            backend=rollout,
            plan=EvalPlan({**unnamed, **(sets or {})}),
            trackers=trackers,
        )
        return EvaluationRun(parts)

    def workload(self, tables: Mapping[str, Any]) -> Workload:
        return work_of(self, tables)

    def check(self, tables: Mapping[str, Any]) -> Iterable[tuple[str, str]]:
        yield from suited(tables)
        yield from super().check(tables)
        yield from evaluated_greedily(tables, own=self)
        yield from needs_data(tables, "[data], or [sets.NAME] with a data table each")
