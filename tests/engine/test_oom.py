"""Out of memory in the learner: the message names the key and a value worked out here by hand."""

import re
from contextlib import nullcontext
from types import SimpleNamespace

import pytest
import torch

from alignkit import AlignkitError
from alignkit.engine.forward import logprobs, oom, passes
from alignkit.engine.learning.learner import Learner
from alignkit.engine.learning.objective import Objective
from alignkit.engine.tokens import TrainRow
from alignkit_hf import HfPolicy
from alignkit_losses import Reinforce
from alignkit_normalizers import MaskedMean
from alignkit_optimizers import AdamW

ROWS = [TrainRow((1, 2, 3), (4,) * 9, advantage=1.0), TrainRow((1, 2, 3), (5,) * 5, advantage=1.0)]
OUT = "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 24.00 GiB"


@pytest.fixture
def policy(tiny_folder):
    return HfPolicy(path=str(tiny_folder)).build()


def fail(*_, **__):
    raise torch.OutOfMemoryError(OUT)


@pytest.mark.parametrize(
    ("packs", "held", "budget"),
    [
        # Packed: the prompt once and 9 + 5 tokens; half of 17 is 8, but the longest row has 12.
        (True, 17, 12),
        # Padded: 2 rows of 12; half is 12. (By the sum of lengths it would be 20 and 12.)
        (False, 24, 12),
    ],
)
def test_a_forward_pass_names_a_smaller_token_budget(monkeypatch, policy, packs, held, budget):
    monkeypatch.setattr(oom, "can_pack", lambda model: packs)
    monkeypatch.setattr(logprobs, "can_pack", lambda model: packs)
    monkeypatch.setattr(passes, "token_logprobs", fail)
    with pytest.raises(AlignkitError) as raised:
        logprobs.response_logprobs(policy, ROWS)
    assert str(raised.value) == (
        f"CUDA out of memory, with {held} tokens in the micro-batch: set token_budget = {budget}, "
        "which changes no result"
    )


def test_a_backward_pass_does_so_too(monkeypatch, policy):
    learner = Learner(policy, AdamW(lr=1e-3).build(), token_budget=1000, total_steps=1)
    objective = Objective.of(Reinforce().build(), MaskedMean().build())
    monkeypatch.setattr(torch.Tensor, "backward", fail)
    with pytest.raises(AlignkitError, match="set token_budget = 12, which changes no result"):
        learner.step(ROWS, objective)


def test_one_response_too_long_has_other_remedies(monkeypatch, policy):
    monkeypatch.setattr(passes, "token_logprobs", fail)
    with pytest.raises(AlignkitError, match="no token_budget makes that smaller") as raised:
        logprobs.response_logprobs(policy, ROWS[:1])
    for key in ("gradient_checkpointing", "max_tokens", "gpu_memory_utilization"):
        assert key in str(raised.value)


# ---------------------------------------------------------------- a model that is large, on paper

SHAPE = {
    "num_hidden_layers": 28, "num_attention_heads": 12, "num_key_value_heads": 2,
    "hidden_size": 1536, "intermediate_size": 8960, "vocab_size": 151_936,
    "tie_word_embeddings": True, "head_dim": 128,
}  # fmt: skip


class Large(torch.nn.Module):
    """As many weights as a model of 1.5 billion has, none of them real."""

    def __init__(self, *, again):
        super().__init__()
        weight = torch.empty(1_543_714_304, device="meta")
        self.weight = torch.nn.Parameter(weight)
        self.config = SimpleNamespace(**SHAPE)
        self.gradient_checkpointing = again


def large(monkeypatch, *, again, state=None, cast=True):
    """Return a policy on paper whose optimizer keeps so many bytes a weight."""
    monkeypatch.setattr(oom, "can_pack", lambda model: True)
    monkeypatch.setattr(torch, "is_autocast_enabled", lambda device: cast)
    model = Large(again=again)
    if state:
        kept = {"exp_avg": torch.empty(model.weight.numel() * state // 4, device="meta")}
        oom.OPTIMIZERS[model] = SimpleNamespace(state={model.weight: kept})
    return SimpleNamespace(model=model, autocast=nullcontext)


def long_rows(count):
    return [TrainRow((i,) * 24, (4,) * 1000, advantage=1.0) for i in range(count)]


def freed(told):
    """Return gigabytes by the key that frees them, in the order they are named."""
    return {key: float(gb) for key, gb in re.findall(r"set (\w+) = [^;(]*\(([\d.]+) GB\)", told)}


def test_what_frees_the_most_is_named_first_with_its_gigabytes(monkeypatch):
    told = oom.advice(large(monkeypatch, again=False, state=8), long_rows(8))
    # A token keeps 28 layers of 4 * 4 * 1536 + 2 * (7 * 1536 + 3 * 256 + 4 * 8960) bytes, 3.34 MB;
    # computed again 28 * 4 * 1536 bytes and one such layer: 27.3 GB become 2.4. Of the head's
    # memory 0.3 GB less is taken by the time.
    found = freed(told)
    assert list(found) == ["gradient_checkpointing", "token_budget", "implementation"]
    assert found["gradient_checkpointing"] == pytest.approx(25.2, abs=0.15)
    assert found["token_budget"] == pytest.approx(13.7, abs=0.1)
    assert 'set implementation = "offload" in [optimizer] (12.3 GB)' in told
    assert 'set implementation = "8bit" in [optimizer], instead (9.3 GB)' in told
    assert "6.2 GB weights, 6.2 GB gradients, 12.3 GB optimizer state, 2.6 GB 16-bit" in told


@pytest.mark.parametrize(
    ("state", "named"), [(8, {"offload", "8bit"}), (2, {"offload"}), (None, set())]
)
def test_an_optimizer_that_keeps_little_is_not_blamed(monkeypatch, state, named):
    told = oom.advice(large(monkeypatch, again=True, state=state), long_rows(8))
    assert set(re.findall(r'implementation = "(\w+)"', told)) == named
    assert "gradient_checkpointing = true" not in told  # it is on


def test_halving_a_small_budget_is_told_to_free_little(monkeypatch):
    found = freed(oom.advice(large(monkeypatch, again=True, state=8), long_rows(8)))
    assert list(found)[-1] == "token_budget"
    assert found["token_budget"] == pytest.approx(1.2, abs=0.05)


MESSAGE = (
    "CUDA out of memory. Tried to allocate 20.00 MiB. GPU 0 has a total capacity of 23.00 GiB of "
    "which 5.00 MiB is free. Of the allocated memory 20.00 GiB is allocated by PyTorch, and 2.50 "
    "GiB is reserved by PyTorch but unallocated."
)


@pytest.mark.parametrize(
    ("environment", "named"),
    [
        ({}, True),
        ({"PYTORCH_ALLOC_CONF": "max_split_size_mb:512"}, True),
        ({"PYTORCH_ALLOC_CONF": "expandable_segments:True"}, False),
        ({"PYTORCH_CUDA_ALLOC_CONF": "max_split_size_mb:512, expandable_segments:True"}, False),
        (
            {"PYTORCH_ALLOC_CONF": "expandable_segments:False",
             "PYTORCH_CUDA_ALLOC_CONF": "expandable_segments:True"},
            True,  # torch takes the first one
        ),
    ],
)  # fmt: skip
def test_memory_in_pieces_is_what_growing_segments_free(monkeypatch, policy, environment, named):
    for name in oom.ALLOCATOR:
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)

    def run_out():
        with oom.advice_on_oom(policy, ROWS):
            raise torch.OutOfMemoryError(MESSAGE)

    with pytest.raises(AlignkitError) as raised:
        run_out()
    assert ("expandable_segments:True (2.7 GB)" in str(raised.value)) is named


def test_the_learner_notes_whose_state_takes_memory(policy):
    learner = Learner(policy, AdamW(lr=1e-3).build(), token_budget=1000, total_steps=1)
    learner.step(ROWS, Objective.of(Reinforce().build(), MaskedMean().build()))
    numbers = sum(p.numel() for p in policy.model.parameters())
    assert oom._state(policy.model) == pytest.approx(8 * numbers, rel=0.01)
