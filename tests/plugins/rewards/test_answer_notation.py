"""One value in many notations: each is accepted, and the same spelling of another value is not."""

from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from alignkit_rewards.answers import Conventions, judge, quick
from alignkit_rewards.answers.text.numerals import digits

ONES = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
TEENS = ["ten", "eleven", "twelve"] + [
    word + "teen" for word in ("thir", "four", "fif", "six", "seven", "eigh", "nine")
]
TENS = [word + "ty" for word in ("twen", "thir", "for", "fif", "six", "seven", "eigh", "nine")]


def correct(gold, answer, **rules):
    rules = Conventions(**rules)
    return (quick([gold], answer, rules) or judge([gold], answer, rules)).correct


def words(number):
    """Return the English words of a whole number below a million."""
    if number >= 1000:
        rest = " " + words(number % 1000) if number % 1000 else ""
        return words(number // 1000) + " thousand" + rest
    if number >= 100:
        rest = " and " + words(number % 100) if number % 100 else ""
        return ONES[number // 100] + " hundred" + rest
    if number >= 20:
        return TENS[number // 10 - 2] + ("-" + ONES[number % 10] if number % 10 else "")
    return (ONES + TEENS)[number]


@given(st.integers(0, 999_999), st.integers(1, 99))
def test_numbers_in_words(number, more):
    assert digits(words(number)) == str(number)
    assert correct(str(number), words(number).capitalize() + ".")
    assert not correct(str(number + more), words(number))


@settings(max_examples=30)
@given(st.integers(1, 99))
def test_signs_fractions_and_units_in_words(number):
    said = words(number)
    for prefix in ("negative ", "minus "):
        assert correct(f"-{number}", prefix + said)
        assert correct(f"-{number}", f"{prefix}{number}")
        assert not correct(str(number), prefix + said)
        assert not correct(str(number), f"{prefix}{number}")
    assert correct(f"{number}.5", f"{said} and a half")
    assert not correct(str(number), f"{said} and a half")
    assert correct(str(4 * number + 3) + "/4", f"{said} and three quarters")
    assert correct(rf"{number}\text{{ hours}}", f"{said} hours")
    assert not correct(rf"{number}\text{{ hours}}", f"{said} minutes")
    assert not correct(str(number), f"{said} or {words(number + 1)}")
    assert not correct(str(number), f"{said} dozen")


@pytest.mark.parametrize(
    ("gold", "said"),
    [("1/2", "a half"), ("1/2", "one-half"), ("3/4", "three quarters"), ("2/3", "two-thirds"),
     ("5/8", "five eighths"), ("7/12", "seven twelfths"), ("2.5", "two point five")],
)  # fmt: skip
def test_fractions_in_words(gold, said):
    assert correct(gold, said)
    assert not correct(str(Fraction(gold) + 1), said)


@settings(max_examples=40)
@given(st.integers(11, 99), st.integers(-6, 9))
def test_powers_of_ten(mantissa, power):
    number = Fraction(mantissa, 10) * Fraction(10) ** power
    gold, other = str(number), str(number * 10)
    whole = f"{mantissa / 10}"
    for spelling in (
        "{} x 10^{}", "{} X 10^{{{}}}", "{}x10^{}", "{}e{}", "{}E{}", r"{} \times 10^{{{}}}",
        "{}·10^{}", "{} * 10**{}", "{} x 10^({})",
    ):  # fmt: skip
        answer = spelling.format(whole, power)
        assert correct(gold, answer), answer
        assert not correct(other, answer), answer


@settings(max_examples=60)
@given(st.integers(0, 9), st.sampled_from(["", "1", "40"]), st.integers(1, 998))
def test_repeating_decimals(whole, head, repeated):
    block = str(repeated)
    if len(set(block)) == 1 or head.endswith(block[-1:]):
        block = f"{repeated % 8 + 1}9"
    tail = Fraction(int(block), (10 ** len(block) - 1) * 10 ** len(head))
    value = Fraction(f"{whole}.{head or 0}") + tail
    gold = rf"\frac{{{value.numerator}}}{{{value.denominator}}}"
    start = f"{whole}.{head}"
    for end in (
        rf"\overline{{{block}}}", f"({block})", block * 3 + "...", block * 2 + "…",
        block * 2 + r"\ldots", rf"\bar{{{block}}}", "".join(d + "\u0305" for d in block),
    ):  # fmt: skip
        assert correct(gold, start + end), start + end
        assert not correct(f"{value.numerator + 1}/{value.denominator}", start + end)
    assert not correct(start + block, start + block * 2 + "...", rounding=0)


@settings(max_examples=30)
@given(st.integers(2, 99))
def test_plus_and_minus(number):
    gold = rf"\pm {number}"
    for answer in ("+/-@", "+/- @", "±@", "plus or minus @", "@ or -@", "-@ and @", "@, -@"):
        assert correct(gold, answer.replace("@", str(number))), answer
        assert not correct(gold, answer.replace("@", str(number + 1))), answer
        assert not correct(str(number), answer.replace("@", str(number))), answer
    assert not correct(gold, str(number))


@settings(max_examples=30)
@given(st.integers(2, 10), st.integers(100, 9999))
def test_bases(base, number):
    numeral, left = "", number
    while left:
        numeral, left = "0123456789ABCDEF"[left % base] + numeral, left // base
    gold = f"{numeral}_{{{base}}}"
    spellings = ["@ base #", "@ (base #)", "@ in base #", r"@ \text{ (base #)}", "@_#", "(@)_#",
                 "@_{(#)}", r"\boxed{@_{#}}", r"\boxed{@ base #}", "@"]  # fmt: skip
    spellings += [s.replace("#", words(base)) for s in (r"@_{\text{#}}", "@ base #", "@_#")]
    for spelling in spellings:
        answer = spelling.replace("@", numeral).replace("#", str(base))
        assert correct(gold, answer), answer
        if "#" in spelling:
            assert not correct(f"{numeral}_{{{base + 1}}}", answer), answer
        other = numeral[:-1] + ("0" if numeral[-1] != "0" else "1")
        assert not correct(gold, spelling.replace("@", other).replace("#", str(base)))
    if base == 2:
        assert correct(gold, "0b" + numeral)
    assert correct(f"{number:X}_{{16}}", f"0x{number:x}")
    assert not correct(f"{number:X}_{{16}}", f"0x{number + 1:x}")


@settings(max_examples=30)
@given(st.integers(1, 99), st.integers(1, 10), st.booleans())
def test_mixed_numbers(whole, top, dollars):
    gold = rf"\frac{{{whole * 11 + top}}}{{11}}"
    for answer in (
        rf"{whole} $\frac{{{top}}}{{11}}$", rf"${whole}$ $\frac{{{top}}}{{11}}$",
        rf"{whole}\ \frac{{{top}}}{{11}}", rf"{whole} \(\frac{{{top}}}{{11}}\)",
    ):  # fmt: skip
        assert correct(gold, answer), answer
        assert not correct(rf"\frac{{{whole * top}}}{{11}}", answer), answer
        assert not correct(str(whole), answer), answer
        assert not correct(rf"\frac{{{top}}}{{11}}", answer), answer


SETS = [
    (r"(@,\infty)", [r"\{x \mid x > @\}", r"\{x : x > @\}", r"\{x \in \mathbb{R} \mid x > @\}",
                     "(@, inf)", r"]@, +\infty[", "(@; infinity)"]),
    ("[@,#)", [r"\{x \mid @ \le x < #\}", "{x | @ <= x < #}", "[@;#)", "[@,#["]),
    ("(@,#]", ["]@,#]", "]@;#]", "@ < x ≤ #"]),
    (r"(-\infty,@)\cup(@,\infty)",
     [r"\mathbb{R} \setminus \{@\}", r"R \ {@}", r"R\{@}", r"\mathbb{R} - \{@\}", r"x \ne @",
      "x ≠ @", r"\{x \mid x \ne @\}", "all real numbers except @", "all reals except x = @."]),
    (r"(-\infty,@)\cup(@,#)\cup(#,\infty)",
     [r"\mathbb{R}\setminus\{@,#\}", r"\mathbb{R}\setminus\{#,@\}", r"x \ne @, #",
      r"x \ne @ \text{ and } x \ne #", "all real numbers except @ and #"]),
    (r"[0,@)\cup(@,\infty)", [r"[0,\infty)\setminus\{@\}", r"x \ge 0, x \ne @"]),
]  # fmt: skip


@pytest.mark.parametrize(("gold", "spellings"), SETS)
@settings(max_examples=15)
@given(low=st.integers(1, 40), more=st.integers(1, 40))
def test_sets_of_reals(gold, spellings, low, more):
    def filled(text, start, end):
        return text.replace("@", str(start)).replace("#", str(end))

    high = low + more
    for spelling in spellings:
        answer = filled(spelling, low, high)
        assert correct(filled(gold, low, high), answer), answer
        assert correct(answer, filled(gold, low, high)), answer
        assert not correct(filled(gold, low + 1, high + 1), answer), answer


@pytest.mark.parametrize(
    ("gold", "answer"),
    [
        ("[2,3)", "]2,3["),
        ("[2,3]", "]2,3["),
        ("[2,3)", "(2;3)"),
        (r"\mathbb{R}", r"\mathbb{R}\setminus\{1\}"),
        (r"\{1\}", r"\mathbb{R} \setminus \{1\}"),
        ("1", "all real numbers except 1"),
        (r"[0,1)\cup(1,\infty)", r"(0,\infty)\setminus\{1\}"),
        (r"\emptyset", r"\{0\}"),
        ("0", r"\emptyset"),
        ("0", "no solution"),
        (r"\text{no solution}", "one solution"),
        ("1011", "1011 base 2"),
        ("x+c", "x+d"),
        ("x^2+C", "x^2"),
        ("x^2+C", "x^2+x"),
        ("x^2+C", "x^3+c"),
        (r"\sin 30^\circ", r"\sin 30"),
        (r"\cos 20^\circ", r"\sin 20^\circ"),
        ("(5,3)", "a=5, x=3"),
    ],
)
def test_other_values_stay_wrong(gold, answer):
    assert not correct(gold, answer)


@pytest.mark.parametrize(
    ("gold", "answer"),
    [
        (r"\text{no solution}", r"\emptyset"),
        (r"\emptyset", r"\{\}"),
        (r"\emptyset", "There is no solution."),
        (r"\text{No real solutions}", "the empty set"),
        (r"\text{DNE}", "does not exist"),
        ("x^2+C", "x^2+c"),
        (r"\frac{x^3}{3}+C", "x^3/3 + K"),
        ("1/2", r"{1 \over 2}"),
        ("10", r"{5 \choose 2}"),
        ("12", "3 x 4"),
        (r"-\infty", "negative infinity"),
    ],
)
def test_words_and_signs_of_one_meaning(gold, answer):
    assert correct(gold, answer)


@settings(max_examples=30)
@given(st.integers(1, 40), st.integers(1, 40))
def test_points_and_named_coordinates(x, more):
    y = x + more
    for answer in (f"y={y}, x={x}", f"x = {x} and y = {y}", f"({x}; {y})"):
        assert correct(f"({x},{y})", answer)
        assert not correct(f"({y},{x})", answer)
    gold = f"({x},{y}),({y},{x + 50})"
    for answer in (
        f"({y},{x + 50}),({x},{y})", f"({x},{y}); ({y},{x + 50})", f"({x},{y}) ({y},{x + 50})",
        f"({x};{y}), ({y};{x + 50})", f"({y}, {x + 50})\n({x}, {y})", f"({x},{y}) & ({y},{x + 50})",
    ):  # fmt: skip
        assert correct(gold, answer), answer
        assert not correct(f"({y},{x}),({y},{x + 50})", answer), answer
        assert not correct(gold, f"({x},{y})")


def test_a_ranking_is_a_set_unless_order_is_kept():
    assert correct("1,2,3", "3,2,1")
    assert not correct("1,2,3", "3,2,1", list_order="kept")
    assert correct("1,2,3", "1; 2; 3", list_order="kept")


@settings(max_examples=30)
@given(st.integers(1, 89))
def test_degrees_in_trigonometry(angle):
    for sign in (r"^\circ", "°"):
        assert correct(rf"\cos {angle}^\circ", rf"\sin({90 - angle}{sign})")
        assert not correct(rf"\cos {angle}^\circ", rf"\sin({91 - angle}{sign})")
    assert correct(f"{angle}^\\circ", f"{angle} degrees")
