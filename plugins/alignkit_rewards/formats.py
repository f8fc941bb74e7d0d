r"""Where the answer stands in a response: ``<answer>`` tags, ``\boxed{}``.

Everything here is linear in the length of the response and never raises on what a model wrote.
"""

from __future__ import annotations

import re

TAGS = "</think> <answer>"
"""The exact mark between reasoning and answer that the r1_zero format rule asks for."""

_LOOSE_TAGS = re.compile(r"</think>\s*<answer>")
_BOX = re.compile(r"\\f?boxed\s*\{")


def tagged_answer(response: str, *, strict: bool = True) -> str | None:
    """Return the last complete ``<answer>…</answer>`` of a well-formed response, else None.

    A response is well formed if ``</think> <answer>`` (with any white space between the tags
    unless ``strict``) is followed by ``</answer>``. It starts inside the think block, as the
    r1_zero prompt ends in ``<think>``. What follows the last ``</answer>`` is ignored.

    >>> tagged_answer("2+2 is 4 </think> <answer> 4 </answer> or 5")
    ' 4 '
    >>> tagged_answer("4 </think><answer>4</answer>") is None
    True
    """
    begin = response.find(TAGS) if strict else _loose_start(response)
    last_end = response.rfind("</answer>")
    if begin < 0 or last_end < begin:
        return None
    start = response.rfind("<answer>", begin, last_end) + len("<answer>")
    return response[start : response.index("</answer>", start)]


def _loose_start(response: str) -> int:
    found = _LOOSE_TAGS.search(response)
    return found.start() if found else -1


def boxed_spans(text: str) -> list[tuple[int, int, str]]:
    r"""Return (start, end, content) of every outermost ``\boxed{…}`` whose braces balance.

    >>> boxed_spans(r"\boxed{\frac{1}{2}} and \boxed{3")
    [(0, 19, '\\frac{1}{2}')]
    """
    starts = {m.end() - 1: m.start() for m in _BOX.finditer(text)}
    if not starts:
        return []
    open_braces: list[int] = []
    found: list[tuple[int, int, str]] = []
    at = min(starts)
    while at < len(text):
        if text[at] == "{":
            open_braces.append(at)
        elif text[at] == "}" and open_braces and (brace := open_braces.pop()) in starts:
            # an enclosing box closes later and swallows the boxes inside it
            while found and found[-1][0] > starts[brace]:
                found.pop()
            found.append((starts[brace], at + 1, text[brace + 1 : at]))
        at += 2 if text[at] == "\\" else 1
    return found


def boxed_answer(response: str) -> str | None:
    r"""Return the content of the last ``\boxed{…}`` whose braces balance, else None.

    >>> boxed_answer(r"so $\boxed{5}$, no: \boxed{x = \frac{1}{2}}. \boxed{")
    'x = \\frac{1}{2}'
    """
    spans = boxed_spans(response)
    return spans[-1][2] if spans else None
