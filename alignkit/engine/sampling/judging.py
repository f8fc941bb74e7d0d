"""Rewards of a rollout batch, judged while it is generated if the reward supports that."""

from __future__ import annotations

import math
from collections.abc import Sequence

from alignkit.abilities import judges
from alignkit.engine.asking import ask
from alignkit.errors import AlignkitError
from alignkit.protocols import Example, Judges, Pending, Reward, RewardFn


class Judging:
    """The rewards of groups that finish in any order."""

    def __init__(
        self, reward: RewardFn, examples: Sequence[Example], *, beside: bool = True
    ) -> None:
        """``examples`` holds one per group; ``beside`` lets it judge in the background."""
        self._reward, self._examples = reward, examples
        self._beside: Judges | None = reward if beside and judges(reward) else None
        self._pending: dict[int, Pending] = {}

    @property
    def can_start(self) -> bool:
        """Whether the reward can judge in the background."""
        return self._beside is not None

    def start(self, group: int, responses: Sequence[str]) -> None:
        """Submit a group's responses without waiting; only if ``can_start``."""
        assert self._beside is not None
        examples = [self._examples[group]] * len(responses)
        self._pending[group] = ask("reward", self._beside, self._beside.submit, responses, examples)

    def finish(self, groups: Sequence[Sequence[str]]) -> list[Sequence[Reward]]:
        """Judge groups not started in one call, wait for the others; return rewards per group.

        Raises AlignkitError if rewards are missing or not finite.
        """
        rest = [i for i in range(len(groups)) if i not in self._pending]
        examples = [self._examples[i] for i in rest for _ in groups[i]]
        responses = [response for i in rest for response in groups[i]]
        judged = iter(_checked(self._judge(responses, examples), examples) if responses else ())
        return [
            _checked(self._wait(self._pending[i]), [self._examples[i]] * len(group))
            if i in self._pending
            else [next(judged) for _ in group]
            for i, group in enumerate(groups)
        ]

    def _judge(self, responses: Sequence[str], examples: Sequence[Example]) -> Sequence[Reward]:
        return ask("reward", self._reward, self._reward, responses, examples)

    def _wait(self, pending: Pending) -> Sequence[Reward]:
        return ask("reward", self._reward, pending.result)


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
