"""In prose a number counts only if nothing beside it changes it."""

import re
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from alignkit_rewards.answers import Conventions, judge
from alignkit_rewards.answers.text.prose import answer_in


def right(gold, answer, **rules):
    return judge([gold], answer, Conventions(**rules)).correct


HERE = Path(__file__).parent
LINES = [
    line.split(" ## ") for line in (HERE / "changed_numbers.txt").read_text("utf-8").splitlines()
]
ALONE = [t for kind, t in LINES if kind in {"denied", "compared"} and "{m}" not in t]
CHANGED = [template for _, template in LINES]

numbers = st.integers(2, 9999)


def said(template, n, m):
    return template.replace("{n}", str(n)).replace("{m}", str(m))


@settings(max_examples=600, deadline=None, derandomize=True)
@given(st.sampled_from(CHANGED), numbers, numbers)
def test_a_number_that_words_change_is_not_the_number(template, n, m):
    if n != m:
        assert not right(str(n), said(template, n, m))


@pytest.mark.parametrize("template", CHANGED)
def test_each_phrase_changes_the_number_beside_it(template):
    assert not right("417", said(template, 417, 38))
    assert not right("417", f"So it is {said(template, 417, 38)}.")


@pytest.mark.parametrize("template", ALONE)
def test_what_is_denied_or_compared_alone_counts_as_unparsed(template):
    assert judge(["417"], said(template, 417, 38), Conventions()).why == "unparsed"


DECIDED = """
{n} ## The answer is {n}, not {m}
{n} ## not {m} but {n}
{n} ## {n} instead of {m}
{n} ## {n} rather than {m}
{n} ## {m}, no wait, {n}
{n} ## The answer is {m}. No wait, {n}
{n} ## {m} is wrong, it is {n}
{n} ## It is {n}. It is not {m}.
{n} ## {n} — not {m}
{n} ## {n} of the {m} students
{n} ## {n} out of the {m} students
{n} ## {n} apples out of {m}
{n} ## ✅ {n}
{n} ## {n} ✅
{n} ## • {n}
{n} ## 👉 {n}
{n} ## => {n}
{n} ## *{n}*
{n} ## __{n}__
{n} ## The answer is *{n}*.
{n} ## {n} (five)
{n} ## exactly {n}
{n} ## No, it is {n}
{n} ## There is no remainder, so it is {n}
{n} ## without a doubt {n}
{n} ## {n} more apples
{n} ## John has {n} more apples than Mary
{n} ## {n} students did not pass
{n} ## {n} per hour
{n} ## {n} pages per day
{n} ## {n} is greater than {m}
-{n} ## negative {n}
-{n} ## The answer is minus {n}.
-{n} ## {n} degrees below zero
{n}/{m} ## {n} out of {m}
{n}/{m} ## {n} in {m}
{n}/{m} ## a {n} in {m} chance
{n}*{m} ## {n} times {m}
{n}-{m} ## {n} minus {m}
12*{n} ## {n} dozen
2*{n} ## {n} pairs
{n}^2 ## {n} squared
{n}*10^6 ## it cost {n} million dollars
{n}/3 ## {n} thirds
{n}+1/2 ## {n} and a half
{n}:{m} ## {n} to {m}
{n}, {m} ## {n} as well as {m}
at least {n} ## at least {n}
""".strip().splitlines()


@settings(max_examples=300, deadline=None, derandomize=True)
@given(st.sampled_from(DECIDED), numbers, numbers)
def test_words_that_decide_a_value_are_read(pair, n, m):
    gold, _, answer = said(pair, n, m).partition(" ## ")
    assert right(gold, answer)


@pytest.mark.parametrize("word", ["about", "approximately", "roughly", "around", "≈"])
def test_a_rough_number_counts_as_the_key_says(word):
    assert [right("417", f"{word} 417", rough=r) for r in ("accepted", "decimals", "refused")] == [
        True,
        False,
        False,
    ]
    assert [right("41.7", f"{word} 41.7", rough=r) for r in ("decimals", "refused")] == [
        True,
        False,
    ]


PIECES = (
    " ", "\n", "5 ", "5", "not ", "no wait ", "5, no ", "✅", "• ", "( or ", "at least ", "a",
    "5 dozen ", "*", "_", "~", "5~", "5 o ", "\\text{", "5 and ", "negative ", ", ", ": ✅",
    "5 in ", ". ",
)  # fmt: skip


@pytest.mark.parametrize("piece", PIECES)
@pytest.mark.parametrize("around", ["{}", "✅ x{}7", "5 {} 6 apples are not it", "It is {} 5."])
def test_long_prose_is_read_in_time(piece, around):
    text = around.format(piece * (20_000 // len(piece)))
    started = time.process_time()
    judge(["417", "Tom"], text, Conventions())
    assert time.process_time() - started < 2


@settings(max_examples=300, deadline=None, derandomize=True)
@given(st.lists(st.sampled_from(re.findall(r"\S+", " ".join(CHANGED))), max_size=12))
def test_any_order_of_such_words_is_read(words):
    assert isinstance(answer_in(" ".join(words)), str)
