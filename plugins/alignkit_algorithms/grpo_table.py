"""The keys of ``use = "grpo"``."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import Field

from alignkit import Params
from alignkit.engine.evaluation.eval_table import EvalPlan, EvalTable
from alignkit.engine.learning.reference_table import Reference, ReferenceTable
from alignkit.engine.observing.watch import UNWATCHED, Watcher
from alignkit.engine.observing.watch_table import WatchTable
from alignkit.engine.training.checkpoint_table import CheckpointPlan, CheckpointTable
from alignkit.protocols import (
    Advantage,
    Algorithm,
    Dataset,
    LossType,
    Normalizer,
    Optimizer,
    Policy,
    PromptTemplate,
    RewardFn,
    RolloutBackend,
    Tracker,
)
from alignkit_algorithms.shared import divides, sampled_not_greedy, token_facts, uncut


class Grpo(Params[Algorithm]):
    """Group-relative policy optimisation (Shao et al. 2024, arXiv:2402.03300), on or off policy.

    Each step samples groups of responses, scores them against their own group, and makes one
    or more optimizer steps from them. ``train_batch_size = rollout_batch_size`` and one epoch
    is on-policy; anything else makes later updates off-policy.
    """

    seed: Annotated[int, Field(ge=0)] = 0
    """Fixes everything drawn: questions, responses, shuffles."""

    n_steps: Annotated[int, Field(ge=1)] = 200
    """Rollout batches, each followed by its updates."""

    rollout_batch_size: Annotated[int, Field(ge=1)] = 256
    """Responses per rollout batch; a multiple of ``group_size``."""

    group_size: Annotated[int, Field(ge=1)] = 8
    """Responses per prompt."""

    train_batch_size: Annotated[int, Field(ge=1)] = 256
    """Responses per optimizer step; divides ``rollout_batch_size``."""

    epochs_per_rollout_batch: Annotated[int, Field(ge=1)] = 1
    """Passes over each rollout batch."""

    shuffle: bool = False
    """Deal the responses of a rollout batch to its optimizer steps in a new order every epoch,
    keyed by the seed. Otherwise the steps take consecutive slices, which keeps groups whole."""

    drop_groups_without_signal: bool = False
    """Leave out of the updates groups whose rewards are all equal, as every advantage in them is
    zero (dynamic sampling, arXiv:2503.14476, section 3.2)."""

    max_refills: Annotated[int, Field(ge=0)] = 0
    """With ``drop_groups_without_signal``: sampling rounds at most to replace dropped groups. A
    batch still short after these is trained on as it is."""

    importance_cap: Annotated[float, Field(gt=0)] | None = None
    """Weight each token's loss by min(π_old / π_rollout, this), to correct for a rollout backend
    whose probabilities differ from the trainer's (truncated importance sampling; 2 is usual).
    Unset: no correction. Dimensionless."""

    pipeline_depth: Literal[0, 1] = 0
    """1 samples the next rollout batch while the policy learns from this one: steps are shorter,
    and every batch but the first is one step off-policy (``importance_cap`` corrects for that;
    ``train/staleness`` is the number of updates). The backend keeps weights of its own, and a
    signal waits for the end of the step. 0 samples and learns in turns."""

    token_budget: Annotated[int, Field(ge=1)] = 8192
    """Padded prompt and response tokens per micro-batch. Bounds memory, changes no result."""

    save_rollouts_every: Annotated[int, Field(ge=0)] = 10
    """Steps between saved rollout tables, the first and last step's included. 0 = none."""

    def build(
        self,
        *,
        policy: Policy,
        data: Dataset,
        prompt: PromptTemplate,
        reward: RewardFn,
        advantage: Advantage,
        loss: LossType,
        normalizer: Normalizer,
        rollout: RolloutBackend,
        optimizer: Optimizer,
        reference: Annotated[Reference, ReferenceTable] | None = None,
        eval: Annotated[EvalPlan, EvalTable] | None = None,
        checkpoint: Annotated[CheckpointPlan, CheckpointTable] | None = None,
        watch: Annotated[Watcher, WatchTable] = UNWATCHED,
        trackers: Sequence[Tracker] = (),
    ) -> Algorithm:
        from alignkit.engine.training.loop import Parts
        from alignkit_algorithms.grpo import GrpoRun

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
        return GrpoRun(
            keys=self,
            parts=parts,
            data=data,
            advantage=advantage,
            loss=loss,
            normalizer=normalizer,
            reference=reference,
        )

    @property
    def updates_per_batch(self) -> int:
        """Optimizer steps per rollout batch."""
        return self.rollout_batch_size // self.train_batch_size * self.epochs_per_rollout_batch

    def provides(self, tables: Mapping[str, Any]) -> frozenset[str]:
        always = frozenset({"old_logprobs", "rollout_logprobs"})
        return always | {"ref_logprobs"} if "reference" in tables else always

    def check(self, tables: Mapping[str, Any]) -> Iterable[tuple[str, str]]:
        yield from divides(self, "group_size", "responses per prompt")
        yield from divides(self, "train_batch_size", "responses per optimizer step")
        if self.max_refills and not self.drop_groups_without_signal:
            yield (
                "max_refills",
                "there is nothing to refill; set drop_groups_without_signal = true",
            )
        yield from sampled_not_greedy(tables)
        if self.pipeline_depth and not getattr(tables.get("rollout"), "samples_ahead", False):
            yield (
                "pipeline_depth",
                "this rollout backend cannot sample while the policy learns; take rollout hf, or "
                'vllm with mode "device" or "server", or set pipeline_depth = 0',
            )
        if self.importance_cap is not None:
            yield from uncut(tables)

    def facts(self, tables: Mapping[str, Any]) -> Mapping[str, str]:
        prompts = self.rollout_batch_size // self.group_size
        updates = self.updates_per_batch
        return {
            "rollout batch": f"{prompts} prompts × {self.group_size} responses = "
            f"{self.rollout_batch_size} responses",
            "optimizer steps per rollout batch": f"{updates} of {self.train_batch_size} responses",
            "optimizer steps in all": str(updates * self.n_steps),
            "off-policy": _off_policy(updates, self.pipeline_depth),
            **token_facts(tables, self.rollout_batch_size, self.n_steps),
        }


def _off_policy(updates: int, depth: int) -> str:
    """Say by how much updates lag behind the weights that sampled what they learn from."""
    if depth:
        behind = 2 * updates - 1
        return f"yes: the last update of a rollout batch is {behind} behind, sampled one step ahead"
    if updates == 1:
        return "no: every update uses responses of the current weights"
    return f"yes: the last update of a rollout batch is {updates - 1} updates behind"
