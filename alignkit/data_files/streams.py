"""Read the rows of a large file one after another, for which it is not held in memory.

JSON Lines and CSV, packed with gzip or not, Parquet and Arrow streams. Files of other formats, and
those with a fault, are left to :func:`alignkit.data_files.reader.read_rows`, which names each.
"""

from __future__ import annotations

import gzip
import io
import zlib
from collections.abc import Iterator
from contextlib import ExitStack
from itertools import islice
from pathlib import Path
from typing import IO, Any

from alignkit.data_files.csv_rows import delimiter_of, table_values
from alignkit.data_files.line_index import BOM, NotIndexed, object_on
from alignkit.data_files.parquet_rows import MAGIC as PARQUET
from alignkit.data_files.parquet_rows import STREAM, arrow_values, parquet_values
from alignkit.data_files.records import Found, Row
from alignkit.errors import shown

GZIP = b"\x1f\x8b"
_HEAD = 2**16
"""Bytes that tell a file's format."""
_CHUNK = 2**20


def streamed_rows(
    path: Path, root: Path | None, limit: int | None, unpacked_gib: float
) -> Iterator[Row]:
    """Yield the first ``limit`` rows of a file, as ``read_rows`` does.

    NotIndexed, possibly after some rows, if it has to be read whole.
    """
    place, name = shown(path), path.relative_to(root).as_posix() if root else path.name
    try:
        with ExitStack() as stack:
            for found in _found(path, limit, int(unpacked_gib * 2**30), stack):
                if not isinstance(found.value, dict):
                    raise NotIndexed
                yield Row(f"{place}{found.where}", f"{name}{found.name}", found.value, found.line)
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
        raise NotIndexed from error


def _found(path: Path, limit: int | None, most: int, stack: ExitStack) -> Iterator[Found]:
    """Yield the first ``limit`` values; what stands below them is unpacked and decoded too.

    Otherwise damage there would be found only in a file that is read whole.
    """
    with path.open("rb") as begin:
        packed = begin.read(2) == GZIP
    with _opened(path, packed, most) as begin:
        head = begin.read(_HEAD).removeprefix(BOM)
    file = stack.enter_context(_opened(path, packed, most))
    if head.startswith((PARQUET, STREAM)) and not packed:
        values = parquet_values if head.startswith(PARQUET) else arrow_values
        yield from islice(values(file), limit)
    elif head.lstrip()[:1] == b"{" and b"\x00" not in head[:4]:
        yield from islice(_lines(file), limit)
        _read_on(file)
    else:
        delimiter = _delimiter(head, path)
        text = io.TextIOWrapper(file, encoding="utf-8-sig", newline="")
        stack.enter_context(text)
        yield from islice(table_values(text, delimiter, longest=most), limit)
        _read_on(text)


def _opened(path: Path, packed: bool, most: int) -> io.BufferedReader:
    """Open a file, unpacked if need be; NotIndexed once more than ``most`` bytes were unpacked."""
    if not packed:
        return path.open("rb")
    return io.BufferedReader(_Unpacked(path, most), buffer_size=_CHUNK)


class _Unpacked(io.RawIOBase):
    """A gzip file that unpacks to at most so many bytes."""

    def __init__(self, path: Path, most: int) -> None:
        self._file, self._left = gzip.GzipFile(path), most

    def readable(self) -> bool:
        return True

    def readinto(self, into: Any, /) -> int:
        count = self._file.readinto(into)
        self._left -= count
        if self._left < 0:
            raise NotIndexed
        return count

    def close(self) -> None:
        self._file.close()
        super().close()


def _lines(file: IO[bytes]) -> Iterator[Found]:
    """Yield the object on each line; NotIndexed if there is something else."""
    for number, line in enumerate(file, 1):
        text = line.removeprefix(BOM) if number == 1 else line
        if text.strip():
            yield Found(number, object_on(text))


def _delimiter(head: bytes, path: Path) -> str:
    """Return the column separator of a table; NotIndexed if it may be none."""
    whole = b"\n" in head.lstrip(b"\r\n ") and b"\x00" not in head[:4]
    named = bool({".csv", ".tsv"} & set(path.suffixes))
    found = delimiter_of(head, named=named) if whole and head.lstrip()[:1] != b"[" else None
    if found is None:
        raise NotIndexed
    return found


def _read_on(file: IO[Any]) -> None:
    while file.read(_CHUNK):
        pass
