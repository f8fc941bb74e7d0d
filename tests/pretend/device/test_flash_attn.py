"""flash-attn's kernel is taken where the recipe asks for it, and nowhere else; a stub stands in."""

import sys
from types import SimpleNamespace

import pytest
import torch
from torch.nn.attention.varlen import varlen_attn
from transformers import AttentionInterface

from alignkit.engine.forward import varlen
from alignkit.engine.forward.logprobs import response_logprobs
from alignkit.engine.forward.packable import chosen
from alignkit.engine.tokens import TrainRow

pytestmark = pytest.mark.pretend

ROWS = [TrainRow((5, 6, 7), (8, 9)), TrainRow((5, 6, 7), (3, 2, 1)), TrainRow((4,), (9, 1))]


@pytest.fixture
def calls(monkeypatch):
    """Calls of each kernel since the last ``clear()``: those of the package, and torch's."""
    found, torchs = [], varlen.kernel

    def package(q, k, v, starts, key_starts, longest, longest_keys, softmax_scale, causal):
        assert causal
        if q.dtype == torch.float32:  # as the package does
            raise RuntimeError("FlashAttention only support fp16 and bf16 data type")
        found.append("flash-attn")
        sizes = (longest, longest_keys)
        how = {"scale": softmax_scale, "window_size": (-1, 0), "enable_gqa": True}
        return varlen_attn(q, k, v, starts, key_starts, *sizes, **how)

    stub = SimpleNamespace(flash_attn_varlen_func=package)
    monkeypatch.setitem(sys.modules, "flash_attn", stub)
    monkeypatch.setattr(varlen, "kernel", lambda *given: found.append("torch") or torchs(*given))
    plain = AttentionInterface._global_mapping["sdpa"]  # for rows alone
    monkeypatch.setitem(AttentionInterface._global_mapping, "flash_attention_2", plain)
    return found


@pytest.fixture
def with_attention(policy):
    """``with_attention(name)``: a policy under autocast whose model was loaded with it."""

    def make(name):
        subject = policy(autocast="bfloat16")
        subject.model.config._attn_implementation = name
        return subject

    return make


@pytest.mark.parametrize(
    ("attention", "owner"), [("sdpa", "torch"), ("flash_attention_2", "flash-attn")]
)
def test_the_kernel_is_the_one_asked_for(with_attention, calls, attention, owner):
    subject = with_attention(attention)
    assert chosen(subject).endswith(f"attention by {owner}'s variable-length kernel")
    logprobs, _, _ = response_logprobs(subject, ROWS)
    logprobs.sum().backward()
    assert set(calls) == {owner}


def test_both_give_the_same(with_attention, calls):
    found = [response_logprobs(with_attention(name), ROWS)[0] for name in
             ("sdpa", "flash_attention_2")]  # fmt: skip
    assert bool((found[0] == found[1]).all())


def test_a_package_that_fails_is_named_and_rows_are_packed_without_it(
    with_attention, calls, monkeypatch
):
    subject = with_attention("flash_attention_2")

    def broken(*_, **__):
        raise RuntimeError("CUDA error: no kernel image is available for execution on the device")

    monkeypatch.setattr(sys.modules["flash_attn"], "flash_attn_varlen_func", broken)
    assert chosen(subject).endswith(
        "by torch's usual kernels, not flash-attn's variable-length kernel: RuntimeError: CUDA "
        "error: no kernel image is available for execution on the device"
    )
    response_logprobs(subject, ROWS)


def test_asked_in_float32_nothing_raises(with_attention, calls):
    """Without autocast the package refuses; whoever asks then is answered, not stopped."""
    subject = with_attention("flash_attention_2")
    subject.autocast = lambda: torch.autocast("cuda", enabled=False)
    assert "it needs 16 bits, not float32" in chosen(subject)
    response_logprobs(subject, ROWS)
