"""One optimizer step: what it computes, what it reports, and when it does nothing."""

import math
from dataclasses import replace

import pytest
import torch
from torch.optim.lr_scheduler import LambdaLR

from alignkit.engine.learning import rows as learning_rows
from alignkit.engine.learning.learner import Learner
from alignkit.engine.learning.objective import Objective, Surrogate
from alignkit.engine.learning.rows import Rows
from alignkit.engine.tokens import TrainRow
from alignkit.protocols import LossOutput, StepTotals


class Sgd:
    """Plain gradient descent: with lr 1 the change of the weights is minus the gradient."""

    def __init__(self, lr=1.0, max_grad_norm=math.inf):
        self.lr, self.max_grad_norm = lr, max_grad_norm

    def start(self, parameters, *, total_steps):
        optimizer = torch.optim.SGD(parameters, lr=self.lr)
        return optimizer, LambdaLR(optimizer, lambda step: 1 - step / total_steps)


def reinforce(x):
    """The loss of a plain policy gradient, with two metrics."""
    metrics = {"place": torch.arange(x.mask.shape[1]).expand_as(x.mask), "twice": 2 * x.advantages}
    return LossOutput(per_token=-x.advantages * x.logprobs, metrics=metrics)


def with_kl(x):
    """``reinforce`` with a term that has a gradient at rows without advantage too."""
    output = reinforce(x)
    return LossOutput(per_token=output.per_token + x.logprobs, metrics=output.metrics)


def token_mean(per_token, mask, /, *, totals):
    return torch.where(mask, per_token, 0).sum() / max(totals.tokens, 1)


class Teacher(Learner):
    """A learner of one objective."""

    def __init__(self, policy, objective, optimizer, **settings):
        super().__init__(policy, optimizer, **settings)
        self.objective = objective

    def step(self, rows):
        return super().step(rows, self.objective)


def learner(policy, *, loss=reinforce, normalizer=token_mean, optimizer=None, temperature=1.0,
            zero=None, **changes):  # fmt: skip
    """Of the losses here, ``reinforce`` is zero without advantage."""
    surrogate = Surrogate(loss, loss is reinforce if zero is None else zero)
    objective = Objective(surrogate, normalizer, temperature)
    settings = {"token_budget": 12, "total_steps": 4, **changes}
    return Teacher(policy, objective, optimizer or Sgd(), **settings)


def weights(policy):
    return torch.cat([p.detach().flatten().clone() for p in policy.model.parameters()])


ROWS = [
    TrainRow((3, 4), (5, 6, 7), 1.0),
    TrainRow((3, 4, 8), (), 5.0),
    TrainRow((9,), (10,), -2.0),
    TrainRow((9, 2), (10, 11, 12, 13), 0.0),
]


def test_the_step_is_the_gradient_of_the_mean_over_its_tokens(tiny_policy):
    policy, other = tiny_policy(), tiny_policy()
    before = weights(policy)
    metrics = learner(policy).step(ROWS)
    loss = torch.zeros((), dtype=torch.float64)
    for row in ROWS:
        ids = torch.tensor([[*row.prompt_ids, *row.response_ids]])
        full = torch.log_softmax(other.model(input_ids=ids).logits[0], -1)
        for place, token in enumerate(row.response_ids):
            loss = loss - row.advantage * full[len(row.prompt_ids) - 1 + place, token]
    loss = loss / 8  # 3 + 0 + 1 + 4 tokens
    loss.backward()
    gradient = torch.cat([p.grad.flatten() for p in other.model.parameters()])
    torch.testing.assert_close(before - weights(policy), gradient, rtol=0, atol=1e-10)
    assert metrics["loss"] == pytest.approx(loss.item(), abs=1e-10)
    assert metrics["grad_norm"] == pytest.approx(gradient.norm().item(), abs=1e-10)
    assert policy.version == 1


def test_metrics_are_means_over_the_tokens_of_the_whole_step(tiny_policy):
    metrics = learner(tiny_policy(), loss=with_kl, token_budget=5).step(ROWS)
    # Places 0+1+2, 0, 0+1+2+3 over 8 tokens. Over padding too: 3 rows x 0+1+2+3 / 12 = 1.5;
    # mean of the rows' means: (1 + 0 + 1.5) / 3 = 0.83; last micro-batch alone: 1.5.
    assert metrics["place"] == pytest.approx(9 / 8, abs=1e-12)
    # 2 * (3 * 1 + 1 * -2 + 4 * 0) / 8; a mean over rows would be 2 * (1 - 2 + 0) / 3.
    assert metrics["twice"] == pytest.approx(0.25, abs=1e-12)
    assert metrics["response_tokens"] == 8
    assert metrics["computed_token_share"] == 1


def test_token_entropy_is_the_policys_own_over_response_tokens(tiny_policy):
    """At temperature 1, as evaluation reports it, whatever responses are sampled at."""
    policy, other = tiny_policy(), tiny_policy()
    metrics = learner(policy, loss=with_kl, temperature=0.5).step(ROWS)
    entropies = []
    for row in ROWS:
        ids = torch.tensor([[*row.prompt_ids, *row.response_ids]])
        p = torch.softmax(other.model(input_ids=ids).logits[0], -1)
        entropies += (-(p * p.log()).sum(-1))[len(row.prompt_ids) - 1 : -1].tolist()
    assert metrics["token_entropy"] == pytest.approx(sum(entropies) / 8, abs=1e-10)


def test_lr_is_the_one_the_step_used_and_the_schedule_moves_once_a_step(tiny_policy):
    teacher = learner(tiny_policy(), token_budget=5)
    assert [teacher.step(ROWS)["lr"] for _ in range(3)] == [1.0, 0.75, 0.5]


def test_gradients_are_clipped_to_the_global_norm(tiny_policy):
    policy = tiny_policy()
    before = weights(policy)
    metrics = learner(policy, optimizer=Sgd(max_grad_norm=0.01)).step(ROWS)
    assert metrics["grad_norm"] > 0.01
    # torch divides by norm + 1e-6.
    expected = 0.01 * metrics["grad_norm"] / (metrics["grad_norm"] + 1e-6)
    assert (before - weights(policy)).norm().item() == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("share", [1e-3, 0.5, 0.9, 0.999, 0.999_999, 1.0, 1.000_001, 1.01, 3.0])
def test_gradients_that_clipping_would_not_change_are_left_as_they_are(
    tiny_policy, monkeypatch, share
):
    """The same bits as where each gradient is multiplied, by 1 too."""
    norm = learner(tiny_policy()).step(ROWS)["grad_norm"]
    found = []
    for always in (False, True):
        if always:
            monkeypatch.setattr("alignkit.engine.learning.learner._shortens", lambda *_: True)
        policy = tiny_policy()
        learner(policy, optimizer=Sgd(max_grad_norm=share * norm)).step(ROWS)
        found.append(weights(policy))
    assert torch.equal(*found)


def test_clipping_costs_nothing_where_the_norm_is_small(tiny_policy, monkeypatch):
    monkeypatch.delattr(torch.nn.utils, "clip_grads_with_norm_")
    learner(tiny_policy(), optimizer=Sgd(max_grad_norm=1e6)).step(ROWS)


def test_logprobs_come_back_in_order_without_gradient(tiny_policy):
    policy = tiny_policy()
    found = learner(policy, token_budget=5).logprobs(ROWS)
    assert [len(x) for x in found] == [3, 0, 1, 4]
    for row, values in zip(ROWS, found, strict=True):
        ids = torch.tensor([[*row.prompt_ids, *row.response_ids]])
        full = torch.log_softmax(policy.model(input_ids=ids).logits[0], -1).detach()
        for place, token in enumerate(row.response_ids):
            expected = full[len(row.prompt_ids) - 1 + place, token]
            assert values[place].item() == pytest.approx(expected.item(), abs=1e-10)
        assert not values.requires_grad


# ---------------------------------------------------------------- steps with little or nothing


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


# ---------------------------------------------------------------- what the loss is given


def seen_by_the_loss(policy, rows):
    seen = []

    def spy(x):
        seen.append(x)
        return LossOutput(per_token=-x.logprobs)

    learner(policy, loss=spy, token_budget=1000).step(rows)
    (inputs,) = seen
    return inputs


def test_missing_old_logprobs_are_the_current_ones_detached(tiny_policy):
    old = torch.tensor([-1.0, -2.0])
    rows = [TrainRow((3,), (4, 5, 6)), TrainRow((3,), (7, 8), old_logprobs=old)]
    x = seen_by_the_loss(tiny_policy(), rows)
    assert torch.equal(x.old_logprobs[0], x.logprobs.detach()[0])
    assert x.old_logprobs[1].tolist() == [-1, -2, 0]
    assert not x.old_logprobs.requires_grad
    assert x.ref_logprobs is None
    assert x.rollout_logprobs is None
    assert x.advantages.shape == (2, 1)


def test_reference_and_rollout_logprobs_reach_the_loss(tiny_policy):
    row = TrainRow(
        (3,), (4, 5), ref_logprobs=torch.tensor([-1.0, -2.0]), rollout_logprobs=torch.zeros(2)
    )
    x = seen_by_the_loss(tiny_policy(), [row])
    assert x.ref_logprobs.tolist() == [[-1, -2]]
    assert x.rollout_logprobs.tolist() == [[0, 0]]


def test_reference_logprobs_for_some_rows_only_are_refused(tiny_policy):
    rows = [TrainRow((3,), (4,)), TrainRow((3,), (4,), ref_logprobs=torch.zeros(1))]
    with pytest.raises(ValueError, match="ref_logprobs: 1 of 2 rows"):
        learner(tiny_policy()).step(rows)


def test_a_loss_of_another_shape_is_refused(tiny_policy):
    with pytest.raises(ValueError, match="per_token of shape"):
        learner(tiny_policy(), loss=lambda x: LossOutput(per_token=x.logprobs.sum(1))).step(ROWS)


def test_nan_at_padding_stays_there(tiny_policy):
    """A loss may do as it likes at masked positions: 0 / 0 there must not reach a weight."""

    def careless(x):
        return LossOutput(per_token=-x.advantages * x.logprobs * (x.logprobs / x.logprobs).detach())

    policy, clean = tiny_policy(), tiny_policy()
    metrics = learner(policy, loss=careless).step(ROWS)
    learner(clean).step(ROWS)
    assert metrics["skipped_steps"] == 0
    torch.testing.assert_close(weights(policy), weights(clean), rtol=0, atol=1e-12)


def test_totals_count_rows_without_tokens(tiny_policy):
    seen = []

    def spy(per_token, mask, /, *, totals):
        seen.append(totals)
        return token_mean(per_token, mask, totals=totals)

    learner(tiny_policy(), normalizer=spy, token_budget=5).step(ROWS)
    assert set(seen) == {StepTotals(responses=4, tokens=8)}


def test_state_goes_on_where_it_was(tiny_policy):
    one = tiny_policy()
    first = learner(one)
    first.step(ROWS)
    two = tiny_policy()
    two.model.load_state_dict(one.model.state_dict())
    second = learner(two)
    second.load_state_dict(first.state_dict())
    assert second.step(ROWS) == first.step(ROWS)
    assert torch.equal(weights(one), weights(two))
