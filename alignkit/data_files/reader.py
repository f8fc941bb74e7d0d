"""Read the rows of one local file, whose format is detected from its content, not its name.

Everything wrong with a row becomes a :class:`Fault` with file and line, so that one pass finds all
faults.
"""

from __future__ import annotations

import gzip
import io
import stat
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path

from alignkit.data_files.csv_rows import csv_values, delimiter_of
from alignkit.data_files.json_rows import json_values
from alignkit.data_files.parquet_rows import MAGIC as PARQUET
from alignkit.data_files.parquet_rows import STREAM, arrow_values, parquet_values
from alignkit.data_files.records import Fault, Found, Row, kind_of
from alignkit.errors import shown

_GZIP = b"\x1f\x8b"
_REFUSED = {
    b"\xff\xfe": "the file is UTF-16; save it as UTF-8",
    b"\xfe\xff": "the file is UTF-16; save it as UTF-8",
    b"version https://git-lfs": "a pointer of git LFS, not the data itself: git lfs pull",
    b"PK\x03\x04": "a zip archive; unpack it",
    b"\x28\xb5\x2f\xfd": "compressed with zstd; unpack it, or use gzip",
    b"BZh": "compressed with bzip2; unpack it, or use gzip",
    b"\xfd7zXZ": "compressed with xz; unpack it, or use gzip",
    b"ARROW1": "an Arrow file; write it as Parquet",
}
"""First bytes of file types that cannot be read, and what to do about them."""


UNPACKED_GIB = 2.0
"""Default limit, in GiB, of the size that a file may unpack to."""


def read_rows(
    path: Path,
    root: Path | None = None,
    *,
    pipes: bool = False,
    unpacked_gib: float = UNPACKED_GIB,
) -> Iterator[Row | Fault]:
    """Yield the rows of a file in order; names are relative to the folder ``root``.

    The formats are JSON Lines, JSON arrays, objects over several lines, CSV, TSV, Parquet and Arrow
    streams, each optionally compressed with gzip. ``pipes``: whether the path may be a pipe, which
    can be read only once. A gzip file that unpacks to more than ``unpacked_gib`` is a fault, since
    it is held in memory.
    """
    name = path.relative_to(root).as_posix() if root else path.name
    data = _bytes(path, pipes, unpacked_gib)
    if isinstance(data, str):
        yield Fault(shown(path), data)
        return
    place = shown(path)
    for found in _values(data, path):
        where = f"{place}{found.where}"
        if isinstance(found.value, Fault):
            yield Fault(where, found.value.message)
        elif isinstance(found.value, dict):
            yield Row(where, f"{name}{found.name}", found.value, found.line)
        else:
            yield Fault(where, f"{kind_of(found.value)} where a row must be an object {{…}}")


def _bytes(path: Path, pipes: bool, unpacked_gib: float) -> bytes | str:
    """Return the unpacked content, or why it cannot be read."""
    try:
        mode = path.stat().st_mode
        if not (stat.S_ISREG(mode) or (pipes and stat.S_ISFIFO(mode))):
            return "is not a file of rows"  # a device may never end
        data = path.read_bytes()
        return _unpacked(data, unpacked_gib) if data.startswith(_GZIP) else data
    except (OSError, EOFError, zlib.error) as error:
        return f"cannot be read: {error}"


def _unpacked(data: bytes, most_gib: float) -> bytes | str:
    most = int(most_gib * 2**30)
    with gzip.open(io.BytesIO(data)) as file:
        found = file.read(most + 1)
    if len(found) <= most:
        return found
    return (
        f"unpacks to more than {most_gib:g} GiB, which would be held in memory; if that is meant, "
        f"unpack the file, or raise max_unpacked_gib in the recipe's table"
    )


def _values(data: bytes, path: Path) -> Iterable[Found]:
    """Return the rows and faults that the reader for the content's format finds."""
    refused = next((why for magic, why in _REFUSED.items() if data.startswith(magic)), None)
    if refused or b"\x00" in data[:4]:
        return [Found(1, Fault("", refused or _REFUSED[b"\xff\xfe"]))]
    if data.startswith(PARQUET):
        return parquet_values(io.BytesIO(data))
    if data.startswith(STREAM):
        return arrow_values(io.BytesIO(data))
    data = data.removeprefix(b"\xef\xbb\xbf")
    if data.lstrip()[:1] not in (b"{", b"["):
        delimiter = delimiter_of(data, named=bool({".csv", ".tsv"} & set(path.suffixes)))
        if delimiter:
            return csv_values(data, delimiter)
    return json_values(data)
