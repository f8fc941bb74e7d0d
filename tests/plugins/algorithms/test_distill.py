"""On-policy distillation: the published gradient, a teacher that stays as it is, and learning."""

from dataclasses import replace

import pytest
import torch

from alignkit.engine.learning.learner import Learner
from alignkit.engine.learning.objective import Objective, Surrogate
from alignkit.engine.learning.rows import Rows
from alignkit.engine.tokens import TrainRow
from alignkit.protocols import LossInputs, Reward
from alignkit_algorithms.distill import Distill, toward_teacher

SMALL = {"n_steps": 2, "rollout_batch_size": 16, "group_size": 4, "train_batch_size": 16}
ROWS = [TrainRow((3, 4), (5, 6, 7)), TrainRow((3, 4), (8,)), TrainRow((9,), (10, 11))]


@pytest.fixture
def distill(toys, teacher):
    def make(keys=None, **parts):
        given = {
            "keys": Distill(**{**SMALL, **(keys or {})}),
            "policy": toys.policy(),
            "teacher": teacher,
            "data": toys.questions(),
            "prompt": toys.Template(),
            "reward": toys.first_is_ascii,
            "loss": toys.loss("no_clip"),
            "normalizer": toys.normalizer("token_mean"),
            "backend": toys.backend(),
            "optimizer": toys.adamw(1e-2),
        }
        return toys.assemble(**{**given, **parts})

    return make


def token_logprobs(model, row):
    ids = torch.tensor([[*row.prompt_ids, *row.response_ids]])
    log_p = torch.log_softmax(model(input_ids=ids).logits[0], -1)
    first = len(row.prompt_ids) - 1
    return torch.stack([log_p[first + i, token] for i, token in enumerate(row.response_ids)])


def inputs(**given):
    logprobs = torch.tensor([[-1.0, -2.0]], dtype=torch.float64)
    return LossInputs(
        logprobs=logprobs,
        mask=torch.ones(1, 2, dtype=torch.bool),
        advantages=torch.tensor([[7.0]]),
        **given,
    )


def test_the_advantage_of_a_token_is_the_teachers_logprob_less_the_students(toys):
    old = torch.tensor([[-1.0, -2.0]], dtype=torch.float64)
    ref = torch.tensor([[-0.25, -5.0]], dtype=torch.float64)  # advantages 0.75, -3
    got = toward_teacher(toys.loss("no_clip"))(inputs(old_logprobs=old, ref_logprobs=ref))
    assert got.per_token.tolist() == [[-0.75, 3.0]]
    assert got.metrics["teacher_kl"].tolist() == [[-0.75, 3.0]]


@pytest.mark.parametrize("lacking", ["old_logprobs", "ref_logprobs"])
def test_both_logprobs_are_needed(toys, lacking):
    there = {"old_logprobs", "ref_logprobs"} - {lacking}
    x = inputs(**dict.fromkeys(there, torch.zeros(1, 2)))
    with pytest.raises(ValueError, match="ref_logprobs"):
        toward_teacher(toys.loss("no_clip"))(x)


@pytest.mark.parametrize("name", ["no_clip", "reinforce", "grpo_clip"])
def test_a_step_is_the_gradient_of_the_published_objective(toys, name):
    """Against -1/N Σ_t sg[log π_T - log π_θ] ∇ log π_θ by autograd, in float64.

    At the first update all three losses have this gradient.
    """
    policy, other, teacher = toys.policy(), toys.policy(), toys.policy()
    for made in (policy, other, teacher):
        made.model.double()
    with torch.no_grad():
        for parameter in teacher.model.parameters():
            parameter.mul_(1.5)
    ref = [token_logprobs(teacher.model, row).detach() for row in ROWS]
    rows = Rows(
        rows=[replace(r, ref_logprobs=x) for r, x in zip(ROWS, ref, strict=True)], old="present"
    )
    before = toys.weights(policy)
    learner = Learner(policy, toys.Sgd(1.0), token_budget=8, total_steps=1)
    surrogate = Surrogate.of(toward_teacher(toys.loss(name)))
    learner.step(rows.whole.rows, Objective(surrogate, toys.normalizer("token_mean")))

    loss = 0.0
    for row, taught in zip(ROWS, ref, strict=True):
        log_p = token_logprobs(other.model, row)
        loss = loss - ((taught - log_p).detach() * log_p).sum() / 6
    grads = torch.autograd.grad(loss, list(other.model.parameters()))
    expected = before - torch.cat([g.flatten() for g in grads])
    torch.testing.assert_close(toys.weights(policy), expected, rtol=0, atol=1e-10)
    assert (expected - before).abs().max() > 1e-3


def test_every_row_is_scored_by_the_teacher_which_does_not_move(
    distill, toys, teacher, tmp_path, steps
):
    weights = toys.weights(teacher)
    toys.carry_out(distill(), tmp_path)
    assert torch.equal(toys.weights(teacher), weights)
    for row in [rows[0] for rows in steps]:
        expected = token_logprobs(teacher.model, row).tolist()
        assert row.ref_logprobs.tolist() == pytest.approx(expected, abs=1e-5)


def taught(policy, token):
    """Teach a policy to answer nine times in ten with one token, whatever it reads."""
    optimizer = torch.optim.AdamW(policy.model.parameters(), lr=3e-3)
    ids = torch.randint(64, 128, (16, 8), generator=torch.Generator().manual_seed(0))
    for _ in range(100):
        loss = -torch.log_softmax(policy.model(input_ids=ids).logits, -1)[..., token].mean()
        if loss < 0.1:
            break
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return policy


def test_it_comes_closer_to_the_teacher_whatever_the_reward(distill, toys, teacher, tmp_path):
    def zero(responses, examples):
        return [Reward(0.0) for _ in responses]

    keys = {"n_steps": 40, "rollout_batch_size": 32, "train_batch_size": 32}
    subject = distill(keys, reward=zero, teacher=taught(teacher, 65))
    rows = toys.carry_out(subject, tmp_path)
    found = [row["train/teacher_kl"] for row in rows if "train/teacher_kl" in row]
    assert found[0] > 1
    assert sum(found[-5:]) < 0.5 * sum(found[:5])


def test_later_updates_of_a_batch_keep_the_advantages_of_its_sampling(
    distill, toys, tmp_path, steps
):
    toys.carry_out(distill({"n_steps": 1, "train_batch_size": 8}), tmp_path)
    start = toys.policy()
    for row in steps[1]:
        expected = token_logprobs(start.model, row).tolist()
        assert row.old_logprobs.tolist() == pytest.approx(expected, abs=1e-5)


def test_a_teacher_who_is_the_student_gives_no_gradient(distill, toys, tmp_path):
    subject = distill({"n_steps": 1}, teacher=toys.policy(), optimizer=toys.Sgd(1.0))
    rows = toys.carry_out(subject, tmp_path)
    assert rows[-1]["train/teacher_kl"] == pytest.approx(0, abs=1e-6)
    start = toys.weights(toys.policy())
    torch.testing.assert_close(toys.weights(subject.parts.policy), start, rtol=0, atol=1e-6)


def test_the_table_is_checked():
    (key, problem), *_ = Distill(rollout_batch_size=10, group_size=4).check({})
    assert key == "group_size"
    assert "must divide" in problem
