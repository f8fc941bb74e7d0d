"""The mismatch between rollouts and trainer, on numbers worked by hand."""

import math

import pytest
import torch

from alignkit.engine.learning.correction import truncated_importance, with_gap
from alignkit.protocols import LossInputs, LossOutput


def plain(x):
    return LossOutput(per_token=-x.advantages * x.logprobs)


def inputs(**changes):
    given = {
        "logprobs": torch.tensor([[-1.0, -2.0]], requires_grad=True),
        "mask": torch.ones(1, 2, dtype=torch.bool),
        "advantages": torch.tensor([[3.0]]),
        "old_logprobs": torch.log(torch.tensor([[0.4, 0.5]])),
        "rollout_logprobs": torch.log(torch.tensor([[0.5, 0.1]])),
    }
    return LossInputs(**(given | changes))


def test_gap_and_kl():
    metrics = with_gap(plain)(inputs()).metrics
    # r = 0.4 / 0.5 = 0.8 and 0.5 / 0.1 = 5.
    assert metrics["rollout_logprob_gap"][0].tolist() == pytest.approx(
        [-math.log(0.8), math.log(5)]
    )
    # k3: 0.8 - 1 - ln 0.8 = 0.0231 (with r upside down, 1.25 - 1 + ln 0.8 = 0.0269), 4 - ln 5.
    assert metrics["rollout_kl"][0].tolist() == pytest.approx([0.023144, 2.390562], abs=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_equal_log_probs_have_no_divergence(dtype):
    same = -torch.rand(4, 257, dtype=dtype, generator=torch.Generator().manual_seed(0)) * 40
    x = inputs(
        logprobs=same, mask=same < 0, advantages=torch.ones(4, 1),
        old_logprobs=same, rollout_logprobs=same.clone(),
    )  # fmt: skip
    metrics = with_gap(plain)(x).metrics
    assert not metrics["rollout_kl"].any()
    assert not metrics["rollout_logprob_gap"].any()


def test_tokens_are_weighted_by_the_capped_ratio():
    x = inputs()
    output = truncated_importance(plain, 2.0)(x)
    # -3 · -1 · 0.8 = 2.4 and -3 · -2 · min(5, 2) = 12; without the cap 30.
    assert output.per_token[0].tolist() == pytest.approx([2.4, 12.0])
    assert output.metrics["importance_capped"][0].tolist() == [0.0, 1.0]
    assert output.metrics["importance_weight"][0].tolist() == pytest.approx([0.8, 2.0])
    output.per_token.sum().backward()
    # The weight is a constant: the gradient is -3 · w.
    assert x.logprobs.grad[0].tolist() == pytest.approx([-2.4, -6.0])


def test_the_weighted_gradient_is_that_of_the_policy_the_loss_meant():
    """Drawing from π_rollout and weighting gives the expectation under π_old, in the exact sum."""
    old, rollout = torch.tensor([0.5, 0.3, 0.2]), torch.tensor([0.3, 0.3, 0.4])
    value = torch.tensor([1.0, -2.0, 4.0])
    x = inputs(
        logprobs=torch.zeros(3, 1),
        mask=torch.ones(3, 1, dtype=torch.bool),
        advantages=value[:, None],
        old_logprobs=old.log()[:, None],
        rollout_logprobs=rollout.log()[:, None],
    )
    per_token = truncated_importance(lambda x: LossOutput(per_token=x.advantages.clone()), 10.0)(x)
    # 0.5 - 0.6 + 0.8 = 0.7; unweighted it would be 0.3 - 0.6 + 1.6 = 1.3.
    assert float((rollout * per_token.per_token[:, 0]).sum()) == pytest.approx(0.7)


def test_without_rollout_logprobs_there_is_nothing_to_correct():
    assert "rollout_kl" not in with_gap(plain)(inputs(rollout_logprobs=None)).metrics
    with pytest.raises(ValueError, match="needs old and rollout log-probs"):
        truncated_importance(plain, 2.0)(inputs(rollout_logprobs=None))
