r"""Cutting text at marks that stand outside all brackets."""

from __future__ import annotations

import re
from collections.abc import Callable


def split_top(text: str, mark: re.Pattern[str]) -> list[tuple[str, str]]:
    r"""Cut ``text`` at marks outside all brackets; each part comes with the mark before it.

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


def _levels(text: str) -> list[int]:
    """Return the bracket depth in front of every character."""
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
    """Substitute outside all brackets, where a comma cannot part the items of a tuple."""
    levels = _levels(text)
    return mark.sub(lambda m: new(m) if levels[m.start()] == 0 else m[0], text)
