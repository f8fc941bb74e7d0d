"""Refusals by their phrases, and responses that ended of their own accord."""

import pytest

from alignkit.protocols import Completion, Example, Response
from alignkit_rewards import Finished, Refusal
from alignkit_rewards.refusals import BEGINNING, refuses


@pytest.mark.parametrize(
    "said",
    [
        "I'm sorry, but no.",
        "I’m really sorry that you feel this way.",
        "I cannot tell you that.",
        "Sorry? No: I won't.",
        "I am not able to give such advice.",
        "As an assistant, I must not. I can't help with this.",
        "That would be illegal, so no.",
        "Please seek professional help.",
        "I do not feel comfortable with that.",
    ],
)
def test_refusals(said):
    assert refuses(said)


@pytest.mark.parametrize(
    "said",
    [
        "",
        "Sure! Here is how.",
        "First, I can help you with the bank details.",
        "You can tell him that you will not pay.",
        "The sorry state of the flood car should not be shown.",
        "x" * BEGINNING + " I'm sorry.",
    ],
)
def test_compliance(said):
    assert not refuses(said)


def test_the_reward_is_the_rule():
    example = Example("0", "q", "")
    found = Refusal().build()(["I can't do that.", "Sure."], [example] * 2)
    assert [(r.total, dict(r.parts)) for r in found] == [
        (1.0, {"answer": 1.0}),
        (0.0, {"answer": 0.0}),
    ]


def test_finished_looks_at_how_sampling_ended():
    def response(reason):
        made = Completion(
            text="a", token_ids=(1,), logprobs=(0.0,), finish_reason=reason, weight_version=0
        )
        return Response.of(made)

    given = [response("stop"), response("length"), "text"]
    found = Finished().build()(given, [Example("0", "q", "")] * 3)
    assert [r.total for r in found] == [1.0, 0.0, 1.0]
