"""What the 2026 functions cannot use is a ValueError in their own words, never a NaN or a crash."""

import pytest
import torch

from alignkit_cs336 import spring2025, spring2026
from by_hand import f64

NAN, INF = float("nan"), float("inf")
LOG, A = f64([[-0.1, -0.2, -0.3], [-0.4, -0.5, -0.6]]), f64([1.0, -1.0])


def rewards(says, responses=("a", "b"), truths=("a", "b")):
    return spring2026.compute_rollout_rewards(lambda r, t: says, list(responses), list(truths))


def rewards_2025(says, responses=("a", "b"), truths=("a", "b")):
    return spring2025.compute_group_normalized_rewards(
        lambda r, t: says, list(responses), list(truths), 2, 1e-6, True
    )


@pytest.mark.parametrize("judge", [rewards, rewards_2025])
@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (({"total": 1.0},), r"no 'reward' for response 0, only \['total'\]"),
        (({"reward": NAN},), "finite 'reward'; for response 0 it is nan"),
        (({"reward": -INF},), "finite 'reward'; for response 0 it is -inf"),
        (({"reward": None},), "must return numbers; for response 0"),
        (({"reward": 1.0, "format_reward": "yes"},), "must return numbers; for response 0"),
        (({"reward": 1.0}, ["a"]), "got 1 rollout_responses, 2 repeated_ground_truths"),
        (({"reward": 1.0}, [], []), "rollout_responses is empty"),
    ],
)
def test_judgements_that_are_no_finite_reward(judge, arguments, said):
    with pytest.raises(ValueError, match=said):
        judge(*arguments)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (([], 2), r"\(N,\) with N above 0, got shape \(0,\)"),
        (([[1.0, 0.0]], 2), r"\(N,\) with N above 0, got shape \(1, 2\)"),
        (([1.0, NAN], 2), "raw_rewards must be finite, got"),
        (([1.0, INF], 2, "none", 1e-6, "none"), "raw_rewards must be finite, got"),
        (([1.0, 0.0], 0), "2 rewards do not divide into groups of 0"),
        (([1.0, 0.0, 1.0], 2), "3 rewards do not divide into groups of 2"),
        (([1.0, 0.0], 1), "'std' needs group_size of at least 2, got 1"),
        (([1.0, 0.0], 2, "mean", -1e-6), "advantage_eps must be a finite number of at least 0"),
        (([1.0, 0.0], 2, "mean", NAN), "advantage_eps must be a finite number of at least 0"),
        (([1.0, -0.5], 2, "mean", 1e-6, "mean"), "'mean' divides by .* at least 0, got -0.5"),
    ],
)
def test_rewards_that_cannot_be_normalized(arguments, said):
    values, *rest = arguments
    with pytest.raises(ValueError, match=said):
        spring2026.compute_group_normalized_rewards(f64(values), *rest)


@pytest.mark.parametrize("method", ["none", "noclip", "grpo", "gspo"])
@pytest.mark.parametrize("shape", [(2, 2), (2, 1), (1, 3), (3,)], ids=str)
def test_a_mask_of_another_shape(method, shape):
    with pytest.raises(ValueError, match=r"response_mask must have the shape .*\(2, 3\), got"):
        spring2026.compute_policy_gradient_loss(A, LOG, method, LOG, 0.2, torch.ones(shape))


@pytest.mark.parametrize("method", ["grpo", "gspo"])
@pytest.mark.parametrize("cliprange", [0.0, -0.2, NAN, INF])
def test_a_cliprange_that_is_no_range(method, cliprange):
    with pytest.raises(ValueError, match="cliprange must be a finite number above 0, got"):
        spring2026.compute_policy_gradient_loss(A, LOG, method, LOG, cliprange)


def test_a_constant_that_is_no_number():
    with pytest.raises(ValueError, match="normalization_constant"):
        spring2026.aggregate_loss_across_microbatch(LOG, torch.ones(2, 3), "constant", INF)
