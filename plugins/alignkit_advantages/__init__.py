"""Built-in advantages; the formulas are in ``ops`` and in the modules named after them."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Annotated, Literal

from pydantic import Field

from alignkit import Component, Params, hookimpl
from alignkit.protocols import Advantage


def two_or_more(name: str, group_size: int, remedy: str = "use advantage 'none'") -> str:
    """Return what is wrong with groups of one response for an advantage that compares them."""
    if group_size > 1:
        return ""
    return (
        f"advantage {name!r} needs group_size of at least 2 to compare responses, got "
        f"{group_size}; raise group_size or {remedy}"
    )


class GroupStd(Params[Advantage]):
    """Reward minus its group's mean, over the group's standard deviation (GRPO)."""

    eps: Annotated[float, Field(ge=0)] = 1e-6
    """Added to the standard deviation, in units of reward."""

    baseline: Literal["mean", "none"] = "mean"
    """What is subtracted from the reward first: its group's mean, or nothing. A group of equal
    rewards gives zeros either way."""

    def group_problem(self, group_size: int, /) -> str:
        return two_or_more("group_std", group_size)

    def build(self) -> Advantage:
        from alignkit_advantages.ops import group_std

        return partial(group_std, eps=self.eps, centre=self.baseline == "mean")


class GroupMean(Params[Advantage]):
    """Reward minus its group's mean (Dr. GRPO, arXiv:2503.20783)."""

    def build(self) -> Advantage:
        from alignkit_advantages.ops import group_mean

        return group_mean


class MaxRl(Params[Advantage]):
    """Reward minus its group's mean, over that mean (MaxRL, arXiv:2602.02710).

    With rewards of 0 and 1 the mean is the success rate, so rare successes weigh more.
    """

    eps: Annotated[float, Field(ge=0)] = 1e-6
    """Added to the mean, in units of reward."""

    baseline: Literal["mean", "none"] = "mean"
    """What is subtracted from the reward first: its group's mean, or nothing."""

    def build(self) -> Advantage:
        from alignkit_advantages.maxrl import maxrl

        return partial(maxrl, eps=self.eps, centre=self.baseline == "mean")


class NoBaseline(Params[Advantage]):
    """The reward as it is: no baseline, no scaling.

    With rewards of 0 and 1 and the loss ``reinforce`` this is rejection fine-tuning: the
    gradient of the log-likelihood of the right responses.
    """

    def build(self) -> Advantage:
        from alignkit_advantages.ops import none

        return none


class Rloo(Params[Advantage]):
    """Reward minus the mean of the others in its group (RLOO, arXiv:2402.14740)."""

    def group_problem(self, group_size: int, /) -> str:
        return two_or_more("rloo", group_size)

    def build(self) -> Advantage:
        from alignkit_advantages.rloo import rloo

        return rloo


class BatchStd(Params[Advantage]):
    """Reward minus its group's mean, over the whole batch's deviation (arXiv:2501.03262).

    REINFORCE++ with baseline. Groups depend on each other through the standard deviation.
    """

    eps: Annotated[float, Field(ge=0)] = 1e-6
    """Added to the standard deviation, in units of reward."""

    baseline: Literal["mean", "none"] = "mean"
    """What is subtracted from the reward before the batch's mean: its group's mean, or nothing
    (REINFORCE++ without baseline, which also works with one response per prompt)."""

    def group_problem(self, group_size: int, /) -> str:
        if self.baseline == "none":
            return ""
        return two_or_more("batch_std", group_size, 'set baseline = "none"')

    def build(self) -> Advantage:
        from alignkit_advantages.batch_std import BatchStandardized

        return BatchStandardized(self.eps, self.baseline == "mean")


class PassAtK(Params[Advantage]):
    """What a response adds to the best of k responses drawn from its group (arXiv:2508.10751).

    With rewards of 0 and 1 this trains pass@k: hard questions weigh more, and a question that every
    choice of k responses solves weighs nothing.
    """

    k: Annotated[int, Field(ge=2)] = 2
    """Responses drawn: at least 2, and fewer than the group has. A single one would be judged
    alone, as with ``group_std``."""

    def group_problem(self, group_size: int, /) -> str:
        if self.k < group_size:
            return ""
        return (
            f"advantage 'pass_at_k' draws k of a group's responses and needs 2 <= k < group_size, "
            f"got k = {self.k} and group_size = {group_size}; lower k or raise group_size"
        )

    def build(self) -> Advantage:
        from alignkit_advantages.pass_at_k import pass_at_k

        return partial(pass_at_k, k=self.k)


@hookimpl
def advantage() -> Iterator[Component[Advantage]]:
    """Offer the built-in advantages."""
    yield Component("group_std", GroupStd)
    yield Component("group_mean", GroupMean)
    yield Component("maxrl", MaxRl)
    yield Component("none", NoBaseline)
    yield Component("rloo", Rloo)
    yield Component("batch_std", BatchStd)
    yield Component("pass_at_k", PassAtK)
