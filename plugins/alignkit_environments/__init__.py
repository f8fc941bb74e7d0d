"""Built-in environments: a calculator to call, a number to guess."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Annotated, Any

from pydantic import Field

from alignkit import Component, hookimpl
from alignkit.engine.sampling.environment_table import EnvironmentParams
from alignkit.protocols import Environment
from alignkit_environments.calculator import Calculator
from alignkit_environments.guess import Guess

Text = Annotated[str, Field(min_length=1)]
Tags = tuple[Text, Text]


class CalculatorParams(EnvironmentParams):
    """Work out the arithmetic that the policy puts between two tags, until it gives an answer.

    A turn that ends in a call, such as ``<tool>12 * 34</tool>``, is answered
    ``<result>408</result>``; what cannot be worked out, with the error in its place. Any other
    turn ends the episode. It earns 1 if its one answer, such as ``<answer>408</answer>``, is the
    number of the example, else 0.
    """

    call: Tags = ("<tool>", "</tool>")
    """What stands before and after an expression: numbers, ``+ - * /`` and parentheses."""

    result: Tags = ("<result>", "</result>")
    """What stands before and after its value."""

    answer: Tags = ("<answer>", "</answer>")
    """What stands before and after the answer."""

    def build(self) -> Environment:
        return Calculator(
            limits=self.limits, call=self.call, result=self.result, answer=self.answer
        )


class GuessParams(EnvironmentParams):
    """Guess a number that is drawn for each question; every guess is answered higher or lower.

    The last whole number of a turn is the guess, and ends the episode with reward 1 if it is
    right. There is no gold answer, and no reward before. Dividing the range in halves finds it in
    log2(high - low + 1) turns, rounded up.
    """

    max_turns: Annotated[int, Field(ge=1)] = 12
    """Turns of the policy at most; an episode not over by then is cut (``out_of_turns``)."""

    low: int = 1
    """Least number that is drawn."""

    high: int = 100
    """Greatest number that is drawn; above ``low``."""

    stop: tuple[Text, ...] = ("\n",)
    """Strings that end a turn."""

    def build(self) -> Environment:
        return Guess(limits=self.limits, low=self.low, high=self.high, stop=self.stop)

    def check(self, tables: Mapping[str, Any]) -> Iterable[tuple[str, str]]:
        if self.low >= self.high:
            yield "high", f"is {self.high}; it must be above low = {self.low}"


@hookimpl
def environment() -> Iterable[Component[Environment]]:
    yield Component("calculator", CalculatorParams)
    yield Component("guess", GuessParams)
