"""Numbers in English words: "twenty-five", "two and a half", "three quarters", "minus two"."""

from __future__ import annotations

import re
from fractions import Fraction
from types import MappingProxyType

_ONES = [
    *("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"),
    *("ten", "eleven", "twelve", "thirteen", "fourteen", "fifteen", "sixteen", "seventeen"),
    *("eighteen", "nineteen"),
]
_TENS = ["twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"]
CARDINALS = MappingProxyType(
    {word: n for n, word in enumerate(_ONES)} | {w: 20 + 10 * i for i, w in enumerate(_TENS)}
)
_LARGE = MappingProxyType({"thousand": 10**3, "million": 10**6, "billion": 10**9})
_PARTS = MappingProxyType(
    {
        part: size
        for size, parts in {
            2: "half halves", 3: "third thirds", 4: "quarter quarters fourth fourths",
            5: "fifth fifths", 6: "sixth sixths", 7: "seventh sevenths", 8: "eighth eighths",
            9: "ninth ninths", 10: "tenth tenths", 11: "eleventh elevenths",
            12: "twelfth twelfths", 20: "twentieth twentieths", 100: "hundredth hundredths",
            1000: "thousandth thousandths",
        }.items()
        for part in parts.split()
    }
)  # fmt: skip
_SIGNS = frozenset({"negative", "minus"})
_NAMES = frozenset({*CARDINALS, *_LARGE, *_PARTS, "hundred", "point", "dozen", "dozens"})

_BEGINS = re.compile(r"[\s$]*(?:[A-Za-z]|\\(?:text|mathrm)\b)")

MAX_WORDS = 16
"""Maximum number of words in an answer that is searched for numbers."""
_ONE_GROUP = re.compile(r"^\\(?:text|mathrm)\s*\{([^{}]*)\}$")
_WORD = re.compile(r"[A-Za-z]+|[^\sA-Za-z-]")


def digits(text: str) -> str:
    r"""Write a number in words at the start of a short text in digits; other texts are unchanged.

    >>> [digits(t) for t in ("twenty-five", "two and a half hours", "three quarters", "one of us")]
    ['25', '5/2 hours', '3/4', 'one of us']
    """
    if not _BEGINS.match(text):
        return text
    bare = _ONE_GROUP.sub(r"\1", text.strip(" $"))
    words = _WORD.findall(bare.strip(" ."))
    if not 0 < len(words) <= MAX_WORDS or any(len(w) == 1 and not w.isalpha() for w in words):
        return text
    lower = [w.lower() for w in words]
    sign = "-" if lower[0] in _SIGNS else ""
    value, used = _number(lower[len(sign) :])
    rest = words[len(sign) + used :]
    if value is None or not _may_follow(rest):
        return text
    return " ".join([sign + str(value), *rest])


def _may_follow(rest: list[str]) -> bool:
    """Return whether the words after a number contain neither another number nor an alternative."""
    lower = [w.lower() for w in rest]
    return len(rest) <= 4 and not ({*_NAMES, "of", "or", "and", "to", "a", "an"} & set(lower[:2]))


def _number(words: list[str]) -> tuple[Fraction | None, int]:
    """Return the number at the start of a list of words, and how many words it has."""
    whole, used = _whole(words)
    if whole is None:
        part, taken = _part(words)
        return part, taken
    rest = words[used:]
    if rest[:1] == ["point"]:
        return _decimal(whole, rest[1:], used + 1)
    if rest and (size := _PARTS.get(rest[0])) and 0 < whole < size:
        return Fraction(whole, size), used + 1
    if rest[:1] == ["and"]:
        part, taken = _part(rest[1:])
        if part is not None:
            return whole + part, used + 1 + taken
    return Fraction(whole), used


def _part(words: list[str]) -> tuple[Fraction | None, int]:
    """Return a proper fraction: ``a half``, ``three quarters``."""
    top = 1 if words[:1] and words[0] in {"a", "an", "one"} else CARDINALS.get("".join(words[:1]))
    size = _PARTS.get("".join(words[1:2]))
    return (Fraction(top, size), 2) if top and size and top < size else (None, 0)


def _decimal(whole: int, words: list[str], used: int) -> tuple[Fraction | None, int]:
    places = ""
    for word in words:
        if CARDINALS.get(word, 10) > 9:
            break
        places += str(CARDINALS[word])
    return (Fraction(f"{whole}.{places}"), used + len(places)) if places else (None, 0)


def _whole(words: list[str]) -> tuple[int | None, int]:
    """Return a cardinal: tens and ones, hundreds, and descending groups of thousands."""
    total, group, used, limit = 0, None, 0, 10**12
    last = 10**12  # the next word must be smaller than this
    while used < len(words):
        word = words[used]
        if word in CARDINALS and CARDINALS[word] < last:
            if group and (last == 10 and not CARDINALS[word]):
                break
            group = (group or 0) + CARDINALS[word]
            last = 10 if CARDINALS[word] >= 20 else 0
        elif word == "hundred" and group and group < 100:
            group, last = group * 100, 100
        elif word in _LARGE and group and _LARGE[word] < limit:
            limit = _LARGE[word]
            total, group, last = total + group * limit, 0, 1000
        elif word == "a" and not used and words[1:2] and words[1] in {"hundred", *_LARGE}:
            group, last = 1, 0
        elif word == "and" and last in {100, 1000} and words[used + 1 : used + 2]:
            if words[used + 1] not in CARDINALS or _PARTS.get("".join(words[used + 2 : used + 3])):
                break
        else:
            break
        used += 1
    return (None, 0) if group is None else (total + group, used)
