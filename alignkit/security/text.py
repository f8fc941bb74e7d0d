"""Text from models, files and recipes, made fit to be shown on a terminal or a page."""

from __future__ import annotations

import re
import sys

_CONTROL = re.compile(
    r"[\0-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]"
)


def printable(text: str) -> str:
    """Make visible what could act on a terminal or page, or that no file can hold.

    These are control and text-direction characters and halves of surrogate pairs; line feeds and
    tabs stay.

    >>> printable("a\\x1b[31mb\\tc")
    'a\\\\x1b[31mb\\tc'
    """
    return _CONTROL.sub(lambda m: m[0].encode("unicode_escape").decode(), text)


def say(text: object, *, err: bool = False) -> None:
    """Print a text that may hold what is not ours, :func:`printable`, to stdout or to stderr."""
    print(printable(str(text)), file=sys.stderr if err else sys.stdout, flush=True)
