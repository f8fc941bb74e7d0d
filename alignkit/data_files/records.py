"""The results of reading a file: rows, and faults for those that cannot be read."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Row:
    """One row of a data set."""

    where: str
    """``FILE:LINE``, or the row of a file without lines or of a Hub data set."""
    name: str
    """The same, but short and independent of the file's folder: the id of a row without one."""
    values: Mapping[str, Any]
    line: int = 0
    """Line the row begins on, or its number from 1 in files without lines; 0 = not known."""


@dataclass(frozen=True, slots=True)
class Fault:
    """Something wrong with one row."""

    where: str
    message: str
    key: str = "path"
    """Recipe key to change, as in :meth:`alignkit.Params.check`."""
    lacks: str = ""
    """The missing column, if that is what is wrong."""

    def __str__(self) -> str:
        return f"{self.where}: {self.message}"


@dataclass(frozen=True, slots=True)
class Found:
    """A value as a format's reader finds it, or a :class:`Fault` for one that it cannot read."""

    line: int
    value: Any
    item: int = 1
    """1 for the first value that begins on its line, 2 for the second and so on."""
    numbered: bool = False
    """Whether ``line`` is a row number, as in files that have no lines."""

    @property
    def where(self) -> str:
        """Position in the file, as written after the file's path."""
        if self.numbered:
            return f", row {self.line}"
        return f":{self.line}, item {self.item}" if self.item > 1 else f":{self.line}"

    @property
    def name(self) -> str:
        """The same as part of an id."""
        return f":{self.line}.{self.item}" if self.item > 1 else f":{self.line}"


def kind_of(value: Any) -> str:
    """Name a JSON value's type the way JSON does.

    >>> kind_of([1]), kind_of(None), kind_of(float("nan"))
    ('an array', 'null', 'NaN')
    """
    if value is None:
        return "null"
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "an infinite number"
    names = {str: "a string", bool: "true or false", list: "an array", dict: "an object"}
    names |= {int: "a number", float: "a number", bytes: "bytes"}
    return names.get(type(value), f"a {type(value).__name__}")
