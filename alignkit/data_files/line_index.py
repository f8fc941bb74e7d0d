"""Rows of a large JSON Lines file by their position, so that they need not be kept in memory."""

from __future__ import annotations

import json
import os
import weakref
from array import array
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from alignkit.data_files.progress import Progress
from alignkit.data_files.records import Row
from alignkit.errors import RunFailed, shown

BOM = b"\xef\xbb\xbf"
_LOOKS = 16_384
"""Rows between two looks at the clock, for the progress."""


class NotIndexed(Exception):
    """The file is not one JSON object on each line, or has changed; it must be read whole."""


def may_be_indexed(path: Path) -> bool:
    """Whether a file begins as JSON Lines do: not packed, with an object."""
    with path.open("rb") as file:
        first = file.read(4096)
    return b"\x00" not in first[:4] and first.removeprefix(BOM).lstrip()[:1] == b"{"


class LineIndex:
    """Where each row of a file begins: 8 bytes a row, and 8 more if the file has blank lines."""

    def __init__(self, path: Path, root: Path | None = None) -> None:
        self._path = path
        self._place = shown(path)
        self.name = path.relative_to(root).as_posix() if root else path.name
        """The file's part of a row's name."""
        self._file = os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0))
        weakref.finalize(self, os.close, self._file)
        self._stamp = self._now()
        self._starts, self._lines, self._end = array("Q"), array("Q"), 0
        """Bytes before each row; the rows' lines, if not 1, 2, 3 …; bytes up to the last's end."""

    def __len__(self) -> int:
        return len(self._starts)

    def scan(self, limit: int | None) -> Iterator[dict[str, Any]]:
        """Read the rows once, at most ``limit`` of them, and remember where each begins.

        NotIndexed if a line is not one object.
        """
        progress = Progress(self._place, self._stamp[1])
        try:
            with os.fdopen(os.dup(self._file), "rb", buffering=1 << 20) as file:
                yield from self._objects(file, limit, progress)
        finally:
            progress.end()
        if self._now() != self._stamp:
            raise NotIndexed

    def _objects(
        self, file: IO[bytes], limit: int | None, progress: Progress
    ) -> Iterator[dict[str, Any]]:
        starts, at, most = self._starts, 0, self._stamp[1] if limit is None else limit
        for number, line in enumerate(file, 1):
            begin, at = at, at + len(line)
            text = line.removeprefix(BOM) if number == 1 else line
            if len(starts) >= most:
                return
            if text[:1] != b"{" and not text.strip():
                continue
            values = object_on(text)
            if number != len(starts) + 1 or self._lines:
                self._number(number)
            starts.append(begin)
            self._end = at
            yield values
            if len(starts) % _LOOKS == 0:
                progress.at(len(starts), at)

    def _number(self, line: int) -> None:
        """Note the next row's line, and those before it where this is the first not in step."""
        if not self._lines:
            self._lines.extend(range(1, len(self._starts) + 1))
        self._lines.append(line)

    def line(self, index: int) -> int:
        """Return the line of a row, from 1."""
        return self._lines[index] if self._lines else index + 1

    def row(self, index: int, values: dict[str, Any]) -> Row:
        """Return a row of which the values are known."""
        line = self.line(index)
        return Row(f"{self._place}:{line}", f"{self.name}:{line}", values, line)

    def read(self, index: int) -> Row:
        """Return a row; RunFailed if the file has changed since its rows were checked."""
        begin = self._starts[index]
        end = self._starts[index + 1] if index + 1 < len(self) else self._end
        data = os.pread(self._file, end - begin, begin)
        if len(data) < end - begin or self._now() != self._stamp:
            raise RunFailed(
                f"{self._place} was changed while the run reads its rows from it; put the file "
                f"back as it was and resume, or begin a new run with the new file"
            )
        return self.row(index, object_on(data.partition(b"\n")[0].removeprefix(BOM)))

    def _now(self) -> tuple[int, int]:
        status = os.fstat(self._file)
        return status.st_mtime_ns, status.st_size


def object_on(line: bytes) -> dict[str, Any]:
    """Return the object on a line; NotIndexed for anything else."""
    try:
        value = json.loads(line.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise NotIndexed from error
    if type(value) is not dict:
        raise NotIndexed
    return value
