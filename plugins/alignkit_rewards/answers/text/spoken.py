r"""Arithmetic in words around digits: negative 5, 5 dozen, 3 fifths, 5 and a half, 5 times 6.

Each is rewritten as a number or expression before the prose around it is removed.
"""

from __future__ import annotations

import re
from fractions import Fraction

from alignkit_rewards.answers.text.beside import SPELLED
from alignkit_rewards.answers.text.numerals import digits
from alignkit_rewards.answers.text.vocabulary import word_set

_MULTIPLES = {
    "pair": 2, "pairs": 2, "couple": 2, "couples": 2, "dozen": 12, "dozens": 12, "score": 20,
    "gross": 144, "hundred": 100, "thousand": 10**3, "grand": 10**3, "lakh": 10**5,
    "million": 10**6, "crore": 10**7, "billion": 10**9, "trillion": 10**12,
}  # fmt: skip
_PARTS = {
    "halves": 2, "thirds": 3, "fourths": 4, "fifths": 5, "sixths": 6, "sevenths": 7, "eighths": 8,
    "ninths": 9, "tenths": 10, "elevenths": 11, "twelfths": 12, "twentieths": 20,
    "hundredths": 100, "thousandths": 1000,
}  # fmt: skip
_RESTS = {
    "half": "1/2", "one half": "1/2", "one-half": "1/2", "a half": "1/2", "a quarter": "1/4",
    "one quarter": "1/4", "one-quarter": "1/4", "a third": "1/3", "one third": "1/3",
    "one-third": "1/3", "three quarters": "3/4", "three-quarters": "3/4", "two thirds": "2/3",
    "two-thirds": "2/3", "three fourths": "3/4", "three-fourths": "3/4",
}  # fmt: skip
_OPERATORS = {
    "plus": "+", "minus": "-", "times": "*", "multiplied by": "*", "divided by": "/",
    "to the power of": "^", "to the power": "^",
}  # fmt: skip
_POWERS = {"squared": 2, "cubed": 3}


def _any(words: dict[str, int] | dict[str, str]) -> str:
    return "|".join(sorted(words, key=len, reverse=True)).replace(" ", r"\s+")


_NUMBER = r"(?<![\w.,/^_{}\\*+)-])(\d[\d,]*(?:\.\d+)?(?:/\d+)?)"
_DIGITS = r"-?\d[\d,]*(?:\.\d+)?"
_OPEN, _CLOSE = r"(?:\s|-(?=[a-z])|\\[ ,;]|~)*(?:\\(?:text|mathrm)\s*\{\s*)?", r"(?:\s*\})?"
_IN_TEXT = re.compile(r"\\(?:text|mathrm)\s*\{\s*(negative|minus)\s*\}", re.I)
_BELOW = re.compile(rf"{_NUMBER}([^\d.,;]{{0,20}}?)\s+below\s+(?:zero|0)\b", re.I)
_SIGNED = re.compile(
    rf"\b(?:negative|minus)\s+(\\?\$?(?=[\d.\\])|(?:{SPELLED})\b(?!\s*-?\s*[a-z]))", re.I
)
_SCALED = re.compile(rf"{_NUMBER}{_OPEN}({_any(_MULTIPLES)})\b{_CLOSE}(?!')", re.I)
_PARTED = re.compile(rf"{_NUMBER}{_OPEN}({_any(_PARTS)})\b{_CLOSE}", re.I)
_MIXED = re.compile(rf"{_NUMBER}\s+(?:and|&)\s+({_any(_RESTS)})\b(?!\s+of)", re.I)
_RAISED = re.compile(rf"{_NUMBER}{_OPEN}({_any(_POWERS)})\b{_CLOSE}", re.I)
_JOINED = re.compile(rf"(?<=\d)\s+({_any(_OPERATORS)})\s+(?={_DIGITS}|\\)", re.I)
_OUT_OF = re.compile(rf"{_NUMBER}\s+out\s+of\s+(?:every\s+)?(\d+)\b(?![.,]\d)", re.I)
_CHANCE = re.compile(
    rf"{_NUMBER}\s+in\s+(\d+)(?=\s*(?:[.!]?\s*$|chance|chances|odds|probability))", re.I
)
_HALF_DAY = re.compile(
    r"(?<=\d)\s*(?:o'?\s?clock)?\s*(?:\b([ap])\.\s?m\b\.?"
    r"|(?:in the|at) (morning|afternoon|evening|night))|(?<=\d)\s*o'?\s?clock\b",
    re.I,
)
_WORD = re.compile("[a-z]+")
_SAID = word_set(
    "negative minus below out in by power clock oclock m morning afternoon evening night"
) | frozenset(
    word
    for phrases in (_MULTIPLES, _PARTS, _RESTS, _OPERATORS, _POWERS)
    for phrase in phrases
    for word in _WORD.findall(phrase)
)
"""Words of which each phrase that is rewritten contains one."""


def arithmetic(text: str) -> str:
    r"""Rewrite words that multiply, divide, negate or join numbers in digits.

    >>> arithmetic("negative 5"), arithmetic("so 5 dozen eggs"), arithmetic("3 fifths")
    ('-5', 'so 60 eggs', '3/5')
    >>> arithmetic("1 and a half"), arithmetic("4 squared"), arithmetic("2 times 3")
    ('3/2', '4^2', '2 * 3')
    """
    if _SAID.isdisjoint(_WORD.findall(text.lower())):
        return text
    text = _SIGNED.sub(_negated, _IN_TEXT.sub(lambda m: f" {m[1]} ", text))
    text = _BELOW.sub(lambda m: f"-{m[1]}{m[2]}", text)
    text = _MIXED.sub(_mixed, text)
    text = _SCALED.sub(lambda m: _spelled(_value(m[1]) * _MULTIPLES[m[2].lower()]), text)
    text = _PARTED.sub(lambda m: _spelled(_value(m[1]) / _PARTS[m[2].lower()]), text)
    text = _RAISED.sub(lambda m: f"{m[1]}^{_POWERS[m[2].lower()]}", text)
    text = _HALF_DAY.sub(_half_day, text)
    text = _OUT_OF.sub(lambda m: f"{m[1]}/{m[2]}", text)
    text = _CHANCE.sub(lambda m: f"{m[1]}/{m[2]}", text)
    return _JOINED.sub(lambda m: f" {_OPERATORS[' '.join(m[1].lower().split())]} ", text)


def _negated(found: re.Match[str]) -> str:
    mark = found[1]
    return "-" + (digits(mark) if mark[:1].isalpha() else mark)


def _half_day(found: re.Match[str]) -> str:
    said = (found[1] or found[2] or "").lower()
    return {"": "", "a": " am", "morning": " am"}.get(said, " pm")


def _mixed(found: re.Match[str]) -> str:
    rest = Fraction(_RESTS[" ".join(found[2].lower().split())])
    return _spelled(_value(found[1]) + rest)


def _value(digits: str) -> Fraction:
    top, _, bottom = digits.replace(",", "").partition("/")
    return Fraction(top) / int(bottom or 1) if int(bottom or 1) else Fraction(0)


def _spelled(value: Fraction) -> str:
    return str(value)
