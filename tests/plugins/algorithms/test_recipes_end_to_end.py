"""Each algorithm from a recipe on disk, through the kernel, to its run directory."""

import json

import pytest

from alignkit import plugins, recipe
from alignkit.errors import RecipeError
from alignkit.execution import execute

COMMON = """
[policy]
use = "hf"
path = "{policy}"
[data]
use = "jsonl"
path = "rows.jsonl"
[prompt]
use = "r1_zero"
[reward]
use = "r1_zero"
[rollout]
use = "hf"
max_tokens = 6
"""
TRAIN = """
[optimizer]
use = "adamw"
lr = 1e-3
[eval]
every = 2
n = 3
[eval.data]
use = "jsonl"
path = "rows.jsonl"
[eval.sets.twice]
samples = 2
n = 2
[eval.sets.twice.data]
use = "jsonl"
path = "rows.jsonl"
[eval.sets.twice.prompt]
use = "question_only"
"""
NORMALIZER = '[normalizer]\nuse = "token_mean"\n'
GRPO = (
    'use = "grpo"\nn_steps = 2\nrollout_batch_size = 8\ngroup_size = 4\ntrain_batch_size = 4\n'
    + COMMON
    + TRAIN
    + NORMALIZER
    + '[advantage]\nuse = "group_std"\n[loss]\nuse = "grpo_clip"\n[reference]\nbeta = 0.1\n'
)
RECIPES = {
    "evaluate": 'use = "evaluate"\nn = 3\n' + COMMON,
    "grpo": GRPO,
    "sft": 'use = "sft"\nresponse_column = "trace"\n' + COMMON + TRAIN + NORMALIZER,
    "expert_iteration": 'use = "expert_iteration"\nn_steps = 2\nrollout_batch_size = 8\n'
    + COMMON
    + TRAIN
    + NORMALIZER,
    "dpo": 'use = "dpo"\nchosen_column = "trace"\nrejected_column = "worse"\n'
    + COMMON
    + TRAIN
    + '[validation]\nuse = "jsonl"\npath = "rows.jsonl"\n',
}


@pytest.fixture
def written(tmp_path, tiny_folder, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def write(text):
        rows = [
            {
                "question": f"What is {i} + 1?",
                "answer": str(i + 1),
                "trace": f" count </think> <answer> {i + 1} </answer>",
                "worse": f" guess </think> <answer> {i} </answer>",
            }
            for i in range(6)
        ]
        (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        path = tmp_path / "recipe.toml"
        path.write_text(text.replace("{policy}", str(tiny_folder)))
        return path

    return write


def load(path, *overrides):
    return recipe.load(path, plugins.load(), (), overrides)


@pytest.mark.parametrize("name", RECIPES)
def test_it_runs_from_a_recipe(written, name):
    path = written(RECIPES[name])
    run = execute(load(path), path, path.parent / "out", ["alignkit", "run"])
    lines = (run.dir / "metrics.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in lines]
    assert rows[0]["step"] == 0
    assert rows[0]["eval/n"] == 3
    assert all(row.get("eval/twice/n", 2) == 2 for row in rows)
    assert json.loads((run.dir / "manifest.json").read_text())["status"] == "done"
    assert len((run.dir / "eval/step_000000.jsonl").read_text().splitlines()) == 3
    if name == "evaluate":
        assert len(rows) == 1
        assert not (run.dir / "final").exists()
        return
    assert {"eval/answer_reward", "eval/twice/pass@2"} <= rows[-1].keys()
    assert len((run.dir / "eval/twice/step_000000.jsonl").read_text().splitlines()) == 4
    assert (run.dir / "final/config.json").is_file()


def last(run):
    """Return the last value of each metric of a run."""
    lines = (run.dir / "metrics.jsonl").read_text().splitlines()
    return {name: value for line in lines for name, value in json.loads(line).items()}


def test_evaluating_the_saved_policy_repeats_the_last_evaluation(written):
    path = written(GRPO)
    trained = execute(load(path), path, path.parent / "out", ["alignkit"])
    path = written(RECIPES["evaluate"])
    override = f"policy.path={trained.dir / 'final'}"
    again = execute(load(path, override), path, path.parent / "again", ["alignkit"])
    last, repeated = (
        json.loads((run.dir / "metrics.jsonl").read_text().splitlines()[-1])
        for run in (trained, again)
    )
    for name in ("answer_reward", "response_length", "n_neither", "truncated"):
        assert repeated[f"eval/{name}"] == last[f"eval/{name}"]
    assert repeated["eval/token_entropy"] == pytest.approx(last["eval/token_entropy"], abs=1e-6)


def test_all_problems_of_a_recipe_come_with_their_lines(written):
    text = GRPO.replace("group_size = 4", "group_size = 3").replace(
        "train_batch_size = 4", "train_batch_size = 5"
    )
    with pytest.raises(RecipeError) as caught:
        load(written(text))
    message = str(caught.value)
    assert "recipe.toml:4: group_size: group_size = 3 (responses per prompt) must divide" in message
    assert "recipe.toml:5: train_batch_size: train_batch_size = 5" in message


def test_an_evaluation_without_data_is_a_problem_of_its_table(written):
    text = GRPO.replace('[eval.data]\nuse = "jsonl"\npath = "rows.jsonl"\n', "")
    text = text[: text.index("[eval.sets")] + text[text.index("[normalizer]") :]
    with pytest.raises(RecipeError, match=r"eval: there is nothing to evaluate on; add \[eval"):
        load(written(text))
