"""The 2026 edition: hand-worked numbers, and the mistakes that must not pass them.

A check takes the function it examines, so the same numbers judge ours and the mutants.
"""

import inspect

import pytest
import torch

from alignkit_cs336 import spring2025, spring2026
from by_hand import f64
from numbers_2026 import ALL, KEPT, PER_TOKEN, RATIO, RAW, A, loss_of, two_parts

SIGNATURES = {
    "compute_rollout_rewards": "reward_fn rollout_responses repeated_ground_truths",
    "compute_group_normalized_rewards": "raw_rewards group_size baseline=mean "
    "advantage_eps=1e-06 advantage_normalizer=std",
    "compute_policy_gradient_loss": "raw_rewards_or_advantages policy_log_probs "
    "importance_reweighting_method=none old_log_probs=None cliprange=None response_mask=None",
    "aggregate_loss_across_microbatch": "per_token_policy_gradient_loss mask "
    "loss_normalization=sequence normalization_constant=None",
}

STEP = """model tokenizer optimizer gradient_accumulation_steps max_grad_norm reward_fn
repeated_prompts rollout_responses repeated_ground_truths group_size baseline advantage_eps
advantage_normalizer importance_reweighting_method old_log_probs cliprange loss_normalization
normalization_constant"""


@pytest.mark.parametrize("name", SIGNATURES)
def test_names_and_keywords(name):
    parameters = inspect.signature(getattr(spring2026, name)).parameters.values()
    shown = [p.name if p.default is p.empty else f"{p.name}={p.default}" for p in parameters]
    assert shown == SIGNATURES[name].split()


def test_names_of_the_step_and_the_server():
    assert list(inspect.signature(spring2026.grpo_train_step).parameters) == STEP.split()
    server = list(inspect.signature(spring2026.VLLMServer).parameters)
    assert server == ["model_id", "gpu", "seed", "gpu_memory_utilization"]


def test_what_both_editions_have_is_one_thing():
    new = {
        "compute_group_normalized_rewards",
        "compute_policy_gradient_loss",
        "compute_rollout_rewards",
        "aggregate_loss_across_microbatch",
        "grpo_train_step",
        "VLLMServer",
    }
    shared = set(spring2026.__all__) - new
    assert shared < set(spring2025.__all__)
    for name in shared:
        assert getattr(spring2026, name) is getattr(spring2025, name), name


def test_one_response_has_no_deviation():
    assert spring2026.compute_rollout_rewards(two_parts, ["4"], ["4"])[1]["std_reward"] == 0


def test_group_normalization_has_the_defaults_of_grpo():
    got, _ = spring2026.compute_group_normalized_rewards(f64(RAW), 4)
    want, _ = spring2026.compute_group_normalized_rewards(f64(RAW), 4, "mean", 1e-6, "std")
    assert torch.equal(got, want)


@pytest.mark.parametrize("baseline", ["mean", "none"])
def test_equal_rewards_have_no_deviation_to_be_divided_by(baseline):
    got, found = spring2026.compute_group_normalized_rewards(f64([1.0] * 4), 2, baseline)
    assert got.tolist() == [0] * 4
    assert found["signal"] == 0


def test_maxrl_refuses_what_it_cannot_divide_by():
    with pytest.raises(ValueError, match="at least 0"):
        spring2026.compute_group_normalized_rewards(f64([-1.0, 1.0]), 2, "mean", 0.0, "mean")


def test_a_mask_that_is_not_given_is_all_tokens():
    whole, found, _ = loss_of(spring2026.compute_policy_gradient_loss, "gspo")
    given, _, _ = loss_of(spring2026.compute_policy_gradient_loss, "gspo", mask=ALL)
    assert torch.equal(whole, given)
    assert found["clip_fraction"].shape == (2, 3)


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda f, n, x: f(x, n, "grpo", None, 0.2), "needs old_log_probs"),
        (lambda f, n, x: f(x, n, "noclip"), "needs old_log_probs"),
        (lambda f, n, x: f(x, n, "gspo", n), "needs cliprange"),
        (lambda f, n, x: f(x, n, "ppo", n, 0.2), "one of none, noclip, grpo, gspo"),
    ],
    ids=["grpo without old", "noclip without old", "gspo without cliprange", "unknown"],
)
def test_what_a_loss_lacks_is_named(call, said):
    with pytest.raises(ValueError, match=said):
        call(spring2026.compute_policy_gradient_loss, RATIO.log(), A)


@pytest.mark.parametrize("constant", [None, 0.0, -1.0])
def test_a_constant_must_be_given(constant):
    with pytest.raises(ValueError, match="needs a normalization_constant above 0"):
        spring2026.aggregate_loss_across_microbatch(PER_TOKEN, KEPT, "constant", constant)


def test_an_unknown_normalization_is_refused():
    with pytest.raises(ValueError, match="one of sequence, constant"):
        spring2026.aggregate_loss_across_microbatch(PER_TOKEN, KEPT, "token")
