"""Expert iteration: fresh questions, right responses only, the same gradient as fine-tuning."""

import pytest
import torch

from alignkit.engine.evaluation.eval_table import EvalPlan, EvalSet
from alignkit.protocols import Completion, Example, Reward, Sampling
from alignkit_algorithms.expert_iteration import ExpertIteration
from alignkit_algorithms.sft import Sft

SMALL = {"n_steps": 2, "rollout_batch_size": 16, "group_size": 4, "train_batch_size": 8}


@pytest.fixture
def expert(toys):
    def make(keys=None, **parts):
        given = {
            "keys": ExpertIteration(**{**SMALL, **(keys or {})}),
            "policy": toys.policy(),
            "data": toys.questions(),
            "prompt": toys.Template(),
            "reward": toys.first_is_ascii,
            "normalizer": toys.normalizer("token_mean"),
            "backend": toys.backend(),
            "optimizer": toys.adamw(1e-2),
        }
        return toys.assemble(**{**given, **parts})

    return make


class Scripted:
    """Answers question i with sample j as "ij#"."""

    sampling = Sampling()

    def __init__(self, policy):
        self.policy = policy

    def start(self, policy):
        pass

    def sync(self, policy):
        pass

    def close(self):
        pass

    def generate(self, prompts, sampling):
        return [
            [self.answer(key % 12, j) for j in range(sampling.n)] for key in sampling.prompt_keys
        ]

    def answer(self, index, j):
        text = f"{index}{'abcd'[j]}#"
        ids = tuple(self.policy.tokenizer.encode(text))
        return Completion(text, ids, (-1.0,) * len(ids), "stop", self.policy.version)


def right_if_a_or_c(responses, examples):
    return [Reward(float(r[-2] in "ac")) for r in responses]


def test_a_step_is_the_fine_tuning_step_on_the_same_rows(expert, toys, tmp_path):
    policy = toys.policy()
    ours = expert(
        {"n_steps": 1, "train_batch_size": 16},
        policy=policy,
        backend=Scripted(policy),
        reward=right_if_a_or_c,
        optimizer=toys.Sgd(1.0),
    )
    policy.model.double()
    before = toys.weights(policy)
    (row,) = toys.carry_out(ours, tmp_path / "ei")
    assert row["train/responses_trained_on"] == 8

    import json

    table = (tmp_path / "ei/rollouts/step_000001.jsonl").read_text().splitlines()
    kept = [r for r in map(json.loads, table) if r["reward"] == 1]
    data = [Example(f"{i}", r["question"], r["response"]) for i, r in enumerate(kept)]
    tuned = toys.policy()
    tuned.model.double()
    sft = toys.assemble(
        keys=Sft(train_batch_size=16),
        policy=tuned,
        data=data,
        prompt=toys.Template(),
        normalizer=toys.normalizer("token_mean"),
        optimizer=toys.Sgd(1.0),
    )
    sft_rows = toys.carry_out(sft, tmp_path / "sft")
    torch.testing.assert_close(toys.weights(policy), toys.weights(tuned), rtol=0, atol=1e-10)
    assert (toys.weights(policy) - before).abs().max() > 1e-3
    assert row["train/loss"] == pytest.approx(sft_rows[1]["train/loss"], abs=1e-10)
    assert row["train/grad_norm"] == pytest.approx(sft_rows[1]["train/grad_norm"], abs=1e-10)


def test_only_right_responses_are_trained_on(expert, toys, tmp_path, steps):
    policy = toys.policy()
    subject = expert(policy=policy, backend=Scripted(policy), reward=right_if_a_or_c)
    rows = toys.carry_out(subject, tmp_path)
    texts = [policy.tokenizer.decode(row.response_ids) for batch in steps for row in batch]
    assert len(texts) == 16
    assert all(text[-2] in "ac" for text in texts)
    assert len(set(texts)) == 16  # two batches of fresh questions, not the same batch twice
    assert [row["train/questions_solved"] for row in rows] == [1.0, 1.0]
    assert all(row.advantage == 1.0 for batch in steps for row in batch)


def test_passes_and_partial_batches(expert, toys, tmp_path, steps):
    policy = toys.policy()
    keys = {"n_steps": 1, "train_batch_size": 3, "epochs_per_rollout_batch": 2}
    optimizer = toys.Sgd(0.1)
    subject = expert(
        keys, policy=policy, backend=Scripted(policy), reward=right_if_a_or_c, optimizer=optimizer
    )
    toys.carry_out(subject, tmp_path)
    assert [len(batch) for batch in steps] == [3, 3, 2, 3, 3, 2]
    assert optimizer.total_steps == 2 * 6  # the most there can be: ⌈16/3⌉ = 6 a pass


def test_a_step_without_a_right_response_updates_nothing_and_says_so(
    expert, toys, tmp_path, capsys
):
    def hopeless(responses, examples):
        return [Reward(0.0) for _ in responses]

    subject = expert(reward=hopeless)
    before = toys.weights(subject.parts.policy)
    rows = toys.carry_out(subject, tmp_path)
    assert torch.equal(toys.weights(subject.parts.policy), before)
    assert [row["train/responses_trained_on"] for row in rows] == [0, 0]
    assert "train/loss" not in rows[0]
    assert rows[0]["train/token_entropy"] > 0  # the entropy curve has no hole
    assert "step 1: none of 16 responses was right; no update" in capsys.readouterr().out


def test_weights_are_handed_over_after_every_step(expert, toys, tmp_path, watched):
    toys.carry_out(expert({"train_batch_size": 16}, backend=watched), tmp_path)
    expected = [("start", 0), ("generate", 0), ("sync", 1), ("generate", 1), ("sync", 2)]
    assert watched.calls == [*expected, ("close", 2)]


def test_draws_are_keyed_by_seed_step_and_question(expert, toys, tmp_path, watched):
    toys.carry_out(expert({"seed": 5, "n_steps": 2}, backend=watched), tmp_path)
    toys.is_keyed_by_seed_step_and_question(watched.asked)


def test_it_learns(expert, toys, tmp_path):
    keys = {"n_steps": 5, "rollout_batch_size": 64, "group_size": 8}
    plan = EvalPlan({"": EvalSet(data=toys.questions(12), samples=4)}, every=5)
    rows = toys.carry_out(expert(keys, plan=plan, backend=toys.backend(max_tokens=1)), tmp_path)
    assert [row["step"] for row in rows] == [0, 1, 2, 3, 4, 5]
    assert rows[1]["train/reward"] < 0.8
    assert rows[-1]["train/reward"] > 0.9
    assert rows[-1]["eval/pass@1"] > rows[0]["eval/pass@1"] + 0.2


def test_the_same_seed_gives_the_same_numbers(expert, toys, tmp_path):
    first = toys.timeless(toys.carry_out(expert(), tmp_path / "a"))
    assert first == toys.timeless(toys.carry_out(expert(), tmp_path / "b"))
    assert first != toys.timeless(toys.carry_out(expert({"seed": 1}), tmp_path / "c"))


def test_problems_the_table_names(toys):
    from alignkit_hf import HfRollout

    assert not list(ExpertIteration().check({}))
    problems = dict(
        ExpertIteration(rollout_batch_size=30).check({"rollout": HfRollout(temperature=0.0)})
    )
    assert problems.keys() == {"group_size", "rollout.temperature"}
    facts = ExpertIteration(**SMALL).facts({})
    assert facts["optimizer steps per iteration, at most"] == "2, if every response is right"
