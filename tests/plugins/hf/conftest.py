"""Small models with opinions: random weights are enlarged, so that attention decides tokens."""

from contextlib import nullcontext
from dataclasses import replace
from types import SimpleNamespace

import pytest

SIZES = {
    "vocab_size": 256,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    "bos_token_id": None,
    "eos_token_id": None,
    "pad_token_id": 0,
}


def enlarge(model, factor):
    """Scale every matrix: a freshly initialised model is nearly uniform whatever it attends to."""
    import torch

    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 2:
                parameter.mul_(factor)


@pytest.fixture(scope="session")
def tiny_policy(tiny_folder):
    """``tiny_policy(**keys)``: the tiny Qwen2 with enlarged weights."""
    from alignkit_hf import HfPolicy

    def make(**keys):
        policy = HfPolicy(path=str(tiny_folder), device="cpu", **keys).build()
        enlarge(policy.model, 6)
        return policy

    return make


@pytest.fixture
def policy(tiny_policy):
    """The tiny Qwen2 in float32; each test gets its own."""
    return tiny_policy()


@pytest.fixture(scope="session")
def random_policy():
    """``random_policy(type of model, attention=, dtype=, noise=, **settings)``, without a text.

    ``noise`` is added to biases and norms, so that they do something.
    """
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    def make(kind, attention="sdpa", dtype=torch.float32, noise=0.0, **settings):
        torch.manual_seed(3)
        config = AutoConfig.for_model(kind, **SIZES | settings)
        model_class = AutoModelForCausalLM._model_mapping[type(config)]
        if attention == "sdpa" and not getattr(model_class, "_supports_sdpa", True):
            attention = "eager"  # as `auto` does: gemma2 since sdpa is known not to cap its scores
        model = AutoModelForCausalLM.from_config(config, attn_implementation=attention).eval()
        model.to(dtype)
        for parameter in model.parameters():
            if parameter.ndim != 2 and noise:
                parameter.data += torch.randn_like(parameter) * noise
        enlarge(model, 6)
        return SimpleNamespace(
            name=kind,
            model=model,
            tokenizer=SimpleNamespace(all_special_ids=(), decode=lambda ids, **_: ""),
            eos_ids=frozenset(),
            pad_id=0,
            max_length=256,
            version=0,
            autocast=nullcontext,
        )

    return make


@pytest.fixture
def sample():
    """``sample(policy, prompts, budget, **fields of Sampling)`` on a fresh backend."""
    from alignkit_hf import HfRollout

    def sample(policy, prompts, budget=2**18, **how):
        backend = HfRollout(kv_cache_tokens=budget).build()
        backend.start(policy)
        return backend.generate(prompts, replace(backend.sampling, **how))

    return sample


@pytest.fixture(scope="session")
def prompts():
    """Five prompts of 1 to 30 tokens of the byte-level vocabulary."""
    lengths = [9, 1, 30, 17, 9]
    return [[(7 * i + 13 * j) % 256 for j in range(k)] for i, k in enumerate(lengths)]
