"""Training steps, advantages and losses of the handout, by hand."""

import math
import types

import pytest
import torch

import alignkit_cs336 as cs336
from by_hand import MASK, close, f64

LOG_PROBS = f64([[-1, -2, -3], [-4, -5, -6]])


def test_sft_step_by_hand():
    log_probs = LOG_PROBS.clone().requires_grad_()
    loss, _ = cs336.sft_microbatch_train_step(
        policy_log_probs=log_probs,
        response_mask=MASK,
        gradient_accumulation_steps=2,
        normalize_constant=10.0,
    )
    # ((1 + 2) / 10 + 4 / 10) / 2 rows / 2 steps. Without the mean over rows: 0.35.
    assert loss.item() == pytest.approx(0.175, abs=1e-12)
    close(log_probs.grad, [[-1 / 40, -1 / 40, 0], [-1 / 40, 0, 0]])


def test_gradients_of_micro_batches_add_up():
    whole, parts = (LOG_PROBS.clone().requires_grad_() for _ in range(2))
    cs336.sft_microbatch_train_step(whole, MASK, 1, 3.0)
    for i in range(2):
        cs336.sft_microbatch_train_step(parts[i : i + 1], MASK[i : i + 1], 2, 3.0)
    close(parts.grad, whole.grad.tolist())


def reward(response, truth):
    return {"reward": float(response == truth), "format_reward": 1.0, "answer_reward": 0.5}


def test_group_means_without_std():
    got, raw, metadata = cs336.compute_group_normalized_rewards(
        reward, ["a", "b", "b", "b"], ["a", "b", "c", "c"], 2, 1e-6, normalize_by_std=False
    )
    assert raw.tolist() == [1, 1, 0, 0]
    assert got.tolist() == [0, 0, 0, 0]
    got, _, metadata = cs336.compute_group_normalized_rewards(
        reward, ["a", "b", "c", "c"], ["a", "c", "c", "c"], 2, 1e-6, normalize_by_std=False
    )
    assert got.tolist() == [0.5, -0.5, 0, 0]
    assert metadata["mean_reward"] == 0.75
    assert metadata["mean_format_reward"] == 1
    assert metadata["signal"] == 0.5


def test_one_response_a_group_is_an_error():
    for by_std in (True, False):
        with pytest.raises(ValueError, match="at least 2"):
            cs336.compute_group_normalized_rewards(reward, ["a"], ["a"], 1, 1e-6, by_std)


def test_more_responses_than_truths_is_an_error():
    with pytest.raises(ValueError, match="2 rollout_responses, 1 repeated_ground_truths"):
        cs336.compute_group_normalized_rewards(reward, ["a", "a"], ["a"], 2, 1e-6, True)


OLD = LOG_PROBS - f64([[math.log(1.5), 0, math.log(0.5)]])

ADVANTAGES = f64([[2], [-1]])


@pytest.mark.parametrize(
    ("loss_type", "want"),
    [
        ("no_baseline", [[3, 6, 9], [28, 35, 42]]),  # rewards 3 and 7
        ("reinforce_with_baseline", [[2, 4, 6], [-4, -5, -6]]),
        ("grpo_clip", [[-2.4, -2, -1], [1.5, 1, 0.8]]),
        ("grpo_no_clip", [[-3, -2, -1], [1.5, 1, 0.5]]),
        ("no_clip", [[-3, -2, -1], [1.5, 1, 0.5]]),  # a registered name
        # Mean log ratio ln(0.75) / 3: s = 0.908560; 2 * 0.908560, and 0.95 * -1 is the smaller.
        ("gspo", [[-2 * 0.75 ** (1 / 3)] * 3, [0.95] * 3]),
    ],
)
def test_policy_gradient_losses_by_hand(loss_type, want):
    got, metadata = cs336.compute_policy_gradient_loss(
        policy_log_probs=LOG_PROBS,
        loss_type=loss_type,
        raw_rewards=f64([[3], [7]]),
        advantages=ADVANTAGES,
        old_log_probs=OLD,
        cliprange=0.05 if loss_type == "gspo" else 0.2,
    )
    close(got, want)
    assert ("clip_fraction" in metadata) is (loss_type in ("grpo_clip", "gspo"))


def test_single_losses_by_hand():
    close(
        cs336.compute_naive_policy_gradient_loss(ADVANTAGES, LOG_PROBS), [[2, 4, 6], [-4, -5, -6]]
    )
    got, metadata = cs336.compute_grpo_clip_loss(ADVANTAGES, LOG_PROBS, OLD, 0.2)
    close(got, [[-2.4, -2, -1], [1.5, 1, 0.8]])
    close(metadata["clip_fraction"], [[1, 0, 0], [0, 0, 1]])


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"loss_type": "no_baseline", "advantages": ADVANTAGES}, "needs raw_rewards"),
        ({"loss_type": "grpo_clip", "raw_rewards": ADVANTAGES}, "needs advantages"),
        ({"loss_type": "grpo_clip", "advantages": ADVANTAGES}, "needs cliprange"),
        (
            {"loss_type": "grpo_clip", "advantages": ADVANTAGES, "cliprange": 0.2},
            "needs old_log_probs",
        ),
    ],
)
def test_what_a_loss_lacks_is_named(given, message):
    with pytest.raises(ValueError, match=message):
        cs336.compute_policy_gradient_loss(LOG_PROBS, **given)


def test_an_unknown_loss_is_named_with_a_guess():
    with pytest.raises(LookupError, match="Did you mean 'grpo_clip'"):
        cs336.compute_policy_gradient_loss(LOG_PROBS, "grpo_clp", advantages=ADVANTAGES)


def test_rewards():
    right = "2 + 2 </think> <answer> 4 </answer>"
    assert cs336.r1_zero_reward_fn(response=right, ground_truth="4") == {
        "format_reward": 1.0,
        "answer_reward": 1.0,
        "reward": 1.0,
    }
    wrong = cs336.r1_zero_reward_fn(right, "5")
    assert (wrong["format_reward"], wrong["answer_reward"], wrong["reward"]) == (1, 0, 0)
    assert cs336.r1_zero_reward_fn("4", "4")["format_reward"] == 0
    assert cs336.r1_zero_reward_fn(right, ["5", "4"])["reward"] == 1
    assert cs336.r1_zero_reward_fn(right, 4)["reward"] == 1
    assert cs336.question_only_reward_fn(r"so \boxed{4}", "4")["reward"] == 1
    assert cs336.question_only_reward_fn("so 4", "4")["reward"] == 0


def test_log_probs_of_a_module_that_is_not_of_transformers():
    """Whatever maps ids to an object with logits can be scored, as in a student's own tests."""

    class Bigram(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.table = torch.nn.Parameter(torch.tensor([[0.0, 0.0], [0.0, math.log(3.0)]]))

        def forward(self, input_ids):
            return types.SimpleNamespace(logits=self.table[input_ids])

    found = cs336.get_response_log_probs(
        Bigram(), torch.tensor([[0, 1]]), torch.tensor([[1, 0]]), return_token_entropy=True
    )
    # Row 0 is uniform over two: log 1/2. Row 1 has odds 1 to 3: log 1/4.
    torch.testing.assert_close(found["log_probs"], torch.tensor([[math.log(0.5), math.log(0.25)]]))
    spread = 0.25 * math.log(4) + 0.75 * math.log(4 / 3)
    torch.testing.assert_close(found["token_entropy"], torch.tensor([[math.log(2), spread]]))


def test_a_wide_cliprange_clips_nothing_from_above_or_below():
    ratio = torch.tensor([[0.01, 1.0, 9.0]])
    loss, metadata = cs336.compute_grpo_clip_loss(
        torch.tensor([[2.0]]), ratio.log(), torch.zeros(1, 3), cliprange=10.0
    )
    torch.testing.assert_close(loss, -2.0 * ratio)
    assert metadata["clip_fraction"].sum() == 0
