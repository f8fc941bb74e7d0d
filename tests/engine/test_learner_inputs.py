"""What the loss is given."""

import pytest
import torch

from alignkit.engine.tokens import TrainRow
from alignkit.protocols import LossOutput, StepTotals
from learner_fakes import ROWS, learner, token_mean, weights


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
