"""The keys of ``use = "sft"``."""

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
from alignkit_algorithms.shared import Eos, length_of_training


class Sft(Params[Algorithm]):
    """Supervised fine-tuning on given responses: cross-entropy of the response, prompt free.

    Steps are optimizer steps. With ``keep_correct_only`` the responses are first judged by the
    ``[reward]`` and the wrong ones left out, with their number reported.
    """

    seed: Annotated[int, Field(ge=0)] = 0
    """Fixes the subset and the order of the rows."""

    epochs: Annotated[int, Field(ge=1)] = 1
    """Passes over the rows."""

    n_steps: Annotated[int, Field(ge=0)] = 0
    """Optimizer steps, passing over the rows as often as it takes. 0 = as ``epochs`` says."""

    train_batch_size: Annotated[int, Field(ge=1)] = 32
    """Rows per optimizer step; the last step of a pass takes what is left."""

    response_column: str = ""
    """Column of [data] with the response to imitate. Left out = its answer."""

    n_examples: Annotated[int, Field(ge=0)] = 0
    """Train on so many different rows, drawn by the seed. 0 = all."""

    keep_correct_only: bool = False
    """Leave out rows whose response the [reward] gives less than ``min_reward``."""

    min_reward: float = 1.0
    """Total reward a response needs to be kept, with ``keep_correct_only``."""

    append_eos: Eos = "auto"
    """End responses with the end-of-sequence token. "auto": unless they end in one of the
    template's stop strings, which will end them when they are sampled."""

    token_budget: Annotated[int, Field(ge=1)] = 8192
    """Padded prompt and response tokens per micro-batch. Bounds memory, changes no result."""

    def build(
        self,
        *,
        policy: Policy,
        data: Dataset,
        prompt: PromptTemplate,
        normalizer: Normalizer,
        optimizer: Optimizer,
        reward: RewardFn | None = None,
        rollout: RolloutBackend | None = None,
        eval: Annotated[EvalPlan, EvalTable] | None = None,
        checkpoint: Annotated[CheckpointPlan, CheckpointTable] | None = None,
        watch: Annotated[Watcher, WatchTable] = UNWATCHED,
        trackers: Sequence[Tracker] = (),
    ) -> Algorithm:
        from alignkit.engine.training.loop import Parts
        from alignkit_algorithms.sft import SftRun

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
        return SftRun(keys=self, parts=parts, data=data, prompt=prompt, normalizer=normalizer)

    def check(self, tables: Mapping[str, Any]) -> Iterable[tuple[str, str]]:
        yield from length_of_training(self)
        if "eval" in tables and "rollout" not in tables:
            yield "eval", "evaluation generates responses; add a table [rollout]"
        if not self.keep_correct_only:
            return
        if "reward" not in tables:
            yield "keep_correct_only", "needs a table [reward] to judge the responses with"
        if not self.response_column:
            yield (
                "keep_correct_only",
                "compares responses with gold answers, so they must be in different columns; "
                "name that of the responses in response_column",
            )
