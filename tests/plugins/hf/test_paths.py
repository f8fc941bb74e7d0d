"""Which way a model is sampled: a fast one where it gives what plain calls give, or else those."""

import warnings
from dataclasses import replace
from itertools import chain

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from alignkit_hf import HfPolicy, HfRollout
from alignkit_hf.fast import probe
from alignkit_hf.fast.forward import Forward
from alignkit_hf.fast.sampler import FastSampler
from alignkit_hf.sampling.plain import PlainSampler

HOW = {"n": 2, "max_tokens": 20, "seed": 1}
SLOW = "is sampled from by plain calls of the model, which is slow, as faster decoding does not"


def started(policy, **keys):
    backend = HfRollout(**keys).build()
    backend.start(policy)
    return backend


def ids(backend, prompts, **how):
    groups = backend.generate(prompts, replace(backend.sampling, **HOW | how))
    return [c.token_ids for c in chain(*groups)]


def deaf(policy):
    """Let the model count positions by itself, whatever it is told."""
    forward = policy.model.model.forward

    def unheeding(*args, position_ids=None, **kwargs):
        return forward(*args, **kwargs)

    policy.model.model.forward = unheeding


def test_a_fast_path_is_taken_where_it_is_right_and_nothing_is_said(policy, prompts):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        backend = started(policy)
    assert isinstance(backend._paths.sampler(100), FastSampler)
    assert ids(backend, prompts) == ids(started(policy, decoding="plain"), prompts)


def test_plain_is_plain(policy, prompts, monkeypatch):
    monkeypatch.setattr(Forward, "__init__", None)
    backend = started(policy, decoding="plain")
    assert isinstance(backend._paths.sampler(100), PlainSampler)
    assert len(ids(backend, prompts)) == 10
    backend.hold()
    assert isinstance(backend._paths.sampler(100), PlainSampler)


def test_a_model_that_ignores_positions_is_sampled_plainly(random_policy, prompts):
    """Rows of several lengths need positions that are heeded; rows of one length do not."""
    want = ids(started(random_policy("qwen2"), decoding="plain"), prompts)
    policy = random_policy("qwen2")
    deaf(policy)
    with pytest.warns(UserWarning, match=rf"qwen2 {SLOW} work for it: with a key-value cache its"):
        backend = started(policy)
    assert ids(backend, prompts) == want


def test_a_model_with_unknown_layers_is_sampled_plainly(random_policy):
    policy = random_policy("llama4_text", head_dim=8, attention_chunk_size=8, num_local_experts=2)
    said = f"{SLOW} work for it: it knows full and sliding attention, not chunked_attention layers"
    with pytest.warns(UserWarning, match=said):
        assert started(policy)._paths.fast is None


@pytest.mark.parametrize("error", [ZeroDivisionError("of nothing"), KeyError("x")])
def test_whatever_fails_in_a_fast_path_is_said(random_policy, prompts, monkeypatch, error):
    def fail(*_):
        raise error

    policy = random_policy("qwen2")
    want = ids(started(policy), prompts)
    monkeypatch.setattr(Forward, "decode", fail)
    with pytest.warns(UserWarning, match=f"{SLOW} work for it: {type(error).__name__}: "):
        backend = started(policy)
    assert ids(backend, prompts) == want


def test_memory_that_runs_out_is_no_reason_to_go_on(random_policy, monkeypatch):
    def fail(*_):
        raise torch.OutOfMemoryError("full")

    monkeypatch.setattr(Forward, "decode", fail)
    with pytest.raises(torch.OutOfMemoryError):
        started(random_policy("qwen2"))


def test_a_cache_that_is_wrong_only_past_a_window_is_used_up_to_there(random_policy, prompts):
    """GPT-Neo counts the window of its local layers back from the end of the longest row."""
    make = {"num_hidden_layers": 2, "attention_types": [[["global", "local"], 1]]}
    policy = random_policy("gpt_neo", "eager", **make, window_size=20)
    want = ids(started(policy, decoding="plain"), prompts)
    backend = started(policy)
    short = [p for p in prompts if len(p) < 10]
    assert len(ids(backend, short, max_tokens=10)) == 2 * len(short)
    assert backend._paths.fast is not None
    with pytest.warns(UserWarning, match=f"{SLOW} work for it: past a window of 20 tokens with a"):
        assert ids(backend, prompts) == want
    assert backend._paths.fast is None
    assert ids(backend, prompts) == want


def test_each_window_is_tried_once_before_it_is_passed(random_policy, prompts, monkeypatch):
    tried = []
    past = probe.qualify_past
    monkeypatch.setattr(
        "alignkit_hf.fast.sampler.qualify_past", lambda *a: tried.append(a[1]) or past(*a)
    )
    policy = random_policy("gemma2", "eager", head_dim=8, sliding_window=24)
    want = ids(started(policy, decoding="plain"), prompts)
    backend = started(policy)
    ids(backend, [[1, 2, 3]])
    assert tried == []
    assert ids(backend, prompts) == want
    assert ids(backend, prompts) == want
    assert tried == [24]


def test_both_caches_that_a_model_may_get_are_tried(random_policy, monkeypatch):
    """A handful of responses is decoded with prompts in their own rows, more with shared ones."""
    tried = []
    decoded = probe._decoded
    monkeypatch.setattr(
        probe, "_decoded", lambda f, kind, p: tried.append(kind.__name__) or decoded(f, kind, p)
    )
    started(random_policy("opt", ffn_dim=64, word_embed_proj_dim=32))
    assert set(tried) == {"RowCache", "SharedCache"}


@pytest.mark.parametrize(("kind", "want"), [("mamba", "eager"), ("qwen2", "sdpa")])
def test_auto_attention_is_one_that_the_class_supports(kind, want, tiny_folder, tmp_path):
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
    config = AutoConfig.for_model(kind, vocab_size=262, **sizes)
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path)
    AutoTokenizer.from_pretrained(tiny_folder).save_pretrained(tmp_path)
    model = HfPolicy(path=str(tmp_path), device="cpu").build().model
    assert model.config._attn_implementation == want
