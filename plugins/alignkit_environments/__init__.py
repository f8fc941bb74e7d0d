"""Built-in environments: calculator, guess, python_tool; and the reward code in their sandbox."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Annotated, Any

from pydantic import Field

from alignkit import Component, Params, hookimpl
from alignkit.engine.sampling.environment_table import EnvironmentParams
from alignkit.protocols import Environment, RewardFn
from alignkit_environments.guess import Guess
from alignkit_environments.tool import Tool, calculate, execute

Text = Annotated[str, Field(min_length=1)]
Tags = tuple[Text, Text]
Seconds = Annotated[float, Field(gt=0, le=3600)]
Memory = Annotated[int, Field(ge=64)]


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
        return Tool(self.limits, calculate, self.call, self.result, self.answer)


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


class PythonToolParams(EnvironmentParams):
    """Run the Python that the policy puts between two tags, until it gives an answer.

    A turn that ends in a call, such as ``<python>print(12 * 34)</python>``, is answered by what the
    code prints, its error included. Each call is a process of its own without network, files or
    further processes, and begins anew. Any other turn ends the episode, which earns 1 if its one
    answer, such as ``<answer>408</answer>``, is the number of the example, else 0.
    """

    call: Tags = ("<python>", "</python>")
    """What stands before and after the code."""

    result: Tags = ("<output>", "</output>")
    """What stands before and after what it prints."""

    answer: Tags = ("<answer>", "</answer>")
    """What stands before and after the answer."""

    seconds: Seconds = 5.0
    """A call takes at most this long, by the clock."""

    memory_mb: Memory = 256
    """Memory of a call at most, 2**20 bytes."""

    output: Annotated[int, Field(ge=1)] = 1000
    """Characters of what a call prints that the policy gets, at most."""

    def build(self) -> Environment:
        from alignkit_environments.sandbox import Bounds

        work = execute(Bounds(self.seconds, self.memory_mb, self.output))
        return Tool(self.limits, work, self.call, self.result, self.answer)

    def missing(self) -> Iterable[str]:
        return sandbox_problems()


class CodeParams(Params[RewardFn]):
    """Run the code of a response against the example's unit tests: 1 if all of it runs, else 0.

    The code is the last fenced block (three backticks) of a response, the tests are Python that
    raises where the code is wrong, such as ``assert``. Both run in one process without network,
    files or further processes, the tests after the code.
    """

    column: Annotated[str, Field(min_length=1)] = "tests"
    """Column of the data that holds the tests, a text or a list of texts."""

    seconds: Seconds = 5.0
    """Code and tests take at most this long together, by the clock."""

    memory_mb: Memory = 256
    """Memory at most, 2**20 bytes."""

    def build(self) -> RewardFn:
        from alignkit_environments.code import Code
        from alignkit_environments.sandbox import Bounds

        return Code(self.column, Bounds(self.seconds, self.memory_mb))

    def missing(self) -> Iterable[str]:
        return sandbox_problems()


def sandbox_problems() -> list[str]:
    """Return why code cannot be run in a sandbox here, if it cannot."""
    from alignkit_environments.sandbox import problem

    return [problem()] if problem() else []


@hookimpl
def environment() -> Iterable[Component[Environment]]:
    yield Component("calculator", CalculatorParams)
    yield Component("guess", GuessParams)
    yield Component("python_tool", PythonToolParams)


@hookimpl
def reward_fn() -> Iterable[Component[RewardFn]]:
    yield Component("code", CodeParams)
