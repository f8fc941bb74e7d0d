"""The reward components as a recipe sees them."""

import inspect

import pytest

from alignkit import AlignkitError, plugins
from alignkit.protocols import Example, Reads, Reward
from alignkit_cs336 import question_only_reward_fn, r1_zero_reward_fn
from alignkit_rewards import (
    FormatBonus,
    LengthPenalty,
    OverlongShaping,
    Python,
    QuestionOnly,
    R1Zero,
    RepetitionPenalty,
    WeightedSum,
)
from alignkit_rewards.answers import Conventions
from alignkit_rewards.formats import boxed_answer
from alignkit_rewards.graded import GradedReward

OFFERED = (
    "r1_zero",
    "question_only",
    "weighted_sum",
    "length_penalty",
    "repetition_penalty",
    "overlong_shaping",
    "format_bonus",
    "python",
)
EXAMPLE = Example("0", "q", "4")


def score(reward, response, example=EXAMPLE):
    return reward([response], [example])[0]


def test_every_component_is_offered():
    registry = plugins.load()
    for name in OFFERED:
        plugin, component = registry.get("reward_fn", name)
        assert plugin.name == "rewards"
        assert inspect.getdoc(component.params)


@pytest.mark.parametrize(
    ("response", "parts"),
    [
        ("t </think> <answer>4</answer>", {"format": 1.0, "answer": 1.0}),
        ("t </think> <answer>5</answer>", {"format": 1.0, "answer": 0.0}),
        ("t </think> <answer></answer>", {"format": 1.0, "answer": 0.0}),
        ("the answer is 4", {"format": 0.0, "answer": 0.0}),
    ],
)
def test_r1_zero_shows_format_and_answer_apart(response, parts):
    assert score(R1Zero().build(), response) == Reward(parts["answer"], parts)


def test_r1_zero_can_be_lenient_about_white_space():
    response = "t </think>\n<answer>4</answer>"
    assert score(R1Zero().build(), response).total == 0.0
    assert score(R1Zero(strict_format=False).build(), response).total == 1.0


def test_question_only_wants_a_box():
    assert score(QuestionOnly().build(), r"so \boxed{x = 4}").total == 1.0
    assert score(QuestionOnly().build(), "so 4").parts == {"format": 0.0, "answer": 0.0}


def test_golds_may_be_numbers_or_several():
    assert r1_zero_reward_fn("</think> <answer>x = 7</answer>", 7)["reward"] == 1.0
    assert r1_zero_reward_fn("</think> <answer>0.5</answer>", ["1/3", 0.5])["reward"] == 1.0
    assert question_only_reward_fn(r"\boxed{2}", ["1/3", 0.5]) == {
        "format_reward": 1.0,
        "answer_reward": 0.0,
        "reward": 0.0,
    }


def test_further_answers_come_from_a_column():
    reward = R1Zero(also_accepted="others").build()
    example = Example("0", "q", "4", {"others": ["5", 6]})
    assert score(reward, "</think> <answer>6</answer>", example).total == 1.0
    assert score(reward, "</think> <answer>7</answer>", example).total == 0.0


def test_a_weighted_sum_shows_every_share():
    reward = WeightedSum(weights={"short": 0.5}).build(
        terms={
            "right": R1Zero().build(),
            "short": LengthPenalty(free=2, span=4).build(),
        }
    )
    found = score(reward, "a b </think> <answer>4</answer>")  # 4 words: 2 over, 2 / 4 of the way
    assert found.total == 1.0 - 0.5 * 0.5
    assert found.parts == {
        "format": 1.0,
        "answer": 1.0,
        "share/right": 1.0,
        "share/short": -0.25,
    }


def test_a_weighted_sum_grades_in_the_background():
    reward = WeightedSum().build(terms={"a": R1Zero().build(), "b": FormatBonus().build()})
    pending = reward.submit(["</think> <answer>2 + 2</answer>"], [EXAMPLE])
    assert [r.total for r in pending.result()] == [2.0]


def test_groups_submitted_apart_get_what_one_call_gives():
    """Shaping and rewards of one's own have no submit; inside a sum they need none."""
    terms = {"right": R1Zero().build(), "short": LengthPenalty(free=2, span=4).build()}
    answers = ["4", "2 + 2", "5", r"\sqrt{16}", "2 + 3", ""]
    responses = [f"a </think> <answer>{a}</answer>" for a in answers] + ["none", "4"]
    examples = [EXAMPLE] * 4 + [Example("1", "q", "5")] * 4
    for reward in (terms["right"], WeightedSum().build(terms=terms)):
        whole = reward(responses, examples)
        second = reward.submit(responses[4:], examples[4:])
        first = reward.submit(responses[:4], examples[:4])
        assert [*first.result(), *second.result()] == whole
        assert [r.parts["answer"] for r in whole] == [1, 1, 0, 1, 1, 0, 0, 0]


def test_rewards_say_which_answer_samples_vote_on(script):
    graded, shaping = R1Zero().build(), LengthPenalty(free=2, span=4).build()
    written = script("def reward(r, e):\n    return 0\n").build()
    text = r"so <answer> x = \boxed{4} </answer> \boxed{5}"
    for reward in (
        graded,
        QuestionOnly().build(),
        written,
        WeightedSum().build(terms={"a": graded}),
    ):
        assert isinstance(reward, Reads)
        assert reward.read(text) == "4"
        assert reward.read("so 4") is None
    assert WeightedSum().build(terms={"b": shaping, "a": graded}).read(text) == "4"
    assert WeightedSum().build(terms={"b": shaping}).read(" so 4 ") == "so 4"


def test_a_term_that_changes_the_call_alone_is_called():
    class Doubled(GradedReward):
        def __call__(self, responses, examples):
            return [Reward(2 * r.total) for r in super().__call__(responses, examples)]

    doubled = Doubled(boxed_answer, Conventions(), timeout=2.0)
    reward = WeightedSum().build(terms={"a": doubled})
    assert score(reward, r"\boxed{2 + 2}").total == 2.0  # its inherited submit would give 1


def test_a_weight_for_no_term_is_an_error():
    problems = list(WeightedSum(weights={"rigth": 1.0}).check({"terms": {"right": R1Zero()}}))
    assert problems == [("weights", "no term is called 'rigth'; there are: right")]
    assert [key for key, _ in WeightedSum().check({})] == [""]


@pytest.mark.parametrize(
    ("characters", "penalty"),
    # max_length 20, cache 8: 0 up to 12, then (12 - n) / 8, and -1 from 20 on; taking the
    # whole length for the slope would give -0.2 at 16
    [(12, 0.0), (14, -0.25), (16, -0.5), (20, -1.0), (21, -1.0), (200, -1.0)],
)
def test_overlong_shaping_follows_dapo(characters, penalty):
    reward = OverlongShaping(unit="characters", max_length=20, cache=8).build()
    assert score(reward, "x" * characters) == Reward(penalty, {"overlong": penalty})


def test_lengths_can_be_tokens(tiny_folder):
    reward = LengthPenalty(unit="tokens", tokenizer=str(tiny_folder), free=3, span=2).build()
    # a byte-level tokenizer without merges: one token per ASCII character
    assert [score(reward, "x" * n).total for n in (3, 4, 5)] == [0.0, -0.5, -1.0]
    # Sampled responses bring their tokens, so a tokenizer is needed for other text alone.
    assert not list(LengthPenalty(unit="tokens", free=1, span=1).check({}))


def test_repetition_penalty_counts_repeated_ngrams():
    reward = RepetitionPenalty(n=2).build()
    assert score(reward, "a b c d").total == 0.0
    # bigrams ab bc ca ab bc: 5, of which 2 have been seen
    assert score(reward, "a b c a b c").total == pytest.approx(-2 / 5)
    assert score(reward, "a").total == 0.0


def test_a_format_bonus_ignores_the_answer():
    assert score(FormatBonus().build(), "</think> <answer>no</answer>").total == 1.0
    assert score(FormatBonus(rule="boxed").build(), r"\boxed{no}").total == 1.0
    assert score(FormatBonus(rule="boxed").build(), "no").total == 0.0


# ---------------------------------------------------------------- python


@pytest.fixture
def script(tmp_path):
    def write(body, **fields):
        path = tmp_path / "my_reward.py"
        path.write_text(body)
        return Python(file=path, **fields)

    return write


def test_a_function_of_ones_own(script):
    params = script("def reward(response, example):\n    return response.count(example.answer)\n")
    assert list(params.check({})) == []
    assert score(params.build(), "4 and 4").total == 2.0
    # printf 'def reward(...' | sha256sum has 64 hexadecimal digits
    assert len(params.facts({})["sha256 of the reward file"]) == 64


def test_a_function_may_return_parts(script):
    body = "def f(r, e):\n    return {'reward': 0.5, 'style': 1}\n"
    found = score(script(body, function="f").build(), "x")
    assert found == Reward(0.5, {"style": 1.0})


def test_a_batched_function(script):
    body = "def reward(rs, es):\n    return [len(r) for r in rs]\n"
    found = script(body, batched=True).build()(["a", "bb"], [EXAMPLE, EXAMPLE])
    assert [r.total for r in found] == [1.0, 2.0]


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("def other(r, e): pass\n", "defines no 'reward'"),
        ("def reward(r, e:\n", "cannot be read as Python"),
    ],
)
def test_a_bad_script_is_found_before_the_run(script, body, message):
    ((_, text),) = script(body).check({})
    assert message in text


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("def reward(r, e):\n    return 1 / 0\n", "raised ZeroDivisionError.*line 2"),
        ("def reward(r, e):\n    return 'good'\n", "returned 'good'"),
        ("def reward(r, e):\n    return float('nan')\n", "returned nan"),
    ],
)
def test_a_script_that_fails_says_where(script, body, message):
    with pytest.raises(AlignkitError, match=message):
        score(script(body).build(), "x")


def test_a_batched_script_must_answer_for_each(script):
    reward = script("def reward(rs, es):\n    return [1]\n", batched=True).build()
    with pytest.raises(AlignkitError, match="1 rewards for 2 responses"):
        reward(["a", "b"], [EXAMPLE, EXAMPLE])
