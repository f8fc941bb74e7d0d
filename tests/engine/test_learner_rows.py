"""Steps with few rows, without signal, or with gradients that are not finite."""

import math
from dataclasses import replace

import pytest
import torch
from torch.optim.lr_scheduler import LambdaLR

from alignkit.engine.learning import rows as learning_rows
from alignkit.engine.learning.rows import Rows
from alignkit.engine.tokens import TrainRow
from alignkit.protocols import LossOutput
from learner_fakes import ROWS, Sgd, learner, reinforce, weights, with_kl


def test_a_step_without_any_token_changes_nothing_and_reports_zeros(tiny_policy):
    policy = tiny_policy()
    before = weights(policy)
    metrics = learner(policy).step([TrainRow((3,), (), 2.0), TrainRow((4,), (), 1.0)])
    assert torch.equal(before, weights(policy))
    assert metrics["loss"] == metrics["grad_norm"] == metrics["token_entropy"] == 0
    assert metrics["skipped_steps"] == 0
    assert policy.version == 1


def test_a_step_needs_rows(tiny_policy):
    with pytest.raises(ValueError, match="at least one row"):
        learner(tiny_policy()).step([])


def test_rows_without_signal_are_not_sent_backwards(tiny_policy):
    policy = tiny_policy()
    calls = []
    learner(policy).logprobs(ROWS)  # what is asked of a model once has been asked
    policy.model.model.embed_tokens.weight.register_hook(calls.append)
    learner(policy).step([TrainRow((3, 4), (5, 6), 0.0), TrainRow((3, 4), (7,), 0.0)])
    assert not calls
    learner(policy).step(ROWS)
    assert calls


def test_rows_without_advantage_are_not_sent_forwards_either(tiny_policy):
    policy, other = tiny_policy(), tiny_policy()
    teacher, seen = learner(policy), []
    teacher.logprobs(ROWS[:1])  # what is asked of a model once has been asked
    policy.model.model.register_forward_pre_hook(
        lambda module, args, kwargs: seen.append(kwargs["input_ids"].numel()), with_kwargs=True
    )
    metrics = teacher.step(ROWS)
    # (3, 4, 5, 6) and (9,); the last response token is no input, the row at 0 has five more.
    assert sum(seen) == 5
    assert metrics["computed_token_share"] == 4 / 8
    # Places 0+1+2 and 0 over the 4 tokens computed; over all 8 of the step it would be 3/8.
    assert metrics["place"] == 0.75
    whole = learner(other, loss=not_quite_zero).step(ROWS)
    assert whole["computed_token_share"] == 1
    assert whole["loss"] == pytest.approx(metrics["loss"], abs=1e-10)
    torch.testing.assert_close(weights(policy), weights(other), rtol=0, atol=1e-10)


def not_quite_zero(x):
    """``reinforce`` with a constant too small to matter, so that every row is computed."""
    output = reinforce(x)
    return LossOutput(per_token=output.per_token + 1e-12, metrics=output.metrics)


def mixed_rows(count, idle):
    """Rows of unlike lengths, the ``idle`` of every 10 without advantage."""
    texts = [tuple(5 + (i * 7 + j) % 20 for j in range(1 + i % 6)) for i in range(count)]
    return Rows(rows=[TrainRow((3, 4), t, float(i % 10 >= idle)) for i, t in enumerate(texts)])


@pytest.mark.parametrize("idle", [10, 7, 3, 0])
@pytest.mark.parametrize("token_budget", [1, 30, 1000])
def test_metrics_are_those_of_all_tokens_whatever_is_computed(
    tiny_policy, monkeypatch, idle, token_budget
):
    """With enough rows measured the estimate is exact; with few it is near, and never of some."""
    policy, other, third = (tiny_policy() for _ in range(3))

    def found(policy, tokens, zero):
        monkeypatch.setattr(learning_rows, "METRIC_TOKENS", tokens)
        rows = mixed_rows(200, idle).whole.rows
        old = [replace(row, old_logprobs=-1.0 * torch.ones(len(row.trained_ids))) for row in rows]
        return learner(policy, zero=zero, token_budget=token_budget).step(old)

    want = found(policy, 1, zero=False)
    exact = found(other, 10**9, zero=True)
    assert exact == pytest.approx(want, abs=1e-9)
    near = found(third, 60, zero=True)
    names = ("token_entropy", "place")  # a percentile of few varies more
    assert {n: near[n] for n in names} == pytest.approx({n: want[n] for n in names}, rel=0.15)
    assert near["loss"] == pytest.approx(want["loss"], abs=1e-10)
    share = near["computed_token_share"]
    assert share == pytest.approx(1 - idle / 10, abs=0.25)
    assert (share < 1) == (idle > 0)


def test_rows_without_advantage_still_learn_when_the_loss_has_more_terms(tiny_policy):
    """A KL term has a gradient without any advantage; skipping by advantage would lose it."""
    policy = tiny_policy()
    before = weights(policy)
    learner(policy, loss=with_kl).step([TrainRow((3, 4), (5, 6), 0.0)])
    assert not torch.equal(before, weights(policy))


def test_zero_gradient_still_steps_adam(tiny_policy):
    """Momentum moves the weights after a step without signal, whether it was computed or not."""

    class Adam(Sgd):
        def start(self, parameters, *, total_steps):
            optimizer = torch.optim.AdamW(parameters, lr=0.1, weight_decay=0.0)
            return optimizer, LambdaLR(optimizer, lambda step: 1.0)

    policy = tiny_policy()
    teacher = learner(policy, optimizer=Adam())
    teacher.step(ROWS)
    middle = weights(policy)
    teacher.step([ROWS[3]])
    assert not torch.equal(middle, weights(policy))


def test_a_gradient_that_is_not_finite_changes_nothing_but_the_count(tiny_policy):
    policy = tiny_policy()
    before = weights(policy)
    teacher = learner(policy)
    metrics = teacher.step([*ROWS, TrainRow((3,), (4,), math.inf)])
    assert metrics["skipped_steps"] == 1
    assert teacher.skipped_steps == 1
    assert torch.equal(before, weights(policy))
    assert policy.version == 0
    # Nothing is left behind either: the next step is as if the bad one had not been.
    teacher.step(ROWS)
    fresh = tiny_policy()
    learner(fresh).step(ROWS)
    assert torch.equal(weights(policy), weights(fresh))
