"""GRPO with a reference: the divergence from it, in the loss and in the reward."""

import pytest
import torch

from alignkit.engine.learning.reference_table import Reference
from alignkit.protocols import Reward


def test_the_divergence_starts_at_zero_and_is_held_back(grpo, toys, tmp_path):
    def divergence(beta):
        reference = Reference(beta, "k3", None)
        subject = grpo({"n_steps": 6}, reference=reference, optimizer=toys.adamw(1e-2))
        rows = toys.carry_out(subject, tmp_path / str(beta))
        return [row["train/kl"] for row in rows]

    free, held = divergence(0.0), divergence(10.0)
    assert free[0] > 0  # several updates in the first step already move away
    assert held[-1] < 0.5 * free[-1]


def test_on_policy_the_first_steps_divergence_is_zero(grpo, toys, tmp_path):
    keys = {"n_steps": 2, "train_batch_size": 16, "epochs_per_rollout_batch": 1}
    rows = toys.carry_out(grpo(keys, reference=Reference(0.1, "k3", None)), tmp_path)
    assert rows[0]["train/kl"] == pytest.approx(0, abs=1e-9)
    assert rows[1]["train/kl"] > 1e-7


def test_the_reference_does_not_move(grpo, toys, tmp_path, steps):
    subject = grpo({"n_steps": 2}, reference=Reference(0.1, "k2", None))
    start = toys.policy()
    toys.carry_out(subject, tmp_path)
    assert not torch.equal(toys.weights(subject.parts.policy), toys.weights(start))
    row = steps[-1][0]
    ids = torch.tensor([[*row.prompt_ids, *row.response_ids]])
    log_p = torch.log_softmax(start.model(input_ids=ids).logits[0], -1).detach()
    first = len(row.prompt_ids) - 1
    expected = [float(log_p[first + i, t]) for i, t in enumerate(row.response_ids)]
    assert row.ref_logprobs.tolist() == pytest.approx(expected, abs=1e-5)


def test_a_named_reference_is_used(grpo, toys, tmp_path, steps, teacher):
    keys = {"n_steps": 1, "train_batch_size": 16, "epochs_per_rollout_batch": 1}
    rows = toys.carry_out(grpo(keys, reference=Reference(0.1, "k3", teacher)), tmp_path)
    assert rows[0]["train/kl"] > 1e-4


def test_k1_comes_off_the_reward(grpo, toys, tmp_path, steps, teacher):
    keys = {"n_steps": 1, "train_batch_size": 16, "epochs_per_rollout_batch": 1}

    def zero(responses, examples):
        return [Reward(0.0) for _ in responses]

    subject = grpo(keys, reward=zero, reference=Reference(2.0, "k1", teacher))
    (row,) = toys.carry_out(subject, tmp_path)
    assert row["train/reward"] == 0
    (rows,) = steps
    for start in range(0, 16, 4):
        group = rows[start : start + 4]
        sums = [float((r.old_logprobs - r.ref_logprobs).sum()) for r in group]
        expected = [-2.0 * (s - sum(sums) / 4) for s in sums]
        assert [r.advantage for r in group] == pytest.approx(expected, abs=1e-5)
        assert max(expected) > 1e-3
