"""A rollout batch sampled during a step; the step is then indivisible, and signals wait for it."""

from __future__ import annotations

from contextlib import ExitStack

from alignkit.engine.learning.learner import Learner
from alignkit.engine.sampling.prefetch import Prefetcher, Sample
from alignkit.engine.sampling.rollouts import Trajectory
from alignkit.engine.training.loop import Frame


class Pipeline:
    """What is being sampled during the current step, if anything."""

    def __init__(self, frame: Frame, stack: ExitStack) -> None:
        """``stack`` is closed with the training, and then abandons what is in progress."""
        self._frame, self._stack = frame, stack
        self._running: Prefetcher | None = None
        self._sample: Sample | None = None
        self._learner: Learner | None = None

    def take(
        self, prefetcher: Prefetcher, sample: Sample, learner: Learner
    ) -> tuple[list[Trajectory], float]:
        """Return the batch of this step and its staleness, and start sampling the next step's."""
        frame = self._frame
        found, stale = frame.once(lambda: prefetcher.take(sample, frame.step, frame.clock))
        self._running, self._learner, self._sample = prefetcher, learner, sample
        if not frame.replaying and frame.step < frame.last:
            learner.pause = _never
            self._stack.enter_context(frame.undivided())
            self._stack.callback(prefetcher.abandon)
            prefetcher.begin(sample, frame.step + 1)
        return found, stale

    def end(self) -> None:
        """Wait for the batch that is being sampled; signals are admitted again.

        If sampling or judging it failed, the updates of this step are kept all the same, with the
        weights that the batch was to be sampled by: a resumed run samples it from these.
        """
        if self._running is None or self._learner is None:
            return
        running, self._running = self._running, None
        try:
            self._frame.once(lambda: self._ended(running))
        except Exception:
            if owed := running.owed():
                self._frame.keep_unfinished(owed)
            raise
        self._stack.close()
        self._learner.pause = self._frame.run.signals.poll

    def _ended(self, running: Prefetcher) -> None:
        frame, owed = self._frame, self._frame.owed
        if owed is None or self._sample is None:
            running.end(frame.clock)
        else:
            running.make_up(owed, self._sample, frame.step + 1, frame.clock)
            frame.owed = None


def _never() -> None:
    """Hold signals back."""
