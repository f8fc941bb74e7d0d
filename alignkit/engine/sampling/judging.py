"""Rewards of a rollout batch, judged while it is generated where the reward can do that."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from alignkit.errors import AlignkitError
from alignkit.protocols import Example, Reward, RewardFn


class Judging:
    """The rewards of groups that finish in any order."""

    def __init__(self, reward: RewardFn, examples: Sequence[Example]) -> None:
        """``examples`` holds one per group."""
        self._reward, self._examples = reward, examples
        self._submit = extra(reward, "submit", beside="__call__")  # nosec B610 # no SQL
        self._handles: dict[int, Any] = {}

    @property
    def can_start(self) -> bool:
        """Whether the reward can judge in the background."""
        return self._submit is not None

    def start(self, group: int, responses: Sequence[str]) -> None:
        """Hand over a group's responses without waiting; only if ``can_start``."""
        assert self._submit is not None
        self._handles[group] = self._submit(responses, [self._examples[group]] * len(responses))

    def finish(self, groups: Sequence[Sequence[str]]) -> list[Sequence[Reward]]:
        """Judge in one call the groups not started, wait for the others; rewards per group.

        Raises AlignkitError if rewards are missing or not finite.
        """
        rest = [i for i in range(len(groups)) if i not in self._handles]
        examples = [self._examples[i] for i in rest for _ in groups[i]]
        responses = [response for i in rest for response in groups[i]]
        judged = iter(_checked(self._reward(responses, examples), examples) if responses else ())
        return [
            _checked(self._handles[i].result(), [self._examples[i]] * len(group))
            if i in self._handles
            else [next(judged) for _ in group]
            for i, group in enumerate(groups)
        ]


def extra(component: object, method: str, *, beside: str) -> Callable[..., Any] | None:
    """Return an optional method unless a more derived class overrides ``beside`` alone.

    A subclass or a delegating wrapper that changes ``beside`` would otherwise be bypassed.
    """
    for kind in type(component).__mro__:
        if method in vars(kind):
            found: Callable[..., Any] = getattr(component, method)
            return found
        if beside in vars(kind):
            return None
    return None


def _checked(rewards: Sequence[Reward], examples: Sequence[Example]) -> Sequence[Reward]:
    if len(rewards) != len(examples):
        raise AlignkitError(
            f"[reward] returned {len(rewards)} rewards for {len(examples)} responses"
        )
    for example, given in zip(examples, rewards, strict=True):
        if not math.isfinite(given.total):
            raise AlignkitError(
                f"[reward] gave {given.total} for a response to example {example.id!r}; "
                f"a reward must be a finite number"
            )
    return rewards
