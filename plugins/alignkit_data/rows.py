"""Rows of local files: JSON Lines, JSON arrays, single objects, and folders of those.

Everything that is wrong with a row becomes a :class:`Fault` with file and line, so that one
reading finds all of them.
"""

from __future__ import annotations

import gzip
import json
import zlib
from bisect import bisect_left
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from alignkit.errors import shown

SUFFIXES = (".jsonl", ".json", ".jsonl.gz", ".json.gz")
_UTF16 = (b"\xff\xfe", b"\xfe\xff")


@dataclass(frozen=True, slots=True)
class Row:
    """One JSON object of a data set."""

    where: str
    """``FILE:LINE``, or the row of a Hub data set."""
    name: str
    """The same, short and stable wherever the file lies: the id of a row without one."""
    values: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Fault:
    """Something wrong with one row."""

    where: str
    message: str
    key: str = "path"
    """Recipe key to change, as in :meth:`alignkit.Params.check`."""
    lacks: str = ""
    """The column that the row does not have, if that is what is wrong."""

    def __str__(self) -> str:
        return f"{self.where}: {self.message}"


def files_in(path: Path, split: str) -> tuple[Path, ...]:
    """Return the data files at ``path``: itself, or those of ``split`` if it is a folder.

    A folder may hold ``SPLIT.jsonl`` (or .json, each also .gz), or a folder ``SPLIT`` with
    files at any depth.
    """
    if not path.is_dir():
        return (path,)
    for suffix in SUFFIXES:
        if (path / f"{split}{suffix}").is_file():
            return (path / f"{split}{suffix}",)
    return tuple(sorted(p for p in (path / split).rglob("*") if p.name.endswith(SUFFIXES)))


def read_rows(path: Path, root: Path | None = None) -> Iterator[Row | Fault]:
    """Yield the rows of a file in order; names are relative to the folder ``root``."""
    name = path.relative_to(root).as_posix() if root else path.name
    if path.exists() and not path.is_file():  # a device or pipe may never end
        yield Fault(shown(path), "is not a file of rows")
        return
    try:
        data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (OSError, EOFError, zlib.error) as error:
        yield Fault(shown(path), f"cannot be read: {error}")
        return
    if data.startswith(_UTF16):
        yield Fault(f"{shown(path)}:1", "the file is UTF-16; save it as UTF-8")
        return
    data = data.removeprefix(b"\xef\xbb\xbf")
    for line, value in _values(data, single=".json" in path.suffixes):
        where = f"{shown(path)}:{line}"
        if isinstance(value, Fault):
            yield Fault(where, value.message)
        elif isinstance(value, dict):
            yield Row(where, f"{name}:{line}", value)
        else:
            yield Fault(where, f"{kind_of(value)} where a row must be an object {{…}}")


def _values(data: bytes, *, single: bool) -> Iterator[tuple[int, Any]]:
    """Yield each JSON value with its line; a Fault stands for one that cannot be read."""
    if data.lstrip().startswith(b"["):
        yield from _array(data)
        return
    lines = [(n, text) for n, text in enumerate(data.split(b"\n"), start=1) if text.strip()]
    if single and lines and isinstance(_parse(lines[0][1])[1], Fault):
        yield _parse(data)  # one object over many lines
        return
    for line, text in lines:
        yield _parse(text, line)


def _parse(data: bytes, line: int = 1) -> tuple[int, Any]:
    """Return the value and its line, or a Fault and the line it is on."""
    try:
        return line, json.loads(data.decode("utf-8"), parse_constant=_refuse)
    except UnicodeDecodeError as error:
        return line + data.count(b"\n", 0, error.start), _not_utf8()
    except json.JSONDecodeError as error:
        return line + error.lineno - 1, _broken(f"{error.msg} (column {error.colno})")
    except (ValueError, RecursionError) as error:
        return line, _broken(str(error))


def _array(data: bytes) -> Iterator[tuple[int, Any]]:
    """Yield the items of a JSON array with the line each begins on."""
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        yield data.count(b"\n", 0, error.start) + 1, _not_utf8()
        return
    decoder = json.JSONDecoder(parse_constant=_refuse)
    newlines = [at for at, character in enumerate(text) if character == "\n"]
    at = _skip(text, text.index("[") + 1)
    while text[at : at + 1] not in ("]", ""):
        line = bisect_left(newlines, at) + 1
        try:
            item, at = decoder.raw_decode(text, at)
        except (ValueError, RecursionError) as error:
            yield getattr(error, "lineno", line), _broken(getattr(error, "msg", str(error)))
            return
        yield line, item
        at = _skip(text, at)
        if text[at : at + 1] == ",":
            at = _skip(text, at + 1)
        elif text[at : at + 1] != "]":
            break
    if text[at:].strip() != "]":
        yield bisect_left(newlines, at) + 1, _broken("expected a comma, or ] and the end of file")


def _skip(text: str, at: int) -> int:
    """Return where the next character that is not white space stands."""
    while at < len(text) and text[at].isspace():
        at += 1
    return at


def _broken(reason: str) -> Fault:
    return Fault("", f"broken JSON: {reason}")


def _not_utf8() -> Fault:
    return Fault("", "not UTF-8; save the file as UTF-8")


def _refuse(constant: str) -> Any:
    raise ValueError(f"{constant} is not JSON; write a number or null")


def kind_of(value: Any) -> str:
    """Name a JSON value's type the way JSON does."""
    names = {str: "a string", bool: "true or false", list: "an array", dict: "an object"}
    return "null" if value is None else names.get(type(value), "a number")
