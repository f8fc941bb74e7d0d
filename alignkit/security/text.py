"""Make text from models, files and recipes safe to show on a terminal or a page."""

from __future__ import annotations

import re
import sys

_CONTROL = re.compile(
    r"[\0-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]"
)


def printable(text: str) -> str:
    """Escape characters that could affect a terminal or page, or that cannot be encoded.

    These are control and text-direction characters and lone surrogates; line feeds and tabs stay.

    >>> printable("a\\x1b[31mb\\tc")
    'a\\\\x1b[31mb\\tc'
    """
    return _CONTROL.sub(lambda m: m[0].encode("unicode_escape").decode(), text)


def say(text: object, *, err: bool = False) -> None:
    """Print a text from any source, made :func:`printable`, to stdout or stderr."""
    print(printable(str(text)), file=sys.stderr if err else sys.stdout, flush=True)
