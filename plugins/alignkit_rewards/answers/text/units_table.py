"""Units: their spellings, and their values in SI base units.

Factors are those of NIST SP 811 (2008), appendix B; fluid measures and short tons are US
customary. A currency is a dimension of its own.
"""

from __future__ import annotations

import re
from fractions import Fraction
from functools import lru_cache
from types import MappingProxyType
from typing import NamedTuple

from alignkit_rewards.answers.text.vocabulary import word_set

_ROWS = """
meter | 1 m | m metre mtr
centimeter | 1/100 m | cm centimetre
millimeter | 1/1000 m | mm millimetre
kilometer | 1000 m | km kilometre
decimeter | 1/10 m | dm decimetre
micrometer | 1/1000000 m | um μm micrometre micron
nanometer | 1/1000000000 m | nm nanometre
inch | 254/10000 m | in inches inche
foot | 3048/10000 m | ft feet
yard | 9144/10000 m | yd yds
mile | 1609344/1000 m | mi
gram | 1/1000 kg | g gm gms gramme
kilogram | 1 kg | kg kgs kilo kilogramme
milligram | 1/1000000 kg | mg
tonne | 1000 kg | metric-ton
ton | 90718474/100000 kg |
pound | 45359237/100000000 kg | lb lbs
ounce | 28349523125/1000000000000 kg | oz
second | 1 s | s sec secs
millisecond | 1/1000 s | ms msec
microsecond | 1/1000000 s | us μs
nanosecond | 1/1000000000 s | ns
minute | 60 s | min mins
hour | 3600 s | h hr hrs
day | 86400 s |
week | 604800 s | wk wks
month | 1 month |
year | 12 month | yr yrs
decade | 120 month |
century | 1200 month | centuries
liter | 1/1000 m^3 | L l litre
milliliter | 1/1000000 m^3 | mL ml millilitre cc
gallon | 3785411784/1000000000000 m^3 | gal gals
quart | 946352946/1000000000000 m^3 | qt qts
pint | 473176473/1000000000000 m^3 | pt pts
cup | 2365882365/10000000000000 m^3 |
tablespoon | 147867648/10000000000000 m^3 | tbsp
teaspoon | 49289216/10000000000000 m^3 | tsp
acre | 40468564224/10000000 m^2 |
hectare | 10000 m^2 | ha
degree | 1 degree | deg
radian | 1 radian | rad
ampere | 1 A | A amp
milliampere | 1/1000 A | mA milliamp
kelvin | 1 K | K
mole | 1 mol | mol
millimole | 1/1000 mol | mmol
newton | 1 kg m s^-2 | N
kilonewton | 1000 kg m s^-2 | kN
joule | 1 kg m^2 s^-2 | J
kilojoule | 1000 kg m^2 s^-2 | kJ
calorie | 4184/1000 kg m^2 s^-2 | cal
kilocalorie | 4184 kg m^2 s^-2 | kcal
watt | 1 kg m^2 s^-3 | W
kilowatt | 1000 kg m^2 s^-3 | kW
megawatt | 1000000 kg m^2 s^-3 | MW
horsepower | 7456998715822702/10000000000000 kg m^2 s^-3 | hp
volt | 1 kg m^2 s^-3 A^-1 | V
millivolt | 1/1000 kg m^2 s^-3 A^-1 | mV
kilovolt | 1000 kg m^2 s^-3 A^-1 | kV
ohm | 1 kg m^2 s^-3 A^-2 | Ω
kiloohm | 1000 kg m^2 s^-3 A^-2 | kΩ kilohm
coulomb | 1 s A | C
farad | 1 kg^-1 m^-2 s^4 A^2 |
tesla | 1 kg s^-2 A^-1 |
pascal | 1 kg m^-1 s^-2 | Pa
kilopascal | 1000 kg m^-1 s^-2 | kPa
atmosphere | 101325 kg m^-1 s^-2 | atm
hertz | 1 s^-1 | Hz
kilohertz | 1000 s^-1 | kHz
megahertz | 1000000 s^-1 | MHz
gigahertz | 1000000000 s^-1 | GHz
bit | 1 bit |
byte | 8 bit |
kilobyte | 8000 bit | kB KB
megabyte | 8000000 bit | MB
gigabyte | 8000000000 bit | GB
dollar | 1 dollar | USD usd US-dollar buck
cent | 1/100 dollar | ¢
euro | 1 euro | EUR eur €
sterling | 1 sterling | GBP £
yen | 1 yen | JPY ¥ 円
yuan | 1 yuan | CNY RMB renminbi 元
rupee | 1 rupee | INR ₹ Rs
won | 1 won | KRW ₩
ruble | 1 ruble | RUB ₽ rouble
"""
_COMPOUNDS = MappingProxyType(
    {
        "mph": "mile/hour",
        **dict.fromkeys(("kph", "kmh", "kmph"), "kilometer/hour"),
        "kwh": "kilowatt hour",
    }
)
_ANY_CASE = word_set("cm mm km kg ft in lb oz ml hr yd")
"""Abbreviations with the same meaning in capitals."""

Dimension = tuple[tuple[str, int], ...]
"""Powers of base units, sorted by name."""


class Unit(NamedTuple):
    """A named unit: a factor times a product of base units."""

    factor: Fraction
    dimension: Dimension


def _powers(text: str) -> Dimension:
    """Return the powers in a product such as ``kg m s^-2``."""
    pairs = (part.partition("^") for part in text.split())
    return tuple(sorted((base, int(power or 1)) for base, _, power in pairs))


def _load() -> tuple[dict[str, Unit], dict[str, str]]:
    units: dict[str, Unit] = {}
    spellings: dict[str, str] = {}
    for row in _ROWS.strip().splitlines():
        name, measure, others = (cell.strip() for cell in row.split("|"))
        factor, _, base = measure.partition(" ")
        units[name] = Unit(Fraction(factor), _powers(base))
        spellings |= dict.fromkeys([name, *(o.replace("-", " ") for o in others.split())], name)
    return units, spellings


UNITS, _SPELLINGS = _load()

LETTERS = word_set("ms ns us um gm dm nm cc pt pts qt qts ha hp mA cal rad gal gals wk") | {
    s for s in _SPELLINGS if len(s) == 1 and s.isascii()
}
"""Spellings that could also be products of variables: ``m``, ``N``, ``ms``."""


def named(word: str) -> str:
    """Return the name of a unit in any spelling, ``""`` if it is not a unit.

    >>> [named(w) for w in ("cm", "Meters", "feet", "N", "n", "lbs.", "cats")]
    ['centimeter', 'meter', 'foot', 'newton', '', 'pound', '']
    """
    word = word.rstrip(".")
    if word in _SPELLINGS:
        return _SPELLINGS[word]
    lower = word.lower()
    if len(lower) < 3 and lower not in _ANY_CASE:
        return ""
    for form in (lower, lower.removesuffix("s"), lower.removesuffix("es")):
        if form in _SPELLINGS and len(form) > 1:
            return _SPELLINGS[form]
    return ""


_TOKEN = re.compile(
    r"\s*(?:(?P<per>/|per\b)|(?P<join>\\cdot|\\times|[*·-])|(?P<open>\()|(?P<close>\))"
    r"|(?P<before>square|sq\.?|cubic|cu\.?)(?![A-Za-z])|(?P<after>squared|cubed)(?![A-Za-z])"
    r"|\^ ?\{? ?(?P<power>-?\d) ?\}?|(?P<word>[^\W\d_]+\.?|[¢€£¥₹₩₽]))",
    re.I,
)
_POWER_WORDS = MappingProxyType(
    {"squared": 2, "cubed": 3, "square": 2, "sq": 2, "cubic": 3, "cu": 3}
)


@lru_cache(maxsize=8192)
def product(text: str) -> Dimension | None:
    r"""Return the named units of a product with their powers, None for anything else.

    >>> product("miles per hour"), product("m/s^2"), product("square feet"), product("cats")
    ((('hour', -1), ('mile', 1)), (('meter', 1), ('second', -2)), (('foot', 2),), None)
    """
    found: list[tuple[str, int]] = []
    at, sign, pending, inside = 0, 1, 1, False
    text = text.strip()
    while at < len(text):
        token = _TOKEN.match(text, at)
        if token is None:
            return None
        at, kind, value = token.end(), str(token.lastgroup), str(token[token.lastgroup or 0])
        if kind == "per":
            sign = -1
        elif kind == "open":
            inside = True
        elif kind == "close":
            inside, sign = False, 1
        elif kind == "before":
            pending = _POWER_WORDS[value.lower().rstrip(".")]
        elif kind == "word":
            parts = product(_COMPOUNDS[value.lower()]) if value.lower() in _COMPOUNDS else None
            name = named(value)
            if not name and not parts:
                return None
            found += [(n, p * sign) for n, p in parts or ((name, pending),)]
            pending, sign = 1, sign if inside else 1
        elif kind in {"power", "after"}:
            if not found:
                return None
            name, power = found[-1]
            times = int(value) if kind == "power" else _POWER_WORDS[value.lower()]
            found[-1] = (name, power * times)
    return _collected(found) if pending == 1 else None


def _collected(found: list[tuple[str, int]]) -> Dimension | None:
    powers: dict[str, int] = {}
    for name, power in found:
        powers[name] = powers.get(name, 0) + power
    return tuple(sorted((n, p) for n, p in powers.items() if p)) or None


def written(powers: Dimension) -> str:
    """Return the standard spelling of a product: factors, then divisors.

    >>> written((("meter", 1), ("second", -2)))
    'meter/second^2'
    """
    above = [n + (f"^{p}" if p > 1 else "") for n, p in powers if p > 0]
    below = [f"/{n}" + (f"^{-p}" if p < -1 else "") for n, p in powers if p < 0]
    return " ".join(above) + "".join(below)


@lru_cache(maxsize=4096)
def measure(unit: str) -> Unit | None:
    """Return a unit, spelled as by :func:`written`, in base units; None if it is unknown.

    >>> measure("kilometer/hour").factor
    Fraction(5, 18)
    """
    powers = product(unit)
    if powers is None:
        return None
    factor, total = Fraction(1), []
    for name, power in powers:
        factor *= UNITS[name].factor ** power
        total += [(base, p * power) for base, p in UNITS[name].dimension]
    return Unit(factor, _collected(total) or ())
