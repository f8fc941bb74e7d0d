"""Questions that may be worked out with a calculator."""

from __future__ import annotations

from dataclasses import dataclass

from alignkit.episodes import EpisodeLimits, Turn
from alignkit.protocols import Example, Response, Reward
from alignkit_environments.arithmetic import UnreadableError, value, written

Tags = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Calculator:
    """Answers calls between two tags; see ``CalculatorParams``."""

    limits: EpisodeLimits
    call: Tags
    result: Tags
    answer: Tags

    @property
    def stop(self) -> tuple[str, ...]:
        """What closes a call, and what closes an answer."""
        return tuple(dict.fromkeys((self.call[1], self.answer[1])))

    def open(self, example: Example, /, *, seed: int) -> Calculation:
        """Begin with the question; nothing is drawn."""
        return Calculation(self, example)


class Calculation:
    """One question being worked out."""

    def __init__(self, tool: Calculator, example: Example) -> None:
        self._tool, self._example = tool, example
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
        _, called, expression = self._last.removesuffix(after).rpartition(before)
        found = _worked_out(expression) if called else f"error: no {before} before {after}"
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


def _worked_out(expression: str) -> str:
    try:
        return written(value(expression))
    except UnreadableError as error:
        return f"error: {error}"


def _equal(said: str, gold: str) -> bool:
    """Whether both are numbers without an operation, and equal; or else the same text."""
    said, gold = said.strip(), gold.strip()
    try:
        if any(sign in said.lstrip("-") for sign in "+-*/("):
            return said == gold
        return value(said) == value(gold)
    except UnreadableError:
        return said == gold
