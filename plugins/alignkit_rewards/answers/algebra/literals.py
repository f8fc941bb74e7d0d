"""Compare plain numbers with exact arithmetic, in the calling process.

This is always fast: input is limited to 40 characters, and no operation makes results much longer.
"""

from __future__ import annotations

import re
from fractions import Fraction
from functools import lru_cache

MAX_LENGTH = 40
"""Longer literals are left to the worker processes."""

_GROUPED = r"\d{1,3}(?:,\d{3})+"
_NUMBER = re.compile(
    rf"(?P<sign>[+-]?)(?:"
    rf"(?P<whole>{_GROUPED}|\d+)(?P<decimals>\.\d*)?|(?P<bare>\.\d+)"
    rf"|\\[dt]?frac\{{(?P<fn>-?\d+)\}}\{{(?P<fd>\d+)\}}|(?P<n>\d+)/(?P<d>\d+)"
    rf")",
    re.ASCII,
)


@lru_cache(maxsize=65536)
def exact(text: str) -> tuple[Fraction, int] | None:
    r"""Return a literal's value, and the number of significant digits of a decimal, else 0.

    None for anything that is not a plain integer, decimal or fraction.

    >>> exact("1,234.50"), exact(r"\frac{-1}{2}"), exact("1/0"), exact("7 cups")
    ((Fraction(2469, 2), 6), (Fraction(-1, 2), 0), None, None)
    """
    if len(text) > MAX_LENGTH or not (found := _NUMBER.fullmatch(text.strip())):
        return None
    sign = -1 if found["sign"] == "-" else 1
    top, bottom = found["fn"] or found["n"], found["fd"] or found["d"]
    if top is not None:
        return (sign * Fraction(int(top), int(bottom)), 0) if int(bottom) else None
    digits = found["bare"] or found["whole"].replace(",", "") + (found["decimals"] or "")
    significant = len(digits.replace(".", "").lstrip("0")) if "." in digits else 0
    return sign * Fraction(digits.rstrip(".") or "0"), significant


def same_number(gold: tuple[Fraction, int], answer: tuple[Fraction, int], *, rounding: int) -> bool:
    """Compare two results of :func:`exact`.

    A decimal with at least ``rounding`` significant digits (0: never) also equals any value that
    rounds to it.

    >>> third = exact("1/3")
    >>> [same_number(third, exact(t), rounding=6) for t in ("2/6", "0.333333", "0.33")]
    [True, True, False]
    """
    return (
        gold[0] == answer[0]
        or rounds(gold, answer[0], rounding)
        or rounds(answer, gold[0], rounding)
    )


def rounds(decimal: tuple[Fraction, int], value: Fraction, rounding: int) -> bool:
    """Return whether a value rounds to a decimal that has enough significant digits."""
    written, significant = decimal
    if not 0 < rounding <= significant or written == 0:
        return False
    # one unit of the last of `significant` digits, from the power of ten of the leading one
    leading = _leading_exponent(abs(written))
    return abs(written - value) * 2 <= Fraction(10) ** (leading - significant + 1)


def _leading_exponent(value: Fraction) -> int:
    """Return e with 10**e <= value < 10**(e+1)."""
    guess = len(str(value.numerator)) - len(str(value.denominator))
    return guess if value >= Fraction(10) ** guess else guess - 1
