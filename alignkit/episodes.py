"""Episodes of an environment: what one is, how it goes on, where it is cut."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable


@dataclass(frozen=True, slots=True)
class Turn:
    """What an environment answers when the policy has taken its turn."""

    observation: str
    """Text that follows the turn and stands before the next; the text of a tool's error, too."""
    done: bool
    """Whether the episode is over."""
    reward: float = 0.0
    """What this turn earned."""
    role: str = "user"
    """Who says the observation, where a chat template writes the dialogue, such as "tool"."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EpisodeLimits:
    """Where episodes are cut, and how they are played; an environment's recipe table fills it."""

    turns: int
    """Turns at most."""
    turn_tokens: int | None = None
    """Sampled tokens of a turn at most; None = the rollout backend's ``max_tokens``."""
    episode_tokens: int | None = None
    """Sampled tokens of all turns together at most; None = what the policy's length leaves."""
    workers: int = 64
    """Episodes that are opened or stepped at the same time, each on a thread."""
    step_seconds: float = 600.0
    """Wait for one step at most; a longer one ends the run."""
    lockstep: bool = True
    """Whether a turn begins when all episodes have their observation, or each as soon as its own
    is there."""


class Episode(Protocol):
    """One conversation of the policy with an environment. Optional: :class:`Settles`."""

    @property
    def prompt(self) -> str:
        """What the episode begins with: the question. A ``[prompt]`` table renders it further."""
        ...

    def step(self, response: Any, /) -> Turn:
        """Take the policy's turn, a ``Response``; return what comes of it.

        Nothing that a model wrote may raise: an error of a tool that it called is an
        observation. What is raised here is an error of the environment's own, and ends the run.
        """
        ...

    def close(self) -> None:
        """Release what the episode holds; called once."""
        ...


@runtime_checkable
class Settles(Protocol):
    """An episode that says itself what it earned; else it is the sum over its turns."""

    def reward(self) -> Any:
        """Return it as a ``Reward``, after the last turn.

        A ``[reward]`` table is asked in its place.
        """
        ...
