"""Read saved responses: JSON lines whose columns may have any names."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from alignkit.errors import AlignkitError, shown
from alignkit.protocols import Example

GUESSES: Mapping[str, tuple[str, ...]] = {
    "response": ("response", "completion", "output"),
    "gold": ("gold", "answer", "ground_truth"),
    "question": ("question", "problem", "prompt"),
    "id": ("id", "prompt_id"),
}
"""Columns tried for each field that is not mapped; ``question`` and ``id`` may be missing."""


@dataclass(frozen=True, slots=True)
class Row:
    """One saved response."""

    line: int
    response: str
    example: Example
    columns: Mapping[str, Any]


def read(path: Path, columns: dict[str, str]) -> Iterator[Row]:
    """Yield the responses of a file, a list of samples one by one."""
    for number, record in _records(path):
        names = {name: _column(name, record, columns, path, number) for name in GUESSES}
        responses = record[names["response"]]
        identity = str(record.get(names["id"], number))
        several = isinstance(responses, list)
        for index, response in enumerate(responses if several else [responses]):
            if not isinstance(response, str):
                raise AlignkitError(
                    f"{shown(path)}:{number}: {names['response']!r} holds {response!r}, not text"
                )
            example = Example(
                f"{identity}#{index}" if several else identity,
                str(record.get(names["question"], "")),
                record[names["gold"]],  # text, a number or a list of accepted answers
                record,
            )
            yield Row(number, response, example, record)


def _records(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    try:
        with path.open(encoding="utf-8") as lines:
            yield from _parsed(path, lines)
    except (OSError, UnicodeDecodeError) as error:
        raise AlignkitError(f"{shown(path)} cannot be read: {error}") from error


def _parsed(path: Path, lines: Iterable[str]) -> Iterator[tuple[int, dict[str, Any]]]:
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except ValueError as error:
            raise AlignkitError(f"{shown(path)}:{number}: not JSON: {error}") from error
        if not isinstance(record, dict):
            raise AlignkitError(f"{shown(path)}:{number}: not a JSON object")
        yield number, record


def _column(
    name: str, record: Mapping[str, Any], columns: Mapping[str, str], path: Path, line: int
) -> str:
    """Return the column that holds a field; ``""`` for an optional one that is missing."""
    tried = (columns[name],) if columns.get(name) else GUESSES[name]
    found = next((column for column in tried if column in record), "")
    if not found and (name in {"response", "gold"} or columns.get(name)):
        raise AlignkitError(
            f"{shown(path)}:{line}: no column {' or '.join(map(repr, tried))} for the {name}; "
            f"there are {', '.join(map(repr, record)) or 'none'}. Name it with --{name}."
        )
    return found
