"""Sampling the next rollout batch while the policy learns from the last one.

With depth 1 the schedule is, θ_k being the weights after k steps of the loop:

    batch 1 and batch 2 are sampled by θ_0, and batch k + 1 by θ_{k-1} while step k makes θ_k

so every batch but the first is one step off-policy. The rollout backend samples from weights of
its own, those of the last sync, on a thread; which response was sampled when is keyed as ever,
so the numbers are those of the same schedule carried out one thing after the other.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

import torch

from alignkit.engine.forward.frozen import FrozenPolicy
from alignkit.engine.observing.clock import Clock
from alignkit.engine.sampling.rollouts import Trajectory
from alignkit.errors import AlignkitError
from alignkit.protocols import Policy, RolloutBackend

Sample = Callable[[int, Clock, Policy], list[Trajectory]]
"""Returns the rollout batch of a step, sampled by what the policy given stands for."""


class Ahead:
    """Keeps one rollout batch ahead of the learner."""

    def __init__(self, policy: Policy, backend: RolloutBackend, sample: Sample) -> None:
        """Have ``backend`` hold on to weights of its own; AlignkitError if it cannot."""
        hold = getattr(backend, "hold", None)
        if hold is None:
            raise AlignkitError(
                f"pipeline_depth = 1 needs a rollout backend that samples from weights of its own "
                f"while the policy learns; {type(backend).__name__} has no method hold()"
            )
        hold()
        self._policy, self._sample = policy, sample
        device = next(policy.model.parameters()).device
        self._stream: torch.cuda.Stream | None = None
        if device.type == "cuda":
            self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        self._next: list[Trajectory] | None = None

    def take(self, step: int, clock: Clock) -> list[Trajectory]:
        """Return the batch of ``step``: the one sampled before, or one that is sampled now."""
        found, self._next = self._next, None
        return self._sample(step, clock, as_of_now(self._policy)) if found is None else found

    @contextmanager
    def sampling(self, step: int, clock: Clock) -> Iterator[None]:
        """Sample the batch of ``step`` while the block runs.

        Seconds of the sampling go to ``clock`` as "rollout" and "reward", though they pass beside
        those of the block; "wait" is what is waited for at its end. Whatever the sampling raises
        is raised there.
        """
        thread = _Thread(self._sample, step, as_of_now(self._policy), self._stream)
        if self._stream is not None:  # the weights to sample from are there
            self._stream.wait_stream(torch.cuda.current_stream(self._stream.device))
        thread.start()
        try:
            yield
        finally:
            with clock("wait"):
                thread.join()
        for name, seconds in thread.clock.seconds.items():
            clock.seconds[name] = clock.seconds.get(name, 0.0) + seconds
        self._next = thread.result()

    def state_dict(self) -> dict[str, Any]:
        """Return the batch that is ahead."""
        return {"next": self._next}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from what :meth:`state_dict` returned."""
        self._next = state["next"]


class _Thread(threading.Thread):
    """Samples one batch, on a CUDA stream of its own where there is one."""

    def __init__(
        self, sample: Sample, step: int, policy: Policy, stream: torch.cuda.Stream | None
    ) -> None:
        super().__init__(name=f"rollout batch {step}", daemon=True)
        self.clock = Clock()
        self._job, self._stream = (sample, step, policy), stream
        self._made: list[Trajectory] | None = None
        self._error: BaseException | None = None

    def run(self) -> None:
        sample, step, policy = self._job
        try:
            with nullcontext() if self._stream is None else torch.cuda.stream(self._stream):
                self._made = sample(step, self.clock, policy)
            if self._stream is not None:
                self._stream.synchronize()
        except BaseException as error:  # noqa: BLE001 - raised again where it is waited for
            self._error = error

    def result(self) -> list[Trajectory]:
        """Return the batch, or raise what sampling it raised."""
        if self._error is not None:
            raise self._error
        assert self._made is not None
        return self._made


def as_of_now(policy: Policy) -> FrozenPolicy:
    """Return the policy under its present version, which further updates leave as it is."""
    return FrozenPolicy(policy, policy.model, policy.version)


def staleness(trajectories: Sequence[Trajectory], policy: Policy) -> float:
    """Return by how many updates the policy is ahead of the weights that sampled, on average."""
    versions = [t.completion.weight_version for t in trajectories]
    return policy.version - sum(versions) / len(versions)
