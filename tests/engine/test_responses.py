"""What a reward is handed: text that knows how it was sampled."""

import json
import pickle

import pytest

from alignkit.errors import AlignkitError
from alignkit.protocols import Completion, Example, Response
from alignkit_rewards import LengthPenalty, OverlongShaping, WeightedSum
from alignkit_rewards.shaping import overlong_penalty

EXAMPLE = Example("0", "q", "4")


def sampled(text, tokens):
    ids = tuple(range(tokens))
    return Response.of(Completion(text, ids, (0.0,) * tokens, "stop", 0))


def test_it_is_its_text():
    response = sampled(" four ", 3)
    assert response == " four "
    assert {response: 1}[" four "] == 1
    assert json.dumps(response) == '" four "'
    assert type(response.strip()) is str
    assert pickle.loads(pickle.dumps(response)).completion == response.completion


@pytest.mark.parametrize("tokens", [16, 17, 20, 40])
def test_overlong_shaping_counts_sampled_tokens(tokens):
    """Whatever the text would be as tokens: special ones and merges differ."""
    reward = OverlongShaping(unit="tokens", max_length=20, cache=4).build()
    (found,) = reward([sampled("x", tokens)], [EXAMPLE])
    assert found.total == overlong_penalty(tokens, max_length=20, cache=4)


def test_within_a_sum_too():
    overlong = OverlongShaping(unit="tokens", max_length=20, cache=4).build()
    reward = WeightedSum().build(terms={"overlong": overlong})
    (found,) = reward([sampled("x", 19)], [EXAMPLE])
    assert found.total == -0.75


def test_text_that_was_not_sampled_needs_a_tokenizer(tiny_folder):
    kept = {"unit": "tokens", "free": 2, "span": 10}
    with pytest.raises(AlignkitError, match="this text was not sampled; set tokenizer"):
        LengthPenalty(**kept).build()(["abcd"], [EXAMPLE])
    reward = LengthPenalty(**kept, tokenizer=str(tiny_folder)).build()
    (found,) = reward(["abcd"], [EXAMPLE])  # a token per byte
    assert found.total == pytest.approx(-0.2)
    (found,) = reward([sampled("abcd", 3)], [EXAMPLE])
    assert found.total == pytest.approx(-0.1)


def test_a_run_hands_over_what_it_sampled(tiny_folder, tmp_path):
    from alignkit.engine.observing.clock import Clock
    from alignkit.engine.sampling.questions import make_prompt
    from alignkit.engine.sampling.rollouts import collect, serving
    from alignkit.protocols import Reward, Sampling
    from alignkit_hf import HfPolicy, HfRollout

    class Template:
        stop = ()

        def render(self, question):
            return question

    seen = []

    def reward(responses, examples):
        seen.extend(responses)
        return [Reward(0.0) for _ in responses]

    policy = HfPolicy(path=str(tiny_folder)).build()
    backend = HfRollout(max_tokens=5).build()
    prompts = [make_prompt(i, i, EXAMPLE, Template(), policy) for i in range(3)]
    with serving(backend, policy):
        found = collect(prompts, policy=policy, backend=backend, reward=reward,
                        sampling=Sampling(n=2, max_tokens=5), clock=Clock())  # fmt: skip
    assert [r.completion for r in seen] == [t.completion for t in found]
