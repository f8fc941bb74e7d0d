"""The components and keys that every training has, as given by its recipe."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from alignkit.abilities import TakesShards, parallel_of
from alignkit.component import made_by
from alignkit.engine.evaluation.eval_table import EvalPlan
from alignkit.engine.evaluation.evaluator import Evaluator
from alignkit.engine.forward.remote import Scores
from alignkit.engine.learning.learner import Learner
from alignkit.engine.learning.reference_table import NOT_TRAINED
from alignkit.engine.observing.inspector import Inspector
from alignkit.engine.observing.watch import UNWATCHED, Watcher
from alignkit.engine.training.checkpoint_table import CheckpointPlan
from alignkit.errors import AlignkitError
from alignkit.lifecycle import ranks
from alignkit.lifecycle.ranks import refuse_unless_divided
from alignkit.protocols import (
    Environment,
    Optimizer,
    Policy,
    PromptTemplate,
    RewardFn,
    RolloutBackend,
    Stateful,
    Tracker,
)


@dataclass(kw_only=True)
class Parts:
    """The slots and keys that training algorithms share."""

    policy: Policy
    seed: int
    token_budget: int
    prompt: PromptTemplate | None = None
    reward: RewardFn | None = None
    environment: Environment | None = None
    backend: RolloutBackend | None = None
    optimizer: Optimizer | None = None
    plan: EvalPlan | None = None
    """The ``[eval]`` table."""
    checkpoint: CheckpointPlan | None = None
    """The ``[checkpoint]`` table; without it the defaults apply."""
    trackers: Sequence[Tracker] = ()
    watch: Watcher = UNWATCHED
    """The ``[watch]`` table."""
    evaluator: Evaluator | None = field(init=False, default=None)
    inspector: Inspector | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        if isinstance(self.policy, Scores):
            raise AlignkitError(f"[policy] {NOT_TRAINED}")
        if self.backend is not None:
            params = made_by(self.backend)
            refuse_unless_divided(params or self.backend, "the backend of [rollout]")
        cut = parallel_of(self.policy) == "shard" and ranks.size() > 1
        if cut and not self.on_shards:
            raise AlignkitError(
                'policy.parallel = "shard" needs an optimizer that treats every number by itself: '
                'rmsprop, or adamw, but for implementation = "8bit"'
            )
        if self.plan is not None:
            self.evaluator = Evaluator(
                self.plan,
                policy=self.policy,
                backend=self.backend,
                prompt=self.prompt,
                reward=self.reward,
                environment=self.environment,
                token_budget=self.token_budget,
            )

    @property
    def temperature(self) -> float:
        """What responses are sampled at; 1 if none are."""
        return self.backend.sampling.temperature if self.backend is not None else 1.0

    @property
    def on_shards(self) -> bool:
        """Whether the optimizer, if there is one, can be given parts of tensors."""
        by_number = isinstance(self.optimizer, TakesShards) and self.optimizer.on_shards
        return self.optimizer is None or by_number

    def learner(self, *, total_steps: int) -> Learner:
        """Return the learner of these parts; see :class:`Learner`."""
        if self.optimizer is None:
            raise AlignkitError("training needs a table [optimizer]")
        return Learner(
            self.policy,
            self.optimizer,
            token_budget=self.token_budget,
            total_steps=total_steps,
            inspector=self.inspector,
        )

    def prompts(self) -> list[PromptTemplate]:
        """Return every prompt template that is used, including those of evaluation sets."""
        sets = self.plan.sets.values() if self.plan else ()
        return [p for p in (self.prompt, *(chosen.prompt for chosen in sets)) if p is not None]

    def stateful(self) -> dict[str, Stateful]:
        """Return those that have a state of their own to remember."""
        return stateful(
            prompt=self.prompt,
            reward=self.reward,
            environment=self.environment,
            rollout=self.backend,
        )


def stateful(**parts: object) -> dict[str, Stateful]:
    """Return those of ``parts`` that have a state of their own to remember."""
    return {name: part for name, part in parts.items() if isinstance(part, Stateful)}
