"""Out of memory in the learner: the message names the key and a value worked out here by hand."""

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
