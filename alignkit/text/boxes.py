r"""Find ``\boxed{…}`` and ``\fbox{…}``, which mark the answer of a mathematical solution."""

from __future__ import annotations

import re
from typing import NamedTuple

_OPENING = re.compile(r"\\(?:boxed|fbox)\s*\{")
_BRACE = re.compile(r"\\.|[{}]", re.S)


class Box(NamedTuple):
    """A box with balanced braces, by its position in the text."""

    start: int
    end: int
    """One past the closing brace."""
    inside: int
    text: str

    @property
    def content(self) -> str:
        """The text between the braces."""
        return self.text[self.inside : self.end - 1]


def boxes(text: str) -> list[Box]:
    r"""Return every box with balanced braces, nested ones too, in order of their starts.

    Escaped braces (``\{`` and ``\}``) do not count. Linear in the length of the text.

    >>> [box.content for box in boxes(r"\boxed{\frac{1}{2}} and \boxed{3")]
    ['\\frac{1}{2}']
    """
    starts = {opening.end() - 1: opening.start() for opening in _OPENING.finditer(text)}
    open_braces: list[int] = []
    found: list[Box] = []
    if not starts:
        return []
    for sign in _BRACE.finditer(text, min(starts)):
        if sign[0] == "{":
            open_braces.append(sign.start())
        elif sign[0] == "}" and open_braces and (brace := open_braces.pop()) in starts:
            found.append(Box(starts[brace], sign.end(), brace + 1, text))
    return sorted(found)


def outermost(text: str) -> list[Box]:
    r"""Return the balanced boxes that are not inside another.

    >>> [box.content for box in outermost(r"\boxed{x = \boxed{3}}")]
    ['x = \\boxed{3}']
    """
    found: list[Box] = []
    for box in boxes(text):
        if not found or box.start >= found[-1].end:
            found.append(box)
    return found
