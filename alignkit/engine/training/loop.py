"""What every training algorithm does alike: its shared parts, and the frame of its loop.

An algorithm keeps its own parts and writes its own loop; this gives the loop its steps, its
evaluations, its rows of metrics, its checkpoints and its saved policy::

    with parts.open(run) as training:
        learner = ...
        for step in training.steps(n_steps, learner):
            batch = training.once(lambda: sample(step))
            updates = training.updates(partial(learner.step, rows) for rows in cut(batch))
            training.end_step({"train/loss": ...})
        return training.finish()

A run is resumed exactly if

- what changes from step to step is the learner's or has ``state_dict`` and ``load_state_dict``
  and is named in ``state``;
- within a step, what is drawn or learned is made by ``once`` or ``updates``, whose results are
  kept: a resumed step calls them in the same order and gets what was done already;
- what is made before ``steps`` depends on the recipe alone. The policy then has the weights of
  the recipe's path, also when resuming: a reference that is the starting policy is taken there.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from alignkit.engine.evaluation.eval_table import EvalPlan
from alignkit.engine.evaluation.evaluator import Evaluator, evaluator_for, response_row
from alignkit.engine.learning.learner import Learner
from alignkit.engine.observing.clock import Clock
from alignkit.engine.observing.inspector import Inspector
from alignkit.engine.observing.metering import throughput
from alignkit.engine.observing.profiling import Profiler
from alignkit.engine.observing.watch import UNWATCHED, Watcher
from alignkit.engine.sampling.rollouts import Trajectory, serving
from alignkit.engine.seeds import seed_everything
from alignkit.engine.training.checkpoint_table import CheckpointPlan, seconds
from alignkit.engine.training.saver import Saver, Stateful
from alignkit.errors import AlignkitError
from alignkit.lifecycle.files import put, sync_tree
from alignkit.lifecycle.signals import Interrupted
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
    checkpoint: CheckpointPlan | None = None
    """The ``[checkpoint]`` table; without it the run is saved by the defaults."""
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
        """Attach the trackers, seed every generator, and keep the rollout backend running.

        The run's state is saved when a signal or the time limit ends the block.
        """
        plan = self.checkpoint or CheckpointPlan()
        if plan.stop_after:
            run.signals.stop_in(seconds(plan.stop_after), f"stop_after = {plan.stop_after}")
        run.attach([*self.trackers, self.watch])
        self.inspector = Inspector(run, self.policy.tokenizer, limit=self.watch.nonfinite)
        seed_everything(self.seed)
        with serving(self.backend, self.policy):
            training = Training(self, run, Saver(run, self.policy, plan))
            try:
                yield training
            except Interrupted:
                run.signals.take()
                training.saver.save_last()
                raise


class Training:
    """The frame of a training loop: see the module's example."""

    def __init__(self, parts: Parts, run: Run, saver: Saver) -> None:
        self.parts, self.run, self.saver = parts, run, saver
        self.clock = Clock()
        """Stopwatch of the present step; its seconds are logged as ``time/*``."""
        self.step = 0
        self.last = 0
        self.metrics: dict[str, float] = {}
        """The last row that was logged."""
        self._kept: list[Any] = []  # what the present step has made so far
        self._called = 0  # of these, how many were asked for in this process
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
        besides; without either there is no row 0. A resumed run goes on behind its checkpoint.
        """
        self.last = self.run.total_steps = last
        self.saver.watch(learner, {**_own_state(self.parts), **(state or {})})
        if self.run.checkpoint is None:
            self.first_row(first)
            self._commit(0)
        else:
            self._restore(self.run.checkpoint)
        profiler = self._profiler()
        for step in range(self.step + 1, last + 1):
            self.step = step
            profiler.before(step)
            yield step
            profiler.after(step, self.clock.seconds)
            self._kept, self._called, self.clock = [], 0, Clock()
            self._commit(step)

    def _profiler(self) -> Profiler:
        folder = self.run.dir / "profile" if self.run.profiled else None
        return Profiler(folder, self.run.say, first=self.step + 1, last=self.last)

    def first_row(self, first: Callable[[], Mapping[str, float]] = dict) -> dict[str, float]:
        """Log and return row 0: what ``first`` returns, and the evaluation before any step."""
        metrics = {**first()}
        if metrics := metrics | self._evaluate():
            self._log(metrics | self.clock.metrics())
        self.clock = Clock()
        return metrics

    def once(self, make: Callable[[], T]) -> T:
        """Return ``make()``, or what it returned before the run was resumed within this step.

        For what a step works on, such as its rollout batch: numbers, texts, tensors, rows and
        trajectories, in lists, tuples and dicts.
        """
        self._called += 1
        if self._called <= len(self._kept):
            kept: T = self._kept[self._called - 1]
            return kept
        made = make()
        with self.run.signals.deferred():
            self._kept.append(made)
            self._commit(self.step - 1)
        return made

    def updates(self, jobs: Iterable[Callable[[], Mapping[str, float]]]) -> list[dict[str, float]]:
        """Do each of the step's updates as :meth:`update` does; return what each returned."""
        done = [dict(self.update(job)) for job in jobs]
        self.clock.seconds.setdefault("update", 0.0)
        return done

    def update(self, job: Callable[[], T]) -> T:
        """Do one of the step's updates, time it, and return what it returned; see :meth:`once`.

        A signal waits for the end of an update, unless the learner lets it in between two
        micro-batches; the update is then dropped whole.
        """
        with self.run.signals.deferred():
            return self.once(partial(self._timed, job))

    def _timed(self, job: Callable[[], T]) -> T:
        with self.clock("update"):
            return job()

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
        speed = throughput(
            self.clock.meter, self.clock.seconds.get("update", 0.0), self.parts.policy
        )
        measured = self._evaluate()
        self._log({**metrics, **speed, **self.clock.metrics(), **measured})

    def finish(self) -> dict[str, float]:
        """Leave the policy in ``final/``, whole or not at all; return the last row of metrics."""
        partial_folder = self.run.dir / ".final.partial"
        shutil.rmtree(partial_folder, ignore_errors=True)
        self.parts.policy.save(partial_folder)
        sync_tree(partial_folder)
        put(partial_folder, self.run.dir / "final")
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

    def _commit(self, finished: int) -> None:
        """Note a point to resume from: ``finished`` steps, and what the next has made so far."""
        with self.run.signals.deferred():
            progress = {
                "kept": list(self._kept),
                "metrics": self.metrics,
                "seconds": dict(self.clock.seconds),
            }
            self.saver.commit(finished, progress)

    def _restore(self, checkpoint: Path) -> None:
        with self.run.signals.deferred():
            self.step, progress = self.saver.restore(checkpoint)
            self._kept, self.metrics = progress["kept"], progress["metrics"]
            self.clock.seconds |= progress["seconds"]
            if self.parts.backend is not None:
                self.parts.backend.sync(self.parts.policy)
            self._synced = self.parts.policy.version


def stateful(**parts: object) -> dict[str, Stateful]:
    """Return those parts that have a state of their own to remember."""
    return {name: part for name, part in parts.items() if isinstance(part, Stateful)}


def _own_state(parts: Parts) -> dict[str, Stateful]:
    return stateful(prompt=parts.prompt, reward=parts.reward, rollout=parts.backend)
