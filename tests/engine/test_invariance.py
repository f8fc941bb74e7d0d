"""Invariant 1: the update does not depend on how the batch is cut (float64, 1e-10)."""

import math

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch.optim.lr_scheduler import LambdaLR

from alignkit.component import make
from alignkit.engine.learning.learner import Learner
from alignkit.engine.learning.objective import Objective
from alignkit.engine.tokens import TrainRow
from alignkit_losses import GrpoClip, NoClip, Reinforce
from alignkit_normalizers import MaskedMean, MaskedNormalize, TokenMean

CLIP = 0.2
CONSTANT = 7.0
LOSSES = {
    "grpo_clip": GrpoClip(cliprange=CLIP),
    "no_clip": NoClip(),
    "reinforce": Reinforce(),
}
NORMALIZERS = {
    "masked_mean": MaskedMean(),
    "masked_normalize": MaskedNormalize(constant=CONSTANT),
    "token_mean": TokenMean(),
}


class Sgd:
    """With lr 1 and no clipping the weights move by exactly minus the gradient."""

    max_grad_norm = math.inf

    def start(self, parameters, *, total_steps):
        optimizer = torch.optim.SGD(parameters, lr=1.0)
        return optimizer, LambdaLR(optimizer, lambda step: 1.0)


@st.composite
def batches(draw):
    """Draw rows as (prompt, response, advantage, old log-probs or None), an order and a budget.

    Some rows share a prompt, which is then computed once.
    """
    token = st.integers(2, 28)
    prompt = st.lists(token, min_size=1, max_size=5)
    prompts = draw(st.lists(prompt, min_size=1, max_size=3))
    rows = []
    for _ in range(draw(st.integers(1, 7))):
        response = draw(st.lists(token, max_size=6))
        old = st.lists(st.floats(-6, -0.01), min_size=len(response), max_size=len(response))
        rows.append(
            (
                tuple(draw(st.sampled_from(prompts))),
                tuple(response),
                draw(st.sampled_from([0.0, 1.0, -0.75, 2.5])),
                draw(st.none() | old),
            )
        )
    order = draw(st.permutations(range(len(rows))))
    return rows, order, draw(st.integers(1, 60))


def train_row(prompt, response, advantage, old):
    given = None if old is None else torch.tensor(old, dtype=torch.float64)
    return TrainRow(prompt, response, advantage, old_logprobs=given)


def token_loss(loss, logprob, old, advantage):
    ratio = (logprob - old).exp()
    if loss == "reinforce":
        return -advantage * logprob
    if loss == "no_clip":
        return -ratio * advantage
    return -torch.minimum(ratio * advantage, ratio.clamp(1 - CLIP, 1 + CLIP) * advantage)


def row_weight(normalizer, rows, length):
    """What each token's loss of a response of ``length`` is multiplied with."""
    return {
        "masked_mean": 1 / (max(length, 1) * len(rows)),
        "masked_normalize": 1 / (CONSTANT * len(rows)),
        "token_mean": 1 / max(sum(len(response) for _, response, _, _ in rows), 1),
    }[normalizer]


def long_way(model, rows, loss, normalizer):
    """Row by row, token by token, with full logits: no padding, no masks, no micro-batches."""
    total = torch.zeros((), dtype=torch.float64)
    for prompt, response, advantage, old in rows:
        logits = model(input_ids=torch.tensor([[*prompt, *response]])).logits[0]
        full = torch.log_softmax(logits, -1)
        for place, token in enumerate(response):
            logprob = full[len(prompt) - 1 + place, token]
            before = logprob.detach() if old is None else old[place]
            one = token_loss(loss, logprob, before, advantage)
            total = total + row_weight(normalizer, rows, len(response)) * one
    grads = (
        torch.autograd.grad(total, list(model.parameters()), materialize_grads=True)
        if (total.requires_grad)
        else [torch.zeros_like(p) for p in model.parameters()]
    )
    return total.item(), list(grads)


def update(policy, start, rows, loss, normalizer, token_budget):
    """Run one step from the weights ``start``; return its loss and minus the weights' change."""
    with torch.no_grad():
        for parameter, value in zip(policy.model.parameters(), start, strict=True):
            parameter.copy_(value)
    learner = Learner(
        policy,
        Sgd(),
        token_budget=token_budget,
        total_steps=1,
    )
    objective = Objective.of(make(LOSSES[loss]), NORMALIZERS[normalizer].build())
    assert objective.surrogate.zero_without_advantage
    metrics = learner.step([train_row(*row) for row in rows], objective)
    moved = [a - b.detach() for a, b in zip(start, policy.model.parameters(), strict=True)]
    return metrics["loss"], moved


@pytest.mark.parametrize("normalizer", NORMALIZERS)
@pytest.mark.parametrize("loss", LOSSES)
def test_the_update_is_the_same_however_the_batch_is_cut(tiny_policy, loss, normalizer):
    policy = tiny_policy()
    start = [p.detach().clone() for p in policy.model.parameters()]
    signal = 0.0

    @settings(
        max_examples=12,
        derandomize=True,
        database=None,
        deadline=None,
        suppress_health_check=[HealthCheck.too_slow],
    )
    @given(batches())
    def check(batch):
        nonlocal signal
        rows, order, budget = batch
        cut = update(policy, start, [rows[i] for i in order], loss, normalizer, budget)
        whole = update(policy, start, rows, loss, normalizer, 10_000)
        with torch.no_grad():
            for parameter, value in zip(policy.model.parameters(), start, strict=True):
                parameter.copy_(value)
        expected = long_way(policy.model, rows, loss, normalizer)
        for value, moved in (cut, whole):
            assert value == pytest.approx(expected[0], abs=1e-10, rel=1e-10)
            for got, want in zip(moved, expected[1], strict=True):
                torch.testing.assert_close(got, want, rtol=1e-10, atol=1e-10)
        signal = max(signal, *(float(g.abs().max()) for g in expected[1]))

    check()
    assert signal > 1e-2  # the examples did compare gradients, not zeros
