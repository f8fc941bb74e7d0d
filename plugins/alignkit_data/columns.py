"""From the columns of a row to an :class:`~alignkit.protocols.Example`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from alignkit.errors import did_you_mean
from alignkit.protocols import Example
from alignkit_data.answers import boxed_answer, gsm8k_answer, without_calculator_marks
from alignkit_data.rows import Fault, Row, kind_of


class BadRow(Exception):
    """A row that cannot become an example."""

    def __init__(self, fault: Fault) -> None:
        super().__init__(str(fault))
        self.fault = fault


def bad(row: Row, key: str, message: str, lacks: str = "") -> BadRow:
    """Return the error for ``row``; ``key`` is the recipe key that may mend it."""
    return BadRow(Fault(row.where, message, key, lacks))


def text_of(row: Row, column: str, key: str) -> str:
    """Return the text, or number written out, in a column that must not be empty."""
    if column not in row.values:
        raise bad(row, key, _lacking(row.values, column, key), lacks=column)
    value = row.values[column]
    if isinstance(value, int | float) and not isinstance(value, bool):
        return str(value)
    if not isinstance(value, str):
        message = f"column {column!r} holds {kind_of(value)} where text or a number belongs"
        raise bad(row, key, f"{message}; {_remedy(key)}")
    if not value.strip():
        message = f"column {column!r} is empty; fill it, drop the row, or {_remedy(key)}"
        raise bad(row, key, message)
    if any("\ud800" <= character <= "\udfff" for character in value):
        raise bad(row, key, f"column {column!r} holds half of a surrogate pair; repair the text")
    return value


def _remedy(key: str) -> str:
    return f'map another column with {key} = "…"'


def _lacking(values: Mapping[str, Any], column: str, key: str) -> str:
    there = ", ".join(values) or "none"
    guess = did_you_mean(column, values)
    return f"no column {column!r}.{guess} Columns there: {there}; {_remedy(key)}"


@dataclass(frozen=True, slots=True)
class Plain:
    """Columns taken as they are."""

    question: str
    answer: str
    id: str | None = None

    def __call__(self, row: Row) -> Example:
        return Example(
            id=row.name if self.id is None else text_of(row, self.id, "id"),
            question=text_of(row, self.question, "question"),
            answer=text_of(row, self.answer, "answer"),
            extra=_others(row, self.question, self.answer, self.id),
        )


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
            raise bad(row, "answer", f"{message} column {self.answer!r}; {_remedy('answer')}")
        return gold


def _others(row: Row, *used: str | None) -> dict[str, Any]:
    return {column: value for column, value in row.values.items() if column not in used}
