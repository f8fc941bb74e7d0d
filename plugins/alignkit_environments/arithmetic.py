"""The value of an expression that a model wrote: exact, and bounded in time and memory.

Grammar, over spaces::

    sum     = product {("+" | "-") product}
    product = factor {("*" | "/") factor}
    factor  = ("+" | "-") factor | "(" sum ")" | number

There are no powers and no names, so that a value is never much longer than its expression.
"""

from __future__ import annotations

import re
from fractions import Fraction

LONGEST = 200
"""Characters of an expression, which also bounds how deep it is nested."""
_TOKEN = re.compile(r"\s*(?:([0-9]+(?:\.[0-9]+)?|\.[0-9]+)|([-+*/()]))")
_SPELT = str.maketrans({"×": "*", "·": "*", "÷": "/", "−": "-", ",": None})


class UnreadableError(ValueError):
    """An expression has no value; the message says why."""


def value(expression: str) -> Fraction:
    """Return the value of an expression.

    >>> value("(12 - 2) * 3 / 4")
    Fraction(15, 2)

    Raises:
        UnreadableError: it is too long, not in the grammar, or divides by zero.
    """
    if len(expression) > LONGEST:
        raise UnreadableError(f"longer than {LONGEST} characters")
    reader = _Reader(_tokens(expression.translate(_SPELT)))
    found = reader.sum()
    if reader.next:
        raise UnreadableError(f"cannot read {reader.next!r} here")
    return found


def written(number: Fraction) -> str:
    """Return a number in digits: exact if it is whole, else to 10 significant digits.

    >>> written(Fraction(408)), written(Fraction(15, 2)), written(Fraction(1, 3))
    ('408', '7.5', '0.3333333333')
    """
    return str(number.numerator) if number.denominator == 1 else f"{float(number):.10g}"


def _tokens(text: str) -> list[str]:
    found, at = [], 0
    text = text.rstrip()
    while at < len(text):
        token = _TOKEN.match(text, at)
        if token is None:
            raise UnreadableError(f"cannot read {text[at:].strip()[:20]!r}")
        found.append(token[1] or token[2])
        at = token.end()
    return found


class _Reader:
    """Reads tokens from the left."""

    def __init__(self, tokens: list[str]) -> None:
        self._rest = tokens[::-1]

    @property
    def next(self) -> str:
        """The token ahead, "" at the end."""
        return self._rest[-1] if self._rest else ""

    def take(self) -> str:
        """Return the token ahead and go on."""
        return self._rest.pop() if self._rest else ""

    def sum(self) -> Fraction:
        total = self.product()
        while self.next in ("+", "-"):
            total += self.product() if self.take() == "+" else -self.product()
        return total

    def product(self) -> Fraction:
        total = self.factor()
        while self.next in ("*", "/"):
            if self.take() == "*":
                total *= self.factor()
                continue
            by = self.factor()
            if by == 0:
                raise UnreadableError("division by zero")
            total /= by
        return total

    def factor(self) -> Fraction:
        token = self.take()
        if token in ("+", "-"):
            return self.factor() if token == "+" else -self.factor()
        if token == "(":
            inner = self.sum()
            if self.take() != ")":
                raise UnreadableError("a parenthesis is not closed")
            return inner
        if not token or token in ")*/":
            raise UnreadableError(f"a number is missing before {token!r}" if token else "no number")
        return Fraction(token)
