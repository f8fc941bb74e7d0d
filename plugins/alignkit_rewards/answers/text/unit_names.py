"""What units are called, however they are written, and when two of them go together."""

from __future__ import annotations

import re
from fractions import Fraction
from functools import lru_cache

from alignkit_rewards.answers.text import units_table as table
from alignkit_rewards.answers.text.vocabulary import word_set

DIRECTIONS = word_set("east west north south am pm left right up down bc ad")
"""Words after a number that are part of the answer, not a unit."""

_SCALE = re.compile(
    r"(?:degrees? )?(?:(c)(?:elsius?|entigrade)?|(f)(?:ahrenheit)?|(k)(?:elvin)?)", re.I
)

_FILLING = word_set(
    "a an the of unit in from at to for on by with per each every total all altogether away left"
    " long wide tall high deep old more extra remaining about only worth now her his their its"
)
"""Words beside a unit that do not name another quantity."""

_PER = re.compile(
    r"(?<!\s)\s++(?:per|an?|each|every)\s++(?=(?:second|minute|hour|day|week|month|year)\b)"
)

_SYNONYMS = (frozenset({"pound", "sterling"}), frozenset({"yen", "yuan"}))

_MICRO = re.compile(r"\\mu ?(?=[msgF])")

_GROUP = re.compile(r"\\(?:text|mathrm|mathbf|mathit)\s*\{([^{}]*)\}")

_AMERICAN = re.compile(r"(?i)^(?:US|U\.S\.) ")

_POWERED = re.compile(r"(?<!\s)\s*+\^\s*+(?:\{\s*+)?(-?\d)\s*+\}?")

_DIVIDED = re.compile(r"(?<!\s)(?:\s++per\s++|\s*+/\s*+)")

_APART = re.compile(r"[\s*-]+|\\cdot")

_SQUARE = re.compile(r"\b(?:square|sq) (\w+)")

_CUBIC = re.compile(r"\bcubic (\w+)")

_SQUARED = re.compile(r"(?<!\w)(\w++) squared")

_CUBED = re.compile(r"(?<!\w)(\w++) cubed")


def is_known(word: str) -> bool:
    """Return whether a word is a unit or begins one, or is a direction."""
    return bool(_singular(word) in DIRECTIONS | {"square", "sq", "cubic"} or table.product(word))


def words_of(unit: str) -> str:
    r"""Remove the ``\text{}`` around the words of a unit."""
    unit = _MICRO.sub("μ", unit).replace("\\Omega", "Ω")
    return _GROUP.sub(r" \1 ", unit)


def canonical_unit(unit: str) -> str:
    r"""Return the same name for all spellings of a unit.

    >>> [canonical_unit(u) for u in ("square feet", r"\text{ ft}^2", "ft squared", "Dollars")]
    ['foot^2', 'foot^2', 'foot^2', 'dollar']
    """
    flat = words_of(unit)
    if powers := table.product(flat):
        return table.written(powers)
    if marked := table.named(_AMERICAN.sub("", flat.strip())):
        return marked
    flat = _POWERED.sub(r"^\1 ", flat.lower())
    flat = _DIVIDED.sub("/", _PER.sub("/", flat))
    words = [_singular(w.strip(".,")) for w in _APART.split(flat) if w.strip(".,")]
    name = " ".join(w for w in words if w not in {"a", "an", "the", "of", "unit"})
    name = _SQUARE.sub(r"\1^2", name)
    name = _CUBIC.sub(r"\1^3", name)
    return _SQUARED.sub(r"\1^2", _CUBED.sub(r"\1^3", name))


def _singular(word: str) -> str:
    word = word.lower()
    if "/" in word:
        return "/".join(_singular(w) for w in word.split("/"))
    base, _, power = word.partition("^")
    name = table.named(base) if len(base) > 1 else ""
    if not name:
        name = base[:-1] if base.endswith("s") and len(base) > 3 else base
    return f"{name}^{power}" if power else name


@lru_cache(maxsize=4096)
def units_agree(gold: str, answer: str) -> bool:
    """Return whether two units can belong to equal quantities; a missing unit fits any other.

    If the gold has a direction, the answer must have it; if one quantity is in several units, the
    other must have a unit.

    >>> units_agree("foot^2", ""), units_agree("cent", "dollar"), units_agree("east", "")
    (True, False, False)
    """
    if gold == answer or {gold, answer} in _SYNONYMS:
        return True
    said = [DIRECTIONS & set(unit.split()) for unit in (gold, answer)]
    if said[0] and said[0] != said[1]:
        return False
    if not gold or not answer:
        return "+" not in gold + answer
    if any(scales := [temperature(unit) for unit in (gold, answer)]):
        return scales[0] == scales[1] or "degree" in {gold, answer}
    if _is_measure(gold) and _is_measure(answer):
        return False
    return _same_things(gold, answer)


def temperature(unit: str) -> str:
    """Return ``c``, ``f`` or ``k`` for the name of a scale of temperature, else ``""``.

    >>> temperature("degree C"), temperature("fahrenheit"), temperature("degree")
    ('c', 'f', '')
    """
    found = _SCALE.fullmatch(unit)
    return str(found[found.lastindex or 0]).lower() if found else ""


def _same_things(gold: str, answer: str) -> bool:
    """Return whether one of the two descriptions of what is counted contains the other."""
    left, right = (set(unit.split()) - _FILLING - DIRECTIONS for unit in (gold, answer))
    return bool(left & right) and (left <= right or right <= left)


def _is_measure(unit: str) -> bool:
    return unit.startswith("degree ") or table.measure(unit) is not None


def scale(gold: str, answer: str, *, convert: bool) -> Fraction | None:
    """Return the factor from the answer's units to the gold's, None if there is none.

    A quantity in several units, ``"hour+minute"``, can be converted to any unit of its dimension;
    others only if ``convert`` allows it.

    >>> scale("hour", "minute", convert=True), scale("hour", "minute", convert=False)
    (Fraction(1, 60), None)
    """
    if units_agree(gold, answer):
        return Fraction(1)
    if not (convert or "+" in gold + answer):
        return None
    left, right = (table.measure(unit.rpartition("+")[2]) for unit in (gold, answer))
    if left is None or right is None or left.dimension != right.dimension:
        return None
    return right.factor / left.factor


def known_unit(word: str) -> bool:
    """Return whether a word in prose belongs to the number before it."""
    word = word.strip(".,;:!?")
    if is_known(word) or _singular(word) == "percent":
        return True
    return len(word) > 1 and bool(temperature(word))
