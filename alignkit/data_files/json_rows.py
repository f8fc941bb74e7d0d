"""JSON Lines, JSON arrays, and objects one after another that each take several lines.

NaN and Infinity, which many programs write though JSON has none, are read as numbers: whether
they matter depends on the column they stand in.
"""

from __future__ import annotations

import io
import json
from bisect import bisect_left
from collections.abc import Iterator
from itertools import groupby

from alignkit.data_files.records import Fault, Found

_BROKEN = "expected a comma, or ] and the end of file"


def json_values(data: bytes) -> Iterator[Found]:
    """Yield each JSON value of a file in UTF-8."""
    begin = data.lstrip()[:1]
    if begin == b"[":
        yield from _array(data)
        return
    objects = False
    for found in _lines(data):
        if begin == b"{" and isinstance(found.value, Fault):
            yield from _from_first_fault(data, found.line, objects)
            return
        objects = objects or isinstance(found.value, dict)
        yield found


def _lines(data: bytes, first: int = 1) -> Iterator[Found]:
    """Yield the value on each line from number ``first`` on, one at a time."""
    for number, text in enumerate(io.BytesIO(data), 1):
        if number >= first and text.strip():
            yield _parsed(text.removesuffix(b"\n"), number)


def _from_first_fault(data: bytes, first: int, objects: bool) -> Iterator[Found]:
    """Yield what comes from line ``first`` on, where a line is no value of its own.

    ``objects``: whether there were objects on the lines before. Read as objects over several lines
    if that explains all of it, or if no line is an object.
    """
    several = list(_one_after_another(data))
    if any(isinstance(found.value, Fault) for found in several):
        lines = list(_lines(data, first))
        if objects or any(isinstance(found.value, dict) for found in lines):
            yield from lines
            return
    yield from (found for found in several if found.line >= first)


def _parsed(data: bytes, line: int) -> Found:
    """Return the value on one line, or a Fault."""
    try:
        return Found(line, json.loads(data.decode("utf-8")))
    except UnicodeDecodeError:
        return Found(line, not_utf8())
    except (ValueError, RecursionError) as error:
        return Found(line, _fault(error))


def _one_after_another(data: bytes) -> Iterator[Found]:
    """Yield values that follow each other, up to the first that is broken."""
    text = decoded(data)
    if isinstance(text, Found):
        yield text
        return
    reader = _Reader(text)
    reader.skip()
    while not reader.at_end():
        found = reader.value()
        yield found
        if isinstance(found.value, Fault):
            return


def _array(data: bytes) -> Iterator[Found]:
    """Yield the items of an array, each with the line it begins on and its number on that line."""
    text = decoded(data)
    if isinstance(text, Found):
        yield text
        return
    for line, items in groupby(_items(_Reader(text)), key=lambda found: found.line):
        for number, found in enumerate(items, start=1):
            whole = not isinstance(found.value, Fault)
            yield Found(line, found.value, number) if whole else found


def _items(reader: _Reader) -> Iterator[Found]:
    reader.skip()
    reader.move(1)  # past the opening bracket
    while reader.next() not in ("]", ""):
        found = reader.value()
        yield found
        if isinstance(found.value, Fault):
            return
        if reader.next() == ",":
            reader.move(1)
        elif reader.next() != "]":
            break
    if not reader.ends_in("]"):
        yield Found(reader.line(), Fault("", f"broken JSON: {_BROKEN}"))


class _Reader:
    """A place in a text that holds JSON values; after each call it stands on no white space."""

    def __init__(self, text: str) -> None:
        self._text, self._at, self._decoder = text, 0, json.JSONDecoder()
        self._newlines = [at for at, character in enumerate(text) if character == "\n"]

    def line(self) -> int:
        """Return the number of the line, from 1."""
        return bisect_left(self._newlines, self._at) + 1

    def next(self) -> str:
        """Return the character here, "" at the end."""
        return self._text[self._at : self._at + 1]

    def at_end(self) -> bool:
        return self._at >= len(self._text)

    def ends_in(self, last: str) -> bool:
        """Whether nothing but ``last`` is left."""
        return self._text[self._at :].strip() == last

    def move(self, count: int) -> None:
        self._at += count
        self.skip()

    def skip(self) -> None:
        while self.next().isspace():
            self._at += 1

    def value(self) -> Found:
        """Read the value here, or say what is wrong with it."""
        line = self.line()
        try:
            value, self._at = self._decoder.raw_decode(self._text, self._at)
        except (ValueError, RecursionError) as error:
            return Found(getattr(error, "lineno", line), _fault(error))
        self.skip()
        return Found(line, value)


def decoded(data: bytes) -> str | Found:
    """Return the text of a file in UTF-8, or where it is none."""
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        return Found(data.count(b"\n", 0, error.start) + 1, not_utf8())


def not_utf8() -> Fault:
    """Return what is wrong with a text of another encoding."""
    return Fault("", "not UTF-8; save the file as UTF-8")


def _fault(error: ValueError | RecursionError) -> Fault:
    if isinstance(error, json.JSONDecodeError):
        return Fault("", f"broken JSON: {error.msg} (column {error.colno})")
    return Fault("", f"broken JSON: {error}")
