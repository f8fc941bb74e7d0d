"""Examples of a large file, made when they are asked for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, overload

from alignkit.data_files.line_index import LineIndex, NotIndexed, may_be_indexed
from alignkit.data_files.progress import watched
from alignkit.data_files.records import Row
from alignkit.data_files.stored_rows import StoredRows
from alignkit.data_files.streams import streamed_rows
from alignkit.errors import shown
from alignkit.protocols import Example
from alignkit_data.columns import BadRow, Plain

INDEXED_FROM = 8 * 2**20
"""Bytes from which a file of JSON Lines is indexed; the rows of a smaller one are kept."""
STORED_FROM = 2**20
"""Bytes, together, from which other files are copied row by row; most are packed."""


class Indexed(Sequence[Example]):
    """Rows of a file that was checked; each access reads and converts a row again."""

    def __init__(
        self,
        index: LineIndex | StoredRows,
        convert: Callable[[Row], Example],
        rows: range | None = None,
    ) -> None:
        self._index, self._convert = index, convert
        self._rows = range(len(index)) if rows is None else rows

    def __len__(self) -> int:
        return len(self._rows)

    @overload
    def __getitem__(self, index: int, /) -> Example: ...

    @overload
    def __getitem__(self, index: slice, /) -> Indexed: ...

    def __getitem__(self, index: int | slice, /) -> Example | Indexed:
        if isinstance(index, slice):
            return Indexed(self._index, self._convert, self._rows[index])
        return self._convert(self._index.read(self._rows[index]))


def indexed(
    path: Path, root: Path | None, convert: Callable[[Row], Example], limit: int | None
) -> Indexed | None:
    """Check a large file of JSON Lines row by row; None for other files, and if a row is bad.

    Such a file is read whole, and then every bad row is named.
    """
    try:
        if not path.is_file() or path.stat().st_size < INDEXED_FROM or not may_be_indexed(path):
            return None
        index = LineIndex(path, root)
        _check(index, convert, limit)
    except (OSError, NotIndexed, BadRow):
        return None
    return Indexed(index, convert) if len(index) else None


def stored(
    files: Sequence[Path],
    root: Path | None,
    convert: Callable[[Row], Example],
    limit: int | None,
    unpacked_gib: float,
) -> Indexed | None:
    """Check large files of any format row by row, and keep the rows on disk; None as above."""
    names = tuple(f"{f.relative_to(root).as_posix() if root else f.name}:" for f in files)
    own: set[str] = set()
    try:
        if not all(f.is_file() for f in files) or sum(map(_size, files)) < STORED_FROM:
            return None
        kept = StoredRows()
        for file in files:
            left = None if limit is None else limit - len(kept)
            rows = streamed_rows(file, root, left, unpacked_gib)
            for row in watched(rows, shown(file)):
                _check_id(convert(row), row, names, own)
                kept.add(row)
        kept.finish()
    except (OSError, NotIndexed, BadRow):
        return None
    return Indexed(kept, convert) if len(kept) else None


def _size(path: Path) -> int:
    return path.stat().st_size


def _check(index: LineIndex, convert: Callable[[Row], Example], limit: int | None) -> None:
    """Convert each row; NotIndexed if an id of a row's own may not be unique."""
    sure = convert.sure if isinstance(convert, Plain) else _never
    own: set[str] = set()
    for number, values in enumerate(index.scan(limit)):
        if not sure(values):
            row = index.row(number, values)
            _check_id(convert(row), row, (f"{index.name}:",), own)


def _check_id(example: Example, row: Row, names: tuple[str, ...], own: set[str]) -> None:
    """Remember an id of a row's own in ``own``; NotIndexed if another row may have it."""
    if example.id != row.name:
        if example.id in own or example.id.startswith(names):
            raise NotIndexed
        own.add(example.id)


def _never(values: dict[str, Any]) -> bool:
    return False
