"""Answers of two readings are read as the gold asks, and for no other gold."""

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from alignkit_rewards.answers import Conventions, judge

RULES = Conventions()
SPANS = ["days", "hours", "weeks", "years"]
DIGITS = ["zeros", "zeroes", "ones", "twos", "fives", "nines", "tens", "hundreds", "thousands"]
REALS = (r"\mathbb{R}", r"(-\infty, \infty)", "all real numbers", r"x \in \mathbb{R}")


def right(gold, answer):
    return judge([gold], answer, RULES).correct


@given(st.integers(2, 99), st.integers(2, 99), st.sampled_from("xX"))
def test_a_product_written_with_a_letter_is_the_product(a, b, sign):
    assert right(str(a * b), f"{a}{sign}{b}")
    assert right(str(a * b), f"The answer is {a}{sign}{b}.")
    assert not right(str(a * b + 1), f"{a}{sign}{b}")
    assert not right(str(a), f"{a}{sign}{b}")


@given(st.integers(2, 99), st.integers(2, 99))
def test_beside_a_gold_with_a_letter_it_is_a_term_or_a_size(a, b):
    assume(a != b)
    assert not right(f"{a}x{b}", str(a * b))
    assert not right("x", f"{a}x{b}")
    assert right(f"{a}x{b}", f"It is {a}x{b}.")


@given(st.integers(1, 99), st.integers(1, 20), st.integers(2, 40))
def test_a_whole_number_and_a_fraction_are_a_mixed_number(whole, top, bottom):
    assume(top < bottom)
    gold = rf"\frac{{{whole * bottom + top}}}{{{bottom}}}"
    for said in (f"{whole} and {top}/{bottom}", rf"${whole}$ and $\frac{{{top}}}{{{bottom}}}$"):
        assert right(gold, said)
        assert right(gold, f"The answer is {said}.")
        assert not right(str(whole), said)
        assert right(f"{whole}, {top}/{bottom}", said)
        assert not right(gold, f"{said} and {whole + 1}")
    assert not right(str(whole + 1), f"{whole} and {bottom}/{bottom}")


@pytest.mark.parametrize("gold", REALS)
def test_a_bare_letter_is_the_reals_beside_the_reals(gold):
    assert all(right(gold, said) for said in ("R", "$R$", r"x \in R", "x in R"))
    assert not any(right(gold, said) for said in ("r", "Q", "R^2", "5R", r"x \in Q", "x in Z"))


def test_a_bare_letter_is_no_interval_beside_another_gold():
    assert not any(right(gold, "R") for gold in ("[0, 1]", r"(0, \infty)", "(1, 2)", "5", "x"))
    assert not right("R", r"(-\infty, \infty)")


@given(st.integers(2, 999), st.integers(2, 30), st.sampled_from(SPANS))
def test_a_span_of_time_after_over_is_a_circumstance(number, span, unit):
    assume(number != span)
    answer = f"{number} over {span} {unit}"
    assert right(str(number), answer)
    assert right(str(number), f"She reads {number} pages over {span} {unit}.")
    assert not right(str(span), answer)
    assume(number % span == 0 and number // span != number)
    assert not right(str(number // span), answer)


@given(
    st.integers(2, 99),
    st.sampled_from(DIGITS),
)
def test_digits_and_places_that_are_counted_are_no_things(number, digits):
    assert not right(str(number), f"{number} {digits}")
    assert not right(str(number), f"It has {number} {digits}.")
    assert right(f"{number} {digits}", f"{number} {digits}")
