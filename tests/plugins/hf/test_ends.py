"""What ends a response, and the length that bounds it."""

import pytest
import torch


@pytest.fixture
def ending(policy):
    """The policy, ending at any of the ids 128 .. 255: after about two tokens."""
    policy.__dict__["eos_ids"] = frozenset(range(128, 256))
    return policy


def test_any_end_id_ends(ending, sample, prompts):
    groups = sample(ending, prompts, 150, n=8, max_tokens=6, seed=2)
    completions = [c for group in groups for c in group]
    reasons = {c.finish_reason for c in completions}
    assert reasons == {"stop", "length"}
    assert len({c.token_ids[-1] for c in completions if c.finish_reason == "stop"}) > 5
    for c in completions:
        inner, last = c.token_ids[:-1], c.token_ids[-1]
        assert not ending.eos_ids & set(inner)
        assert (last in ending.eos_ids) == (c.finish_reason == "stop")
        assert c.finish_reason == "stop" or len(c.token_ids) == 6
        spoken = inner if c.finish_reason == "stop" else c.token_ids
        assert c.text == ending.tokenizer.decode(spoken, skip_special_tokens=True)


def test_nothing_ends_before_min_tokens(ending, sample, prompts):
    groups = sample(ending, prompts, n=8, max_tokens=9, min_tokens=4, seed=2)
    lengths = [len(c.token_ids) for group in groups for c in group]
    assert min(lengths) == 5  # four tokens, then an end id
    for c in (c for group in groups for c in group):
        assert not ending.eos_ids & set(c.token_ids[:4])


def test_logprobs_before_min_tokens_leave_out_end_ids(ending, sample, prompts):
    [[completion]] = sample(ending, prompts[:1], max_tokens=1, min_tokens=1)
    with torch.no_grad():
        logits = ending.model(torch.tensor(prompts[:1])).logits[0, -1]
    logits[sorted(ending.eos_ids)] = -torch.inf
    expected = logits.log_softmax(-1)[completion.token_ids[0]]
    assert completion.logprobs[0] == pytest.approx(float(expected), abs=1e-5)


def test_max_length_of_the_model_bounds_prompt_and_response(policy, sample):
    limit = policy.max_length  # 1024
    some = [[1] * (limit - 3), [1] * limit, [1] * (limit + 5), [1, 2]]
    groups = sample(policy, some, n=2, max_tokens=5)
    assert [[len(c.token_ids) for c in group] for group in groups] == [
        [3, 3],
        [0, 0],
        [0, 0],
        [5, 5],
    ]
    assert all(c.finish_reason == "length" for group in groups for c in group)
    assert groups[1][0].text == ""
    assert groups[1][0].logprobs == ()


def test_only_prompts_without_room(policy, sample):
    [[completion]] = sample(policy, [[1] * policy.max_length], max_tokens=5)
    assert completion.token_ids == ()


def test_one_token_each(policy, sample, prompts):
    groups = sample(policy, prompts, n=2, max_tokens=1)
    assert all(len(c.token_ids) == 1 for group in groups for c in group)
