"""Saved responses, from whatever file data sets are read from; columns may have any names."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from alignkit.data_files.columns import (
    MISSING,
    BadRow,
    answers_of,
    bad,
    is_chat,
    one_turn,
    question_of,
    text_of,
    value_of,
)
from alignkit.data_files.reader import read_rows
from alignkit.data_files.records import Fault, kind_of
from alignkit.data_files.records import Row as FileRow
from alignkit.errors import AlignkitError, shown
from alignkit.protocols import Example

GUESSES: Mapping[str, tuple[str, ...]] = {
    "response": ("response", "completion", "output"),
    "gold": ("gold", "answer", "ground_truth", "reward_model.ground_truth", "extra_info.answer"),
    "question": ("question", "problem", "prompt"),
    "id": ("id", "prompt_id"),
}
"""Columns tried for each field that is not mapped; ``question`` and ``id`` may be missing."""

SHOWN = 5
"""Rows whose problems are spelt out; the rest are counted."""


@dataclass(frozen=True, slots=True)
class Row:
    """One saved response."""

    line: int
    response: str
    example: Example
    columns: Mapping[str, Any]


def read(path: Path, columns: Mapping[str, str], limit: int | None = None) -> list[Row]:
    """Return the responses of a file's first ``limit`` rows, a list of samples one by one.

    Raises AlignkitError that names every row without a response or a gold answer.
    """
    rows: list[Row] = []
    faults: list[Fault] = []
    for found in islice(read_rows(path, pipes=True), limit):
        try:
            if isinstance(found, Fault):
                raise BadRow(found)
            rows += _responses(found, columns)
        except BadRow as error:
            faults.append(error.fault)
    if faults:
        more = [f"and {len(faults) - SHOWN:,} more bad rows"] if len(faults) > SHOWN else []
        raise AlignkitError("\n".join([*map(str, faults[:SHOWN]), *more]))
    if not rows:
        raise AlignkitError(f"{shown(path)} holds no responses")
    return rows


def _responses(row: FileRow, columns: Mapping[str, str]) -> Iterator[Row]:
    names = {name: _column(name, row, columns) for name in GUESSES}
    answer, *others = answers_of(row, names["gold"], "--gold")
    asked = _or_as_it_is(question_of, row, "question", names, columns)
    identity = _or_as_it_is(text_of, row, "id", names, columns) or row.name.rpartition(":")[2]
    responses = value_of(row.values, names["response"])
    several = isinstance(responses, list) and not is_chat(responses)
    for index, response in enumerate(responses if several else [responses]):
        name = f"{identity}#{index}" if several else identity
        example = Example(name, asked, answer, row.values, tuple(others))
        yield Row(row.line, _said(row, names["response"], response), example, row.values)


def _or_as_it_is(
    reader: Callable[[FileRow, str, str], str],
    row: FileRow,
    name: str,
    names: Mapping[str, str],
    columns: Mapping[str, str],
) -> str:
    """Read an optional column; one that was only guessed may hold anything, and is written out."""
    column = names[name]
    if not column:
        return ""
    try:
        return reader(row, column, f"--{name}")
    except BadRow:
        if columns.get(name):
            raise
        value = value_of(row.values, column)
        return "" if value is None else str(value)


def _said(row: FileRow, column: str, response: Any) -> str:
    """Return the text of a response, which may be empty, or the text of a chat's messages."""
    if is_chat(response):
        answer = [m for m in response if m.get("role", m.get("from")) in ("assistant", "gpt")]
        if len(answer) == len(response) == 1:  # the reply alone, as many programs save it
            response = answer[0].get("content", answer[0].get("value"))
        else:
            response = one_turn(row, column, "--response", response)[2]
    if not isinstance(response, str):
        kind = kind_of(response)
        raise bad(row, "--response", f"column {column!r} holds {kind} where a response belongs")
    return response


def _column(name: str, row: FileRow, columns: Mapping[str, str]) -> str:
    """Return the column that holds a field; ``""`` for an optional one that is missing.

    A row without the id that is asked for is named by its line.
    """
    tried = (columns[name],) if columns.get(name) else GUESSES[name]
    found = (c for c in tried if value_of(row.values, c) is not MISSING)
    column = next(found, "")
    if not column and (name in {"response", "gold"} or (name != "id" and columns.get(name))):
        message = (
            f"no column {' or '.join(map(repr, tried))} for the {name}; "
            f"there are {', '.join(map(repr, row.values)) or 'none'}. Name it with --{name}."
        )
        raise bad(row, f"--{name}", message)
    return column
