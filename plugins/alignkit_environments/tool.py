"""Questions that may be worked out with a tool: calls between two tags, then an answer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from alignkit.episodes import EpisodeLimits, Turn
from alignkit.protocols import Example, Response, Reward
from alignkit_environments.arithmetic import UnreadableError, value, written

if TYPE_CHECKING:
    from alignkit_environments.sandbox import Bounds

Tags = tuple[str, str]
Work = Callable[[str, int], str]
"""What a tool gives for a call, its error too; it may draw from the seed beside it."""


@dataclass(frozen=True, slots=True)
class Tool:
    """Answers calls between two tags; see ``CalculatorParams``."""

    limits: EpisodeLimits
    work: Work
    call: Tags
    result: Tags
    answer: Tags

    @property
    def stop(self) -> tuple[str, ...]:
        """What closes a call, and what closes an answer."""
        return tuple(dict.fromkeys((self.call[1], self.answer[1])))

    def open(self, example: Example, /, *, seed: int) -> Worked:
        """Begin with the question."""
        return Worked(self, example, seed)


class Worked:
    """One question being worked out."""

    def __init__(self, tool: Tool, example: Example, seed: int) -> None:
        self._tool, self._example, self._seed = tool, example, seed
        self._last = ""

    @property
    def prompt(self) -> str:
        """The question."""
        return self._example.question

    def step(self, response: Response, /) -> Turn:
        """Work out a call that ends the turn; end the episode where there is none."""
        self._last = str(response)
        before, after = self._tool.call
        if not self._last.endswith(after):
            return Turn("", done=True)
        _, called, asked = self._last.removesuffix(after).rpartition(before)
        if not called:
            found = f"error: no {before} before {after}"
        else:
            found = self._tool.work(asked, self._seed)
        return Turn(found.join(self._tool.result), done=False)

    def reward(self) -> Reward:
        """Return 1 if the last turn holds one answer, a number equal to the example's."""
        before, after = self._tool.answer
        _, tagged, rest = self._last.partition(before)
        said, closed, _ = rest.partition(after)
        formatted = bool(tagged and closed) and self._last.count(before) == 1
        golds = (self._example.answer, *self._example.also_accepted)
        right = formatted and any(_equal(said, gold) for gold in golds)
        return Reward(float(right), {"format": float(formatted), "answer": float(right)})

    def close(self) -> None:
        """Nothing is held."""


def calculate(expression: str, seed: int) -> str:
    """Return the value of an expression in digits, or why it has none; nothing is drawn."""
    try:
        return written(value(expression))
    except UnreadableError as error:
        return f"error: {error}"


def execute(bounds: Bounds) -> Work:
    """Return what runs Python in the sandbox and gives what it prints."""
    from alignkit_environments.sandbox import run

    def work(code: str, seed: int) -> str:
        outcome = run([code.strip("\n")], bounds, seed=seed)
        more = {
            "time": f"error: stopped after {bounds.seconds:g} seconds",
            "output": "error: too much output",
        }.get(outcome.how, "")
        if outcome.how == "failed" and not outcome.text.strip():
            more = "error: the process ended by itself"
        return f"{outcome.text}{more}".strip("\n")

    return work


def _equal(said: str, gold: str) -> bool:
    """Whether both are numbers without an operation, and equal; or else the same text."""
    said, gold = said.strip(), gold.strip()
    try:
        if any(sign in said.lstrip("-") for sign in "+-*/("):
            return said == gold
        return value(said) == value(gold)
    except UnreadableError:
        return said == gold
