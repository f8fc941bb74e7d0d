"""The keys of ``use = "dpo"``."""

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
    Optimizer,
    Policy,
    PromptTemplate,
    RewardFn,
    RolloutBackend,
    Tracker,
)
from alignkit_algorithms.shared import Eos, length_of_training


class Dpo(Params[Algorithm]):
    """Direct preference optimisation on pairs (Rafailov et al. 2023, arXiv:2305.18290).

    A row of [data] is a question with a chosen and a rejected response. The reference is the
    policy as it is before the first step, or ``[reference]``; its log-probs are computed once.
    """

    seed: Annotated[int, Field(ge=0)] = 0
    """Fixes the order of the pairs."""

    beta: Annotated[float, Field(gt=0)] = 0.1
    """β: how firmly the policy is held to the reference; the smaller, the freer. Dimensionless."""

    epochs: Annotated[int, Field(ge=1)] = 1
    """Passes over the pairs."""

    n_steps: Annotated[int, Field(ge=0)] = 0
    """Optimizer steps, passing over the pairs as often as it takes. 0 = as ``epochs`` says."""

    train_batch_size: Annotated[int, Field(ge=1)] = 32
    """Pairs per optimizer step; the last step of a pass takes what is left."""

    chosen_column: str = ""
    """Column with the preferred response. Left out = the answer."""

    rejected_column: Annotated[str, Field(min_length=1)] = "rejected"
    """Column with the response it was preferred to."""

    append_eos: Eos = "auto"
    """End responses with the end-of-sequence token. "auto": unless they end in one of the
    template's stop strings, which will end them when they are sampled."""

    validate_every: Annotated[int, Field(ge=1)] = 10
    """Steps between measurements on [validation], besides those before the first step and after
    the last."""

    token_budget: Annotated[int, Field(ge=1)] = 8192
    """Padded prompt and response tokens per micro-batch. Bounds memory, changes no result."""

    def build(
        self,
        *,
        policy: Policy,
        data: Dataset,
        prompt: PromptTemplate,
        optimizer: Optimizer,
        reference: Policy | None = None,
        validation: Dataset | None = None,
        reward: RewardFn | None = None,
        rollout: RolloutBackend | None = None,
        eval: Annotated[EvalPlan, EvalTable] | None = None,
        checkpoint: Annotated[CheckpointPlan, CheckpointTable] | None = None,
        watch: Annotated[Watcher, WatchTable] = UNWATCHED,
        trackers: Sequence[Tracker] = (),
    ) -> Algorithm:
        from alignkit.engine.training.loop import Parts
        from alignkit_algorithms.dpo import DpoRun

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
        return DpoRun(
            keys=self,
            parts=parts,
            data=data,
            prompt=prompt,
            reference=reference,
            validation=validation,
        )

    def check(self, tables: Mapping[str, Any]) -> Iterable[tuple[str, str]]:
        yield from length_of_training(self)
        if "eval" in tables and "rollout" not in tables:
            yield "eval", "evaluation generates responses; add a table [rollout]"
        default = type(self).model_fields["validate_every"].default
        if self.validate_every != default and "validation" not in tables:
            yield "validate_every", "there is nothing to validate on; add a table [validation]"

    def facts(self, tables: Mapping[str, Any]) -> Mapping[str, str]:
        size = self.train_batch_size
        return {
            "optimizer step": f"{size} pairs = {2 * size} responses",
            "reference": "[reference]" if "reference" in tables else "the policy before step 1",
        }
