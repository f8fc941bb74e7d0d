"""Decoding steps written out: which models take them, and that nobody can tell."""

from contextlib import nullcontext
from dataclasses import replace
from itertools import chain
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from transformers import (
    GemmaConfig,
    GemmaForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    GraniteConfig,
    GraniteForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from alignkit_hf import HfRollout, fused, products
from alignkit_hf.forward import Forward

SIZES = {
    "vocab_size": 256,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 256,
}
ROPE = {"rope_theta": 10_000.0, "factor": 4.0, "original_max_position_embeddings": 64}
USUAL = {
    "qwen2": (Qwen2ForCausalLM, Qwen2Config, SIZES),
    "qwen3": (Qwen3ForCausalLM, Qwen3Config, SIZES),
    "llama": (LlamaForCausalLM, LlamaConfig, SIZES),
    "llama with biases": (
        LlamaForCausalLM,
        LlamaConfig,
        SIZES | {"attention_bias": True, "mlp_bias": True},
    ),
    "llama with angles that yarn stretches": (
        LlamaForCausalLM,
        LlamaConfig,
        SIZES | {"rope_parameters": {**ROPE, "rope_type": "yarn"}},
    ),
}
OTHER = {
    "gemma, whose norm scales by 1 + w": (GemmaForCausalLM, GemmaConfig, SIZES),
    "gpt2": (
        GPT2LMHeadModel,
        GPT2Config,
        {"vocab_size": 256, "n_embd": 32, "n_layer": 2, "n_head": 4},
    ),
    "granite, whose layers add up by half": (
        GraniteForCausalLM,
        GraniteConfig,
        SIZES | {"residual_multiplier": 0.5},
    ),
    "llama, whose angles depend on the length so far": (
        LlamaForCausalLM,
        LlamaConfig,
        SIZES | {"rope_parameters": {**ROPE, "rope_type": "dynamic"}},
    ),
    "gelu": (LlamaForCausalLM, LlamaConfig, SIZES | {"hidden_act": "gelu"}),
}


def make(kind, config, sizes, dtype=torch.float32):
    torch.manual_seed(3)
    ends = {"bos_token_id": None, "eos_token_id": None, "pad_token_id": 0}
    model = kind._from_config(config(**sizes, **ends), attn_implementation="sdpa").eval().to(dtype)
    for parameter in model.parameters():  # biases and norms that do something, large matrices
        noise = torch.randn_like(parameter) * 0.3
        parameter.data = parameter.data * 6 if parameter.ndim == 2 else parameter.data + noise
    return SimpleNamespace(
        name="test",
        model=model,
        tokenizer=SimpleNamespace(all_special_ids=(), decode=lambda ids, **_: ""),
        eos_ids=frozenset(),
        pad_id=0,
        max_length=256,
        version=0,
        autocast=nullcontext,
    )


def sampled(policy, prompts, *, written_out, **how):
    backend = HfRollout(kv_cache_tokens=150).build()
    backend.start(policy)
    if not written_out:
        backend._forward.fuses = False
    return backend.generate(prompts, replace(backend.sampling, **how))


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("name", USUAL)
def test_responses_are_those_of_the_models_own_forward(name, packed, prompts, monkeypatch):
    if not packed:
        monkeypatch.setattr(products, "_PACKED_BYTES", 0)
    policy = make(*USUAL[name])
    assert Forward(policy).fuses
    how = {"n": 3, "max_tokens": 20, "seed": 1}
    got, want = (sampled(policy, prompts, written_out=w, **how) for w in (True, False))
    for a, b in zip(chain(*got), chain(*want), strict=True):
        assert a.token_ids == b.token_ids
        assert torch.tensor(a.logprobs) == pytest.approx(torch.tensor(b.logprobs), abs=1e-4)


def test_float64_weights_lose_no_digits(prompts):
    policy = make(*USUAL["qwen3"], dtype=torch.float64)
    how = {"n": 2, "max_tokens": 6, "seed": 1}
    got, want = (sampled(policy, prompts, written_out=w, **how) for w in (True, False))
    for a, b in zip(chain(*got), chain(*want), strict=True):
        assert a.token_ids == b.token_ids
        assert a.logprobs == pytest.approx(b.logprobs, abs=1e-5)


def test_bfloat16_weights_are_rounded_as_the_model_rounds(prompts):
    policy = make(*USUAL["qwen2"], dtype=torch.bfloat16)
    assert Forward(policy).fuses
    groups = sampled(policy, prompts, written_out=True, n=1, max_tokens=4, temperature=0)
    for prompt, (completion,) in zip(prompts, groups, strict=True):
        row = torch.tensor([[*prompt, *completion.token_ids]])
        with torch.no_grad():
            logits = policy.model(row).logits[0, len(prompt) - 1 : -1].float()
        expected = logits.log_softmax(-1).gather(1, row[0, len(prompt) :, None])[:, 0]
        assert (torch.tensor(completion.logprobs) - expected).abs().max() < 0.5  # 8 bits, 20 nats


@pytest.mark.parametrize("name", OTHER)
def test_other_models_keep_their_own_forward(name):
    forward = Forward(make(*OTHER[name]))
    assert not forward.fuses


def test_the_probe_decides_not_the_parts():
    """Granite has the same parts under the same names; only what comes out differs."""
    assert fused.is_usual(make(*OTHER["granite, whose layers add up by half"]).model)


@pytest.mark.parametrize("change", ["hook", "forward", "linear", "parameter"])
def test_a_changed_model_is_not_usual(change):
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


def test_every_call_reads_the_weights_anew(prompts):
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
