"""Groups whose rewards are all equal: dropped, refilled, counted."""

import json

from alignkit.protocols import Reward
from alignkit_algorithms.grpo import has_signal


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
