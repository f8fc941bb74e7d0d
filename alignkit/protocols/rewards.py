"""How responses are judged, and what a reward may offer beyond calling it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol, runtime_checkable

if TYPE_CHECKING:
    from alignkit.protocols.examples import Example


@dataclass(frozen=True, slots=True)
class Reward:
    """What a reward function returns for one response."""

    total: float
    """The number the algorithm maximises."""
    parts: Mapping[str, float] = field(default_factory=dict)
    """Named components of the total for the logs, such as ``{"format": 1.0, "answer": 0.0}``."""


class RewardFn(Protocol):
    """Judges responses, many at a time.

    Optional: :class:`Judges`, :class:`Reads`, :class:`Closes`. During a run the responses are
    :class:`Response`.
    """

    def __call__(
        self, responses: Sequence[str], examples: Sequence[Example], /
    ) -> Sequence[Reward]:
        """Return one reward per response, in order; never raise on what a model wrote."""
        ...


class Pending(Protocol):
    """Verdicts that are still being computed."""

    def result(self) -> Sequence[Reward]:
        """Wait for them; return what calling the reward itself would have returned."""
        ...


class Verdict(Protocol):
    """What was decided about one response."""

    @property
    def why(self) -> str:
        """The reason in a few words, "" if there is none."""
        ...


@runtime_checkable
class Explains(Protocol):
    """A :class:`Pending` that also gives its reasons."""

    def judged(self) -> Sequence[Verdict]:
        """Wait for the verdicts; return one per response, in order."""
        ...


class Judges(RewardFn, Protocol):
    """A reward that judges in the background, so that groups are judged during generation."""

    def submit(self, responses: Sequence[str], examples: Sequence[Example], /) -> Pending:
        """Start judging and return without waiting.

        It is called from the thread that generates, so slow work belongs in other processes or in
        ``result``.
        """
        ...


@runtime_checkable
class Reads(Protocol):
    """A reward that extracts the answer from a response, so that samples can be voted on."""

    def read(self, response: str, /) -> str | None:
        """Return it, normalised so that equivalent answers are equal; None if there is none."""
        ...


@runtime_checkable
class Closes(Protocol):
    """A reward that holds processes or files until it is closed."""

    def close(self) -> None:
        """Release them; calling it twice is fine."""
        ...


def per_response(
    judge: Callable[[str, Example], Reward],
) -> Callable[[Sequence[str], Sequence[Example]], list[Reward]]:
    """Turn a function of one response into a batched :class:`RewardFn`.

    >>> from alignkit.protocols import Example
    >>> from alignkit.protocols import Example
    >>> exact = per_response(lambda text, example: Reward(float(text == example.answer)))
    >>> exact(["4", "5"], [Example("0", "2+2?", "4")] * 2)[0].total
    1.0
    """
    return lambda responses, examples: [
        judge(r, e) for r, e in zip(responses, examples, strict=True)
    ]
