"""A line on the terminal while a large file is read."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

from alignkit.security.text import printable

T = TypeVar("T")
_EVERY = 16_384
"""Rows between two looks at the clock."""

FIRST, BETWEEN = 3.0, 1.0
"""Seconds until the first line, and between two of them."""


class Progress:
    """Writes "reading NAME: 120,000 rows" to stderr if it is a terminal and reading takes long."""

    def __init__(self, name: str, size: int = 0) -> None:
        """``size``: bytes of the file, for the percentage; 0 = not known."""
        self._name, self._size = printable(name), size
        self._next = time.monotonic() + FIRST
        self._written = 0

    def at(self, rows: int, byte: int = 0) -> None:
        """Say how far reading has come."""
        if time.monotonic() < self._next or not sys.stderr.isatty():
            return
        share = f" ({byte / self._size:.0%})" if self._size else ""
        self._write(f"reading {self._name}: {rows:,} rows{share}")
        self._next = time.monotonic() + BETWEEN

    def end(self) -> None:
        """Clear the line, if there is one."""
        if self._written:
            self._write("")
            self._write("", end="\r")

    def _write(self, text: str, end: str = "") -> None:
        print(f"\r{text:<{self._written}}", end=end, file=sys.stderr, flush=True)
        self._written = len(text)


def watched(rows: Iterable[T], name: str) -> Iterator[T]:
    """Yield ``rows`` and tell a waiting user how many were read."""
    progress = Progress(name)
    try:
        for number, row in enumerate(rows, 1):
            if number % _EVERY == 0:
                progress.at(number)
            yield row
    finally:
        progress.end()
