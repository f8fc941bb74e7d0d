"""The check that an engine computes what the policy does: its probe, its measures, its bounds."""

import json

import pytest
import torch

from alignkit.engine.forward.logprobs import response_logprobs
from alignkit.engine.tokens import TrainRow
from alignkit_hf import HfPolicy
from alignkit_vllm import options
from alignkit_vllm.check import (
    PROBE_TEXT,
    Apart,
    WeightsError,
    apart,
    bound_for,
    probe,
    require_small,
)
from alignkit_vllm.requests import Answer, Request


@pytest.fixture
def policy(tiny_folder):
    return HfPolicy(path=str(tiny_folder)).build()


def test_a_probe_is_longer_than_a_cache_block_where_there_is_room(policy):
    assert len(probe(policy, 1024).prompt) > 128
    short = probe(policy, 32)
    assert len(short.prompt) + short.options["max_tokens"] == 32
    assert not set(short.prompt) & policy.eos_ids


def test_a_probe_is_64_sampled_tokens_after_a_text(policy):
    asked = probe(policy, 1024)
    assert asked.options["max_tokens"] == 64
    assert asked.options["temperature"] == 1.0
    assert asked == probe(policy, 1024)  # a cache kept over a sync shows in the second
    assert policy.tokenizer.decode(list(asked.prompt)) == PROBE_TEXT[: len(asked.prompt)]


def test_how_far_apart_by_hand(policy):
    request = Request((5, 6, 7), 1, {})
    rows = [TrainRow(request.prompt, (8, 9))]
    with torch.no_grad():
        own = response_logprobs(policy, rows)[0][0].tolist()
    # The engine's are 0.3 above the first and 0.1 below the second: log r = -0.3 and 0.1.
    found = apart(policy, request, Answer((8, 9), (own[0] + 0.3, own[1] - 0.1), "", True, False))
    assert found.gap == pytest.approx(0.2, abs=1e-6)
    # exp(-0.3) - 1 + 0.3 = 0.040818, exp(0.1) - 1 - 0.1 = 0.005171; the mean of log r is -0.1
    assert found.kl == pytest.approx((0.040818 + 0.005171) / 2, abs=1e-6)


def test_a_gap_above_the_bound_is_an_error():
    most = bound_for(torch.float32)
    require_small(Apart(0.009, 1e-4), most, 0.015)
    for gap in (0.02, float("nan")):
        with pytest.raises(WeightsError, match=r"above max_logprob_gap = 0\.01"):
            require_small(Apart(gap, 1e-4), most, 0.015)


def test_16_bits_are_judged_by_kl_divergence():
    """Rounding by some 0.15 a token, half up and half down, is 0.011 nats of KL divergence."""
    most = bound_for(torch.bfloat16)
    require_small(Apart(0.15, 0.0113), most, 0.015)
    for kl in (0.02, float("nan")):
        with pytest.raises(WeightsError, match=r"of KL divergence, above max_rollout_kl = 0\.015"):
            require_small(Apart(0.01, kl), most, 0.015)


@pytest.mark.parametrize(
    ("device", "dtype", "head"),
    [("cuda", "bfloat16", "float32"), ("cuda", "float32", None), ("cpu", "bfloat16", None)],
)
def test_a_gpu_engine_in_16_bits_gives_logits_in_float32(
    policy, tmp_path, monkeypatch, device, dtype, head
):
    monkeypatch.setattr(options, "_device", lambda _: torch.device(device))
    options.describe(policy, tmp_path, getattr(torch, dtype))
    assert json.loads((tmp_path / "config.json").read_text()).get("head_dtype") == head
    assert getattr(policy.model.config, "head_dtype", None) is None
