"""bfloat16 weights with float32 masters: small updates and small gradients are not lost."""

import gc
from weakref import ref

import pytest
import torch
from torch import nn

from alignkit.engine.learning.learner import Learner
from alignkit.engine.learning.masters import Masters, keep_masters
from alignkit.engine.learning.objective import Objective
from alignkit.engine.ranks.shards import shards_of, updated_of, whole_of
from alignkit.engine.tokens import TrainRow
from alignkit.engine.training.checkpoint import load_weights, weights
from alignkit_losses import Reinforce
from alignkit_normalizers import TokenMean
from alignkit_optimizers import AdamW, Muon

ROWS = [
    TrainRow((3, 4, 5), (6, 7, 8, 9), 1.0),
    TrainRow((3, 4, 5), (6, 2), -0.5),
    TrainRow((12, 13), (3, 4, 5), 0.25),
]
OBJECTIVE = Objective.of(Reinforce().build(), TokenMean().build())


@pytest.fixture
def policy(tiny_policy):
    """``policy(masters)``: the same weights, float32 or bfloat16 with float32 masters."""

    def make(masters):
        made = tiny_policy()
        made.model.float()
        if masters:
            keep_masters(made.model)
        return made

    return make


def learner(policy, budget=64, optimizer=None):
    made = optimizer or AdamW(lr=1e-5, weight_decay=0.0, max_grad_norm=1e9)
    return Learner(policy, made.build(), token_budget=budget, total_steps=9)


def masters(policy):
    return updated_of(policy.model).weights()


def test_passes_are_in_16_bits_and_updates_in_float32(policy):
    subject = policy(masters=True)
    assert {p.dtype for p in subject.model.parameters()} == {torch.bfloat16}
    assert {m.dtype for m in masters(subject).values()} == {torch.float32}
    assert {b.dtype for b in subject.model.buffers()} == {torch.float32}  # angles of positions
    assert shards_of(subject.model) is None
    assert whole_of(subject.model) is subject.model


def test_updates_too_small_for_16_bits_add_up(policy):
    subject, start = policy(masters=True), policy(masters=False)
    initial = {n: p.detach() for n, p in start.model.named_parameters()}
    steps = learner(subject)
    before = {n: p.clone() for n, p in subject.model.named_parameters()}
    for _ in range(5):
        steps.step(ROWS, OBJECTIVE)
    moved = {n: (m - initial[n]).abs().max() for n, m in masters(subject).items()}
    assert all(0 < float(far) < 6e-5 for far in moved.values())
    still = [torch.equal(before[n], p) for n, p in subject.model.named_parameters()]
    assert any(still)  # too small to show yet
    for name, weight in subject.model.named_parameters():
        assert torch.equal(weight, masters(subject)[name].bfloat16())


@pytest.mark.parametrize("budget", [1, 64], ids=["row by row", "at once"])
def test_gradients_are_those_of_float32_within_rounding(policy, budget):
    found = []
    for kind in (False, True):
        subject = policy(masters=kind)
        steps = learner(subject, budget)
        kept = []
        steps.optimizer.register_step_pre_hook(
            lambda *_, steps=steps, kept=kept: kept.extend(p.grad.clone() for p in steps.parameters)
        )
        metrics = steps.step(ROWS, OBJECTIVE)
        assert metrics["grad_norm"] > 0
        assert all(p.grad is None for p in subject.model.parameters())
        found.append(torch.cat([g.flatten() for g in kept]))
    want, got = found
    assert got.dtype == torch.float32
    assert (got - want).norm() < 0.05 * want.norm()


def test_micro_batches_add_up_in_float32():
    layer = nn.Linear(1, 1, bias=False)
    keep_masters(layer)
    weight = layer.weight
    for size in (256.0, 1.0):  # bfloat16 has no 257
        layer(torch.full((1, 1), size, dtype=torch.bfloat16)).sum().backward()
        assert weight.grad is None
    assert updated_of(layer).parts()[0].grad.item() == 257.0


def test_a_step_that_is_skipped_changes_nothing(policy):
    subject = policy(masters=True)
    steps = learner(subject)
    before = {n: m.clone() for n, m in masters(subject).items()}
    broken = [TrainRow((3, 4), (5, 6), float("inf"))]
    assert steps.step(broken, OBJECTIVE)["skipped_steps"] == 1
    assert all(torch.equal(before[n], m) for n, m in masters(subject).items())
    assert all(p.grad is None for p in steps.parameters)


def test_a_resumed_learner_goes_on_to_the_same_bits(policy):
    whole = learner(policy(masters=True))
    first = learner(policy(masters=True))
    for _ in range(4):
        whole.step(ROWS, OBJECTIVE)
    for _ in range(2):
        first.step(ROWS, OBJECTIVE)
    saved = {n: w.clone() for n, w in weights(first.policy).items()}
    assert {w.dtype for w in saved.values()} == {torch.float32}
    second = learner(policy(masters=True))
    load_weights(second.policy, saved)
    second.load_state_dict(first.state_dict())
    for _ in range(2):
        second.step(ROWS, OBJECTIVE)
    for name, master in masters(whole.policy).items():
        assert torch.equal(master, masters(second.policy)[name]), name
    for a, b in zip(whole.policy.model.parameters(), second.policy.model.parameters(), strict=True):
        assert torch.equal(a, b)


def test_muon_knows_embeddings_by_their_masters(policy):
    subject = policy(masters=True)
    steps = learner(subject, optimizer=Muon(lr=1e-3))
    inner = {id(w) for w in steps.optimizer.parts[0].param_groups[0]["params"]}
    named = {n: id(m) for n, m in zip(masters(subject), steps.parameters, strict=True)}
    assert named["model.embed_tokens.weight"] not in inner
    assert named["model.layers.0.self_attn.q_proj.weight"] in inner
    assert {p.dtype for p in subject.model.parameters()} == {torch.bfloat16}  # put back
    steps.step(ROWS, OBJECTIVE)


def test_frozen_weights_stay_as_they_are():
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    model[0].requires_grad_(False)
    made = Masters(model, torch.bfloat16)
    assert list(made.weights()) == ["1.weight", "1.bias"]
    assert model[0].weight.dtype == torch.float32


def test_a_model_with_masters_is_freed_with_its_last_name():
    model = nn.Linear(2, 2)
    keep_masters(model)
    seen = ref(model)
    del model
    gc.collect()
    assert seen() is None
