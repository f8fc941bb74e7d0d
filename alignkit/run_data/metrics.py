"""Read the rows of a ``metrics.jsonl``, also while it is being written."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import Any

from alignkit.run_data.plain import json_of, number_of, sayable, step_of

Row = Mapping[str, Any]
SPELT_OUT = 5
"""Number of unreadable lines that are reported one by one; the rest are only counted."""


def read_rows(path: Path, warnings: list[str]) -> list[Row]:
    """Return the rows of a ``metrics.jsonl`` by step; append a warning for unreadable lines.

    The last line may be incomplete if the run was killed or is still going. If a step has two rows,
    the later one is used.
    """
    if not path.is_file():
        warnings.append(f"there is no {path.name} yet")
        return []
    rows: dict[int, Row] = {}
    wrong = cut = 0
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            cut = 0 if line.endswith(b"\n") else number
            try:
                row = _row(line)
            except ValueError:
                wrong += 1
                if wrong <= SPELT_OUT:
                    warnings.append(f"{path.name}:{number}: {_unreadable(cut == number)}")
            else:
                rows[row["step"]] = row
    if wrong > SPELT_OUT:
        warnings.append(f"{path.name}: and {wrong - SPELT_OUT:,} more such lines")
    return [rows[step] for step in sorted(rows)]


class FollowedRows:
    """Reads a ``metrics.jsonl`` while it is being written, each row once."""

    def __init__(self, path: Path) -> None:
        self._path, self._at = path, 0

    def more(self) -> Iterator[Row | None]:
        """Yield complete rows added since the last call; None first if the file was restarted."""
        size = self._path.stat().st_size if self._path.is_file() else 0
        if size < self._at:
            self._at = 0
            yield None
        if size == self._at:
            return
        with self._path.open("rb") as file:
            file.seek(self._at)
            for line in file:
                if not line.endswith(b"\n"):
                    return
                self._at += len(line)
                with suppress(ValueError):
                    yield _row(line)


def _row(line: bytes) -> dict[str, Any]:
    """Return a row of numbers with a step; ValueError if the line is not one."""
    found = json_of(line.decode("utf-8", errors="replace"))
    step = step_of(found.get("step")) if isinstance(found, dict) else None
    if step is None:
        raise ValueError("not a row of metrics")
    row: dict[str, Any] = {_name(name): number_of(value) for name, value in found.items()}
    row["step"] = step
    return row


@lru_cache(maxsize=4096)  # all rows share one text of each name
def _name(name: str) -> str:
    return sayable(name)


def _unreadable(last: bool) -> str:
    if last:
        return "the last line is cut off (the run was killed, or is writing it); left out"
    return "not a row of metrics; left out"
