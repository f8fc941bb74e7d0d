"""Units, percent signs and currency around a number."""

from __future__ import annotations

import re
from fractions import Fraction
from functools import lru_cache

from alignkit_rewards.answers.text import units_table as table
from alignkit_rewards.answers.text.beside import after_number
from alignkit_rewards.answers.text.vocabulary import FUNCTIONS, GREEK, word_set

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

MAX_LENGTH = 400
"""Longer expressions are not searched for units."""

_WORD = r"[A-Za-z]{2,}(?![A-Za-z])\.?"
TEXT = r"\\(?:text|mathrm|mathbf|mathit)\s*\{[^{}]*\}"
_POWER = r"(?: ?\^ ?(?:\{ ?-?\d ?\}|\d))?"
_JOIN = r"(?: ?(?:/|\\cdot|\\times|\*|-|,))? ?"
_SIGNED = r"(?:\\mu ?[msgF](?![A-Za-z])|\\Omega(?![A-Za-z]))"
_LETTER = r"[mgshlLVWNJKAC](?![A-Za-z])"
_UNIT = re.compile(
    rf"(?:\(?(?:{TEXT}|{_SIGNED}|{_WORD}|{_LETTER}|[a-zA-Z](?=\s|$)){_POWER}\)?{_JOIN})+"
)
_PERCENT = re.compile(
    r"(?<!\s)\s*+(?:\\?%|\\text\s*+\{\s*+(?:\\?%|percent|per cent|pct)\s*+\}|per ?cent(?:age)?"
    r"|pct\.?)(?:\s++points?)?$",
    re.I,
)
_CODES = "USD|EUR|GBP|JPY|INR|CNY|RMB|KRW|Rs\\.?"
_CURRENCY = re.compile(
    r"^(?P<sign>[+-]?)\s*(?P<mark>(?:US)?(?:\\?\$|\\text\s*\{\s*\\?\$\s*\})|[€£¥₹₩₽]|"
    rf"(?:{_CODES})(?=[\s\d]))\s*(?P<after>-?)"
)
_AFTER = re.compile(r"(?:\\\$|[€£¥₹₩₽¢])\s*$")
_PRICE = re.compile(
    r"\s*+(?:[+-]?\s*+(?:US)?\$\s*+-?\d[\d.,]*+(?:\s*+[A-Za-z]++){0,2}|-?\d[\d.,]*+\s*+\$)\s*+"
)
_TEMPERATURE = re.compile(
    r"(?:\^\\circ\s*+|(?<!\s)\s*+\b(?:deg(?:ree)?s?)\s++)"
    r"(?:\\(?:text|mathrm)\s*+\{\s*+(?P<a>[CFK])\w*+\s*+\}|(?P<b>[CFK])(?:elsius|ahrenheit|elvin)?)$"
)
_METRES = re.compile(
    r"(?<=\d)\s*(?:(?:m|cm|km|mm|ft|in)\s*\^\{?[23]\}?|(?:\bm|[ck]m|mm|ft|in)[23])$"
)
_FRACTION = re.compile(
    rf"\\frac ?\{{ ?(?P<above>{TEXT}{_POWER}) ?\}} ?\{{ ?(?P<below>{TEXT}{_POWER}) ?\}}$"
)
_SYNONYMS = (frozenset({"pound", "sterling"}), frozenset({"yen", "yuan"}))
_BEFORE_POWER = re.compile(r"(?<=[a-z])(?=\d)")
_QUANTITY_END = re.compile(r"[\d})\]]|\\[a-z]+$")
_LETTER_SCALE = re.compile(r"\d ?[CFK]$")
_NUMBER_END = re.compile(r"[\d})\]]$")
_LETTERS = re.compile(r"[A-Za-z]+")
_IN_TEXT = re.compile(TEXT)
_NO_LETTERS = re.compile(r"^[^A-Za-z]+")
_TEXT_COMMAND = re.compile(r"\\(?:text|mathrm)")
_NUMBER = re.compile(r"[-+]?[\d.,]*\d|\\frac ?\{?(?:\d++(?:\} ?\{?| \{?|\{)\d++|\d\d++)\}?")
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


def split_percent(text: str) -> tuple[str, bool]:
    r"""Cut a trailing percent sign or word.

    >>> split_percent(r"28\%"), split_percent("5 percent"), split_percent("7")
    (('28', True), ('5', True), ('7', False))
    """
    core = _PERCENT.sub("", text)
    return (core, True) if core != text and core.strip() else (text, False)


def marked_price(text: str) -> str:
    r"""Escape the dollar sign of a lone price, which then delimits no formula.

    >>> marked_price("$36"), marked_price("$36$")
    ('\\$36', '$36$')
    """
    return text.replace("$", r"\$") if "$" in text and _PRICE.fullmatch(text) else text


def split_currency(text: str) -> tuple[str, str]:
    r"""Remove a currency mark before or after a number; return the currency too.

    >>> split_currency(r"\$36"), split_currency("-€5"), split_currency("USD 7")
    (('36', 'dollar'), ('-5', 'euro'), ('7', 'dollar'))
    """
    if found := _CURRENCY.match(text):
        mark = "dollar" if "$" in found["mark"] else table.named(found["mark"])
        return found["sign"] + found["after"] + text[found.end() :], mark
    if found := _AFTER.search(text):
        mark = "dollar" if "$" in found[0] else table.named(found[0].strip())
        return text[: found.start()].rstrip(), mark
    return text, ""


def split_unit(text: str) -> tuple[str, str]:
    r"""Remove trailing unit words from a quantity; the second item is ``""`` if there are none.

    Single letters count as units only inside ``\text{}``; attached letters only if they are
    a known unit.

    >>> split_unit("64 square feet"), split_unit(r"5.4 \text{ cents}"), split_unit("2ab")
    (('64', 'foot^2'), ('5.4', 'cent'), ('2ab', ''))
    """
    text = text.strip()
    if len(text) > MAX_LENGTH:
        return text, ""
    text = _FRACTION.sub(r"\g<above>/\g<below>", text)
    if temperature := _TEMPERATURE.search(text):
        return text[: temperature.start()], "degree " + (temperature["a"] or temperature["b"])
    if area := _METRES.search(text):
        unit = _BEFORE_POWER.sub("^", area[0].strip())
        return text[: area.start()], canonical_unit(unit)
    for found in _tails(text):
        core, unit = text[: found.start()].rstrip(), found[0]
        attached = not text[found.start() - 1].isspace() and not unit.startswith("\\")
        if _is_unit(unit, core, attached=attached) and _QUANTITY_END.search(core):
            return core.rstrip("-, "), canonical_unit(unit)
    return text, ""


def letter_unit(text: str, wanted: str) -> tuple[str, str]:
    """Remove a unit of single letters, which counts as one only if the other side has ``wanted``.

    >>> letter_unit("5 m", "meter"), letter_unit("5m", ""), letter_unit("20 C", "degree C")
    (('5', 'meter'), ('5m', ''), ('20', 'degree C'))
    """
    if wanted in {"degree C", "degree F", "degree K"} and _LETTER_SCALE.search(text):
        return text[:-1].rstrip(), f"degree {text[-1]}"
    if not wanted or len(text) > MAX_LENGTH:
        return text, ""
    for found in _tails(text):
        core, powers = text[: found.start()].rstrip(), table.product(words_of(found[0]))
        if powers and _NUMBER_END.search(core):
            return core, table.written(powers)
    return text, ""


_START = re.compile(rf"{TEXT}|(?:(?<=[\d\s}})])|^)(?:{_SIGNED}|{_LETTER})|(?<![\\A-Za-z]){_WORD}")


def _tails(text: str) -> list[re.Match[str]]:
    """Return the matches of unit words that reach the end of the text, longest first."""
    found = []
    for start in list(_START.finditer(text))[:40]:
        if start.start() and (match := _UNIT.fullmatch(text, start.start())):
            found.append(match)
    return found


def _is_unit(unit: str, core: str, *, attached: bool) -> bool:
    words = _LETTERS.findall(unit.replace("\\text", "").replace("\\mathrm", ""))
    in_text = _IN_TEXT.match(unit) is not None
    if not in_text and (unit.startswith("\\") or len(words[0]) == 1):
        if all(w in table.LETTERS for w in words):  # m/s after a number, but not m
            return "/" in unit and not attached and _is_measured(unit, core)
        return _is_measured(unit, core)
    if any(w in FUNCTIONS or w in GREEK or w == "pi" for w in words) or len(words) > 8:
        return False
    if after_number(_NO_LETTERS.sub("", _TEXT_COMMAND.sub(" ", unit))):
        return False
    return bool(words) if in_text else _are_unit_words(words, attached=attached)


def _are_unit_words(words: list[str], *, attached: bool) -> bool:
    if all(w in table.LETTERS for w in words):
        return False
    first = words[-1] if words[0] in {"US", "U"} else words[0]
    known = _is_known(first)
    return known if attached or (len(first) < 3 and first != "of") else True


def _is_measured(unit: str, core: str) -> bool:
    """Return whether a plain number is followed by a known unit."""
    return table.product(words_of(unit)) is not None and _is_number(core)


def _is_number(text: str) -> bool:
    return bool(_NUMBER.fullmatch(text.strip()))


def _is_known(word: str) -> bool:
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
    if _is_known(word) or _singular(word) == "percent":
        return True
    return len(word) > 1 and bool(temperature(word))
