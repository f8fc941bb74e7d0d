"""What a line of directives in a batch system's script can hold."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from alignkit.errors import AlignkitError, shown

_PLAIN = re.compile(r"\A[\w./+:@%,=-]+\Z", re.ASCII)


def refuse_unwritable(texts: Iterable[str]) -> None:
    """Raise AlignkitError for a text that a line of a script's directives could not hold."""
    if bad := [text for text in texts if not text.isprintable()]:
        raise AlignkitError(f"{bad[0]!r} has a character that a script's comment cannot hold")


def in_directive(path: Path) -> str:
    """Quote a path for a line ``#PBS``, which qsub parts into words at spaces, as quotes allow.

    Raises AlignkitError for a path with both kinds of quotes.

    >>> in_directive(Path("/lab/a/run.log")), in_directive(Path("/lab/its own/run.log"))
    ('/lab/a/run.log', "'/lab/its own/run.log'")
    """
    text = str(path)
    if _PLAIN.match(text):
        return text
    free = [quote for quote in ("'", '"') if quote not in text]
    if not free:
        raise AlignkitError(f"{shown(path)} has both kinds of quotes, which PBS cannot be told")
    return f"{free[0]}{text}{free[0]}"
