"""Advantages per token that see the batch, and data that order their questions and learn."""

import importlib.util
import json
import sys
from pathlib import Path

import pytest
import torch

from alignkit.engine.learning.rows import Rows
from alignkit.engine.tokens import TrainRow
from alignkit.errors import AlignkitError
from alignkit.protocols import Example, Response
from alignkit.testing import checks, registry_of

FOLDER = Path(__file__).resolve().parents[2] / "fixtures" / "contract"
KEYS = {"n_steps": 4, "rollout_batch_size": 16, "group_size": 4, "train_batch_size": 8}
VARIED = [{}, {"shuffle": True, "epochs_per_rollout_batch": 2},
          {"drop_groups_without_signal": True, "max_refills": 2}]  # fmt: skip


def module_of(name):
    spec = importlib.util.spec_from_file_location(f"contract_{name}", FOLDER / f"{name}.py")
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def discounted():
    return module_of("reward_to_go").Discounted


@pytest.fixture
def adaptive(toys):
    def make():
        made = module_of("adaptive").Adaptive(toys.questions(12))
        made.seen = {}
        return made

    return make


class Unsized:
    """Scores by the step, the length and the question; wants no group_size."""

    def __init__(self):
        self.seen = []

    def __call__(self, rewards, /, *, group_size):
        raise AssertionError("weigh() is there")

    def weigh(self, batch, /):
        self.seen.append(batch)
        level = torch.tensor([len(e.extra["tag"]) for e in batch.examples])
        return batch.rewards - 0.5 + 0.01 * batch.step * level + 0.001 * batch.lengths


def test_third_parties_files_conform(tmp_path):
    rows = tmp_path / "rows.jsonl"
    rows.write_text(
        "".join(json.dumps({"question": f"{i}?", "answer": "1"}) + "\n" for i in range(9))
    )
    for name, params in (
        ("reward_to_go", {}),
        ("adaptive", {"dataset/adaptive_jsonl": {"path": rows}}),
    ):
        for case in checks("mine", params, registry=registry_of(module_of(name))):
            case.run()


@pytest.mark.parametrize("loss", ["grpo_clip", "no_clip", "reinforce", "dapo_clip", "dual_clip",
                                  "cispo_clip", "gspo"])  # fmt: skip
def test_equal_advantages_per_token_train_as_one_per_response(toys, discounted, tmp_path, loss):
    """With every loss, packed rows, several updates and epochs."""
    keys = {**KEYS, "epochs_per_rollout_batch": 2}
    rows, weights = [], []
    for number, advantage in enumerate((toys.group_mean, discounted(1.0))):
        subject = toys.grpo(keys, advantage=advantage, loss=toys.loss(loss))
        rows.append(toys.timeless(toys.carry_out(subject, tmp_path / str(number))))
        weights.append(toys.weights(subject.parts.policy))
    assert rows[0] == rows[1]
    assert torch.equal(*weights)
    assert any(row["train/grad_norm"] > 0 for row in rows[0])


@pytest.mark.parametrize("keys", VARIED, ids=["plain", "shuffled", "dynamic"])
def test_runs_with_both_go_on_exactly_within_a_step(
    toys, ended, discounted, adaptive, tmp_path, keys
):
    def make():
        return toys.grpo({**KEYS, **keys}, advantage=discounted(0.5), data=adaptive())

    whole = make()
    want = toys.timeless(toys.carry_out(whole, tmp_path / "whole"))
    for before in (2, 4, 5):
        ended(make(), tmp_path / f"cut{before}", before=before)
        subject = make()
        _, _, rows = toys.go_on(subject, tmp_path / f"cut{before}")
        assert toys.timeless(rows) == want
        assert torch.equal(toys.weights(subject.parts.policy), toys.weights(whole.parts.policy))


def test_runs_with_both_go_on_exactly_after_a_step_of_a_pipeline(
    toys, discounted, adaptive, tmp_path
):
    def make():
        keys = {**KEYS, "pipeline_depth": 1}
        return toys.grpo(keys, advantage=discounted(0.5), data=adaptive())

    whole = make()
    want = toys.timeless(toys.carry_out(whole, tmp_path / "whole"))
    for steps in (1, 2):
        folder = tmp_path / f"cut{steps}"
        toys.end_after(steps, make(), folder)
        subject = make()
        _, _, rows = toys.go_on(subject, folder)
        assert toys.timeless(rows) == want
        assert torch.equal(toys.weights(subject.parts.policy), toys.weights(whole.parts.policy))


def test_an_advantage_sees_the_step_even_after_a_resume_within_it(toys, ended, tmp_path):
    def make():
        data = [Example(f"id{i}", f"q{i}", str(i), {"tag": "x" * i, "odd": {1}}) for i in range(6)]
        return toys.grpo(KEYS, advantage=Unsized(), data=data)

    whole = make()
    want = toys.timeless(toys.carry_out(whole, tmp_path / "whole"))
    ended(make(), tmp_path / "cut", before=4)
    subject = make()
    _, _, rows = toys.go_on(subject, tmp_path / "cut")
    assert toys.timeless(rows) == want


def test_what_an_advantage_sees_belongs_together(toys, tmp_path):
    advantage = Unsized()
    data = [Example(f"id{i}", f"q{i}", str(i), {"tag": "x" * i}) for i in range(6)]
    toys.carry_out(toys.grpo(KEYS, advantage=advantage, data=data), tmp_path)
    assert [batch.step for batch in advantage.seen] == [1, 2, 3, 4]
    for batch in advantage.seen:
        assert batch.group_sizes == [4] * 4
        assert all(isinstance(r, Response) for r in batch.responses)
        assert batch.lengths.tolist() == [len(r.completion.token_ids) for r in batch.responses]
        again = toys.first_is_ascii(list(batch.responses), list(batch.examples))
        assert [r.total for r in again] == batch.rewards.tolist()


def test_a_dataset_chooses_and_is_told_of_every_response(toys, adaptive, tmp_path):
    data = adaptive()
    toys.carry_out(toys.grpo(KEYS, data=data), tmp_path)
    assert sum(times for _, times in data.seen.values()) == 4 * 16
    assert 1 < len(data.seen) <= 12


def test_questions_are_asked_in_the_order_of_the_rows_and_go_on_there(toys, tmp_path):
    """Four steps of four questions over ten rows, cut after the second step."""
    from alignkit_data.ordered import InOrder

    def asked(folder):
        files = sorted(folder.glob("rollouts/*"))
        rows = [json.loads(line) for file in files for line in file.read_text().splitlines()]
        return [row["prompt_id"] for row in rows[::4]]

    keys = {**KEYS, "save_rollouts_every": 1}
    data = InOrder(toys.questions(10))
    toys.carry_out(toys.grpo(keys, data=data), tmp_path / "whole")
    assert asked(tmp_path / "whole") == [i % 10 for i in range(16)]
    toys.end_after(2, toys.grpo(keys, data=data), tmp_path / "cut")
    toys.go_on(toys.grpo(keys, data=data), tmp_path / "cut")
    assert asked(tmp_path / "cut") == [i % 10 for i in range(16)]
    shuffled = toys.grpo(keys, data=toys.questions(10))
    toys.carry_out(shuffled, tmp_path / "shuffled")
    assert asked(tmp_path / "shuffled") != [i % 10 for i in range(16)]


@pytest.mark.parametrize("chosen", [[0], [0, 1, 2, 12], [0, 1, 2, -1], [0] * 5])
def test_a_wrong_choice_is_refused(toys, tmp_path, chosen):
    class Wrong(list):
        def choose(self, count, /, *, step, position):
            return chosen

    with pytest.raises(AlignkitError, match=r"choose\(\)"):
        toys.carry_out(toys.grpo(KEYS, data=Wrong(toys.questions(12))), tmp_path)


@pytest.mark.parametrize("name", ["sft", "dpo"])
def test_what_passes_over_rows_in_epochs_refuses_an_order(name):
    from alignkit_algorithms.shared import in_epochs

    class InOrder(list):
        def choose(self, count, /, *, step, position):
            return range(count)

    with pytest.raises(AlignkitError, match=f"choose.*{name} passes over"):
        in_epochs(InOrder(), name)


def test_groups_of_unequal_size_are_standardised_over_the_batch():
    from alignkit_advantages.batch_std import uneven_batch_std

    rewards = torch.tensor([0.0, 1.0, 1.0, 3.0, 5.0, 2.0], dtype=torch.float64)
    got = uneven_batch_std(rewards, [3, 2, 1], 0.0, baseline=True)
    a = torch.tensor([-2 / 3, 1 / 3, 1 / 3, -1.0, 1.0, 0.0], dtype=torch.float64)
    assert torch.allclose(got, a / a.std())
    plain = uneven_batch_std(rewards, [3, 2, 1], 0.0, baseline=False)
    assert torch.allclose(plain, (rewards - 2) / rewards.std())
    with pytest.raises(AlignkitError, match="no two responses"):
        uneven_batch_std(rewards, [1] * 6, 0.0, baseline=True)


@pytest.mark.parametrize("shapes", [[(3,), (3,)], [(2,), (2,)], [(2,)]])
def test_advantages_of_a_wrong_shape_are_refused(shapes):
    rows = Rows(rows=[TrainRow((1,), (5,) * 2), TrainRow((1,), (5,) * 3)])
    with pytest.raises(ValueError, match="one number per token"):
        rows.weighted([torch.zeros(shape) for shape in shapes])
