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

    A turn that ends in a call, such as ``<tool>12 * 34</tool>``, is answered with
    ``<result>408</result>``, or with the error in place of the value. Any other turn ends the
    episode. The reward is 1 if its one answer, such as ``<answer>408</answer>``, is the number of
    the example, else 0.
    """

    call: Tags = ("<tool>", "</tool>")
    """The tags before and after an expression: numbers, ``+ - * /`` and parentheses."""

    result: Tags = ("<result>", "</result>")
    """The tags before and after its value."""

    answer: Tags = ("<answer>", "</answer>")
    """The tags before and after the answer."""

    def build(self) -> Environment:
        return Tool(self.limits, calculate, self.call, self.result, self.answer)


class GuessParams(EnvironmentParams):
    """Guess a number that is drawn for each question; every guess is answered higher or lower.

    The last whole number of a turn is the guess, and ends the episode with reward 1 if it is
    right. There is no gold answer, and no reward before that. Halving the range finds the number in
    log2(high - low + 1) turns, rounded up.
    """

    max_turns: Annotated[int, Field(ge=1)] = 12
    """Most turns of the policy; an episode not over by then is cut (``out_of_turns``)."""

    low: int = 1
    """Smallest number that can be drawn."""

    high: int = 100
    """Largest number that can be drawn; above ``low``."""

    stop: tuple[Text, ...] = ("\n",)
    """Strings that end a turn."""

    def build(self) -> Environment:
        return Guess(limits=self.limits, low=self.low, high=self.high, stop=self.stop)

    def check(self, tables: Mapping[str, Any]) -> Iterable[tuple[str, str]]:
        if self.low >= self.high:
            yield "high", f"is {self.high}; it must be above low = {self.low}"


class PythonToolParams(EnvironmentParams):
    """Run the Python that the policy puts between two tags, until it gives an answer.

    A turn that ends in a call, such as ``<python>print(12 * 34)</python>``, is answered with the
    code's output, including its error. Each call is a new process of its own without network, files
    or further processes. Any other turn ends the episode, with reward 1 if its one answer, such as
    ``<answer>408</answer>``, is the number of the example, else 0.
    """

    call: Tags = ("<python>", "</python>")
    """The tags before and after the code."""

    result: Tags = ("<output>", "</output>")
    """The tags before and after its output."""

    answer: Tags = ("<answer>", "</answer>")
    """The tags before and after the answer."""

    seconds: Seconds = 5.0
    """Most wall-clock seconds of a call."""

    memory_mb: Memory = 256
    """Most memory of a call, in units of 2**20 bytes."""

    output: Annotated[int, Field(ge=1)] = 1000
    """Most characters of a call's output that the policy gets."""

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
    """Most wall-clock seconds of code and tests together."""

    memory_mb: Memory = 256
    """Most memory, in units of 2**20 bytes."""

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
