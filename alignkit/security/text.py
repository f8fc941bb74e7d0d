"""Text from models and files, made fit to be shown on a terminal or a page."""

from __future__ import annotations

import re

_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]")


def printable(text: str) -> str:
    """Make control and text-direction characters visible: they could act on a terminal or page.

    >>> printable("a\\x1b[31mb\\tc")
    'a\\\\x1b[31mb\\tc'
    """
    return _CONTROL.sub(lambda m: m[0].encode("unicode_escape").decode(), text)
