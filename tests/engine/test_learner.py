"""One optimizer step: what it computes, what it reports, and when it does nothing."""

import pytest
import torch

from learner_fakes import ROWS, Sgd, learner, weights, with_kl


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
