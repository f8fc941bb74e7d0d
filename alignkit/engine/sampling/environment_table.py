"""What environments share: the keys that limit their episodes. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import Field

from alignkit.component import Params
from alignkit.episodes import EpisodeLimits
from alignkit.protocols import Environment


class EnvironmentParams(Params[Environment]):
    """Where episodes are cut; an environment's Params adds its own fields below these."""

    max_turns: Annotated[int, Field(ge=1)] = 8
    """Turns of the policy at most; an episode not over by then is cut (``out_of_turns``)."""

    max_turn_tokens: Annotated[int, Field(ge=1)] | None = None
    """Sampled tokens of a turn at most; a turn that is cut ends its episode (``turn_truncated``).
    Left out = the [rollout] table's ``max_tokens``."""

    max_episode_tokens: Annotated[int, Field(ge=1)] | None = None
    """Sampled tokens of all turns together at most, observations not counted
    (``episode_truncated``). Left out = as many as the policy's length takes."""

    workers: Annotated[int, Field(ge=1)] = 64
    """Episodes that are answered at the same time, each on a thread."""

    step_seconds: Annotated[float, Field(gt=0)] = 600.0
    """Seconds to wait for the environment at most; where none of its calls ends in them, the run
    ends with its error."""

    lockstep: bool = True
    """Begin a turn when every episode of the batch has its observation: a run gives the same
    numbers every time. ``false``: an episode goes on as soon as its own is there. Its random
    numbers are the same, keyed by seed, step, question, sample, turn and position; but chance
    decides which requests share a forward pass, and the last digits of its sums depend on that.
    Runs, and resumed runs, are then equal up to rounding and not bit for bit."""

    def facts(self, tables: Mapping[str, Any]) -> Mapping[str, str]:
        """Report where numbers may differ from run to run."""
        if self.lockstep:
            return {}
        return {
            "repeatable": "up to rounding and not bit for bit, as lockstep = false: chance decides "
            "which turns share a forward pass, and so the last digits of its sums"
        }

    @property
    def limits(self) -> EpisodeLimits:
        """The record that the environment passes to the engine."""
        return EpisodeLimits(
            turns=self.max_turns,
            turn_tokens=self.max_turn_tokens,
            episode_tokens=self.max_episode_tokens,
            workers=self.workers,
            step_seconds=self.step_seconds,
            lockstep=self.lockstep,
        )
