"""Compiled layers of many architectures: the numbers of plain ones, or plain with a reason."""

import shutil
import sys
import warnings
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))
from check import Verdict, check_learner, policy_of, rows_for, slope, write
from sizes import tiny

from alignkit.engine.forward import compiling, packable
from alignkit.engine.forward.frozen import FrozenPolicy
from alignkit.engine.forward.logprobs import response_logprobs
from alignkit.engine.ranks.shards import layers_of

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(shutil.which("g++") is None, reason="no g++ for torch.compile"),
]

KINDS = ("llama", "gemma2", "gpt2")


@pytest.fixture(autouse=True)
def fresh():
    torch._dynamo.reset()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@pytest.fixture
def make(tmp_path):
    """``make(kind, **keys of the policy)``: the policy, and the model called plainly."""
    from transformers import AutoModelForCausalLM

    def make(kind, **keys):
        folder = write(tmp_path / "model", tiny(kind))
        policy = policy_of(folder, **{"compile": "always", **keys})
        kernel = policy.model.config._attn_implementation
        reference = AutoModelForCausalLM.from_pretrained(folder, attn_implementation=kernel)
        return policy, reference.eval()

    return make


def compilations():
    return torch._dynamo.utils.counters["stats"]["unique_graphs"]


@pytest.mark.parametrize("kind", KINDS)
def test_values_and_gradients_are_right(make, kind):
    policy, reference = make(kind)
    assert compiling.chosen(policy).startswith("compiled"), packable.REASONS
    verdict = Verdict()
    check_learner(policy, verdict, reference)
    assert not verdict.wrong


def test_layers_that_are_computed_again_run_compiled_again(make):
    policy, reference = make("qwen2", gradient_checkpointing=True)
    assert compiling.chosen(policy).startswith("compiled"), packable.REASONS
    verdict = Verdict()
    check_learner(policy, verdict, reference)
    assert not verdict.wrong
    assert not torch.is_grad_enabled() or all(
        layer._compiled_call_impl is None for layer in layers_of(policy.model)
    )  # nothing is left behind


def test_neither_layers_nor_lengths_are_compiled_anew(make):
    policy, _ = make("qwen2")
    rows = rows_for(40)
    for some in (rows, rows[:2], rows[1:3]):
        logprobs, _, mask = response_logprobs(policy, some)
        slope(logprobs[mask], policy.model)
    once = compilations()
    for some in (rows[2:], rows[:1], rows):
        logprobs, _, mask = response_logprobs(policy, some)
        slope(logprobs[mask], policy.model)
    assert compilations() == once > 0


def test_a_copy_runs_its_own_layers(make):
    policy, _ = make("qwen2")
    rows = rows_for(40)
    before, _, mask = response_logprobs(policy, rows)
    frozen = FrozenPolicy.of(policy, copied=True)
    with torch.no_grad():
        for parameter in policy.model.parameters():
            parameter.mul_(1.1)
    kept, _, _ = response_logprobs(frozen, rows)
    changed, _, _ = response_logprobs(policy, rows)
    torch.testing.assert_close(kept[mask], before[mask].detach(), rtol=0, atol=1e-4)
    assert (changed - before)[mask].abs().max() > 1e-2


def test_what_the_compiler_cannot_take_stays_plain_with_a_reason(make, monkeypatch):
    def broken(*_, **__):
        raise RuntimeError("no compiler here\nand a long story")

    policy, reference = make("qwen2")
    monkeypatch.setattr(torch, "compile", broken)
    said = "plain, not compiled: RuntimeError: no compiler here"
    assert compiling.chosen(policy) == said
    verdict = Verdict()
    check_learner(policy, verdict, reference)
    assert not verdict.wrong


@pytest.mark.parametrize("times", [1.01, float("nan")])
def test_compiled_layers_that_are_wrong_stay_plain(make, monkeypatch, times):
    policy, reference = make("qwen2")

    def wrong(layer):
        return lambda *given, **how: layer._call_impl(*given, **how) * times

    monkeypatch.setattr(compiling, "_compiled", wrong)
    assert "plain, not compiled: results differ" in compiling.chosen(policy)
    verdict = Verdict()
    check_learner(policy, verdict, reference)
    assert not verdict.wrong
