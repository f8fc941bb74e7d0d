"""GRPO: the loop, its arithmetic, and what it promises about weights, seeds and records."""

import json

import pytest
import torch

from alignkit.engine.evaluation.eval_table import EvalPlan, EvalSet
from alignkit.engine.learning.learner import Learner
from alignkit.engine.learning.reference_table import Reference
from alignkit.errors import AlignkitError


@pytest.fixture
def scored(monkeypatch):
    """Record the rows whose old log-probs are computed."""
    seen = []
    logprobs = Learner.logprobs

    def recording(self, rows, **how):
        seen.append(list(rows))
        return logprobs(self, rows, **how)

    monkeypatch.setattr(Learner, "logprobs", recording)
    return seen


def test_a_run_logs_the_contracts_metrics_and_saves_the_policy(grpo, toys, tmp_path):
    from transformers import AutoModelForCausalLM

    plan = EvalPlan({"": EvalSet(data=toys.questions(5), n=4)}, every=2)
    subject = grpo(plan=plan)
    rows = toys.carry_out(subject, tmp_path)
    assert [row["step"] for row in rows] == [0, 1, 2, 3]
    assert [("eval/reward" in row, "train/loss" in row) for row in rows] == [
        (True, False),
        (False, True),
        (True, True),
        (True, True),
    ]
    train = "loss grad_norm token_entropy clip_fraction reward format_reward answer_reward"
    held = (
        "reward format_reward answer_reward response_length response_length_incorrect "
        "token_entropy n_correct n_format_only n_neither n answer_reward_se truncated"
    )
    times = "rollout reward update sync eval"
    wanted = {f"train/{n}" for n in (*train.split(), "response_length")}
    wanted |= {f"eval/{n}" for n in held.split()} | {f"time/{n}" for n in times.split()}
    assert wanted <= rows[2].keys()
    passes = {n: v for n, v in rows[1].items() if n.startswith("train/pass@")}
    assert list(passes) == [f"train/pass@{k}" for k in range(1, 4 + 1)]  # to the group_size
    assert sorted(passes.values()) == list(passes.values())
    assert rows[1]["train/updates"] == 4
    assert subject.parts.policy.version == 12
    assert sorted(p.name for p in (tmp_path / "rollouts").iterdir()) == [
        "step_000001.jsonl",
        "step_000003.jsonl",
    ]
    saved = AutoModelForCausalLM.from_pretrained(tmp_path / "final")
    for name, parameter in subject.parts.policy.model.state_dict().items():
        torch.testing.assert_close(saved.state_dict()[name], parameter, rtol=0, atol=0)


def test_saved_rollouts_tell_the_whole_story(grpo, toys, tmp_path):
    toys.carry_out(grpo({"n_steps": 1}), tmp_path)
    lines = (tmp_path / "rollouts/step_000001.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in lines]
    assert [row["group_id"] for row in rows] == [0] * 4 + [1] * 4 + [2] * 4 + [3] * 4
    for row in rows:
        assert row["id"] == f"id{row['prompt_id']}"
        assert row["prompt"] == f"q{row['prompt_id']}:"
        assert row["gold"] == str(row["prompt_id"])
        first = row["response"][:1]
        assert row["reward"] == row["answer_reward"] == float(bool(first) and first.isascii())


def test_the_same_seed_gives_the_same_numbers(grpo, toys, tmp_path):
    first = toys.timeless(toys.carry_out(grpo(), tmp_path / "a"))
    again = toys.timeless(toys.carry_out(grpo(), tmp_path / "b"))
    other = toys.timeless(toys.carry_out(grpo({"seed": 1}), tmp_path / "c"))
    assert first == again
    assert first != other


def test_evaluating_does_not_change_training(grpo, toys, tmp_path):
    plan = EvalPlan({"": EvalSet(data=toys.questions(5), temperature=0.3)}, every=1)
    rows = toys.timeless(toys.carry_out(grpo(plan=plan), tmp_path / "a"))[1:]
    trained = [{k: v for k, v in row.items() if not k.startswith("eval/")} for row in rows]
    assert trained == toys.timeless(toys.carry_out(grpo(), tmp_path / "b"))


def test_it_learns(grpo, toys, tmp_path):
    keys = {"n_steps": 12, "rollout_batch_size": 64, "train_batch_size": 32, "group_size": 8}
    rows = toys.carry_out(grpo(keys, optimizer=toys.adamw(1e-2)), tmp_path)
    assert 0.2 < rows[0]["train/reward"] < 0.8
    assert rows[-1]["train/reward"] > 0.9


def test_each_row_carries_its_own_groups_advantage_and_sampled_ids(grpo, toys, tmp_path, steps):
    made = []
    backend = toys.backend()
    generate = backend.generate

    def recording(prompts, sampling):
        groups = generate(prompts, sampling)
        made.append((prompts, groups))
        return groups

    backend.generate = recording
    keys = {"n_steps": 1, "train_batch_size": 16, "epochs_per_rollout_batch": 1}
    toys.carry_out(grpo(keys, backend=backend), tmp_path)
    ((prompts, groups),) = made
    (rows,) = steps
    flat = [(ids, c) for ids, group in zip(prompts, groups, strict=True) for c in group]
    assert [r.prompt_ids for r in rows] == [ids for ids, _ in flat]
    assert [r.response_ids for r in rows] == [c.token_ids for _, c in flat]
    assert all(
        r.rollout_logprobs.tolist() == pytest.approx(c.logprobs)
        for r, (_, c) in zip(rows, flat, strict=True)
    )
    expected = []
    for group in groups:
        scores = [r.total for r in toys.first_is_ascii([c.text for c in group], group)]
        expected += [score - sum(scores) / 4 for score in scores]
    assert [r.advantage for r in rows] == pytest.approx(expected)
    assert len(set(expected)) > 2


def test_old_logprobs_are_left_to_the_learner_when_there_is_one_update(
    grpo, toys, tmp_path, steps, scored
):
    keys = {"train_batch_size": 16, "epochs_per_rollout_batch": 1}
    rows = toys.carry_out(grpo(keys), tmp_path)
    assert scored == []
    assert all(row.old_logprobs is None for batch in steps for row in batch)
    assert all(row["train/clip_fraction"] == 0 for row in rows)


def test_old_logprobs_are_those_of_before_the_updates(grpo, toys, tmp_path, steps, monkeypatch):
    """Rows of the first update get theirs from it, those of later ones are computed before it."""
    found = []
    first_step, logprobs = Learner.first_step, Learner.logprobs

    def recording(self, rows, objective):
        found.append(dict(zip(map(id, rows), logprobs(self, rows), strict=True)))
        return first_step(self, rows, objective)

    monkeypatch.setattr(Learner, "first_step", recording)
    rows = toys.carry_out(grpo(optimizer=toys.adamw(3e-2)), tmp_path)
    assert [len(batch) for batch in steps] == [8] * 12
    for start, before in zip((0, 4, 8), found, strict=True):
        first, second, first_again, second_again = steps[start : start + 4]
        assert all(row.old_logprobs is None for row in first)
        computed = [row for row in first_again if row.advantage]
        assert computed
        for early, late in zip(first, first_again, strict=True):
            if late.advantage or late.measured:
                torch.testing.assert_close(late.old_logprobs, before[id(early)])
            else:
                assert late.old_logprobs is None
        for early, late in zip(second, second_again, strict=True):
            assert early is late
            assert (late.old_logprobs is None) == (late.advantage == 0 and not late.measured)
    assert max(row["train/clip_fraction"] for row in rows) > 0.05


def test_one_forward_pass_gives_the_old_logprobs(grpo, toys, tmp_path, steps, scored):
    keys = {"train_batch_size": 16, "epochs_per_rollout_batch": 2}
    toys.carry_out(grpo(keys), tmp_path)
    assert scored == []
    assert all(row.old_logprobs is not None for row in steps[1] if row.advantage)


def test_a_loss_that_learns_without_advantage_gets_all_old_logprobs(grpo, toys, tmp_path, steps):
    toys.carry_out(grpo(reference=Reference(0.1, "k3", None)), tmp_path)
    assert any(row.advantage == 0 for batch in steps for row in batch)
    assert all(row.old_logprobs is not None for row in steps[1] + steps[2] + steps[3])


def test_slices_are_consecutive_unless_shuffled(grpo, toys, tmp_path, steps):
    toys.carry_out(grpo({"n_steps": 1}), tmp_path / "a")
    plain = [[row.response_ids for row in batch] for batch in steps]
    assert plain[0] == plain[2]
    assert plain[1] == plain[3]
    steps.clear()
    toys.carry_out(grpo({"n_steps": 1, "shuffle": True}), tmp_path / "b")
    mixed = [[row.response_ids for row in batch] for batch in steps]
    assert mixed[0] != plain[0]
    assert mixed[0] != mixed[2]
    for epoch in (mixed[:2], mixed[2:]):
        assert sorted(epoch[0] + epoch[1]) == sorted(plain[0] + plain[1])


def test_the_token_budget_changes_no_result(grpo, toys, tmp_path):
    whole, cut = grpo(optimizer=toys.Sgd(0.1)), grpo({"token_budget": 1}, optimizer=toys.Sgd(0.1))
    for subject in (whole, cut):
        subject.parts.policy.model.double()
    toys.carry_out(whole, tmp_path / "a")
    toys.carry_out(cut, tmp_path / "b")
    first, second = toys.weights(whole.parts.policy), toys.weights(cut.parts.policy)
    torch.testing.assert_close(first, second, rtol=0, atol=1e-10)


def test_the_schedule_spans_all_optimizer_steps(grpo, toys, tmp_path):
    optimizer = toys.Sgd()
    toys.carry_out(grpo(optimizer=optimizer), tmp_path)
    assert optimizer.total_steps == 3 * 4


def test_a_backend_that_misses_a_sync_is_found_out(grpo, toys, tmp_path):
    class Stale:
        """Goes on saying that its weights are those it started with."""

        def __init__(self, inner):
            self.inner, self.sampling = inner, inner.sampling

        def start(self, policy):
            self.inner.start(policy)

        def sync(self, policy):
            pass

        def close(self):
            self.inner.close()

        def generate(self, prompts, sampling):
            from dataclasses import replace

            groups = self.inner.generate(prompts, sampling)
            return [[replace(c, weight_version=0) for c in group] for group in groups]

    with pytest.raises(AlignkitError, match=r"weight version \[0\] while the policy is at 4"):
        toys.carry_out(grpo(backend=Stale(toys.backend())), tmp_path)


def test_weights_are_handed_over_after_every_step(grpo, toys, tmp_path, watched):
    plan = EvalPlan({"": EvalSet(data=toys.questions(5))}, every=2)
    toys.carry_out(grpo({"n_steps": 2}, backend=watched, plan=plan), tmp_path)
    assert watched.calls == [
        ("start", 0),
        ("generate", 0),  # evaluation before the first step
        ("generate", 0),
        ("sync", 4),
        ("generate", 4),
        ("sync", 8),
        ("generate", 8),  # evaluation after the last
        ("close", 8),
    ]


def test_draws_are_keyed_by_seed_step_and_question(grpo, toys, tmp_path, watched):
    toys.carry_out(grpo({"seed": 5, "n_steps": 2}, backend=watched), tmp_path)
    toys.is_keyed_by_seed_step_and_question(watched.asked)


@pytest.mark.parametrize("temperature", [1.0, 0.5])
def test_trainer_and_sampler_agree(grpo, toys, tmp_path, temperature):
    """At temperature 0.5 a learner that forgot it would be off by tenths of a nat."""
    rows = toys.carry_out(grpo(backend=toys.backend(temperature=temperature)), tmp_path)
    assert all(row["train/rollout_logprob_gap"] < 1e-5 for row in rows)
