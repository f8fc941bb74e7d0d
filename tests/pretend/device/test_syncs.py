"""A budget of the host's waits for the device: a step reads its numbers once, however it is cut.

Each wait leaves the device without work until the host has queued more. A step once took 26 to 29
of them in every micro-batch; now 1 in all, and 1 more where its log-probs are kept.
"""

import pytest
import torch
from pretended import syncs

from alignkit.component import make
from alignkit.engine.forward.frozen import FrozenPolicy, detached_logprobs
from alignkit.engine.forward.packable import can_pack
from alignkit.engine.learning.learner import Learner
from alignkit.engine.learning.objective import Objective, Surrogate
from alignkit.engine.tokens import TrainRow
from alignkit_losses import GrpoClip
from alignkit_normalizers import MaskedMean, TokenMean
from alignkit_optimizers import AdamW

pytestmark = pytest.mark.pretend

PER_STEP = 1
PER_BATCH_OF_LOGPROBS = 1
NORMALIZERS = {"masked_mean": MaskedMean, "token_mean": TokenMean}


def rows(old=None):
    """Eight rows, two of them without advantage; ``old``: "none", "all" or "some" log-probs."""
    made = []
    for i in range(8):
        n = 10 + 3 * i
        known = old == "all" or (old == "some" and i % 2)
        made.append(TrainRow(
            tuple(range(5, 25 + i // 4)),
            tuple(5 + (7 * i + 11 * j) % 80 for j in range(n)),
            0.0 if i in (2, 5) else 1.0 - 2 * (i % 2),
            rollout_logprobs=torch.zeros(n),
            old_logprobs=torch.full((n,), -4.0) if known else None,
            measured=i == 2,
        ))  # fmt: skip
    return made


@pytest.fixture
def started(policy):
    """``started(**keys)``: a learner whose model and kernels were tried out, and its objective."""

    def start(normalizer="token_mean", budget=100, **keys):
        subject = policy(**{"autocast": "bfloat16", "gradient_checkpointing": True, **keys})
        optimizer = AdamW(implementation="foreach").build()
        learner = Learner(subject, optimizer, token_budget=budget, total_steps=9)
        loss = Surrogate.of(make(GrpoClip())).monitored()
        objective = Objective(loss, NORMALIZERS[normalizer]().build())
        learner.step(rows(), objective)
        return learner, objective

    return start


@pytest.mark.parametrize("old", ["none", "some", "all"])
@pytest.mark.parametrize("normalizer", NORMALIZERS)
@pytest.mark.parametrize("budget", [40, 100, 1000])
def test_a_step_waits_once(started, waits, old, normalizer, budget):
    learner, objective = started(normalizer, budget)
    waits.clear()
    metrics = learner.step(rows(old), objective)
    assert waits.total() <= PER_STEP, syncs.table()
    assert metrics["grad_norm"] > 0


def test_a_first_step_waits_once_more_for_the_log_probs_it_keeps(started, waits):
    learner, objective = started()
    waits.clear()
    learner.first_step(rows(), objective)
    assert waits.total() <= PER_STEP + PER_BATCH_OF_LOGPROBS, syncs.table()


def test_blocks_without_the_kernel_wait_no_more(started, waits):
    learner, objective = started(autocast="none")  # float32 has no such kernel
    waits.clear()
    learner.step(rows("all"), objective)
    assert waits.total() <= PER_STEP, syncs.table()


def test_padded_rows_wait_once_more_in_transformers(started, waits, monkeypatch):
    """Each micro-batch: transformers looks whether positions tell of packed rows."""
    from alignkit.engine.forward import logprobs

    monkeypatch.setattr(logprobs, "can_pack", lambda model: False)
    learner, objective = started()
    waits.clear()
    learner.step(rows("all"), objective)
    batches = len(learner.cut(objective.computed(rows("all"))))
    assert waits.total() <= PER_STEP + batches, syncs.table()


def test_log_probs_wait_once_however_many_batches(started, waits):
    learner, _ = started()
    frozen = FrozenPolicy.of(learner.policy, copied=True)
    with frozen.autocast():
        assert can_pack(frozen.model)
    waits.clear()
    learner.logprobs(rows())
    detached_logprobs(frozen, rows(), token_budget=100, temperature=1.0)
    assert waits.total() <= 2 * PER_BATCH_OF_LOGPROBS, syncs.table()
