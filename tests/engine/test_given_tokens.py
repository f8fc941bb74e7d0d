"""Tokens of a response that were given, not sampled: read by the model, trained on in no way."""

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from alignkit.engine.forward import logprobs as lp
from alignkit.engine.learning.learner import Learner
from alignkit.engine.learning.objective import Objective, Surrogate
from alignkit.engine.observing.inspector import first_batch, marked
from alignkit.engine.tokens import TrainRow
from alignkit.protocols import LossOutput

IDS = st.integers(min_value=2, max_value=27)
PROMPTS = st.sampled_from([(3, 4), (9,), (5, 6, 7)])  # several rows share one


@st.composite
def rows(draw):
    ids = draw(st.lists(IDS, max_size=8))
    flags = draw(st.lists(st.booleans(), min_size=len(ids), max_size=len(ids)))
    mask = draw(st.sampled_from([None, tuple(flags)]))
    advantage = draw(st.sampled_from([1.0, -2.0, 0.5]))
    return TrainRow(draw(PROMPTS), tuple(ids), given=mask, advantage=advantage)


def by_hand(model, row):
    """The log-prob of every trained token from the logits of the row alone."""
    ids = torch.tensor([[*row.prompt_ids, *row.response_ids]])
    log_p = torch.log_softmax(model(input_ids=ids, use_cache=False).logits[0], -1)
    flags = row.given or [False] * len(row.response_ids)
    at = [i for i, is_given in enumerate(flags) if not is_given]
    first = len(row.prompt_ids) - 1
    return [log_p[first + i, row.response_ids[i]] for i in at]


@pytest.mark.parametrize("packs", [True, False], ids=["packed", "padded"])
@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(batch=st.lists(rows(), min_size=1, max_size=5))
def test_logprobs_are_those_of_the_trained_tokens(tiny_policy, packs, batch):
    policy = tiny_policy()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lp, "can_pack", lambda model: packs)
        values, entropy, mask = lp.response_logprobs(policy, batch)
    expected = [by_hand(policy.model, row) for row in batch]
    assert mask.sum(1).tolist() == [len(row) for row in expected]
    assert mask.sum(1).tolist() == [len(row.trained_ids) for row in batch]
    flat = [value for row in expected for value in row]
    if flat:
        torch.testing.assert_close(values[mask], torch.stack(flat), rtol=0, atol=1e-10)
    assert not bool(entropy[~mask].any())


def policy_gradient(x):
    return LossOutput(per_token=-x.advantages * x.logprobs)


def token_mean(per_token, mask, /, *, totals):
    return torch.where(mask, per_token, 0).sum() / max(totals.tokens, 1)


class Sgd:
    max_grad_norm = float("inf")

    def start(self, parameters, *, total_steps):
        optimizer = torch.optim.SGD(list(parameters), lr=1.0)
        return optimizer, torch.optim.lr_scheduler.ConstantLR(optimizer, factor=1.0)


@pytest.mark.parametrize("token_budget", [1, 1000])
@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(batch=st.lists(rows(), min_size=1, max_size=5))
def test_a_step_learns_from_trained_tokens_alone(tiny_policy, token_budget, batch):
    """The gradient is that of the trained tokens' terms, over the count of those tokens."""
    policy, other = tiny_policy(), tiny_policy()
    before = [p.detach().clone() for p in policy.model.parameters()]
    learner = Learner(policy, Sgd(), token_budget=token_budget, total_steps=1)
    metrics = learner.step(batch, Objective(Surrogate(policy_gradient, True), token_mean))
    count = sum(len(row.trained_ids) for row in batch)
    assert metrics["response_tokens"] == count
    terms = [-row.advantage * sum(by_hand(other.model, row)) for row in batch if row.trained_ids]
    want = [torch.zeros_like(p) for p in before]
    if terms:
        want = torch.autograd.grad(sum(terms) / count, list(other.model.parameters()))
    for old, new, grad in zip(before, policy.model.parameters(), want, strict=True):
        torch.testing.assert_close(new, old - grad, rtol=0, atol=1e-10)


def test_values_of_a_row_are_one_for_each_trained_token():
    row = TrainRow((1,), (5, 6, 7), given=(False, True, False), rollout_logprobs=torch.zeros(2))
    assert row.trained_ids == (5, 7)
    assert row.length == 4
    with pytest.raises(ValueError, match=r"must have shape \(2,\), one value per trained token"):
        TrainRow((1,), (5, 6, 7), given=(False, True, False), old_logprobs=torch.zeros(3))
    with pytest.raises(ValueError, match="given must name 3 tokens"):
        TrainRow((1,), (5, 6, 7), given=(True,))


class Letters:
    def decode(self, ids):
        return "".join(map(chr, ids))


def text(words):
    return tuple(map(ord, words))


def test_a_shown_sample_marks_each_run_of_trained_tokens():
    row = TrainRow(text("2*3? "), text("ask=6 so 6"), given=(False,) * 4 + (True,) + (False,) * 5)
    assert marked(row, Letters()) == "2*3? ⟦ask=⟧6⟦ so 6⟧"
    assert "its trained tokens (9 of 15," in first_batch([row], Letters())
    only_given = TrainRow(text("2*3? "), text("6"), given=(True,))
    assert "NO ROW HOLDS A TRAINED TOKEN\n2*3? 6" in first_batch([only_given], Letters())


def test_a_long_shown_sample_ends_where_it_is_cut():
    flags = (False,) * 300 + (True,) * 50 + (False,) * 200
    row = TrainRow(text("?"), text("a" * 300 + "b" * 50 + "c" * 200), given=flags)
    assert marked(row, Letters()) == f"?⟦{'a' * 300}⟧{'b' * 50}⟦{'c' * 50}…⟧"
