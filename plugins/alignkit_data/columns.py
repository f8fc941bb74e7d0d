"""Turns the columns of a row into an :class:`~alignkit.protocols.Example`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from alignkit.data_files.columns import (
    MISSING,
    BadRow,
    answers_of,
    bad,
    half_surrogate,
    question_of,
    remedy,
    text_of,
    value_of,
)
from alignkit.data_files.records import Row
from alignkit.protocols import Example
from alignkit_data.answers import boxed_answer, gsm8k_answer, without_calculator_marks

__all__ = ["INPUT", "BadRow", "Boxed", "Gsm8k", "Plain"]

INPUT = "\n\n### Input:\n"
"""Separates an instruction from its input, as in the prompts of Stanford Alpaca."""


@dataclass(frozen=True, slots=True)
class Plain:
    """Columns taken as they are."""

    question: str
    answer: str
    """Column with the gold answer; "" = rows need none."""
    id: str | None = None
    input: str = ""
    """Column whose text, if any, is added after the question; "" = none."""

    def __call__(self, row: Row) -> Example:
        name = row.name if self.id is None else text_of(row, self.id, "id")
        question = question_of(row, self.question, "question") + self._input(row)
        answer, *others = answers_of(row, self.answer, "answer") if self.answer else [""]
        return Example(
            id=name,
            question=question,
            answer=answer,
            extra=_others(row, self.question, self.answer, self.id, self.input),
            also_accepted=tuple(others),
        )

    def sure(self, values: Mapping[str, Any]) -> bool:
        """Whether a row needs no closer look: plain texts in all columns that are read."""
        if self.id is not None or "." in self.input:
            return False
        read = (self.question, self.answer) if self.answer else (self.question,)
        for column in read:
            value = values.get(column)
            if type(value) is not str or not value or value.isspace() or half_surrogate(value):
                return False
        return not self.input or not values.get(self.input)

    def _input(self, row: Row) -> str:
        value = value_of(row.values, self.input) if self.input else None
        if value is MISSING or value is None or (isinstance(value, str) and not value.strip()):
            return ""
        return INPUT + text_of(row, self.input, "input")


@dataclass(frozen=True, slots=True)
class Gsm8k:
    """A worked solution that ends in ``#### 72``."""

    question: str
    answer: str

    def __call__(self, row: Row) -> Example:
        worked = text_of(row, self.answer, "answer")
        gold = gsm8k_answer(worked)
        if not gold:
            message = f"column {self.answer!r} has no answer after '####'"
            raise bad(row, "answer", f'{message}; for bare answers use = "jsonl"')
        solution = without_calculator_marks(worked.rpartition("####")[0]).rstrip()
        return Example(
            id=row.name,
            question=text_of(row, self.question, "question"),
            answer=gold,
            extra={**_others(row, self.question, self.answer), "solution": solution},
        )


@dataclass(frozen=True, slots=True)
class Boxed:
    """A gold answer in a column of its own or in the solution's last box."""

    question: str
    answer: str
    solution: str

    def __call__(self, row: Row) -> Example:
        return Example(
            id=str(row.values.get("unique_id") or row.name),
            question=text_of(row, self.question, "question"),
            answer=self._gold(row),
            extra=_others(row, self.question, self.answer, "unique_id"),
        )

    def _gold(self, row: Row) -> str:
        if self.answer in row.values or self.solution not in row.values:
            return text_of(row, self.answer, "answer")
        gold = boxed_answer(text_of(row, self.solution, "solution"))
        if not gold:
            message = f"column {self.solution!r} has no answer in \\boxed{{}}, and there is no"
            raise bad(row, "answer", f"{message} column {self.answer!r}; {remedy('answer')}")
        return gold


def _others(row: Row, *used: str | None) -> dict[str, Any]:
    return {column: value for column, value in row.values.items() if column not in used}
