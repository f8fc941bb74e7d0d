"""Units in every spelling are the same unit, and other units are others."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from alignkit_rewards.answers import Conventions, judge, quick
from alignkit_rewards.answers.text import units_table as table

CONVERT = Conventions(unit_conversion=True)
SPELLINGS = {  # a gold; right spellings; wrong units
    r"@\text{ m}": (
        ["@ meters", "@ m", "@m", "@ metres", r"@ \mathrm{m}", "@", r"\boxed{@ m}"],
        ["@ cm", "@ km", "@ s", r"@\text{ cm}", "@ seconds", "@ g"],
    ),
    r"@\text{ s}": (["@ seconds", "@ s", "@s", "@ sec"], ["@ minutes", "@ h", "@ m", "@ ms"]),
    r"@\text{ h}": (["@ hours", "@ h", "@ hrs", "@ hr"], ["@ minutes", "@ s", "@ days"]),
    r"@\text{ g}": (["@ grams", "@ g", "@g"], ["@ kg", "@ mg", "@kg", "@ kilograms"]),
    r"@\text{ L}": (["@ liters", "@ L", "@ litres", "@ l"], ["@ mL", "@ gallons"]),
    r"@\text{ V}": (["@ volts", "@ V", "@V"], ["@ W", "@ kV", "@ amperes"]),
    r"@\text{ W}": (["@ watts", "@ W"], ["@ kW", "@ J"]),
    r"@\text{ N}": (["@ newtons", "@ N"], ["@ kN", "@ J", "@ n"]),
    r"@\text{ J}": (["@ joules", "@ J"], ["@ kJ", "@ N"]),
    r"@\text{ K}": (["@ kelvins", "@ K"], ["@ C"]),
    r"@ \text{ m/s}^2": (
        ["@ m/s^2", "@m/s^2", "@ m/s²", "@ m/s/s", r"@\,\mathrm{m/s^2}", "@ m·s^{-2}",
         "@ meters per second squared", r"@\ \frac{\text{m}}{\text{s}^2}"],
        ["@ m/s", "@ km/s^2", "@ ft/s^2"],
    ),
    "@ miles per hour": (
        ["@ mi/h", "@ mph", "@mph", "@ miles/hour", r"@\text{ mi/hr}", "@"],
        ["@ km/h", "@ miles", "@ miles per second", "@ kph"],
    ),
    r"@ \text{ kg}\cdot\text{m}^2": (
        ["@ kg·m^2", "@ kg m^2", r"@ kg \cdot m^2"], ["@ kg", "@ kg·m", "@ g·m^2"]
    ),
    "@kg": (["@ kg", "@ kilograms", "@ kilos"], ["@ g", "@ lb", "@g"]),
    r"@\text{ cm}^2": (
        ["@ square centimeters", "@ cm²", "@ sq cm", "@cm^2", "@ centimeters squared", "@ cm2"],
        ["@ cm", "@ cm^3", "@ m^2", "@ square meters", "@ cubic centimeters"],
    ),
    r"@\text{ m}^3": (["@ cubic meters", "@ m³", "@ m^3"], ["@ m^2", "@ square meters"]),
    r"\$@": (
        ["@ dollars", "$@", "@ USD", "USD @", "@$", "@ US dollars", "US$@"],
        ["€@", "@ euros", "£@", "@ cents", "¥@", "₹@", "@ EUR"],
    ),
    "€@": (["@ euros", "@ EUR", "@€", "EUR @"], ["$@", "@ dollars", "£@", r"\$@"]),
    "£@": (["@ pounds", "GBP @"], ["$@", "€@"]),
    r"@^\circ\text{C}": (["@°C", "@ degrees Celsius", "@ C"], ["@°F", "@ degrees Fahrenheit"]),
    r"@\,\Omega": (["@ ohms", "@ Ω", r"@ \Omega"], ["@ V"]),
    "@": (
        ["₹@", "$@", "€@", "@ USD", "@ yen", "@ cm", "@ kg", "@ m/s", "@ km/h", "@ hours"],
        ["@x", "@m", "@ s"],
    ),
    "@m": (["@m"], ["@", "@n"]),
}  # fmt: skip


def correct(gold, answer, rules=Conventions()):  # noqa: B008 frozen
    verdict = quick([gold], answer, rules) or judge([gold], answer, rules)
    return verdict.correct


numbers = st.one_of(
    st.integers(2, 999).map(str),
    st.integers(11, 9999).filter(lambda n: n % 10).map(lambda n: f"{n / 10:.1f}"),
    st.integers(1000, 99999).map(lambda n: f"{n:,}"),
)


@pytest.mark.parametrize("gold", SPELLINGS)
@settings(max_examples=20)
@given(number=numbers)
def test_spellings_of_a_quantity(gold, number):
    right, wrong = SPELLINGS[gold]
    wanted, other = gold.replace("@", number), gold.replace("@", "7" + number)
    for spelling in right:
        answer = spelling.replace("@", number)
        assert correct(wanted, answer), (wanted, answer)
        assert not correct(other, answer), (other, answer)
    for spelling in wrong:
        answer = spelling.replace("@", number)
        assert not correct(wanted, answer), (wanted, answer)


@settings(max_examples=30)
@given(st.integers(1, 9), st.integers(1, 59))
def test_hours_and_minutes(hours, minutes):
    plain = f"{60 * hours + minutes} minutes"
    both = f"{hours} hours {minutes} minutes"
    spellings = (both, f"{hours} hours and {minutes} minutes", f"{hours} h {minutes} min",
                 f"{hours}h {minutes}m")  # fmt: skip
    for spelling in spellings:
        assert correct(plain, spelling)
        assert correct(spelling, plain)
        assert not correct(f"{60 * hours + minutes + 1} minutes", spelling)
        assert not correct(f"{minutes} minutes", spelling)
        assert not correct(f"{hours} hours", spelling)
    assert not correct(str(60 * hours + minutes), both)  # of what, nobody says


@pytest.mark.parametrize(
    "answer", ["3 inches", "2 feet", "3", "2 feet 4 inches", "2 feet 15 inches"]
)
def test_one_term_is_not_the_quantity(answer):
    assert not correct("2 feet 3 inches", answer)


@pytest.mark.parametrize(
    ("gold", "answer"),
    [
        ("90 minutes", "1.5 hours"),
        ("1 m", "100 cm"),
        ("72 km/h", "20 m/s"),
        (r"\$3", "300 cents"),
        (r"5\text{ N}", r"5 \text{ kg m/s}^2"),
        ("1 mile", "1.609344 km"),
        ("3 gallons", "12 quarts"),
    ],
)
def test_conversion_is_an_option(gold, answer):
    assert not correct(gold, answer)
    assert correct(gold, answer, CONVERT)
    assert not correct(gold, "9" + answer, CONVERT)


@pytest.mark.parametrize(
    ("gold", "answer"), [("1 kg", "1 m"), ("$5", "5 euros"), ("5 m", "5 m^2"), ("25°C", "77°F")]
)
def test_conversion_stays_in_a_dimension(gold, answer):
    assert not correct(gold, answer, CONVERT)


@pytest.mark.parametrize("name", table.UNITS)
def test_every_spelling_names_its_unit(name):
    spellings = [s for s, n in table._SPELLINGS.items() if n == name]
    assert name in spellings
    for spelling in spellings:
        assert table.named(spelling) == name
    assert table.measure(name).factor > 0
