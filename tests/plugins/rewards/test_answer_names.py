"""A name, a unit, a time or a condition matches whole, or not at all."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from alignkit.protocols import Example
from alignkit_rewards import QuestionOnly, R1Zero
from alignkit_rewards.answers import Conventions, judge


def right(gold, answer, **rules):
    return judge([gold], answer, Conventions(**rules)).correct


NAMES = ["Priya", "Tom", "Mrs. Okafor", "Wednesday", "rhombus", "convergent", "blue"]
WRONG = """
not {a}
{a} and {b}
{b} and {a}
{a} or {b}
{a}, {b}
{b}, {a}
{a}'s brother
the brother of {a}
everyone except {a}
all but {a}
{b} beats {a}
{a} lost to {b}
after {a}
neither {a} nor {b}
{b}, not {a}
{b} rather than {a}
it isn't {a}
un{a}
dark {a}
{a} is not it
{a} Smith and {b}
\\text{{b} and {a}}
the winners are {b} and {a}
""".strip().splitlines()
RIGHT = """
{a}
{a}.
\\text{{a}}
**{a}**
It is {a}.
It's {a}
The answer is {a}
The winner is {a}.
{a} is the winner.
{a} was ahead of {b}
{a}, because nothing else fits
{a}, not {b}
{a} rather than {b}
I think it is {a}
""".strip().splitlines()


def said(template, a, b):
    return template.replace("{a}", a).replace("{b}", b)


@pytest.mark.parametrize("template", WRONG)
@pytest.mark.parametrize("name", NAMES)
def test_a_name_beside_others_is_another_answer(template, name):
    assert not right(name, said(template, name, "Zed"))
    assert not right(rf"\text{{{name}}}", said(template, name, "Zed"))


@pytest.mark.parametrize("template", RIGHT)
@pytest.mark.parametrize("name", NAMES)
def test_a_name_in_a_short_sentence_is_the_answer(template, name):
    assert right(name, said(template, name, "Zed"))


@pytest.mark.parametrize(
    ("gold", "answer", "expected"),
    [
        ("Lena and Omar", "Omar and Lena", True),
        ("Lena and Omar", "Lena, Omar", True),
        ("Lena and Omar", "Lena", False),
        ("Lena and Omar", "Lena, Omar and Zed", False),
        ("Yes", "Yes, since 7 is not even", True),
        ("Yes", "yes and no", False),
        ("Yes", "no, yes", False),
        ("Yes", "not yes", False),
        ("No", "No, it isn't.", True),
        ("No", "The answer is no.", True),
        ("No", "no solution", False),
        ("No", "no idea", False),
        ("No", "not no", False),
        ("True", "The claim is true.", True),
        ("True", "It is not true", False),
        ("True", "It is false", False),
        ("False", "It is not true", True),
        ("False", "not false", False),
    ],
)
def test_lists_of_names_and_yes_or_no(gold, answer, expected):
    assert right(gold, answer) is expected


# ---------------------------------------------------------------- units and times

CELSIUS = [r"{n}^\circ\text{C}", "{n} °C", "{n} degrees Celsius", "{n}°C"]
FAHRENHEIT = [
    r"{n}^\circ\text{F}",
    "{n} °F",
    "{n} degrees Fahrenheit",
    "It is {n} degrees Fahrenheit.",
]


@pytest.mark.parametrize("gold", CELSIUS + FAHRENHEIT)
@pytest.mark.parametrize("answer", CELSIUS + FAHRENHEIT)
def test_scales_of_temperature_are_told_apart(gold, answer):
    same = (gold in CELSIUS) is (answer in CELSIUS)
    assert right(gold.replace("{n}", "31"), answer.replace("{n}", "31")) is same


HALVES = {
    "am": ["AM", "am", "a.m.", "A.M.", "in the morning"],
    "pm": ["PM", "p.m.", "in the evening"],
}


@settings(max_examples=200, deadline=None, derandomize=True)
@given(
    hour=st.integers(1, 12),
    minute=st.integers(0, 59),
    halves=st.tuples(st.sampled_from(["am", "pm"]), st.sampled_from(["am", "pm"])),
    data=st.data(),
)
def test_a_time_of_day_has_its_half(hour, minute, halves, data):
    gold, answer = (data.draw(st.sampled_from(HALVES[h])) for h in halves)
    spelled = f"{hour}:{minute:02}"
    assert right(f"{spelled} {gold}", f"{spelled} {answer}") is (halves[0] == halves[1])
    assert right(f"{hour} {gold}", f"{hour} {answer}") is (halves[0] == halves[1])
    day = f"{hour % 12 + 12 * (halves[1] == 'pm')}:{minute:02}"
    assert right(f"{spelled} {gold}", day) is (halves[0] == halves[1])


@pytest.mark.parametrize(
    ("gold", "answer"),
    [
        ("6 years ago", "6 years from now"),
        ("profit of 14", "loss of 14"),
        ("a loss of 14 dollars", "a profit of 14 dollars"),
        ("9 hours later", "9 hours earlier"),
        ("14 miles", "14 miles per hour"),
        ("14 miles per hour", "The distance is 14 miles"),
        ("14 miles", "The speed is 14 miles per hour."),
        ("3 red hats", "3 blue hats"),
        ("3 bags of rice", "3 bags of salt"),
        ("14 pages per day", "14 pages"),
        ("8 square feet", "8 feet"),
        ("20", "20 plus"),
        ("20", "20 maximum"),
    ],
)
def test_what_is_measured_or_counted_must_be_the_same(gold, answer):
    assert not right(gold, answer)


@pytest.mark.parametrize(
    ("gold", "answer"),
    [
        ("6 years ago", "it was 6 years ago"),
        ("profit of 14", "a profit of $14"),
        ("14", "a loss of 14"),
        ("14 miles per hour", "The speed is 14 miles per hour."),
        ("3 red hats", "3 hats"),
        ("3 bags of rice", "3 bags"),
        ("14 pages per day", "14 pages a day"),
        ("20", "20 cups of rice"),
        ("noon", "12 PM"),
        ("12:00 am", "midnight"),
        ("4 PM", "4 o'clock in the afternoon"),
    ],
)
def test_what_is_measured_or_counted_may_be_said_shorter(gold, answer):
    assert right(gold, answer)


# ---------------------------------------------------------------- conditions


@pytest.mark.parametrize(
    ("gold", "answer"),
    [
        ("0<g(t)<3", "3"),
        ("0<g(t)<3", "g(t)"),
        ("9 = 4a+b", "4a+b"),
        ("9 = 4a+b", "9"),
        ("4a+b = 9", "9"),
        ("12 = 5k", "5k"),
        ("m \\ge 8", "8"),
        ("m \\ge 8", "\\ge 9"),
        ("m \\ne 8", "8"),
        ("3p = 8", "8"),
        ("8", "3p = 8"),
        ("8", "-p = 8"),
        ("8", "p/2 = 8"),
        ("8", "p > 8"),
        (r"(-\infty,2)\cup(6,\infty)", "x<2 and x>6"),
        ("(2,6)", "x>2 or x<6"),
        ("[2,6)", "x>2 and x<6"),
        ("(2,6)", "x>2 and x<5"),
    ],
)
def test_a_condition_is_not_its_right_hand_side(gold, answer):
    assert not right(gold, answer)


@pytest.mark.parametrize(
    ("gold", "answer"),
    [
        ("0<g(t)<3", "3>g(t)>0"),
        ("9 = 4a+b", "4a+b=9"),
        ("p = 8", "8"),
        ("2+6=8", "8"),
        ("8", "a + b = 8"),
        (r"(-\infty,2)\cup(6,\infty)", "x<2 or x>6"),
        (r"(-\infty,2)\cup(6,\infty)", "x<2, x>6"),
        (r"(-\infty,2)\cup(6,\infty)", r"(-\infty,2) and (6,\infty)"),
        ("x<2 and x>6", "x<2 or x>6"),
        ("(2,6)", "x>2 and x<6"),
        (r"[2,\sqrt{40})", r"x \ge 2 \text{ and } x < \sqrt{40}"),
        ("2<x<6", "x<6 and x>2"),
        (r"(2,4)\cup(4,6)", r"x>2 and x<6 and x \ne 4"),
    ],
)
def test_a_condition_is_read_whole(gold, answer):
    assert right(gold, answer)


# ---------------------------------------------------------------- several boxes


@pytest.mark.parametrize(
    ("response", "right_under"),
    [
        (r"\boxed{7} or \boxed{4}", {"last"}),
        (r"\boxed{7}, \boxed{4}", {"last"}),
        (r"first \boxed{7}, and after a check \boxed{4}", {"listed", "last"}),
        (r"\boxed{4}, so \boxed{4}", {"listed", "last", "agree"}),
    ],
)
@pytest.mark.parametrize("key", ["listed", "last", "agree"])
def test_several_boxes_say_what_the_key_says(response, right_under, key):
    assert right("4", response, several_boxes=key) is (key in right_under)
    example = Example("0", "question", "4")
    for reward, text in (
        (QuestionOnly(several_boxes=key), response),
        (R1Zero(several_boxes=key), f"so </think> <answer>{response}</answer>"),
    ):
        assert reward.build()([text], [example])[0].total == float(key in right_under)
