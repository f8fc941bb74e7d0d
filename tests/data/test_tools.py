"""Problems too large for the head: right answers, nothing held out is seen, and what is learned."""

import json
import re
from random import Random

import pytest
import torch

from alignkit import plugins, recipe
from alignkit.execution import execute
from alignkit.toml import read


def test_answers_are_the_products_and_no_question_stands_twice(rows):
    train, test = rows("tools/train.jsonl"), rows("tools/test.jsonl")
    for row in [*train, *test]:
        a, b = map(int, re.findall(r"\d+", row["question"]))
        assert row["answer"] == str(a * b)
        assert 101 <= a <= 399
        assert 12 <= b <= 49
    questions = [row["question"] for row in [*train, *test]]
    assert len(set(questions)) == len(questions) == 256 + 128


@pytest.mark.parametrize("called", [True, False])
def test_a_solution_is_right_and_only_the_result_is_given(maker, called):
    tools = maker("tools")
    problem = tools.draw(Random(0))
    parts = tools.solution(problem, called=called)
    assert [given for _, given in parts] == ([False, True, False] if called else [False])
    whole = "".join(text for text, _ in parts)
    assert whole.endswith(f" </think> <answer> {problem.answer} </answer>")
    assert ("<tool>" in whole) == called


def test_one_solution_in_four_calls_and_no_question_held_out_is_shown(maker, data):
    from transformers import AutoTokenizer

    tools, module = maker("tools"), maker("tools_policy")
    coder = AutoTokenizer.from_pretrained(data / "tiny_policy")
    made = module._rows(coder, set(), Random(1))
    rows = [next(made) for _ in range(400)]
    assert 0.18 < sum(any(row.given) for row in rows) / 400 < 0.32
    rng = Random(2)
    held_out = {tools.draw(rng).question for _ in range(50)}
    without = module._rows(coder, held_out, Random(2))
    shown = [coder.decode(next(without).prompt_ids) for _ in range(60)]
    assert not any(question in text for text in shown for question in held_out)


def test_the_policy_has_the_tokenizer_of_the_tiny_one(data):
    ours, theirs = (data / f / "tokenizer.json" for f in ("tiny_policy_tools", "tiny_policy"))
    assert ours.read_bytes() == theirs.read_bytes()


@pytest.mark.slow
def test_the_recipe_teaches_to_call(data, tmp_path):
    """In few steps accuracy on held-out problems rises by more than 0.4, as calls do."""
    path = data.parent / "recipes" / "tool_use.toml"
    node = recipe.resolve(read(path, (), ["n_steps=10", "eval.n=128"]), plugins.load())
    execute(node, path, tmp_path / "run", ["alignkit"])
    lines = (tmp_path / "run/metrics.jsonl").read_text().splitlines()
    first, last = json.loads(lines[0]), json.loads(lines[-1])
    assert first["eval/answer_reward"] < 0.35
    assert last["eval/answer_reward"] > first["eval/answer_reward"] + 0.4
    assert first["eval/turns"] < 1.4
    assert last["eval/turns"] > 1.7
    assert torch.isfinite(torch.tensor(last["train/rollout_logprob_gap"]))


@pytest.mark.slow
def test_the_maker_repeats_itself(maker, monkeypatch, tmp_path, data):
    module = maker("tools_policy")
    monkeypatch.setattr(module, "ROWS_PER_STEP", 8)
    made = []
    for name in ("one", "two"):
        folder = tmp_path / name
        folder.mkdir()
        (folder / "tiny_policy").symlink_to(data / "tiny_policy")
        module.make(folder, held_out=set(), seed=0, steps=2)
        made.append((folder / "tiny_policy_tools/model.safetensors").read_bytes())
    assert made[0] == made[1]
