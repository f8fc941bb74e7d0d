"""Rollout batches: the next questions, so many responses to each, all of them judged."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from alignkit.engine.observing.clock import Clock
from alignkit.engine.sampling.opening import Opening
from alignkit.engine.sampling.prefetch import Prefetcher
from alignkit.engine.sampling.questions import PromptStream
from alignkit.engine.sampling.rollouts import Trajectory, check_groups, collect, with_stops
from alignkit.errors import AlignkitError
from alignkit.protocols import (
    Dataset,
    Environment,
    Policy,
    PromptTemplate,
    RewardFn,
    RolloutBackend,
)

Keep = Callable[[list[Trajectory]], Sequence[Trajectory]]
"""Chooses the responses that count towards the size of a batch."""


class Parts(Protocol):
    """The parts of a training that sampling uses; see ``alignkit.engine.training.loop``."""

    policy: Policy
    seed: int
    prompt: PromptTemplate | None
    reward: RewardFn | None
    environment: Environment | None
    backend: RolloutBackend | None


def _asks(parts: Parts) -> PromptTemplate | Opening:
    """Return what puts a question to the policy."""
    if parts.environment is not None:
        return Opening(parts.environment, parts.prompt, parts.seed)
    if parts.prompt is None or parts.reward is None:
        raise AlignkitError("sampling needs the tables [prompt] and [reward], or [environment]")
    return parts.prompt


class Sampler:
    """Draws questions in epochs and has the policy answer them."""

    def __init__(self, parts: Parts, data: Dataset, *, group_size: int) -> None:
        """``group_size`` is the number of responses per question."""
        asks = _asks(parts)
        if parts.backend is None:
            raise AlignkitError("sampling needs a table [rollout]")
        self._policy, self._reward, self._backend = parts.policy, parts.reward, parts.backend
        self._opening = asks if isinstance(asks, Opening) else None
        self._questions = PromptStream(data, asks, parts.policy, seed=parts.seed)
        self._sampling = replace(
            with_stops(parts.backend.sampling, asks), n=group_size, seed=parts.seed
        )
        self._prefetcher: Prefetcher | None = None
        self._restored: dict[str, Any] | None = None
        self.group_size = group_size
        self.of = [group_size, len(data), data[0].id, data[len(data) - 1].id]
        """Tells it from the other samplers of a training when that is resumed."""

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
        policy: Policy | None = None,
        keep: Keep | None = None,
        refills: int = 0,
    ) -> list[Trajectory]:
        """Return ``responses`` judged responses, in whole groups, to the next questions.

        As long as ``keep`` leaves fewer than ``responses``, more are sampled, in at most
        ``refills`` rounds. All must be sampled by the version of ``policy``, the trained one
        unless given.
        """
        drawn: list[Trajectory] = []
        for _ in range(1 + refills):
            lacking = responses - len(keep(drawn) if keep else drawn)
            if lacking <= 0:
                break
            found = collect(
                self._questions.take(lacking // self.group_size, step=step),
                policy=policy or self._policy,
                backend=self._backend,
                reward=self._reward,
                sampling=replace(self._sampling, step=step),
                clock=clock,
                first_group=len(drawn) // self.group_size,
                opening=self._opening,
            )
            self._questions.observe([t.prompt_id for t in found], [t.reward for t in found])
            drawn += found
        check_groups(drawn, self.group_size)
        return drawn

    @property
    def prefetcher(self) -> Prefetcher:
        """Keeps one batch ahead; AlignkitError if the backend cannot sample while others learn."""
        if self._prefetcher is None:
            self._prefetcher = Prefetcher(self._policy, self._backend)
            if self._restored:
                self._prefetcher.load_state_dict(self._restored)
        return self._prefetcher

    def state_dict(self) -> dict[str, Any]:
        """Return the place in the data, and the batch that is sampled already, if any."""
        ahead = self._prefetcher.state_dict() if self._prefetcher else self._restored
        return {"of": self.of, "questions": self._questions.state_dict(), "prefetched": ahead}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from what :meth:`state_dict` returned."""
        self._questions.load_state_dict(state["questions"])
        self._restored = state["prefetched"]
        if self._prefetcher and self._restored:
            self._prefetcher.load_state_dict(self._restored)


@dataclass
class Samplers:
    """The samplers of a training; a resumed one may ask for them in another order."""

    parts: Parts
    found: list[tuple[Dataset, Sampler]] = field(default_factory=list)
    _restored: list[dict[str, Any]] = field(default_factory=list)

    def of(self, data: Dataset, group_size: int) -> Sampler:
        """Return the sampler of these data and this group size, a new one the first time."""
        for known, sampler in self.found:
            if known is data and sampler.group_size == group_size:
                return sampler
        made = Sampler(self.parts, data, group_size=group_size)
        self._restore(made)
        self.found.append((data, made))
        return made

    @property
    def temperature(self) -> float:
        """What responses are sampled at; 1 where none are."""
        return self.found[0][1].temperature if self.found else 1.0

    @property
    def skipped(self) -> int:
        """Prompts passed over so far because they leave the policy no room to answer."""
        return sum(sampler.skipped for _, sampler in self.found)

    def state_dict(self) -> dict[str, Any]:
        """Return the state of each sampler, those not asked for since a resume included."""
        made = [sampler.state_dict() for _, sampler in self.found]
        return {"samplers": made + self._restored}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from what :meth:`state_dict` returned."""
        self._restored = list(state["samplers"])
        for _, sampler in self.found:
            self._restore(sampler)

    def _restore(self, sampler: Sampler) -> None:
        """Have a sampler go on from the first state that was kept of one like it, if any was."""
        kept = [state for state in self._restored if state["of"] == sampler.of]
        if kept:
            sampler.load_state_dict(kept[0])
            self._restored.remove(kept[0])
