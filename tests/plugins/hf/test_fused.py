"""Decoding steps written out: which models take them, and that nobody can tell."""

from dataclasses import replace
from itertools import chain

import pytest
import torch
from torch import nn

from alignkit_hf import HfRollout
from alignkit_hf.fast import fused, products
from alignkit_hf.fast.forward import Forward
from alignkit_hf.fast.probe import qualify

ROPE = {"rope_theta": 10_000.0, "factor": 4.0, "original_max_position_embeddings": 64}
USUAL = {
    "qwen2": ("qwen2", {}),
    "qwen3": ("qwen3", {}),
    "llama": ("llama", {}),
    "llama with biases": ("llama", {"attention_bias": True, "mlp_bias": True}),
    "llama with angles that yarn stretches": (
        "llama",
        {"rope_parameters": {**ROPE, "rope_type": "yarn"}},
    ),
}
OTHER = {
    "gemma, whose norm scales by 1 + w": ("gemma", {}),
    "gpt2": ("gpt2", {}),
    "granite, whose layers add up by half": ("granite", {"residual_multiplier": 0.5}),
    "llama, whose angles depend on the length so far": (
        "llama",
        {"rope_parameters": {**ROPE, "rope_type": "dynamic"}},
    ),
    "gelu": ("llama", {"hidden_act": "gelu"}),
}


@pytest.fixture
def make(random_policy):
    """``make(type of model, settings, dtype)``: biases and norms that do something."""

    def make(kind, settings, dtype=torch.float32):
        sizes = {"num_hidden_layers": 2, "head_dim": 8}
        return random_policy(kind, dtype=dtype, noise=0.3, **sizes | settings)

    return make


def fuses(policy):
    forward = Forward(policy)
    qualify(forward)
    return forward.fuses


def sampled(policy, prompts, *, written_out, **how):
    backend = HfRollout(kv_cache_tokens=150).build()
    backend.start(policy)
    if not written_out:
        backend._paths.fast.forward.fuses = False
    return backend.generate(prompts, replace(backend.sampling, **how))


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("name", USUAL)
def test_responses_are_those_of_the_models_own_forward(name, packed, prompts, make, monkeypatch):
    if not packed:
        monkeypatch.setattr(products, "_PACKED_BYTES", 0)
    policy = make(*USUAL[name])
    assert fuses(policy)
    how = {"n": 3, "max_tokens": 20, "seed": 1}
    got, want = (sampled(policy, prompts, written_out=w, **how) for w in (True, False))
    for a, b in zip(chain(*got), chain(*want), strict=True):
        assert a.token_ids == b.token_ids
        assert torch.tensor(a.logprobs) == pytest.approx(torch.tensor(b.logprobs), abs=1e-4)


def test_float64_weights_lose_no_digits(prompts, make):
    policy = make(*USUAL["qwen3"], dtype=torch.float64)
    how = {"n": 2, "max_tokens": 6, "seed": 1}
    got, want = (sampled(policy, prompts, written_out=w, **how) for w in (True, False))
    for a, b in zip(chain(*got), chain(*want), strict=True):
        assert a.token_ids == b.token_ids
        assert a.logprobs == pytest.approx(b.logprobs, abs=1e-5)


def test_bfloat16_weights_are_rounded_as_the_model_rounds(prompts, make):
    policy = make(*USUAL["qwen2"], dtype=torch.bfloat16)
    assert fuses(policy)
    groups = sampled(policy, prompts, written_out=True, n=1, max_tokens=4, temperature=0)
    for prompt, (completion,) in zip(prompts, groups, strict=True):
        row = torch.tensor([[*prompt, *completion.token_ids]])
        with torch.no_grad():
            logits = policy.model(row).logits[0, len(prompt) - 1 : -1].float()
        expected = logits.log_softmax(-1).gather(1, row[0, len(prompt) :, None])[:, 0]
        assert (torch.tensor(completion.logprobs) - expected).abs().max() < 0.5  # 8 bits, 20 nats


@pytest.mark.parametrize("name", OTHER)
def test_other_models_keep_their_own_forward(name, make):
    assert not fuses(make(*OTHER[name]))


def test_the_probe_decides_not_the_parts(make):
    """Granite has the same parts under the same names; only what comes out differs."""
    assert fused.is_usual(make(*OTHER["granite, whose layers add up by half"]).model)


@pytest.mark.parametrize("change", ["hook", "forward", "linear", "parameter"])
def test_a_changed_model_is_not_usual(change, make):
    model = make(*USUAL["qwen2"]).model
    assert fused.is_usual(model)
    attention = model.model.layers[1].self_attn
    if change == "hook":
        attention.register_forward_hook(lambda *_: None)
    elif change == "forward":
        attention.forward = attention.forward
    elif change == "linear":
        attention.q_proj = nn.Sequential(attention.q_proj)
    else:
        attention.q_proj.weight = nn.Parameter(attention.q_proj.weight.double())
    assert not fused.is_usual(model)


def test_every_call_reads_the_weights_anew(prompts, make):
    policy = make(*USUAL["qwen2"])
    backend = HfRollout().build()
    backend.start(policy)
    how = replace(backend.sampling, n=1, max_tokens=8, temperature=0)
    before = backend.generate(prompts, how)
    with torch.no_grad():
        policy.model.model.layers[1].mlp.down_proj.weight.mul_(-1)
    after = backend.generate(prompts, how)
    want = sampled(policy, prompts, written_out=False, n=1, max_tokens=8, temperature=0)
    assert [c.token_ids for (c,) in after] == [c.token_ids for (c,) in want]
    assert [c.token_ids for (c,) in after] != [c.token_ids for (c,) in before]
