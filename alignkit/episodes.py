"""Episodes of an environment: what they are, how they proceed, where they are cut."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

__all__ = ["Begins", "Episode", "EpisodeLimits", "Offers", "Settles", "Turn"]


@dataclass(frozen=True, slots=True)
class Turn:
    """What an environment answers after the policy's turn."""

    observation: str
    """Text inserted between this turn and the next; a tool's error message goes here, too."""
    done: bool
    """Whether the episode is over."""
    reward: float = 0.0
    """The reward of this turn."""
    role: str = "user"
    """Role of the observation if a chat template writes the dialogue, such as "tool"."""
    messages: tuple[Mapping[str, Any], ...] = ()
    """What a chat template writes in place of the observation, if that is several messages."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EpisodeLimits:
    """Where episodes are cut, and how they are played; set by an environment's recipe table."""

    turns: int
    """Turns at most."""
    turn_tokens: int | None = None
    """Sampled tokens of a turn at most; None = the rollout backend's ``max_tokens``."""
    episode_tokens: int | None = None
    """Sampled tokens of all turns together at most; None = what the policy's length leaves."""
    workers: int = 64
    """Episodes that are opened or stepped at the same time, each on a thread."""
    step_seconds: float = 600.0
    """Longest wait for one step, in seconds; a longer one ends the run."""
    lockstep: bool = True
    """Whether a turn begins when all episodes have their observation, or each as soon as its own
    is there."""


class Episode(Protocol):
    """One conversation of the policy with an environment.

    Optional: :class:`Begins`, :class:`Settles`.
    """

    @property
    def prompt(self) -> str:
        """What the episode begins with: the question. A ``[prompt]`` table renders it further."""
        ...

    def step(self, response: Any, /) -> Turn:
        """Take the policy's turn, a ``Response``; return the environment's answer.

        Nothing that a model wrote may raise: an error of a tool that it called is an observation.
        An exception raised here is an error of the environment itself, and ends the run.
        """
        ...

    def close(self) -> None:
        """Release what the episode holds; called once."""
        ...


@runtime_checkable
class Settles(Protocol):
    """An episode that computes its own reward; without this, it is the sum over its turns."""

    def reward(self) -> Any:
        """Return it as a ``Reward``, after the last turn.

        If there is a ``[reward]`` table, that is used instead.
        """
        ...


@runtime_checkable
class Begins(Protocol):
    """An episode that begins with messages of its own, such as a system message or examples."""

    @property
    def messages(self) -> Sequence[Mapping[str, Any]]:
        """What a chat template writes in place of ``prompt``, which every other template gets."""
        ...


@runtime_checkable
class Offers(Protocol):
    """An environment whose tools a chat template shows to the policy."""

    @property
    def tools(self) -> Sequence[Mapping[str, Any]]:
        """Their JSON schemas: ``{"type": "function", "function": {"name": …, …}}``."""
        ...
