"""Sampled responses: what the model says, whatever else is in the batch."""

from dataclasses import replace

import pytest
import torch

from alignkit_hf import HfRollout
from alignkit_hf.fast.cache import RowCache
from alignkit_hf.fast.forward import Forward
from alignkit_hf.fast.probe import qualify
from alignkit_hf.fast.shared import SharedCache
from decoded import greedy, ids

WINDOW = {"sliding_window": 8}

MODELS = {
    "qwen2": ("qwen2", {}),
    "qwen2, some layers with a window": (
        "qwen2",
        WINDOW | {"use_sliding_window": True, "max_window_layers": 1},
    ),
    "qwen3, norms on heads": ("qwen3", {"head_dim": 8}),
    "llama": ("llama", {}),
    "llama, stretched positions": (
        "llama",
        {"rope_parameters": {"rope_type": "linear", "factor": 4.0, "rope_theta": 1e4}},
    ),
    "mistral, all layers with a window": ("mistral", WINDOW),
    "gemma2, capped scores and logits": ("gemma2", {"head_dim": 8}),
    "gpt2": ("gpt2", {}),
}


@pytest.fixture
def model_of(random_policy):
    """``model_of(name, attention)``: a policy around a random model of ``MODELS``."""

    def make(name, attention="sdpa"):
        kind, settings = MODELS[name]
        return random_policy(kind, attention, **settings)

    return make


@pytest.mark.parametrize("budget", [2**18, 100])
@pytest.mark.parametrize("name", MODELS)
def test_greedy_is_generate(name, budget, sample, prompts, model_of):
    policy = model_of(name)
    got = sample(policy, prompts, budget, n=2, temperature=0, max_tokens=24)
    expected = [greedy(policy.model, prompt, 24) for prompt in prompts]
    assert ids(got) == [[tuple(row)] * 2 for row in expected]
    assert len({tuple(row) for row in expected}) == len(prompts)  # the prompt does matter


@pytest.mark.parametrize(
    ("name", "attention", "cache"),
    [
        ("qwen2", "sdpa", SharedCache),
        ("qwen2", "eager", SharedCache),
        ("gpt2", "sdpa", SharedCache),
        ("gemma2, capped scores and logits", "eager", RowCache),
    ],
)
def test_prompts_are_shared_where_the_model_allows(name, attention, cache, model_of):
    forward = Forward(model_of(name, attention))
    qualify(forward)
    assert forward.works_with is cache


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_rows_with_their_own_prompt_give_the_same(attention, prompts, model_of):
    policy = model_of("qwen2", attention)
    found = []
    for cache in (SharedCache, RowCache):
        backend = HfRollout(kv_cache_tokens=150).build()
        backend.start(policy)
        backend._paths.fast.forward.works_with = cache
        how = replace(backend.sampling, n=3, max_tokens=20, seed=1)
        found.append(backend.generate(prompts, how))
    assert ids(found[0]) == ids(found[1])


@pytest.mark.parametrize("temperature", [1.0, 0.6])
def test_logprobs_are_those_of_a_plain_forward(policy, sample, prompts, temperature):
    groups = sample(policy, prompts, 100, n=3, temperature=temperature, max_tokens=20, seed=5)
    for prompt, group in zip(prompts, groups, strict=True):
        for completion in group:
            row = torch.tensor([[*prompt, *completion.token_ids]])
            with torch.no_grad():
                logits = policy.model(row, use_cache=False).logits[0, len(prompt) - 1 : -1]
            expected = (logits / temperature).log_softmax(-1)
            expected = expected.gather(1, row[0, len(prompt) :, None])[:, 0]
            torch.testing.assert_close(
                torch.tensor(completion.logprobs), expected, atol=1e-5, rtol=0
            )


def test_greedy_logprobs_are_the_models_own(policy, sample, prompts):
    [[completion]] = sample(policy, prompts[:1], temperature=0, max_tokens=5)
    row = torch.tensor([[*prompts[0], *completion.token_ids]])
    with torch.no_grad():
        expected = policy.model(row).logits[0, len(prompts[0]) - 1 : -1].log_softmax(-1)
    torch.testing.assert_close(
        torch.tensor(completion.logprobs), expected.amax(-1), atol=1e-5, rtol=0
    )


def test_the_batch_does_not_matter(policy, sample, prompts):
    """Budgets from one row at a time to all at once, any order, alone or together."""
    how = {"n": 4, "max_tokens": 20, "seed": 7, "step": 3}
    keys = (40, 11, 22, 93, 54)
    expected = ids(sample(policy, prompts, **how, prompt_keys=keys))
    assert len({row for group in expected for row in group}) == 20  # all different
    for budget in (1, 90, 200, 400):
        assert ids(sample(policy, prompts, budget, **how, prompt_keys=keys)) == expected
    order = [3, 0, 4, 2, 1]
    shuffled = sample(
        policy, [prompts[i] for i in order], 120, **how, prompt_keys=tuple(keys[i] for i in order)
    )
    assert ids(shuffled) == [expected[i] for i in order]
    for prompt, key, group in zip(prompts, keys, expected, strict=True):
        assert ids(sample(policy, [prompt], **how, prompt_keys=(key,))) == [group]
    fewer = sample(policy, prompts, **how | {"n": 2}, prompt_keys=keys)
    assert ids(fewer) == [group[:2] for group in expected]


def test_seed_step_and_key_matter(policy, sample, prompts):
    base = {"max_tokens": 12, "seed": 1, "step": 1, "prompt_keys": (5,)}
    found = [
        ids(sample(policy, prompts[:1], **base | change))[0][0]
        for change in ({}, {"seed": 2}, {"step": 2}, {"prompt_keys": (6,)})
    ]
    assert len(set(found)) == 4


def test_prompt_keys_default_to_positions(policy, sample, prompts):
    how = {"max_tokens": 8, "seed": 1}
    by_default = sample(policy, prompts[:2], **how)
    assert ids(by_default) == ids(sample(policy, prompts[:2], **how, prompt_keys=(0, 1)))
