"""The keys of ``use = "expert_iteration"``."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any

from pydantic import Field

from alignkit import Params
from alignkit.engine.evaluation.eval_table import EvalPlan, EvalTable
from alignkit.engine.observing.watch import UNWATCHED, Watcher
from alignkit.engine.observing.watch_table import WatchTable
from alignkit.engine.training.checkpoint_table import CheckpointPlan, CheckpointTable
from alignkit.protocols import (
    Algorithm,
    Dataset,
    Normalizer,
    Optimizer,
    Policy,
    PromptTemplate,
    RewardFn,
    RolloutBackend,
    Tracker,
)
from alignkit_algorithms.shared import divides, sampled_not_greedy, token_facts


class ExpertIteration(Params[Algorithm]):
    """Expert iteration: sample, keep what is right, fine-tune on it, repeat.

    Anthony et al. 2017, arXiv:1705.08439, in the form of STaR (Zelikman et al. 2022,
    arXiv:2203.14465) with a sampled "expert": the policy's own correct responses. With one
    epoch and one batch it is rejection-sampling fine-tuning.
    """

    seed: Annotated[int, Field(ge=0)] = 0
    """Fixes everything drawn: questions, responses, order of the rows."""

    n_steps: Annotated[int, Field(ge=1)] = 5
    """Expert iterations; each draws a fresh batch of questions."""

    rollout_batch_size: Annotated[int, Field(ge=1)] = 256
    """Responses sampled per iteration; a multiple of ``group_size``."""

    group_size: Annotated[int, Field(ge=1)] = 8
    """Responses per question."""

    train_batch_size: Annotated[int, Field(ge=1)] = 64
    """Kept responses per optimizer step; the last step of a pass takes what is left."""

    epochs_per_rollout_batch: Annotated[int, Field(ge=1)] = 1
    """Passes over the kept responses of an iteration."""

    min_reward: float = 1.0
    """Total reward a response needs to be kept."""

    token_budget: Annotated[int, Field(ge=1)] = 8192
    """Padded prompt and response tokens per micro-batch. Bounds memory, changes no result."""

    save_rollouts_every: Annotated[int, Field(ge=0)] = 1
    """Iterations between saved rollout tables, the first and last included. 0 = none."""

    def build(
        self,
        *,
        policy: Policy,
        data: Dataset,
        prompt: PromptTemplate,
        reward: RewardFn,
        normalizer: Normalizer,
        rollout: RolloutBackend,
        optimizer: Optimizer,
        eval: Annotated[EvalPlan, EvalTable] | None = None,
        checkpoint: Annotated[CheckpointPlan, CheckpointTable] | None = None,
        watch: Annotated[Watcher, WatchTable] = UNWATCHED,
        trackers: Sequence[Tracker] = (),
    ) -> Algorithm:
        from alignkit.engine.training.loop import Parts
        from alignkit_algorithms.expert_iteration import ExpertIterationRun

        parts = Parts(
            policy=policy,
            seed=self.seed,
            token_budget=self.token_budget,
            prompt=prompt,
            reward=reward,
            backend=rollout,
            optimizer=optimizer,
            plan=eval,
            checkpoint=checkpoint,
            watch=watch,
            trackers=trackers,
        )
        return ExpertIterationRun(keys=self, parts=parts, data=data, normalizer=normalizer)

    def check(self, tables: Mapping[str, Any]) -> Iterable[tuple[str, str]]:
        yield from divides(self, "group_size", "responses per question")
        yield from sampled_not_greedy(tables)

    def facts(self, tables: Mapping[str, Any]) -> Mapping[str, str]:
        questions = self.rollout_batch_size // self.group_size
        most = -(-self.rollout_batch_size // self.train_batch_size) * self.epochs_per_rollout_batch
        return {
            "rollout batch": f"{questions} questions × {self.group_size} responses = "
            f"{self.rollout_batch_size} responses",
            "optimizer steps per iteration, at most": f"{most}, if every response is right",
            **token_facts(tables, self.rollout_batch_size, self.n_steps),
        }
