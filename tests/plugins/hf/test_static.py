"""Decoding in padded shapes gives what decoding as it comes does; graphs are for CUDA to test."""

from itertools import chain

import pytest
import torch
from transformers import AutoTokenizer, Gemma2Config, Gemma2ForCausalLM

from alignkit.errors import AlignkitError
from alignkit_hf import HfPolicy, HfRollout
from alignkit_hf.fast.static import StaticForward, padded_rows


@pytest.fixture
def static(monkeypatch):
    """Make backends decode in fixed shapes; return the forward passes that were made."""
    made = []

    def make(policy):
        made.append(StaticForward(policy))
        return made[-1]

    def switch():
        monkeypatch.setattr("alignkit_hf.fast.sampler.Forward", make)
        return made

    return switch


HOW = {"n": 3, "max_tokens": 40, "seed": 5, "stop": ("e",)}


@pytest.mark.parametrize("budget", [2**18, 300], ids=["all at once", "rows refilled"])
def test_same_responses_in_fixed_shapes(policy, prompts, sample, static, budget):
    want = sample(policy, prompts, budget, **HOW)
    made = static()
    got = sample(policy, prompts, budget, **HOW)
    assert made[0].usable
    for a, b in zip(chain(*got), chain(*want), strict=True):
        assert (a.text, a.token_ids, a.finish_reason) == (b.text, b.token_ids, b.finish_reason)
        assert a.logprobs == pytest.approx(b.logprobs, abs=1e-4)
    lengths = {len(c.token_ids) for c in chain(*got)}
    assert len(lengths) > 3  # responses leave at different times
    rows = {shape[0] for shape in made[0]._steps}
    assert len(rows) > 1
    assert len(made[0]._steps) < 10  # one for each length and count would be some dozens


def test_weights_that_were_not_finite_leave_nothing_behind(policy, prompts, static):
    static()
    backend = HfRollout(max_tokens=12).build()
    backend.start(policy)
    first = backend.generate(prompts, backend.sampling)
    values = policy.model.model.layers[0].self_attn.v_proj.weight
    whole = values.detach().clone()
    with torch.no_grad():
        values.fill_(torch.nan)
    with pytest.raises(AlignkitError, match="not finite") as kept:  # with all its frames
        backend.generate(prompts, backend.sampling)
    with torch.no_grad():
        values.copy_(whole)
    assert backend.generate(prompts, backend.sampling) == first
    assert kept.tb


def test_the_cache_and_its_steps_are_kept_between_calls(policy, prompts, static):
    made = static()
    backend = HfRollout(max_tokens=12).build()
    backend.start(policy)
    first = backend.generate(prompts, backend.sampling)
    cache, steps = made[0]._cache, dict(made[0]._steps)
    assert backend.generate(prompts, backend.sampling) == first
    assert made[0]._cache is cache
    assert made[0]._steps == steps
    with torch.no_grad():
        policy.model.lm_head.weight.mul_(-1)  # the weights are read where they are
    assert backend.generate(prompts, backend.sampling) != first
    backend.generate([[1, 2, 3] * 20] * 7, backend.sampling)  # does not fit
    assert made[0]._cache is not cache


def test_models_it_cannot_decode_go_the_usual_way(tiny_folder, tmp_path, static):
    config = Gemma2Config(
        vocab_size=262, hidden_size=32, intermediate_size=64, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, head_dim=8, sliding_window=4,
        max_position_embeddings=128,
    )  # fmt: skip
    Gemma2ForCausalLM(config).save_pretrained(tmp_path)
    AutoTokenizer.from_pretrained(tiny_folder).save_pretrained(tmp_path)
    made = static()
    backend = HfRollout(max_tokens=6).build()
    backend.start(HfPolicy(path=str(tmp_path), device="cpu").build())
    assert not made[0].usable
    assert len(backend.generate([[1, 2], [3]], backend.sampling)) == 2
    assert not made[0]._steps


def test_autocast_goes_the_usual_way(tiny_folder, static):
    made = static()
    backend = HfRollout(max_tokens=3).build()
    backend.start(HfPolicy(path=str(tiny_folder), device="cpu", autocast="bfloat16").build())
    assert not made[0].usable


def test_padded_rows():
    assert [padded_rows(n) for n in (1, 2, 7, 9, 97, 250)] == [1, 2, 8, 12, 128, 256]
    assert all(padded_rows(n) >= n for n in range(1, 600))


def test_not_on_a_cpu(policy):
    backend = HfRollout(max_tokens=3).build()
    backend.start(policy)
    assert not isinstance(backend._paths.fast.forward, StaticForward)
