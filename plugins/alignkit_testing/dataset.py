"""Checks of every dataset: a finite, ordered, stable collection of examples."""

from __future__ import annotations

import copy
from typing import Any

from alignkit.protocols import Example, Observes, Orders, Reward, Stateful
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


def chooses_its_rows(subject: Subject) -> None:
    """If it `choose`s: as many rows as asked, all its own; the same in the same state."""
    data: Any = subject.build()
    again: Any = subject.build()
    if not isinstance(data, Orders):
        return
    position = 0
    for step, count in ((1, 3), (2, 1), (3, 5)):
        if isinstance(data, Stateful):
            again.load_state_dict(copy.deepcopy(data.state_dict()))
        rows, same = (list(d.choose(count, step=step, position=position)) for d in (data, again))
        assert len(rows) == count, f"choose({count}) gives {len(rows)} rows"
        assert all(0 <= row < len(subject.build()) for row in rows), f"choose() gives {rows}"
        assert rows == same, (
            f"a second build in the same state chooses {same} at step {step}, not {rows}; what "
            "choose() depends on belongs in state_dict()"
        )
        if isinstance(data, Observes):
            data.observe(rows, [Reward(float(row % 2)) for row in rows])
        position += count


def _rows(data: Any) -> list[Any]:
    return [data[index] for index in range(min(len(data), MOST))]


CHECKS: tuple[Check, ...] = (holds_examples, has_unique_ids, is_stable, ends, chooses_its_rows)
