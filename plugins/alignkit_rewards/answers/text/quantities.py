"""Quantities: a number with a known unit, or several, as in 1 hour 30 minutes."""

from __future__ import annotations

import re
from fractions import Fraction

from alignkit_rewards.answers.text import units_table as table
from alignkit_rewards.answers.text.unit_names import words_of
from alignkit_rewards.answers.text.units import TEXT

_TERM = rf"(?<!\d)(\d++(?:\.\d++)?)\s*+({TEXT}|[A-Za-z]++\.?)"
_NEXT = r"(?:\s*+,)?\s*+(?:and\s++|\\text\{ ?and ?\} ?)?"
_TERMS = re.compile(rf"\s*{_TERM}(?:{_NEXT}{_TERM}){{1,3}}\s*")
_ONE_TERM = re.compile(_TERM)
_PLAIN = re.compile(r"[-+]?(?:[\d.,]*\d)\s*")


def several_units(text: str) -> tuple[Fraction, str] | None:
    """Return ``1 hour 30 minutes`` as a number of its last unit, and the names of its units.

    >>> several_units("1 hour and 30 minutes"), several_units("1 hour 90 minutes")
    ((Fraction(90, 1), 'hour+minute'), None)
    """
    if not text[:1].isdigit() or len(text) > 100 or not _TERMS.fullmatch(text):
        return None
    terms = [(Fraction(n), words_of(u).strip()) for n, u in _ONE_TERM.findall(text)]
    names = [table.named(u) for _, u in terms]
    if names[0] == "hour" and terms[1][1] == "m":
        names[1] = "minute"
    units = [table.UNITS.get(name) for name in names]
    total = Fraction(0)
    for (number, _), unit, larger in zip(terms, units, [None, *units], strict=False):
        if unit is None:
            return None
        if larger and not (
            unit.dimension == larger.dimension and number * unit.factor < larger.factor
        ):
            return None
        total += number * unit.factor
    last = units[-1]
    return (total / last.factor, "+".join(names)) if last else None


def is_quantity(text: str) -> bool:
    """Return whether a whole text is a number with a known unit, or several of them."""
    found = _PLAIN.match(text)
    unit = words_of(text[found.end() :]) if found else ""
    return bool(unit) and (table.product(unit) is not None or several_units(text) is not None)
