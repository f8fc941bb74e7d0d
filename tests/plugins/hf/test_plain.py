"""The plain sampler: what any causal model says, by calls that anybody would make."""

import warnings
from dataclasses import replace
from functools import wraps
from inspect import signature
from itertools import chain
from types import SimpleNamespace

import pytest
import torch

from alignkit import AlignkitError
from alignkit.testing import conformance, tiny_model
from alignkit_hf import HfRollout
from alignkit_hf.sampling.calls import cache_of, with_cache

test_the_plain_sampler_conforms = conformance(
    "hf",
    params={"policy/hf": {"path": tiny_model()}, "rollout_backend/hf": {"decoding": "plain"}},
)

EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16}
LINEAR = {
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 2,
    "linear_key_head_dim": 8,
    "linear_value_head_dim": 8,
}
MODELS = {
    "no cache at all": ("openai-gpt", {}),
    "a recurrent state": ("mamba", {"state_size": 8}),
    "a state that a second call of the model spoils": ("rwkv", {"attention_hidden_size": 32}),
    "linear attention between full": (
        "qwen3_next",
        EXPERTS
        | LINEAR
        | {
            "head_dim": 8,
            "shared_expert_intermediate_size": 16,
            "layer_types": ["linear_attention", "full_attention", "linear_attention"],
        },
    ),
    "keys and values of two sizes": (
        "deepseek_v3",
        {
            "num_key_value_heads": 4, "qk_nope_head_dim": 8, "qk_rope_head_dim": 8,
            "v_head_dim": 16, "kv_lora_rank": 16, "q_lora_rank": 16, "n_routed_experts": 8,
            "n_group": 2, "topk_group": 1, "num_experts_per_tok": 2, "moe_intermediate_size": 16,
        },
    ),
    "biases in place of positions": ("bloom", {}),
    "attention in chunks": (
        "llama4_text",
        {"head_dim": 8, "attention_chunk_size": 8, "num_local_experts": 2},
    ),
    "a window that only some layers have, counted from the longest row": (
        "gpt_neo",
        {
            "num_hidden_layers": 2,
            "attention_types": [[["global", "local"], 1]],
            "window_size": 8,
        },
    ),
}  # fmt: skip
WITHOUT_CACHE = {"openai-gpt", "mamba", "rwkv"}
"""Calls take none. Newer transformers hand mamba's state over as a cache."""


@pytest.fixture
def plainly():
    """``plainly(policy, prompts, budget, **fields of Sampling)`` by the plain sampler."""

    def sample(policy, prompts, budget=2**18, **how):
        backend = HfRollout(kv_cache_tokens=budget, decoding="plain").build()
        backend.start(policy)
        return backend.generate(prompts, replace(backend.sampling, **how))

    return sample


def is_what_whole_rows_say(policy, prompts, groups, atol=1e-4):
    """Log-probs are those of one call on each finished row."""
    for prompt, group in zip(prompts, groups, strict=True):
        for c in group:
            row = torch.tensor([[*prompt, *c.token_ids]])
            with torch.no_grad():
                logits = policy.model(row, use_cache=False).logits[0, len(prompt) - 1 : -1]
            want = logits.log_softmax(-1).gather(1, row[0, len(prompt) :, None])[:, 0]
            torch.testing.assert_close(torch.tensor(c.logprobs), want, atol=atol, rtol=0)
    return True


@pytest.mark.parametrize("name", MODELS)
def test_any_causal_model_is_sampled_from(name, prompts, random_policy):
    """Where decoding by a cache of ours does not work, it is said and the plain sampler is used."""
    kind, settings = MODELS[name]
    policy = random_policy(kind, "eager", **settings)
    backend = HfRollout(kv_cache_tokens=200).build()
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        backend.start(policy)
        how = replace(backend.sampling, n=3, max_tokens=16, seed=1)
        groups = backend.generate(prompts, how)
    told = " ".join(str(warning.message) for warning in said)
    assert f"{kind} is sampled from by plain calls of the model, which is slow" in told
    whole = f"{kind} reads whole rows for every token, its cache is of no use: calls return no"
    state = kind == "mamba" and "cache" in signature(type(policy.model).forward).parameters
    assert (f"{whole} cache" in told) == (kind in WITHOUT_CACHE and not state)
    # A state that is carried on sums in another order than a whole row: 2.5e-4 seen in float32,
    # with log-probs near -19; in float64, which computes the state in float32 still, 1.5e-5.
    assert is_what_whole_rows_say(policy, prompts, groups, atol=1e-3 if state else 1e-4)
    assert len({c.token_ids for c in chain(*groups)}) == 15


def test_greedy_takes_the_best_token_of_whole_rows(policy, prompts, plainly):
    for prompt, (c,) in zip(
        prompts, plainly(policy, prompts, temperature=0, max_tokens=12), strict=True
    ):
        ids = list(prompt)
        for token in c.token_ids:
            with torch.no_grad():
                assert token == int(policy.model(torch.tensor([ids])).logits[0, -1].argmax())
            ids.append(token)


def test_how_many_run_at_once_changes_nothing(policy, prompts, plainly):
    how = {"n": 5, "max_tokens": 10, "seed": 3, "prompt_keys": (4, 8, 1, 3, 2)}
    want = plainly(policy, prompts, **how)
    for budget in (1, 60):
        got = plainly(policy, prompts, budget, **how)
        assert [c.token_ids for c in chain(*got)] == [c.token_ids for c in chain(*want)]
    assert len({c.token_ids for c in chain(*want)}) == 25


@pytest.mark.parametrize(("budget", "most"), [(2**18, 6), (100, 3), (1, 1)])
def test_the_budget_bounds_the_rows_side_by_side(policy, plainly, budget, most):
    """Rows of 20 + 10 tokens: 3 of them in 100, and one however small the budget."""
    seen = set()
    policy.model.register_forward_pre_hook(lambda _, given: seen.add(given[0].shape))
    plainly(policy, [[1] * 20], budget, n=6, max_tokens=10)
    assert max(rows for rows, width in seen if width == 20) == most


@pytest.mark.parametrize(("window", "widths"), [(64, {20, 1}), (24, set(range(20, 30)))])
def test_past_a_window_whole_rows_are_read(random_policy, plainly, window, widths):
    policy = random_policy("mistral", sliding_window=window)
    calls = []
    policy.model.register_forward_pre_hook(lambda _, given: calls.append(given[0].shape[1]))
    (group,) = plainly(policy, [[1] * 20], n=2, max_tokens=10)
    assert set(calls[-10:]) == widths
    assert is_what_whole_rows_say(policy, [[1] * 20], [group])


def test_a_model_that_sees_what_follows_is_refused(random_policy):
    policy = random_policy("bert", is_decoder=False)
    backend = HfRollout(decoding="plain").build()
    with pytest.raises(AlignkitError, match="cannot sample from bert: its logits change with"):
        backend.start(policy)


def test_a_model_whose_logits_are_not_numbers_is_refused(policy):
    with torch.no_grad():
        policy.model.lm_head.weight[7, 0] = torch.nan
    backend = HfRollout(decoding="plain").build()
    with pytest.raises(AlignkitError, match="its logits are not finite"):
        backend.start(policy)


def test_a_cache_that_changes_logits_is_not_used(policy, prompts, plainly, monkeypatch):
    """A model that forgets half of what it was given, if it is given a cache."""
    forward = type(policy.model).forward

    @wraps(forward)
    def forgetful(self, ids, **given):
        cache = given.get("cache", given.get("past_key_values"))
        if cache is not None:
            cache.layers[0].keys *= 0
        return forward(self, ids, **given)

    want = plainly(policy, prompts, n=2, max_tokens=8, seed=1)
    monkeypatch.setattr(type(policy.model), "forward", forgetful)
    with pytest.warns(UserWarning, match="its cache is of no use: logits differ with it"):
        got = plainly(policy, prompts, n=2, max_tokens=8, seed=1)
    assert [c.token_ids for c in chain(*got)] == [c.token_ids for c in chain(*want)]


class Older(torch.nn.Module):
    def forward(self, ids, past_key_values=None, **given):
        return SimpleNamespace(past_key_values=past_key_values)


class Newer(torch.nn.Module):
    def forward(self, ids, cache=None, **given):
        return SimpleNamespace(cache=cache)


class Wrapped(torch.nn.Module):
    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, *args, **given):
        return self.inner(*args, **given)


class Neither(torch.nn.Module):
    def forward(self, ids, use_cache=True):
        return SimpleNamespace(logits=ids)


def test_a_cache_is_handed_over_under_the_name_that_the_model_has_for_it(policy):
    assert with_cache(Older(), 5) == {"past_key_values": 5, "use_cache": True}
    assert with_cache(Newer(), 5) == {"cache": 5, "use_cache": True}
    for model in (Older(), Newer()):
        assert cache_of(model(1, **with_cache(model, 5))) == 5
    assert cache_of(Neither()(1)) is None
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        first = policy.model(torch.tensor([[3, 4]]), **with_cache(policy.model, None))
        outer = Wrapped(policy.model)
        again = outer(torch.tensor([[5]]), **with_cache(outer, cache_of(first)))
    whole = policy.model(torch.tensor([[3, 4, 5]]), use_cache=False).logits[:, -1]
    torch.testing.assert_close(again.logits[:, -1], whole, rtol=0, atol=1e-4)


def test_the_model_is_left_as_it_was(policy, prompts):
    policy.model.train()
    backend = HfRollout(max_tokens=3, decoding="plain").build()
    backend.start(policy)
    for _ in backend.stream(prompts, backend.sampling):
        assert policy.model.training
        assert torch.is_grad_enabled()
    policy.model(torch.tensor(prompts[:1])).logits.sum().backward()
