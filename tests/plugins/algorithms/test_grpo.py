"""GRPO: the loop, its arithmetic, and what it promises about weights, seeds and records."""

import json

import pytest
import torch

from alignkit.component import field_docs, slots_of
from alignkit.engine.evaluation.eval_table import EvalPlan, EvalSet
from alignkit.engine.learning.learner import Learner
from alignkit.engine.learning.reference_table import Reference, ReferenceTable
from alignkit.kinds import KINDS
from alignkit.protocols import Reward
from alignkit_algorithms.grpo import GrpoRun, has_signal
from alignkit_algorithms.grpo_table import Grpo

SMALL = {
    "n_steps": 3,
    "rollout_batch_size": 16,
    "group_size": 4,
    "train_batch_size": 8,
    "epochs_per_rollout_batch": 2,
}


@pytest.fixture
def grpo(toys):
    def make(keys=None, **parts):
        given = {
            "keys": Grpo(**{**SMALL, **(keys or {})}),
            "policy": toys.policy(),
            "data": toys.questions(),
            "prompt": toys.Template(),
            "reward": toys.first_is_ascii,
            "advantage": toys.group_mean,
            "loss": toys.loss(),
            "normalizer": toys.normalizer(),
            "backend": toys.backend(),
            "optimizer": toys.adamw(),
        }
        return toys.assemble(GrpoRun, **{**given, **parts})

    return make


@pytest.fixture
def steps(monkeypatch):
    """Record the rows of every optimizer step."""
    seen = []
    step = Learner.step

    def recording(self, rows, **how):
        seen.append(list(rows))
        return step(self, rows, **how)

    monkeypatch.setattr(Learner, "step", recording)
    return seen


@pytest.fixture
def scored(monkeypatch):
    """Record the rows whose old log-probs are computed."""
    seen = []
    logprobs = Learner.logprobs

    def recording(self, rows):
        seen.append(list(rows))
        return logprobs(self, rows)

    monkeypatch.setattr(Learner, "logprobs", recording)
    return seen


# ---------------------------------------------------------------- the table


def test_batch_sizes_that_do_not_divide_are_named_with_a_remedy():
    keys = Grpo(rollout_batch_size=30, group_size=8, train_batch_size=20)
    assert dict(keys.check({})) == {
        "group_size": "group_size = 8 (responses per prompt) must divide rollout_batch_size = 30; "
        "for instance group_size = 6, or rollout_batch_size = 32",
        "train_batch_size": "train_batch_size = 20 (responses per optimizer step) must divide "
        "rollout_batch_size = 30; for instance train_batch_size = 15, or rollout_batch_size = 40",
    }
    assert not list(Grpo().check({}))


def test_a_train_batch_above_the_rollout_batch_is_refused():
    ((key, message),) = Grpo(rollout_batch_size=16, train_batch_size=32).check({})
    assert key == "train_batch_size"
    assert message.endswith("train_batch_size = 16, or rollout_batch_size = 32")


def test_greedy_rollouts_are_refused(toys):
    from alignkit_hf import HfRollout

    ((key, message),) = Grpo().check({"rollout": HfRollout(temperature=0.0)})
    assert key == "rollout.temperature"
    assert "nothing to learn from" in message


def test_refills_without_dropping_are_refused():
    ((key, _),) = Grpo(max_refills=2).check({})
    assert key == "max_refills"


def test_records_offered_to_losses():
    assert Grpo().provides({}) == {"old_logprobs", "rollout_logprobs"}
    with_reference = Grpo().provides({"reference": ReferenceTable()})
    assert with_reference == {"old_logprobs", "rollout_logprobs", "ref_logprobs"}


def test_facts_say_how_far_off_policy():
    from alignkit_hf import HfRollout

    facts = Grpo(**SMALL).facts({"rollout": HfRollout(max_tokens=10)})
    assert facts == {
        "rollout batch": "4 prompts × 4 responses = 16 responses",
        "optimizer steps per rollout batch": "4 of 8 responses",
        "optimizer steps in all": "12",
        "off-policy": "yes: the last update of a rollout batch is 3 updates behind",
        "response tokens per step, at most": "16 × 10 = 160",
        "response tokens in all, at most": "480",
    }
    assert Grpo().facts({})["off-policy"].startswith("no")


def test_tables_and_documentation():
    slots = slots_of(Grpo, KINDS)
    assert {n for n, s in slots.items() if not s.required} == {
        "reference",
        "eval",
        "checkpoint",
        "trackers",
        "watch",
    }
    assert all(field_docs(Grpo).values())
    assert all(field_docs(ReferenceTable).values())


# ---------------------------------------------------------------- the loop


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

    def recording(self, rows):
        found.append(dict(zip(map(id, rows), logprobs(self, rows), strict=True)))
        return first_step(self, rows)

    monkeypatch.setattr(Learner, "first_step", recording)
    rows = toys.carry_out(grpo(optimizer=toys.adamw(3e-2)), tmp_path)
    assert [len(batch) for batch in steps] == [8] * 12
    for start, before in zip((0, 4, 8), found, strict=True):
        first, second, first_again, second_again = steps[start : start + 4]
        assert all(row.old_logprobs is None for row in first)
        computed = [row for row in first_again if row.advantage]
        assert computed
        for early, late in zip(first, first_again, strict=True):
            if late.advantage:
                torch.testing.assert_close(late.old_logprobs, before[id(early)])
            else:
                assert late.old_logprobs is None
        for early, late in zip(second, second_again, strict=True):
            assert early is late
            assert (late.old_logprobs is None) == (late.advantage == 0)
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

    with pytest.raises(RuntimeError, match=r"weight version \[0\] while the policy is at 4"):
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
    first, second = watched.asked
    assert [(s.seed, s.step, s.n, s.stop) for s in watched.asked] == [
        (5, 1, 4, ("#",)),
        (5, 2, 4, ("#",)),
    ]
    assert set(first.prompt_keys).isdisjoint(second.prompt_keys)  # 2 x 4 of 12 questions
    assert first.max_tokens == 4


@pytest.mark.parametrize("temperature", [1.0, 0.5])
def test_trainer_and_sampler_agree(grpo, toys, tmp_path, temperature):
    """At temperature 0.5 a learner that forgot it would be off by tenths of a nat."""
    rows = toys.carry_out(grpo(backend=toys.backend(temperature=temperature)), tmp_path)
    assert all(row["train/rollout_logprob_gap"] < 1e-5 for row in rows)


# ---------------------------------------------------------------- groups without signal


def only_even(responses, examples):
    """Signal for even questions only: there the first response of a group is right."""
    seen = {}
    rewards = []
    for example in examples:
        place = seen[example.id] = seen.get(example.id, -1) + 1
        rewards.append(Reward(float(int(example.answer) % 2 == 0 and place == 0)))
    return rewards


def test_has_signal():
    class T:
        def __init__(self, total):
            self.reward = Reward(total)

    assert has_signal([T(0.0), T(1.0)])
    assert not has_signal([T(1.0), T(1.0)])


def test_groups_without_signal_can_be_dropped(grpo, toys, tmp_path, steps):
    keys = {"n_steps": 3, "drop_groups_without_signal": True}
    rows = toys.carry_out(grpo(keys, reward=only_even), tmp_path)
    # Three steps of four questions are one epoch of twelve, six of them even.
    kept = [row["train/responses_trained_on"] for row in rows]
    assert sum(kept) == 6 * 4
    assert all(row["train/responses"] == 16 for row in rows)
    shares = [row["train/groups_without_signal"] for row in rows]
    assert shares == [1 - k / 16 for k in kept]
    sizes = [len(batch) for batch in steps]
    assert sum(sizes) == 6 * 4 * 2  # two epochs
    assert all(row.advantage != 0 for batch in steps for row in batch)


def test_dropped_groups_can_be_refilled(grpo, toys, tmp_path, steps):
    keys = {"n_steps": 1, "drop_groups_without_signal": True, "max_refills": 20}
    (row,) = toys.carry_out(grpo(keys, reward=only_even), tmp_path)
    assert row["train/responses_trained_on"] == 16
    assert row["train/responses"] > 16
    assert [len(batch) for batch in steps] == [8] * 4
    table = (tmp_path / "rollouts/step_000001.jsonl").read_text().splitlines()
    groups = [json.loads(line)["group_id"] for line in table]
    assert groups == [g for g in range(len(groups) // 4) for _ in range(4)]


def test_refilling_stops_at_the_bound(grpo, toys, tmp_path, steps):
    def hopeless(responses, examples):
        return [Reward(0.0) for _ in responses]

    keys = {"n_steps": 2, "drop_groups_without_signal": True, "max_refills": 2}
    subject = grpo(keys, reward=hopeless)
    rows = toys.carry_out(subject, tmp_path)
    assert [row["train/responses"] for row in rows] == [48, 48]
    assert [row["train/updates"] for row in rows] == [0, 0]
    assert "train/loss" not in rows[0]
    assert steps == []
    assert subject.parts.policy.version == 0


# ---------------------------------------------------------------- the reference


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


def test_a_named_reference_is_used(grpo, toys, tmp_path, steps):
    other = toys.policy()
    with torch.no_grad():
        for parameter in other.model.parameters():
            parameter.mul_(1.5)
    keys = {"n_steps": 1, "train_batch_size": 16, "epochs_per_rollout_batch": 1}
    rows = toys.carry_out(grpo(keys, reference=Reference(0.1, "k3", other)), tmp_path)
    assert rows[0]["train/kl"] > 1e-4


def test_k1_comes_off_the_reward(grpo, toys, tmp_path, steps):
    other = toys.policy()
    with torch.no_grad():
        for parameter in other.model.parameters():
            parameter.mul_(1.5)
    keys = {"n_steps": 1, "train_batch_size": 16, "epochs_per_rollout_batch": 1}

    def zero(responses, examples):
        return [Reward(0.0) for _ in responses]

    subject = grpo(keys, reward=zero, reference=Reference(2.0, "k1", other))
    (row,) = toys.carry_out(subject, tmp_path)
    assert row["train/reward"] == 0
    (rows,) = steps
    for start in range(0, 16, 4):
        group = rows[start : start + 4]
        sums = [float((r.old_logprobs - r.ref_logprobs).sum()) for r in group]
        expected = [-2.0 * (s - sum(sums) / 4) for s in sums]
        assert [r.advantage for r in group] == pytest.approx(expected, abs=1e-5)
        assert max(expected) > 1e-3
