"""Rollout batches: the next questions, so many responses to each, all of them judged."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Protocol

from alignkit.engine.observing.clock import Clock
from alignkit.engine.sampling.rollouts import (
    PromptStream,
    Trajectory,
    check_groups,
    collect,
    with_stops,
)
from alignkit.errors import AlignkitError
from alignkit.protocols import Dataset, Policy, PromptTemplate, RewardFn, RolloutBackend


class Parts(Protocol):
    """What of a training's parts sampling needs; see ``alignkit.engine.training.loop``."""

    policy: Policy
    seed: int
    prompt: PromptTemplate | None
    reward: RewardFn | None
    backend: RolloutBackend | None


class Sampler:
    """Draws questions in epochs and has the policy answer them."""

    def __init__(self, parts: Parts, data: Dataset, *, group_size: int) -> None:
        """``group_size`` is the number of responses per question."""
        if parts.prompt is None or parts.reward is None or parts.backend is None:
            raise AlignkitError("sampling needs the tables [prompt], [reward] and [rollout]")
        self._policy, self._reward, self._backend = parts.policy, parts.reward, parts.backend
        self._questions = PromptStream(data, parts.prompt, parts.policy, seed=parts.seed)
        self._sampling = replace(
            with_stops(parts.backend.sampling, parts.prompt), n=group_size, seed=parts.seed
        )
        self.group_size = group_size

    @property
    def backend(self) -> RolloutBackend:
        """What samples."""
        return self._backend

    @property
    def temperature(self) -> float:
        """What responses are sampled at."""
        return self._backend.sampling.temperature

    @property
    def skipped(self) -> int:
        """Prompts passed over so far because they leave the policy no room to answer."""
        return self._questions.skipped

    def draw(
        self,
        responses: int,
        *,
        step: int,
        clock: Clock,
        first_group: int = 0,
        policy: Policy | None = None,
    ) -> list[Trajectory]:
        """Return ``responses`` judged responses, in whole groups numbered from ``first_group``.

        They must be sampled by the version of ``policy``, the trained one unless given.
        """
        drawn = collect(
            self._questions.take(responses // self.group_size),
            policy=policy or self._policy,
            backend=self._backend,
            reward=self._reward,
            sampling=replace(self._sampling, step=step),
            clock=clock,
            first_group=first_group,
        )
        check_groups(drawn, self.group_size)
        return drawn

    def state_dict(self) -> dict[str, Any]:
        """Return the place in the data."""
        return self._questions.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from what :meth:`state_dict` returned."""
        self._questions.load_state_dict(state)
