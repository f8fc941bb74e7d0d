"""What every training algorithm does alike: its shared parts, and the frame of its loop.

An algorithm keeps its own parts and writes its own loop; this gives the loop its steps, its
evaluations, its rows of metrics and its saved policy::

    with parts.open(run) as training:
        learner = ...
        for step in training.steps(n_steps, learner):
            batch = training.once(lambda: sample(step))
            updates = training.updates(partial(learner.step, rows) for rows in cut(batch))
            training.end_step({"train/loss": ...})
        return training.finish()
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from alignkit.engine.bookkeeping import Clock, seed_everything
from alignkit.engine.eval_table import EvalPlan
from alignkit.engine.evaluation import Evaluator, evaluator_for, response_row
from alignkit.engine.inspector import Inspector
from alignkit.engine.learner import Learner
from alignkit.engine.rollouts import Trajectory, serving
from alignkit.engine.watch import UNWATCHED, Watcher
from alignkit.errors import AlignkitError
from alignkit.protocols import (
    LossType,
    Normalizer,
    Optimizer,
    Policy,
    PromptTemplate,
    RewardFn,
    RolloutBackend,
    Tracker,
)

if TYPE_CHECKING:
    from alignkit.run import Run

T = TypeVar("T")


@dataclass(kw_only=True)
class Parts:
    """The slots and keys that training algorithms share."""

    policy: Policy
    seed: int
    token_budget: int
    prompt: PromptTemplate | None = None
    reward: RewardFn | None = None
    backend: RolloutBackend | None = None
    optimizer: Optimizer | None = None
    plan: EvalPlan | None = None
    """The ``[eval]`` table."""
    trackers: Sequence[Tracker] = ()
    watch: Watcher = UNWATCHED
    """The ``[watch]`` table."""
    evaluator: Evaluator | None = field(init=False)
    inspector: Inspector | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        self.evaluator = evaluator_for(
            self.plan,
            policy=self.policy,
            backend=self.backend,
            prompt=self.prompt,
            reward=self.reward,
            token_budget=self.token_budget,
        )

    def learner(
        self, loss: LossType, normalizer: Normalizer, *, total_steps: int, temperature: float = 1.0
    ) -> Learner:
        """Return the learner of these parts; see :class:`Learner`."""
        if self.optimizer is None:
            raise AlignkitError("training needs a table [optimizer]")
        return Learner(
            self.policy,
            loss,
            normalizer,
            self.optimizer,
            token_budget=self.token_budget,
            total_steps=total_steps,
            temperature=temperature,
            inspector=self.inspector,
        )

    @contextmanager
    def open(self, run: Run) -> Iterator[Training]:
        """Attach the trackers, seed every generator, and keep the rollout backend running."""
        run.attach([*self.trackers, self.watch])
        self.inspector = Inspector(run, self.policy.tokenizer, limit=self.watch.nonfinite)
        seed_everything(self.seed)
        with serving(self.backend, self.policy):
            yield Training(self, run)


class Stateful(Protocol):
    """Whatever a run must remember besides weights and optimizer."""

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: dict[str, Any], /) -> None: ...


class Training:
    """The frame of a training loop: see the module's example."""

    def __init__(self, parts: Parts, run: Run) -> None:
        self.parts, self.run = parts, run
        self.clock = Clock()
        """Stopwatch of the present step; its seconds are logged as ``time/*``."""
        self.step = 0
        self.last = 0
        self.metrics: dict[str, float] = {}
        """The last row that was logged."""
        self._synced = parts.policy.version

    def steps(
        self,
        last: int,
        learner: Learner | None = None,
        *,
        state: Mapping[str, Stateful] | None = None,
        first: Callable[[], Mapping[str, float]] = dict,
    ) -> Iterator[int]:
        """Yield the steps from 1 to ``last``, after a row 0 with the first evaluation.

        ``state`` names what else changes from step to step. ``first`` returns what row 0 holds
        besides; without either there is no row 0.
        """
        self.last = self.run.total_steps = last
        self.first_row(first)
        for self.step in range(1, last + 1):
            self.clock = Clock()
            yield self.step

    def first_row(self, first: Callable[[], Mapping[str, float]] = dict) -> dict[str, float]:
        """Log and return row 0: what ``first`` returns, and the evaluation before any step."""
        metrics = {**first()}
        if metrics := metrics | self._evaluate():
            self._log(metrics | self.clock.metrics())
        return metrics

    def once(self, make: Callable[[], T]) -> T:
        """Return ``make()``: what a step works on, such as its rollout batch."""
        return make()

    def updates(self, jobs: Iterable[Callable[[], Mapping[str, float]]]) -> list[dict[str, float]]:
        """Do each of the step's updates, time them, and return what each returned."""
        with self.clock("update"):
            return [dict(job()) for job in jobs]

    def sync(self) -> None:
        """Hand the present weights to the rollout backend, if there is one."""
        if self.parts.backend is not None:
            with self.clock("sync"):
                self.parts.backend.sync(self.parts.policy)
        self._synced = self.parts.policy.version

    def save_rollouts(self, trajectories: Sequence[Trajectory], every: int) -> None:
        """Write the responses of the first, the last and each ``every``-th step; 0 = never."""
        if every and (self.step in (1, self.last) or self.step % every == 0):
            self.run.rows(self.step, "rollouts", [response_row(t) for t in trajectories])

    def end_step(self, metrics: Mapping[str, float]) -> None:
        """Evaluate if it is time to, and log the step's row, with the seconds it took."""
        measured = self._evaluate()
        self._log({**metrics, **self.clock.metrics(), **measured})

    def finish(self) -> dict[str, float]:
        """Leave the policy in ``final/``; return the last row of metrics."""
        self.parts.policy.save(self.run.dir / "final")
        return self.metrics

    def _evaluate(self) -> dict[str, float]:
        evaluator = self.parts.evaluator
        if evaluator is None or not evaluator.plan.due(self.step, self.last):
            return {}
        if self._synced != self.parts.policy.version:
            self.sync()
        return evaluator.run(self.run, self.step)

    def _log(self, metrics: dict[str, float]) -> None:
        self.metrics = metrics
        self.run.log(self.step, metrics)
