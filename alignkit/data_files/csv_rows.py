"""Comma-, tab- and semicolon-separated values with a header (RFC 4180); every value is a string."""

from __future__ import annotations

import csv
import io
import json
import re
from collections import Counter
from collections.abc import Iterator
from typing import IO

from alignkit.data_files.json_rows import decoded
from alignkit.data_files.records import Fault, Found

_DELIMITERS = "\t,;"
_OF_JSON = re.compile(r'[{}]|"\s*:')


def delimiter_of(data: bytes, *, named: bool) -> str | None:
    """Return the column separator, None if the first line is not the header of a table.

    A header names two columns or more, all different, and is neither JSON nor a piece of it.
    ``named`` says that the file's name is that of a table: then one column is enough.
    """
    first = data.lstrip(b"\r\n ").partition(b"\n")[0]  # a tab may stand before the first name
    header = first.rstrip(b"\r").decode("utf-8", "replace")
    if _OF_JSON.search(header) or _is_json(header):
        return None
    counts = {d: len(_fields(header, d)) for d in _DELIMITERS}
    best = max(counts, key=counts.__getitem__)
    if counts[best] < 2:
        return "," if named and header else None
    different = len(set(_fields(header, best))) == counts[best]
    return best if named or different else None


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True


def _fields(line: str, delimiter: str) -> list[str]:
    try:
        return next(csv.reader([line], delimiter=delimiter), [])
    except csv.Error:  # longer than any header
        return []


def csv_values(data: bytes, delimiter: str) -> Iterator[Found]:
    """Yield each row below the header as an object, with the line it begins on."""
    text = decoded(data)
    if isinstance(text, Found):
        yield text
        return
    yield from table_values(io.StringIO(text, newline=""), delimiter, longest=len(text))


def table_values(text: IO[str], delimiter: str, *, longest: int) -> Iterator[Found]:
    """Yield each row below the header; no field may have more than ``longest`` characters."""
    found = _records(text, delimiter, longest)
    records = (record for record in found if record.value not in ([], [""]))
    first = next(records, None)
    if first is None or isinstance(first.value, Fault):
        yield from (first,) if first else ()
        return
    header: list[str] = first.value
    if twice := [name for name, count in Counter(header).items() if count > 1]:
        yield Found(first.line, Fault("", f"the header names {twice[0]!r} twice"))
        return
    for record in records:
        yield Found(record.line, _object(header, record.value))


def _object(header: list[str], fields: list[str] | Fault) -> dict[str, str] | Fault:
    if isinstance(fields, Fault) or len(fields) == len(header):
        return fields if isinstance(fields, Fault) else dict(zip(header, fields, strict=True))
    return Fault("", f"{len(fields)} fields where the header names {len(header)}")


def _records(text: IO[str], delimiter: str, longest: int) -> Iterator[Found]:
    """Yield the fields of every record, up to the first malformed one."""
    reader = csv.reader(text, delimiter=delimiter, strict=True)
    while True:
        line = reader.line_num + 1
        before = csv.field_size_limit(max(longest, 1))  # the usual is less than some responses
        try:
            record = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            yield Found(line, Fault("", f"broken CSV: {error}"))
            return
        finally:
            csv.field_size_limit(before)
        yield Found(line, record)
