"""Words with opposite meanings beside a number: profit and loss, ago and hence."""

from __future__ import annotations

import re
from functools import lru_cache

_PAIRS = (
    ("profit gain gained surplus", "loss lost losing deficit"),
    ("ago earlier before previously prior past", "from now|hence|later|after|afterwards|ahead"),
    ("increase increased increases rise rose up upward upwards", "decrease decreased decreases"
     " drop dropped fall fell decline down downward downwards"),
    ("more longer older taller higher larger greater faster heavier warmer", "less fewer shorter"
     " younger lower smaller slower lighter colder"),
    ("above over", "below under"),
    ("clockwise", "counterclockwise counter-clockwise anticlockwise anti-clockwise"),
    ("left", "right"),
    ("credit deposit deposited", "debt debit withdrawal withdrew owed owes"),
    ("remaining remain remains", "used spent eaten sold"),
    ("male males boys men", "female females girls women"),
    ("even", "odd"),
    ("maximum most", "minimum least"),
    ("forward forwards", "backward backwards"),
    ("inside interior", "outside exterior"),
    ("win wins won", "lose loses"),
)  # fmt: skip
"""Pairs of opposites; words are separated by spaces, or by bars if a phrase has several words."""

MAX_LENGTH = 200
"""Maximum length of a gold that is searched for such words, as a worked solution has many."""


def _words(side: str) -> list[str]:
    return side.split("|") if "|" in side else side.split()


def _pattern(side: str) -> re.Pattern[str]:
    return re.compile(r"(?<![\w-])(?:" + "|".join(_words(side)) + r")(?![\w-])", re.I)


_WORD = re.compile("[a-z]+")
_FIRST_WORDS = frozenset(
    _WORD.findall(word)[0] for pair in _PAIRS for side in pair for word in _words(side)
)
_DIGIT = re.compile(r"\d")
_SIDES = tuple((_pattern(a), _pattern(b)) for a, b in _PAIRS)


@lru_cache(maxsize=4096)
def _said(gold: str) -> tuple[tuple[re.Pattern[str], re.Pattern[str]], ...]:
    """Return, for each pair of which the gold has one side, that side and the other."""
    if len(gold) > MAX_LENGTH or not _DIGIT.search(gold) or not _says_any(gold):
        return ()
    both = [((a, b), bool(a.search(gold)), bool(b.search(gold))) for a, b in _SIDES]
    return tuple((pair if a else pair[::-1]) for pair, a, b in both if a is not b)


def _says_any(text: str) -> bool:
    return not _FIRST_WORDS.isdisjoint(_WORD.findall(text.lower()))


def contradicts(gold: str, answer: str) -> bool:
    """Return whether an answer has only the opposite of a word beside the gold's number.

    >>> contradicts("5 years ago", "5 years from now"), contradicts("5", "a loss of 5")
    (True, False)
    """
    text = answer[-1000:]
    return any(other.search(text) and not own.search(text) for own, other in _said(gold))
