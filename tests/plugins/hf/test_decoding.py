"""Sampled responses: what the model says, whatever else is in the batch."""

import gc
import weakref
from dataclasses import replace

import pytest
import torch

from alignkit import AlignkitError
from alignkit_hf import HfRollout
from alignkit_hf.fast.cache import RowCache
from alignkit_hf.fast.forward import Forward
from alignkit_hf.fast.probe import qualify
from alignkit_hf.fast.shared import SharedCache

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


def greedy(model, prompt, count):
    """What transformers' own loop says, one prompt at a time."""
    out = model.generate(
        torch.tensor([prompt]),
        attention_mask=torch.ones(1, len(prompt), dtype=torch.long),
        max_new_tokens=count,
        do_sample=False,
        pad_token_id=0,
    )
    return out[0, len(prompt) :].tolist()


def ids(completions):
    return [[c.token_ids for c in group] for group in completions]


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


# ---------------------------------------------------------------- draws


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


# ---------------------------------------------------------------- ends


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


# ---------------------------------------------------------------- life cycle


def test_no_prompts(policy, sample):
    assert sample(policy, [], n=3) == []


@pytest.mark.parametrize(
    ("prompts", "how", "message"),
    [
        ([[1], []], {}, "prompt 1 has no tokens"),
        ([[1]], {"n": 0}, "asked for 0 responses"),
        ([[1]], {"stop": ("a", "")}, "a stop string is empty"),
        ([[1]], {"prompt_keys": (1, 2)}, "2 prompt keys for 1 prompts"),
    ],
)
def test_bad_calls(policy, sample, prompts, how, message):
    with pytest.raises(AlignkitError, match=message):
        sample(policy, prompts, **how)


def test_not_started():
    backend = HfRollout().build()
    with pytest.raises(AlignkitError, match="not started"):
        backend.generate([[1]], backend.sampling)


def test_new_weights_speak_after_sync(policy, prompts):
    backend = HfRollout(max_tokens=10, temperature=0).build()
    backend.start(policy)
    before = backend.generate(prompts, backend.sampling)
    with torch.no_grad():
        policy.model.model.layers[0].self_attn.k_proj.weight.neg_()
    policy.version += 1
    backend.sync(policy)
    after = backend.generate(prompts, backend.sampling)
    assert {c.weight_version for group in before for c in group} == {0}
    assert {c.weight_version for group in after for c in group} == {1}
    assert ids(after) != ids(before)
    assert ids(after) == [[tuple(greedy(policy.model, p, 10))] for p in prompts]


def test_close_twice(policy):
    backend = HfRollout().build()
    backend.start(policy)
    backend.close()
    backend.close()
    with pytest.raises(AlignkitError, match="not started"):
        backend.generate([[1]], backend.sampling)


def test_the_model_is_left_as_it_was(policy, sample, prompts):
    policy.model.train()
    rng = torch.get_rng_state()
    sample(policy, prompts, max_tokens=3)
    assert policy.model.training
    assert policy.model.config._attn_implementation == "sdpa"
    assert all(p.requires_grad and p.grad is None for p in policy.model.parameters())
    assert torch.equal(torch.get_rng_state(), rng)  # global generators are not touched
    logits = policy.model(torch.tensor(prompts[:1])).logits
    logits.sum().backward()  # nothing is stuck in inference mode


def test_the_cache_is_gone_after_the_call(policy, prompts):
    backend = HfRollout(max_tokens=3).build()
    backend.start(policy)
    alive = []
    original = SharedCache.__init__

    def remember(self, *args):
        original(self, *args)
        alive.append(weakref.ref(self))

    SharedCache.__init__ = remember
    try:
        backend.generate(prompts, backend.sampling)
    finally:
        SharedCache.__init__ = original
    gc.collect()
    assert [ref() for ref in alive] == [None]


def test_bf16_autocast(policy, sample, prompts):
    """The log-probs are those of a bf16 forward: about 8 bits, so 0.1 of up to 20 nats."""
    policy.autocast = lambda: torch.autocast("cpu", dtype=torch.bfloat16)
    groups = sample(policy, prompts, n=2, max_tokens=8, seed=1)
    for prompt, group in zip(prompts, groups, strict=True):
        for c in group:
            row = torch.tensor([[*prompt, *c.token_ids]])
            with torch.no_grad(), policy.autocast():
                logits = policy.model(row).logits[0, len(prompt) - 1 : -1].float()
            expected = logits.log_softmax(-1).gather(1, row[0, len(prompt) :, None])[:, 0]
            assert (torch.tensor(c.logprobs) - expected).abs().max() < 1.0
