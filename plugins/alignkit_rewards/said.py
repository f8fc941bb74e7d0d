"""Rewards for the option that a response chooses."""

from __future__ import annotations

from collections.abc import Sequence

from alignkit.protocols import Example, Reward
from alignkit.text.said import chosen_option


class OptionReward:
    """1 for the letter of a right option, else 0; ``unparsed`` is set if no option is chosen."""

    def __init__(self, column: str) -> None:
        self._column = column

    def __call__(self, responses: Sequence[str], examples: Sequence[Example]) -> list[Reward]:
        """Return one reward per response; the column of an example holds its options."""
        return [self._judge(r, e) for r, e in zip(responses, examples, strict=True)]

    def _judge(self, response: str, example: Example) -> Reward:
        options = example.extra.get(self._column)
        texts = [str(option) for option in options] if isinstance(options, list) else list("ABCD")
        found = chosen_option(texts, response)
        right = float(found in example.answers)
        return Reward(right, {"answer": right, "unparsed": float(found is None)})
