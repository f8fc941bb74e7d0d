"""The built-in environments, turn by turn, against answers worked out here."""

import math
from fractions import Fraction
from pathlib import Path
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alignkit.component import slots_of
from alignkit.kinds import KINDS
from alignkit.protocols import Completion, Example, Response
from alignkit.testing import run_cli
from alignkit_environments import CalculatorParams, GuessParams
from alignkit_environments.arithmetic import LONGEST, UnreadableError, value, written


def said(text):
    ids = tuple(map(ord, text))
    return Response.of(Completion(text, ids, (0.0,) * len(ids), "stop", 0))


# ---------------------------------------------------------------- arithmetic

NUMBERS = st.integers(0, 9999).map(lambda n: (str(n), Fraction(n)))


def joined(parts):
    """Return the text and value of two expressions with an operation between them."""
    (a, x), op, (b, y) = parts
    made = {"+": x + y, "-": x - y, "*": x * y, "/": x / y if y else None}[op]
    return f"({a} {op} {b})", made


EXPRESSIONS = st.recursive(
    NUMBERS,
    lambda inner: (
        st.tuples(inner, st.sampled_from("+-*/"), inner)
        .filter(lambda parts: parts[0][1] is not None and parts[2][1] is not None)
        .map(joined)
    ),
    max_leaves=8,
)


@given(EXPRESSIONS)
def test_an_expression_has_the_value_that_was_worked_out_beside_it(pair):
    text, want = pair
    if len(text) > LONGEST:
        return
    if want is None:
        with pytest.raises(UnreadableError, match="division by zero"):
            value(text)
    else:
        assert value(text) == want


@pytest.mark.parametrize(
    ("text", "want"),
    [
        ("12*34", "408"),
        ("2 + 3 * 4 - 5", "9"),
        ("100 - 7 - 3", "90"),  # from the left: 96 from the right
        ("48 / 4 / 3", "4"),
        ("-(2 - 5) * -1", "-3"),
        ("1,250 × 3", "3750"),
        ("7 ÷ 2", "3.5"),
        (".5 + 0.25", "0.75"),
        ("1 / 3", "0.3333333333"),
    ],
)
def test_what_is_written(text, want):
    assert written(value(text)) == want


@pytest.mark.parametrize(
    "text",
    ["", "12 +", "(1", "1)", "2 ** 3", "2 3", "a + 1", "1e9", "9" * 300, "(" * 150, "1 / (2 - 2)",
     "__import__('os')", "0x10", "½", "٣", "1.2.3", "\0"],
    ids=range(17),
)  # fmt: skip
def test_what_cannot_be_read_is_an_error_with_a_reason(text):
    with pytest.raises(UnreadableError, match=r"\S"):
        value(text)


@given(st.text(max_size=300))
def test_any_text_has_a_value_or_none(text):
    try:
        found = value(text)
    except UnreadableError:
        return
    assert len(written(found)) <= LONGEST + 1


# ---------------------------------------------------------------- calculator


def asked(answer="408", **keys):
    return CalculatorParams(**keys).build().open(Example("0", "12 times 34?", answer), seed=0)


def test_a_call_is_answered_and_an_answer_ends_the_episode():
    episode = asked()
    assert episode.prompt == "12 times 34?"
    turn = episode.step(said("Let me see. <tool>12 * 34</tool>"))
    assert (turn.observation, turn.done, turn.reward) == ("<result>408</result>", False, 0.0)
    assert episode.step(said(" So <answer> 408 </answer>")).done
    assert episode.reward().total == 1.0


@pytest.mark.parametrize(
    ("call", "says"),
    [
        ("<tool>1/0</tool>", "<result>error: division by zero</result>"),
        ("<tool>12 * x</tool>", "<result>error: cannot read 'x'</result>"),
        ("12 * 34</tool>", "<result>error: no <tool> before </tool></result>"),
        ("<tool>1 + <tool>2 * 3</tool>", "<result>6</result>"),
    ],
)
def test_an_error_of_the_tool_is_an_observation(call, says):
    turn = asked().step(said(call))
    assert (turn.observation, turn.done) == (says, False)


@pytest.mark.parametrize(
    ("text", "answer", "total", "formatted"),
    [
        ("<answer>408</answer>", "408", 1, 1),
        ("<answer> 408.0 </answer>", "408", 1, 1),
        ("<answer>1,408</answer>", "1408", 1, 1),
        ("<answer>-3</answer>", "-3", 1, 1),
        ("<answer>407</answer>", "408", 0, 1),
        ("<answer>12 * 34</answer>", "408", 0, 1),  # not worked out
        ("<answer>4 08</answer>", "408", 0, 1),
        ("<answer>1</answer> <answer>408</answer>", "408", 0, 0),  # two answers are none
        ("408", "408", 0, 0),
        ("<answer>408", "408", 0, 0),
        ("408</answer>", "408", 0, 0),
        ("", "408", 0, 0),
        ("<answer>yes</answer>", "yes", 1, 1),
        ("<answer></answer>", "408", 0, 1),
    ],
)
def test_one_answer_that_is_the_number_earns_one(text, answer, total, formatted):
    episode = asked(answer)
    episode.step(said(text))
    reward = episode.reward()
    assert (reward.total, reward.parts["format"]) == (total, formatted)


def test_an_answer_before_the_last_turn_does_not_count():
    episode = asked()
    episode.step(said("<answer>408</answer> <tool>1 + 1</tool>"))
    episode.step(said("done"))
    assert episode.reward().total == 0.0


def test_the_tags_are_keys():
    world = CalculatorParams(call=("[", "]"), result=(" = ", ";"), answer=("A:", ".")).build()
    assert world.stop == ("]", ".")
    assert world.open(Example("0", "?", "5"), seed=0).step(said("[2+3]")).observation == " = 5;"


# ---------------------------------------------------------------- guess


@pytest.mark.parametrize(("low", "high"), [(1, 100), (-5, 5), (0, 1)])
def test_halving_finds_every_number(low, high):
    world = GuessParams(low=low, high=high).build()
    found = set()
    for seed in range(60):
        episode, a, b = world.open(Example("0", "Guess.", ""), seed=seed), low, high
        most = math.ceil(math.log2(high - low + 2))
        for _ in range(most):
            guess = (a + b) // 2
            turn = episode.step(said(f"I say {guess}"))
            if turn.done:
                assert (turn.reward, turn.observation) == (1.0, "right\n")
                found.add(guess)
                break
            assert turn.reward == 0.0
            a, b = (guess + 1, b) if turn.observation == "higher\n" else (a, guess - 1)
        else:
            pytest.fail(f"{most} guesses were not enough")
    assert len(found) > 1
    assert all(low <= n <= high for n in found)


def test_the_number_is_drawn_from_the_seed_alone():
    world = GuessParams().build()
    for seed in (0, 2**62):
        games = [world.open(Example(i, i, ""), seed=seed) for i in ("a", "b")]
        answers = [[g.step(said(str(n))).observation for n in range(1, 101)] for g in games]
        assert answers[0] == answers[1]
        assert answers[0].count("right\n") == 1
        assert answers[0].index("right\n") + 1 == Random(seed).randint(1, 100)


def test_a_turn_without_a_number_is_told_so():
    turn = GuessParams().build().open(Example("0", "", ""), seed=0).step(said("well"))
    assert (turn.observation, turn.done) == ("no number\n", False)


@pytest.mark.parametrize("high", [1, 0])
def test_an_empty_range_is_refused(high):
    ((key, said_),) = GuessParams(low=1, high=high).check({})
    assert key == "high"
    assert "must be above low = 1" in said_


def test_environments_take_no_tables_of_their_own():
    assert slots_of(CalculatorParams, KINDS) == slots_of(GuessParams, KINDS) == {}


def test_the_plan_says_that_runs_without_lockstep_are_not_bit_for_bit():
    recipe = Path(__file__).resolve().parents[3] / "recipes" / "tool_use.toml"
    for how, expected in (("true", False), ("false", True)):
        done = run_cli("run", recipe, "--dry-run", "-s", f"environment.lockstep={how}")
        assert done.status == 0, done.stderr
        assert ("not bit for bit, as lockstep = false" in done.stdout) == expected
