"""Saves a training run's whole state, and restores it.

The small part of the state (the place in the data, generators, what the present step has made)
is noted at each *commit*, when nothing is half done. Weights and optimizer change only right
before a commit; so at any later moment, a signal's included, they still belong to it and are
written as they stand.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from alignkit.engine.seeds import generators, set_generators
from alignkit.engine.training.checkpoint import Packed, Unpacked, load_weights, weights
from alignkit.engine.training.checkpoint_table import CheckpointPlan
from alignkit.errors import AlignkitError, shown
from alignkit.lifecycle.checkpoints import Mark, Store
from alignkit.protocols import Policy

if TYPE_CHECKING:
    from alignkit.engine.learning.learner import Learner
    from alignkit.run import Run


@runtime_checkable
class Stateful(Protocol):
    """Whatever a run must remember besides weights and optimizer."""

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: dict[str, Any], /) -> Any: ...


@dataclass(frozen=True, slots=True)
class Commit:
    """A point to resume from, but for weights and optimizer."""

    mark: Mark
    progress: Mapping[str, Any]
    state: Mapping[str, Any]
    generators: Mapping[str, Any]


class Saver:
    """Writes the checkpoints of one run as its plan says."""

    def __init__(self, run: Run, policy: Policy, plan: CheckpointPlan) -> None:
        self._run, self._policy, self._plan = run, policy, plan
        self._store = Store(run.dir / "checkpoints")
        self._learner: Learner | None = None
        self._state: Mapping[str, Stateful] = {}
        self._commit: Commit | None = None
        self._saved: tuple[int, int] | None = None
        self._saved_at = time.monotonic()

    def watch(self, learner: Learner | None, state: Mapping[str, Stateful]) -> None:
        """Say what has a state besides the policy."""
        self._learner, self._state = learner, state
        if learner is not None:
            learner.pause = self._run.signals.poll

    def commit(self, finished: int, progress: Mapping[str, Any]) -> None:
        """Note that all is whole: ``finished`` steps, and ``progress`` within the next.

        Writes a checkpoint if it is time to.
        """
        score = None if progress["kept"] else progress["metrics"].get(self._plan.metric)
        mark = Mark(
            finished, len(progress["kept"]), self._run.logged_bytes(), self._run.elapsed(), score
        )
        state = {name: copy.deepcopy(part.state_dict()) for name, part in self._state.items()}
        self._commit = Commit(mark, progress, state, generators())
        best = self._is_best(mark)
        if best or self._plan.due(mark.step, mark.part, time.monotonic() - self._saved_at):
            self._write(self._commit, with_model=best)

    def save_last(self) -> None:
        """Write the last commit, if it is not written yet; say where the run can go on from."""
        if self._commit is None:
            self._run.say("nothing is saved yet: resuming will begin anew")
            return
        mark = self._commit.mark
        if (mark.step, mark.part) != self._saved:
            self._write(self._commit, with_model=False)
        self._run.say(f"saved after step {mark.step}: {shown(self._store.folder / mark.name)}")

    def restore(self, checkpoint: Path) -> tuple[int, dict[str, Any]]:
        """Load a checkpoint; return the steps finished, and the progress within the next."""
        saved = Unpacked(checkpoint).value()
        load_weights(self._policy, saved["weights"])
        self._policy.version = saved["version"]
        if saved["state"].keys() != self._state.keys():
            raise AlignkitError(
                f"the checkpoint holds the state of {sorted(saved['state'])}, this run has "
                f"{sorted(self._state)}"
            )
        for name, part in self._state.items():
            part.load_state_dict(saved["state"][name])
        if self._learner is not None:
            self._learner.load_state_dict(saved["learner"])
        set_generators(saved["generators"])
        mark, progress = Mark(**saved["mark"]), saved["progress"]
        self._saved = (mark.step, mark.part)
        self._commit = Commit(mark, progress, copy.deepcopy(saved["state"]), saved["generators"])
        return mark.step, progress

    def _is_best(self, mark: Mark) -> bool:
        """Whether a step just evaluated is among the best so far."""
        if not self._plan.keep_best or mark.part or mark.score is None:
            return False
        return self._store.ranks(mark.score, self._plan.keep_best, self._plan.goal)

    def _write(self, commit: Commit, *, with_model: bool) -> None:
        mark = replace(commit.mark, seconds=self._run.elapsed())
        learner = self._learner
        packed = Packed(
            {
                "mark": {name: getattr(mark, name) for name in Mark.__slots__},
                "weights": weights(self._policy),
                "version": self._policy.version,
                "learner": learner.state_dict() if learner else None,
                "state": commit.state,
                "progress": commit.progress,
                "generators": commit.generators,
            }
        )
        self._run.sync_metrics()
        self._store.write(
            mark,
            packed.files(),
            need=packed.size,
            folder=(lambda folder: self._policy.save(folder / "model")) if with_model else None,
        )
        self._store.prune(self._plan.keep_last, self._plan.keep_best, self._plan.goal)
        self._saved, self._saved_at = (mark.step, mark.part), time.monotonic()
