"""The recipes on dialogues: they resolve, say what the prompt is, and learn."""

import json
from pathlib import Path

import pytest

from alignkit import plugins, recipe

ROOT = Path(__file__).resolve().parents[2]
CHATS = sorted((ROOT / "recipes" / "chat").glob("*.toml"))
SHORT = {
    "sft": ["-s", "n_steps=16", "-s", "epochs=1", "-s", "train_batch_size=32"],
    "grpo": ["-s", "n_steps=8", "-s", "save_rollouts_every=1"],
    "dpo": ["-s", "n_steps=12"],
}


@pytest.mark.parametrize("path", CHATS, ids=lambda p: p.stem)
def test_a_recipe_on_dialogues_resolves(path):
    node = recipe.load(path, plugins.load())
    assert list(recipe.missing(node)) == []
    assert node.dump()["prompt"]["use"] == "chat"


def test_the_template_writes_the_r1_zero_prompt():
    """The tiny policy was made for that prompt, to the letter."""
    from types import SimpleNamespace

    from transformers import AutoTokenizer

    from alignkit.engine.prompting import prompt_of
    from alignkit.protocols import Example
    from alignkit_prompts import Chat, R1Zero

    tokenizer = AutoTokenizer.from_pretrained(ROOT / "data" / "tiny_policy")
    policy = SimpleNamespace(tokenizer=tokenizer)
    example = Example("0", "What is 2 + 2?", "4")
    chat = Chat(template=ROOT / "recipes" / "chat" / "r1_zero.jinja").build()
    assert prompt_of(example, chat, policy) == prompt_of(example, R1Zero().build(), policy)


@pytest.mark.slow
@pytest.mark.parametrize("name", SHORT)
def test_dialogues_are_learned_from(alignkit, tmp_path, name):
    out = tmp_path / "run"
    small = ["-s", "eval.n=128", "-s", "eval.every=100"]
    done = alignkit("run", f"recipes/chat/{name}.toml", "--out", out, *SHORT[name], *small)
    assert done.exit_code == 0, done.output
    rows = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert rows[-1]["eval/answer_reward"] > rows[0]["eval/answer_reward"] + 0.05
    assert rows[-1]["eval/prompts_too_long"] == 0
    saved = json.loads((out / "final" / "generation_config.json").read_text())
    assert saved["eos_token_id"] == [577]  # where the template ends a turn, as the policy did
