"""Gold answers out of worked solutions."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alignkit_data.answers import boxed_answer, gsm8k_answer, without_calculator_marks

BALANCED = st.recursive(
    st.text(st.characters(exclude_characters="{}\\", exclude_categories=["Cs"]), max_size=5)
    | st.sampled_from([r"\{", r"\}", r"\\", r"\left\{ 1 \right.", "\n"]),
    lambda inner: st.lists(inner, max_size=4).map("".join) | inner.map(lambda s: f"{{{s}}}"),
    max_leaves=8,
).filter(lambda content: content.strip())


@pytest.mark.parametrize(
    ("worked", "gold"),
    [
        ("a\n#### 72", "72"),
        ("a\n#### 1,234,567", "1234567"),
        ("a\n#### -5 ", "-5"),
        ("a\n####7", "7"),
        ("first #### 1\nthen\n#### 2", "2"),
        ("a\n#### 70.5\n", "70.5"),
        ("no mark 72", ""),
        ("mark alone ####", ""),
    ],
)
def test_gsm8k_gold_follows_the_last_mark(worked, gold):
    assert gsm8k_answer(worked) == gold


def test_calculator_marks_go_and_nothing_else():
    worked = "48/2 = <<48/2=24>>24, 3 << 4 and 5 >> 4, $<<.5*10=5.0>>5"
    assert without_calculator_marks(worked) == "48/2 = 24, 3 << 4 and 5 >> 4, $5"


@given(content=BALANCED, before=st.sampled_from(["", r"\boxed{9} ", "{", "} "]))
def test_a_box_gives_back_whatever_balanced_text_was_put_in(content, before):
    assert boxed_answer(rf"{before}so $\boxed{{{content}}}$.") == content.strip()


@pytest.mark.parametrize(
    ("solution", "gold"),
    [
        (r"\boxed{1} then \boxed{2}", "2"),
        (r"\boxed{1} then \boxed{2", "1"),  # the last box does not balance
        (r"\boxed{1} then \boxed{}", "1"),  # the last box is empty
        (r"\fbox{3}", "3"),
        (r"\boxed {4}", "4"),
        (r"so $\boxed 5$ units", "5"),
        (r"so $\boxed \frac12$ units", r"\frac12"),
        (r"\boxed{\left\{ 1, 2 \right\}}", r"\left\{ 1, 2 \right\}"),
        (r"\boxed{x < \left\} 1 \right.}", r"x < \left\} 1 \right."),  # lone escaped brace
        (r"\boxed{\boxed{6}}", "6"),
        ("no box, {7}", ""),
        (r"\unboxed{8}", ""),
    ],
)
def test_the_last_box_that_balances_holds_the_gold(solution, gold):
    assert boxed_answer(solution) == gold
