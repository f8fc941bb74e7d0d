"""Cut units, percent signs and currency off a number."""

from __future__ import annotations

import re

from alignkit_rewards.answers.text import units_table as table
from alignkit_rewards.answers.text.beside import after_number
from alignkit_rewards.answers.text.unit_names import canonical_unit, is_known, words_of
from alignkit_rewards.answers.text.vocabulary import FUNCTIONS, GREEK

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
_BEFORE_POWER = re.compile(r"(?<=[a-z])(?=\d)")
_QUANTITY_END = re.compile(r"[\d})\]]|\\[a-z]+$")
_LETTER_SCALE = re.compile(r"\d ?[CFK]$")
_NUMBER_END = re.compile(r"[\d})\]]$")
_LETTERS = re.compile(r"[A-Za-z]+")
_IN_TEXT = re.compile(TEXT)
_NO_LETTERS = re.compile(r"^[^A-Za-z]+")
_TEXT_COMMAND = re.compile(r"\\(?:text|mathrm)")
_NUMBER = re.compile(r"[-+]?[\d.,]*\d|\\frac ?\{?(?:\d++(?:\} ?\{?| \{?|\{)\d++|\d\d++)\}?")


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
    known = is_known(first)
    return known if attached or (len(first) < 3 and first != "of") else True


def _is_measured(unit: str, core: str) -> bool:
    """Return whether a plain number is followed by a known unit."""
    return table.product(words_of(unit)) is not None and _is_number(core)


def _is_number(text: str) -> bool:
    return bool(_NUMBER.fullmatch(text.strip()))
