"""What holds of every dataset: a finite, ordered, stable collection of examples."""

from __future__ import annotations

from typing import Any

from alignkit.protocols import Example
from alignkit_testing.kit import Check, Subject

MOST = 500
"""Rows looked at."""


def holds_examples(subject: Subject) -> None:
    """Each row is an Example: text that UTF-8 can write, a question that is not blank."""
    data = subject.build()
    assert len(data) > 0, "the dataset is empty; give one with rows in params"
    for index, row in enumerate(_rows(data)):
        assert isinstance(row, Example), f"row {index} is a {type(row).__name__}, not an Example"
        for name in ("id", "question", "answer"):
            value = getattr(row, name)
            assert isinstance(value, str), f"row {index}: {name} is {value!r}, not a string"
            value.encode("utf-8")
        assert row.question.strip(), f"row {index} has a blank question"


def has_unique_ids(subject: Subject) -> None:
    """Tables of responses are joined on ids."""
    seen: dict[str, int] = {}
    for index, row in enumerate(_rows(subject.build())):
        assert row.id not in seen, f"rows {seen[row.id]} and {index} share the id {row.id!r}"
        seen[row.id] = index


def is_stable(subject: Subject) -> None:
    """The same rows in the same order, however often and in whatever order they are read."""
    data, again = subject.build(), subject.build()
    first = list(_rows(data))
    assert len(data) == len(again), f"two builds have {len(data)} and {len(again)} rows"
    for index in reversed(range(len(first))):
        assert data[index] == first[index], f"row {index} differs when it is read a second time"
        assert again[index] == first[index], f"row {index} differs in a second build"


def ends(subject: Subject) -> None:
    """An index past the end raises IndexError, so that iteration ends."""
    data = subject.build()
    for index in (len(data), len(data) + 1000):
        try:
            row = data[index]
        except IndexError:
            continue
        raise AssertionError(f"data[{index}] of {len(data)} rows gives {row!r}, not IndexError")


def _rows(data: Any) -> list[Any]:
    return [data[index] for index in range(min(len(data), MOST))]


CHECKS: tuple[Check, ...] = (holds_examples, has_unique_ids, is_stable, ends)
