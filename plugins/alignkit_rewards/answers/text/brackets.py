"""Brackets in mathematical text: where they close, and what is outside them."""

from __future__ import annotations

import re
from collections.abc import Callable


def split_top(text: str, mark: re.Pattern[str]) -> list[tuple[str, str]]:
    r"""Split ``text`` at separators outside all brackets; return each part with the one before it.

    >>> split_top("a,(b,c),d", re.compile(","))
    [('', 'a'), (',', '(b,c)'), (',', 'd')]
    """
    marks = [m for m in mark.finditer(text)]
    if not marks:
        return [("", text)]
    levels = _levels(text)
    parts, start, sign = [], 0, ""
    for found in marks:
        if found.start() >= start and levels[found.start()] == 0:
            parts.append((sign, text[start : found.start()]))
            start, sign = found.end(), found[0].strip()
    return [*parts, (sign, text[start:])]


def pieces(text: str, mark: re.Pattern[str]) -> list[str]:
    """Split ``text`` at separators outside all brackets."""
    return [part for _, part in split_top(text, mark)]


def _levels(text: str) -> list[int]:
    """Return the bracket depth before each character."""
    levels, depth, at = [], 0, 0
    while at < len(text):
        char = text[at]
        two = text[at : at + 2]
        if two in {"\\{", "\\}"}:
            levels += [depth, depth]
            depth += 1 if two == "\\{" else -1
            at += 2
            continue
        if text.startswith("\\begin", at) or text.startswith("\\langle", at):
            depth += 1
        elif text.startswith("\\end", at) or text.startswith("\\rangle", at) or char in ")]}":
            depth -= 1
        levels.append(depth)
        depth += char in "([{"
        at += 1
    return levels


def outside(text: str, mark: re.Pattern[str], new: Callable[[re.Match[str]], str]) -> str:
    """Substitute outside all brackets, where a comma does not separate the items of a tuple."""
    levels = _levels(text)
    return mark.sub(lambda m: new(m) if levels[m.start()] == 0 else m[0], text)


def matching(text: str, start: int) -> int:
    """Return the index of the bracket that closes the one at ``start``, or -1.

    The two brackets of an interval may differ, as in ``(0, 1]``.
    """
    depth, at = 0, start
    while at < len(text):
        char = text[at]
        if char == "\\" and at + 1 < len(text) and text[at + 1] not in "{}":
            at += 1
        elif char in "([{":
            depth += 1
        elif char in ")]}":
            depth -= 1
            if depth == 0:
                return at
        at += 1
    return -1
