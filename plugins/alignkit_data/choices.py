"""Multiple-choice questions made of questions with short answers."""

from __future__ import annotations

from collections.abc import Mapping
from random import Random
from typing import Annotated, Any

from pydantic import Field

from alignkit import AlignkitError, Params
from alignkit.protocols import Dataset, Example
from alignkit_data.mmlu import LETTERS, question_text


class Choices(Params[Dataset]):
    """Multiple choice made of other data: the gold beside three golds of other questions.

    ``[data.of]`` is the data. Rows have the form that ``mmlu`` gives them, for the reward
    ``multiple_choice``.
    """

    subject: Annotated[str, Field(min_length=1)] = "arithmetic"
    """What the questions are said to be about."""

    seed: Annotated[int, Field(ge=0, lt=2**64)] = 0
    """Draws the other options and their order."""

    limit: Annotated[int, Field(ge=1)] | None = None
    """Make only this many, of the first questions; without it all."""

    def build(self, *, of: Dataset) -> Dataset:
        examples = [of[i] for i in range(len(of))]
        golds = sorted({example.answer for example in examples})
        if len(golds) < len(LETTERS):
            raise AlignkitError(
                f"choices: {len(golds)} different answers; four are needed, one for each option"
            )
        return [self._made(example, golds) for example in examples[: self.limit]]

    def _made(self, example: Example, golds: list[str]) -> Example:
        draw = Random(f"{self.seed}/{example.id}")  # nosec B311 # no secret is drawn
        wrong = [gold for gold in golds if gold not in example.answers]
        if len(wrong) < len(LETTERS) - 1:
            raise AlignkitError(f"choices: {example.id!r} has {len(wrong)} wrong options of 3")
        choices = [example.answer, *draw.sample(wrong, len(LETTERS) - 1)]
        draw.shuffle(choices)
        extra: Mapping[str, Any] = {"choices": choices, "subject": self.subject}
        asked = question_text(example.question, choices, self.subject)
        return Example(example.id, asked, LETTERS[choices.index(example.answer)], extra)
