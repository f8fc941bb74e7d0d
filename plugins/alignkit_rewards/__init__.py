"""Built-in rewards: r1_zero and question_only compare an answer with the gold."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Literal

from pydantic import Field

from alignkit import Component, Params, hookimpl
from alignkit.protocols import RewardFn
from alignkit_rewards.verdict import Conventions


class Graded(Params[RewardFn]):
    """Conventions of equality, shared by the rewards that compare an answer with the gold.

    The gold is the example's ``answer``: an answer alone, or a solution that holds it in
    ``\\boxed{}`` or after ``####``. Undecided verdicts (time, memory) count as wrong and show
    as the part ``timed_out``; answers that cannot be read as the part ``unparsed``.
    """

    timeout: Annotated[float, Field(gt=0, le=60)] = 2.0
    """Seconds one verdict may take before its worker is killed and the answer counts as wrong."""

    percent: Literal["either", "sign", "value"] = "either"
    """What ``50%`` equals besides itself: 50 (``"sign"``), 1/2 (``"value"``), or either."""

    rounding: Annotated[int, Field(ge=0, le=30)] = 6
    """A decimal with at least so many significant digits equals what rounds to it; 0 = never."""

    list_order: Literal["free", "kept"] = "free"
    """Whether ``1, 2`` equals ``2, 1``. Tuples, vectors and intervals always keep their order."""

    unsimplified: bool = True
    """Accept numbers left as expressions, such as ``8/46`` for 4/23 or ``2^3`` for 8."""

    decimal_comma: bool = False
    """Read ``1,22`` as 1.22; otherwise as two numbers. ``1,220`` is 1220 in any case."""

    also_accepted: str = ""
    """Column of the dataset that holds further right answers, one or a list; empty = none."""

    def conventions(self) -> Conventions:
        """Return the choices as the graders take them."""
        return Conventions(
            percent=self.percent,
            rounding=self.rounding,
            list_order=self.list_order,
            unsimplified=self.unsimplified,
            decimal_comma=self.decimal_comma,
        )


class R1Zero(Graded):
    """1 if the answer between ``<answer>`` tags is right, else 0; the format is shown apart.

    The rule of DeepSeek-AI, arXiv:2501.12948, section 2.2.2: the part ``format`` is 1 if
    ``</think> <answer>`` is followed by ``</answer>``. The last complete answer counts, and text
    after its ``</answer>`` is ignored. The reward is the part ``answer``.
    """

    strict_format: bool = True
    """Ask for exactly one space in ``</think> <answer>``; otherwise any white space or none."""

    def build(self) -> RewardFn:
        from functools import partial

        from alignkit_rewards.formats import tagged_answer
        from alignkit_rewards.graded import GradedReward

        extract = partial(tagged_answer, strict=self.strict_format)
        return GradedReward(
            extract,
            self.conventions(),
            timeout=self.timeout,
            also_accepted=self.also_accepted,
        )


class QuestionOnly(Graded):
    r"""1 if the answer in the last balanced ``\boxed{}`` is right, else 0.

    The part ``format`` is 1 if there is a box whose braces balance.
    """

    def build(self) -> RewardFn:
        from alignkit_rewards.formats import boxed_answer
        from alignkit_rewards.graded import GradedReward

        return GradedReward(
            boxed_answer,
            self.conventions(),
            timeout=self.timeout,
            also_accepted=self.also_accepted,
        )


@hookimpl
def reward_fn() -> Iterable[Component[RewardFn]]:
    yield Component("r1_zero", R1Zero)
    yield Component("question_only", QuestionOnly)
