"""Evaluation: the same problems and draws every time, judged as the table says."""

import json
from dataclasses import replace

import pytest
import torch

from alignkit.engine.evaluation.entropies import token_entropies
from alignkit.engine.evaluation.eval_table import (
    EvalSet,
)
from alignkit.engine.evaluation.evaluator import eval_sampling, fixed_subset
from alignkit.engine.sampling.rollouts import Trajectory
from alignkit.errors import AlignkitError
from alignkit.execution import Run
from alignkit.protocols import Completion, Example, Reward, Sampling
from evaluation_fakes import Template, Tokenizer, problems, strict


def test_metrics_and_rows(evaluator):
    metrics, rows = evaluator(main=EvalSet(data=problems(6))).evaluate()
    # Keys 0 … 5: right when key % 3 ≥ 1, that is 1 2 4 5. Lengths 1 + key % 4: 1 2 3 4 1 2.
    assert metrics["answer_reward"] == metrics["reward"] == pytest.approx(4 / 6)
    assert metrics["format_reward"] == 1.0
    assert metrics["response_length"] == pytest.approx(13 / 6)
    assert metrics["response_length_correct"] == pytest.approx((2 + 3 + 1 + 2) / 4)
    assert metrics["response_length_incorrect"] == pytest.approx((1 + 4) / 2)
    assert (metrics["n_correct"], metrics["n_format_only"], metrics["n_neither"]) == (4, 2, 0)
    assert (metrics["n"], metrics["truncated"], metrics["prompts_too_long"]) == (6, 0, 0)
    # Four 1 and two 0: variance (ddof 1) 4/15, over 6.
    assert metrics["answer_reward_se"] == pytest.approx((4 / 15 / 6) ** 0.5)
    assert not any("@" in name for name in metrics)
    entropy = rows[2].pop("token_entropy")
    assert 0 < entropy < torch.tensor(29.0).log()
    assert rows[2] == {
        "prompt_id": 2,
        "group_id": 2,
        "id": "id2",
        "question": "qq",
        "gold": "2",
        "prompt": "qq?",
        "response": "<answer> 2 </answer>",
        "reward": 1.0,
        "format_reward": 1.0,
        "answer_reward": 1.0,
        "response_length": 3,
        "finish_reason": "stop",
        "category": "correct",
    }


def test_several_samples(evaluator):
    metrics, rows = evaluator(main=EvalSet(data=problems(3), samples=2)).evaluate()
    # Right of 2 samples: 0, 1, 2. The tie of example 1 counts one half.
    assert metrics["pass@1"] == metrics["answer_reward"] == 0.5
    assert metrics["pass@2"] == pytest.approx(2 / 3)
    assert metrics["majority@2"] == pytest.approx((0 + 0.5 + 1) / 3)
    assert metrics["n"] == 3
    assert len(rows) == 6
    assert metrics["answer_reward_se"] == pytest.approx(0.5 / 3**0.5)


def test_entropy_is_the_policys_own_over_response_tokens(tiny_policy):
    policy = tiny_policy()
    reward = Reward(0.0)
    example = Example("0", "q", "a")
    trajectories = [
        Trajectory(
            0, 0, example, "p", prompt, Completion("x", ids, (0.0,) * len(ids), "stop", 0), reward
        )
        for prompt, ids in [((3, 4), (5, 6, 7)), ((9,), ()), ((9, 2, 8), (10,))]
    ]
    got = token_entropies(policy, trajectories, token_budget=5)
    assert [len(e) for e in got] == [3, 0, 1]
    for trajectory, found in zip(trajectories, got, strict=True):
        ids = torch.tensor([[*trajectory.prompt_ids, *trajectory.completion.token_ids]])
        log_p = torch.log_softmax(policy.model(input_ids=ids).logits[0], -1)
        entropy = -(log_p.exp() * log_p).sum(-1)
        # Predicting positions: from the last prompt token to the last but one of the response.
        first = len(trajectory.prompt_ids) - 1
        expected = entropy[first : first + len(found)]
        torch.testing.assert_close(found.double(), expected.detach(), rtol=0, atol=1e-10)


def test_the_subset_is_fixed_by_the_sets_seed(tiny_policy):
    policy = tiny_policy()
    policy.tokenizer = Tokenizer()

    def rows(seed, n=5):
        chosen = EvalSet(data=problems(20), n=n, seed=seed)
        return [p.index for p in fixed_subset(chosen, Template(), policy)]

    assert rows(0) == rows(0) == sorted(rows(0)) != rows(1)
    assert len(set(rows(0))) == 5
    assert set(rows(0)) < set(rows(0, n=8))  # a larger subset holds the smaller
    assert rows(0, n=0) == rows(0, n=99) == list(range(20))


def test_an_empty_set_is_an_error(tiny_policy):
    with pytest.raises(AlignkitError, match="no examples"):
        fixed_subset(EvalSet(data=[]), Template(), tiny_policy())


def test_draws_do_not_depend_on_the_training_step(evaluator, tmp_path):
    subject = evaluator(main=EvalSet(data=problems(6), n=3, seed=4))
    run = Run(tmp_path, {})
    assert subject.run(run, 0).keys() == subject.run(run, 7).keys()
    run.close("done")
    first, second = subject._backend.calls
    assert first == second
    assert (first.seed, first.step) == (4, 0)


def test_a_set_overrides_sampling_and_leaves_the_rest():
    base = Sampling(temperature=0.7, max_tokens=9, top_p=0.9)
    got = eval_sampling(EvalSet(data=[], samples=3, temperature=0.0), Template(), base)
    assert got == replace(base, n=3, temperature=0.0, stop=("END",))
    got = eval_sampling(EvalSet(data=[], max_tokens=5), Template(), base)
    assert got == replace(base, n=1, max_tokens=5, stop=("END",))


def test_questions_too_long_to_answer_count_as_wrong(evaluator):
    metrics, rows = evaluator(main=EvalSet(data=problems(6, long=(1,)))).evaluate()
    assert metrics["prompts_too_long"] == 1
    assert metrics["n"] == 6
    assert metrics["answer_reward"] == pytest.approx(3 / 6)  # not 3/5
    assert rows[1]["response"] == ""
    assert rows[1]["token_entropy"] is None


def test_named_sets_log_under_their_names(evaluator, tmp_path):
    subject = evaluator(
        main=EvalSet(data=problems(3)),
        hard=EvalSet(data=problems(3), prompt=Template("!"), reward=strict),
    )
    run = Run(tmp_path, {})
    metrics = subject.run(run, 5)
    run.close("done")
    assert metrics["eval/answer_reward"] == pytest.approx(2 / 3)
    assert metrics["eval/hard/answer_reward"] == 0.0
    assert metrics["eval/hard/n_neither"] == 3
    assert metrics["time/eval"] > 0

    def first_prompt(file):
        return json.loads((tmp_path / file).read_text().splitlines()[0])["prompt"]

    assert first_prompt("eval/step_000005.jsonl") == "qq?"
    assert first_prompt("eval/hard/step_000005.jsonl") == "qq!"
