"""Units, percent signs and currency around a number."""

from __future__ import annotations

import re
from functools import lru_cache

from alignkit_rewards.answers.text.beside import after_number
from alignkit_rewards.answers.text.vocabulary import FUNCTIONS, GREEK, word_set

_SAME = {
    "cm": "centimeter", "centimetre": "centimeter", "mm": "millimeter", "km": "kilometer",
    "meter": "meter", "metre": "meter", "kilometre": "kilometer", "millimetre": "millimeter",
    "in": "inch", "inches": "inch", "inche": "inch", "ft": "foot", "feet": "foot", "yd": "yard",
    "mi": "mile", "kg": "kilogram", "mg": "milligram", "lb": "pound", "lbs": "pound",
    "oz": "ounce", "ml": "milliliter", "liter": "liter", "litre": "liter", "sec": "second",
    "min": "minute", "hr": "hour", "hrs": "hour", "deg": "degree", "rad": "radian", "usd": "dollar",
    "buck": "dollar", "cent": "cent", "euro": "euro", "eur": "euro", "kph": "kilometer/hour",
    "km/h": "kilometer/hour", "mph": "mile/hour", "km/hr": "kilometer/hour", "m/s": "meter/second",
    "kmh": "kilometer/hour", "ounces": "ounce", "hz": "hertz", "gram": "gram", "sq": "square",
}  # fmt: skip
_KNOWN = word_set(
    "centimeter millimeter kilometer meter inch foot yard mile kilogram milligram gram pound ounce "
    "milliliter liter gallon quart pint cup second minute hour day week month year degree radian "
    "dollar cent euro hertz acre ton tonne watt joule newton volt ampere byte"
)
DIRECTIONS = word_set("east west north south am pm left right up down bc ad")
"""Words after a number that are part of the answer, not a unit."""

_SCALE = re.compile(
    r"(?:degrees? )?(?:(c)(?:elsius?|entigrade)?|(f)(?:ahrenheit)?|(k)(?:elvin)?)", re.I
)
_FILLING = word_set(
    "a an the of unit in from at to for on by with per each every total all altogether away left"
    " long wide tall high deep old more extra remaining about only worth now her his their its"
)
"""Words beside a unit that name no other thing."""
_PER = re.compile(r"\s+(?:per|an?|each|every)\s+(?=(?:second|minute|hour|day|week|month|year)\b)")

MAX_LENGTH = 400
"""Longer expressions are not searched for units."""

_WORD = r"[A-Za-z]{2,}(?![A-Za-z])\.?"
_TEXT = r"\\(?:text|mathrm)\s*\{[^{}]*\}"
_POWER = r"(?: ?\^ ?(?:\{ ?-?\d ?\}|\d))?"
_JOIN = r"(?: ?(?:/|\\cdot|\*|-|,))? ?"
_UNIT = re.compile(rf"(?:(?:{_TEXT}|{_WORD}|[a-zA-Z](?=\s|$)){_POWER}{_JOIN})+")
_PERCENT = re.compile(
    r"\s*(?:\\?%|\\text\s*\{\s*(?:\\?%|percent|per cent|pct)\s*\}|per ?cent(?:age)?|pct\.?)"
    r"(?:\s+points?)?$",
    re.I,
)
_CURRENCY = re.compile(
    r"^(?P<sign>[+-]?)\s*(?:US)?(?P<mark>\\?\$|€|£|¥|\\text\s*\{\s*\\?\$\s*\})\s*"
)
_MARKS = {"€": "euro", "£": "pound sterling", "¥": "yen"}
_TEMPERATURE = re.compile(r"\^\\circ\s*(?:\\(?:text|mathrm)\s*\{\s*([CFK])\s*\}|([CFK]))$")
_METRES = re.compile(r"(?<=\d)\s*(?:m|cm|km|mm|ft|in)\s*\^\{?[23]\}?$")


def split_percent(text: str) -> tuple[str, bool]:
    r"""Cut a trailing percent sign or word.

    >>> split_percent(r"28\%"), split_percent("5 percent"), split_percent("7")
    (('28', True), ('5', True), ('7', False))
    """
    core = _PERCENT.sub("", text)
    return (core, True) if core != text and core.strip() else (text, False)


def split_currency(text: str) -> tuple[str, str]:
    r"""Cut a leading currency mark: its name where it is certain, which a bare ``$`` is not.

    >>> split_currency(r"\$36"), split_currency("-€5")
    (('36', 'dollar'), ('-5', 'euro'))
    """
    found = _CURRENCY.match(text)
    if not found:
        trailing = text.rstrip()
        if trailing[-1:] in _MARKS:
            return trailing[:-1], _MARKS[trailing[-1]]
        return (trailing[:-2], "dollar") if trailing.endswith("\\$") else (text, "")
    mark = _MARKS.get(found["mark"], "dollar")
    return found["sign"] + text[found.end() :], mark


def split_unit(text: str) -> tuple[str, str]:
    r"""Cut trailing unit words off a quantity; the second item is ``""`` if there are none.

    Single letters count as units only inside ``\text{}``; attached letters only if they are
    a known unit.

    >>> split_unit("64 square feet"), split_unit(r"5.4 \text{ cents}"), split_unit("2ab")
    (('64', 'foot^2'), ('5.4', 'cent'), ('2ab', ''))
    """
    text = text.strip()
    if len(text) > MAX_LENGTH:
        return text, ""
    if temperature := _TEMPERATURE.search(text):
        return text[: temperature.start()], "degree " + (temperature[1] or temperature[2])
    if area := _METRES.search(text):
        return text[: area.start()], canonical_unit(area[0].strip())
    for found in _tails(text):
        core, unit = text[: found.start()].rstrip(), found[0]
        attached = not text[found.start() - 1].isspace() and not unit.startswith("\\")
        if _is_unit(unit, attached=attached) and re.search(r"[\d})\]]|\\[a-z]+$", core):
            return core.rstrip("-, "), canonical_unit(unit)
    return text, ""


_START = re.compile(rf"{_TEXT}|(?<![\\A-Za-z]){_WORD}")


def _tails(text: str) -> list[re.Match[str]]:
    """Return the matches of unit words that reach the end of the text, longest first."""
    found = []
    for start in list(_START.finditer(text))[:40]:
        if start.start() and (match := _UNIT.fullmatch(text, start.start())):
            found.append(match)
    return found


def _is_unit(unit: str, *, attached: bool) -> bool:
    words = re.findall(r"[A-Za-z]+", unit.replace("\\text", "").replace("\\mathrm", ""))
    if any(w in FUNCTIONS or w in GREEK or w == "pi" for w in words) or len(words) > 8:
        return False
    if after_number(re.sub(r"^[^A-Za-z]+", "", re.sub(r"\\(?:text|mathrm)", " ", unit))):
        return False
    first = _singular(words[0]) if words else ""
    known = first in _KNOWN | DIRECTIONS | {"square", "cubic"}
    if unit.startswith("\\"):
        return bool(words)
    return known if attached or (len(words[0]) < 3 and words[0] != "of") else True


def canonical_unit(unit: str) -> str:
    r"""Return one name for the spellings of a unit.

    >>> [canonical_unit(u) for u in ("square feet", r"\text{ ft}^2", "ft squared", "Dollars")]
    ['foot^2', 'foot^2', 'foot^2', 'dollar']
    """
    flat = re.sub(r"\\(?:text|mathrm)\s*\{([^{}]*)\}", r" \1 ", unit)
    flat = re.sub(r"\s*\^\s*\{?\s*(-?\d)\s*\}?", r"^\1 ", flat.lower())
    flat = re.sub(r"\s+per\s+|\s*/\s*", "/", _PER.sub("/", flat))
    words = [_singular(w.strip(".,")) for w in re.split(r"[\s*-]+|\\cdot", flat) if w.strip(".,")]
    name = " ".join(w for w in words if w not in {"a", "an", "the", "of", "unit"})
    name = re.sub(r"\b(?:square|sq) (\w+)", r"\1^2", name)
    name = re.sub(r"\bcubic (\w+)", r"\1^3", name)
    return re.sub(r"(\w+) squared", r"\1^2", re.sub(r"(\w+) cubed", r"\1^3", name))


def _singular(word: str) -> str:
    word = word.lower()
    if "/" in word:
        return "/".join(_singular(w) for w in word.split("/")) if word not in _SAME else _SAME[word]
    base, _, power = word.partition("^")
    base = _SAME.get(base, base)
    if base.endswith("s") and len(base) > 3:
        base = _SAME.get(base[:-1], base[:-1])
    return f"{base}^{power}" if power else base


@lru_cache(maxsize=4096)
def units_agree(gold: str, answer: str) -> bool:
    """Return whether two units can stand for the same quantity; a missing one always can.

    A direction that the gold gives must be there.

    >>> units_agree("foot^2", ""), units_agree("cent", "dollar"), units_agree("east", "")
    (True, False, False)
    """
    if gold == answer:
        return True
    said = [DIRECTIONS & set(unit.split()) for unit in (gold, answer)]
    if said[0] and said[0] != said[1]:
        return False
    if not gold or not answer:
        return True
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
    """Return whether one says no more than the other of the things that are counted."""
    left, right = (set(unit.split()) - _FILLING - DIRECTIONS for unit in (gold, answer))
    return bool(left & right) and (left <= right or right <= left)


def _is_measure(unit: str) -> bool:
    return all(part.split("^")[0] in _KNOWN for part in re.split(r"[/ ]", unit))


def known_unit(word: str) -> bool:
    """Return whether a word in prose belongs to the number before it."""
    word = word.strip(".,;:!?")
    named = _singular(word) in _KNOWN | DIRECTIONS | {"percent", "square", "cubic"}
    return named or (len(word) > 1 and bool(temperature(word)))
