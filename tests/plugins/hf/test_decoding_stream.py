"""Groups handed out as they finish, while others are still being decoded."""

from dataclasses import replace

import pytest
import torch

from alignkit import AlignkitError
from alignkit_hf import HfRollout
from alignkit_hf.fast.forward import Forward


def streaming(policy, prompts, budget=100, **how):
    backend = HfRollout(kv_cache_tokens=budget).build()
    backend.start(policy)
    return backend.stream(prompts, replace(backend.sampling, **how))


def test_groups_are_handed_out_as_they_finish(policy, prompts, monkeypatch):
    """With room for a few responses at a time, groups finish apart, and not in order."""
    passes = []
    decode = Forward.decode
    monkeypatch.setattr(Forward, "decode", lambda *a: passes.append(0) or decode(*a))
    policy.eos_ids = frozenset(range(0, 256, 16))  # a response ends after about 16 tokens
    arrivals, groups = [], {}
    for i, group in streaming(policy, prompts, 300, n=3, max_tokens=40, seed=1):
        arrivals.append((i, len(passes)))
        groups[i] = group
    order, times = zip(*arrivals, strict=True)
    # by the longest of three: 12, 30, 40 and 15, 40 tokens; prompts 3 and 4 wait for rows
    assert order == (2, 1, 0, 4, 3)
    assert len(set(times)) == 5  # all handed out at the end would be 1
    assert times[-1] == len(passes)
    longest = [max(len(c.token_ids) for c in groups[i]) for i in range(5)]
    assert longest == [40, 30, 12, 40, 15]


def test_a_stream_holds_what_generate_returns(policy, sample, prompts):
    how = {"n": 3, "max_tokens": 12, "seed": 4, "prompt_keys": (5, 1, 4, 2, 8)}
    groups = dict(streaming(policy, prompts, **how))
    assert [groups[i] for i in range(5)] == sample(policy, prompts, 100, **how)


def test_many_groups_are_handed_out_in_bundles(policy, monkeypatch):
    entered = []
    ready = Forward.ready
    monkeypatch.setattr(Forward, "ready", lambda self: entered.append(0) or ready(self))
    groups = dict(streaming(policy, [[i] for i in range(80)], n=1, max_tokens=2))
    assert sorted(groups) == list(range(80))
    # at start, then once per 3 of 80 groups, which is ceil(80 / 3) = 27; singly it would be 81
    assert len(entered) <= 28


def test_between_groups_the_model_is_as_it_was(policy, prompts):
    policy.model.train()
    policy.autocast = lambda: torch.autocast("cpu", dtype=torch.bfloat16)
    stream = streaming(policy, prompts, n=2, max_tokens=4)
    for k, _ in enumerate(stream):
        assert policy.model.training
        assert torch.is_grad_enabled()
        assert not torch.is_autocast_enabled("cpu")
        assert policy.model.config._attn_implementation == "sdpa"
        if k == 1:
            break  # nor does a stream left in the middle leave anything behind
    policy.model(torch.tensor(prompts[:1])).logits.sum().backward()


def test_a_prompt_without_room_comes_first(policy):
    asked = [[1], [1] * policy.max_length, [1, 2]]
    arrived = list(streaming(policy, asked, n=2, max_tokens=2))
    assert arrived[0][0] == 1
    assert [(c.token_ids, c.finish_reason) for c in arrived[0][1]] == [((), "length")] * 2
    assert sorted((i, len(group)) for i, group in arrived) == [(0, 2), (1, 2), (2, 2)]
    assert list(streaming(policy, [])) == []


def test_a_bad_stream_is_refused_at_the_call(policy):
    with pytest.raises(AlignkitError, match="prompt 0 has no tokens"):
        streaming(policy, [[]])
