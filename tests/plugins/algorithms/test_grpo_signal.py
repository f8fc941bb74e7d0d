"""Groups whose rewards are all equal: dropped, refilled, counted."""

import json

import pytest

from alignkit.engine.learning.reference_table import Reference, ReferenceTable
from alignkit.engine.sampling.rollouts import Trajectory
from alignkit.protocols import Completion, Example, Reward
from alignkit_advantages import advantage as advantages
from alignkit_algorithms.grpo import Grpo, with_signal


def only_even(responses, examples):
    """Signal for even questions only: there the first response of a group is right."""
    seen = {}
    rewards = []
    for example in examples:
        place = seen[example.id] = seen.get(example.id, -1) + 1
        rewards.append(Reward(float(int(example.answer) % 2 == 0 and place == 0)))
    return rewards


def judged(group, total):
    example, completion = (
        Example(str(group), "1 + 1?", "2"),
        Completion("2", (7,), (-0.5,), "stop", 0),
    )
    return Trajectory(group, group, example, "1 + 1?", (1,), completion, Reward(total))


def kept_groups(advantage, *groups):
    responses = [judged(i, total) for i, group in enumerate(groups) for total in group]
    kept = with_signal(responses, advantage=advantage, group_size=len(groups[0]))
    return [tuple(x.reward.total for x in kept[i : i + 2]) for i in range(0, len(kept), 2)]


@pytest.mark.parametrize(
    ("name", "how", "kept"),
    [
        # Groups (1, 0), (1, 1), (0, 0). What compares within a group learns from the first alone.
        ("group_std", {}, [(1, 0)]),
        ("group_std", {"baseline": "none"}, [(1, 0)]),
        ("group_mean", {}, [(1, 0)]),
        ("rloo", {}, [(1, 0)]),
        ("maxrl", {}, [(1, 0)]),
        ("batch_std", {}, [(1, 0)]),
        # Rejection fine-tuning learns from every right response, MaxRL without centring too.
        ("none", {}, [(1, 0), (1, 1)]),
        ("maxrl", {"baseline": "none"}, [(1, 0), (1, 1)]),
        # Against the batch's mean of 1/2 every response is better or worse.
        ("batch_std", {"baseline": "none"}, [(1, 0), (1, 1), (0, 0)]),
    ],
)
def test_signal_is_in_advantages_and_not_in_rewards(name, how, kept):
    params = {c.name: c.params for c in advantages()}[name](**how)
    assert kept_groups(params.build(), (1.0, 0.0), (1.0, 1.0), (0.0, 0.0)) == kept


def test_asking_for_signal_moves_no_state_on(toys):
    advantage = toys.Rising()
    assert kept_groups(advantage, (1.0, 0.0), (0.5, 0.5)) == [(1.0, 0.0)]
    assert advantage.count == 0


def right_or_wrong(responses, examples):
    """All right for even questions, all wrong for odd ones."""
    return [Reward(float(int(e.answer) % 2 == 0)) for e in examples]


def test_without_baseline_groups_that_are_all_right_are_learned_from(grpo, toys, tmp_path, steps):
    (none,) = [c for c in advantages() if c.name == "none"]
    keys = {"n_steps": 3, "drop_groups_without_signal": True}
    parts = {"reward": right_or_wrong, "advantage": none.params().build()}
    rows = toys.carry_out(grpo(keys, **parts), tmp_path)
    assert sum(row["train/responses_trained_on"] for row in rows) == 6 * 4  # one epoch of twelve
    assert all(row.advantage == 1 for batch in steps for row in batch)
    shares = [row["train/groups_without_signal"] for row in rows]
    assert shares == [1 - row["train/responses_trained_on"] / 16 for row in rows]
    assert sum(shares) > 0


@pytest.mark.parametrize(("beta", "share"), [(0.1, 0.0), (0.0, 1.0)])
@pytest.mark.parametrize("estimator", ["k2", "k3"])
def test_a_penalty_pushes_groups_of_equal_rewards(grpo, toys, tmp_path, beta, share, estimator):
    subject = grpo(
        {"n_steps": 1}, reward=right_or_wrong, reference=Reference(beta, estimator, None)
    )
    (row,) = toys.carry_out(subject, tmp_path)
    assert row["train/groups_without_signal"] == share


@pytest.mark.parametrize("estimator", ["k1", "k2", "k3"])
def test_dropping_groups_that_a_penalty_pushes_is_refused(estimator):
    keys = Grpo(drop_groups_without_signal=True)
    ((key, message),) = keys.check({"reference": ReferenceTable(estimator=estimator)})
    assert key == "drop_groups_without_signal"
    assert "pushes every response" in message
    assert not list(keys.check({"reference": ReferenceTable(estimator=estimator, beta=0.0)}))
    assert not list(keys.check({}))


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


def test_the_schedule_ends_with_the_run_whatever_was_dropped(grpo, toys, tmp_path):
    """Two steps without an update, then one of four: its last update uses the floor."""
    calls = iter(range(100))

    def late(responses, examples):
        return toys.first_is_ascii(responses, examples) if next(calls) >= 2 else [
            Reward(0.0) for _ in responses
        ]  # fmt: skip

    keys = {"drop_groups_without_signal": True, "train_batch_size": 4}
    optimizer = toys.adamw(lr=1.0, schedule="linear", min_lr_ratio=0.25)
    rows = toys.carry_out(grpo(keys, reward=late, optimizer=optimizer), tmp_path)
    assert [row["train/updates"] for row in rows[:2]] == [0, 0]
    made, most = int(rows[2]["train/updates"]), 8  # two epochs of at most 16 / 4
    assert 0 < made <= most
    # Updates 16 to 23 of 24 are the third step's; the schedule falls from 1 to 0.25 over 0 to 23.
    last = 2 * most + made - 1
    assert rows[2]["train/lr"] == pytest.approx(1 - 0.75 * last / 23)
