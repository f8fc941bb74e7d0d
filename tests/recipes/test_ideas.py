"""Each recipe of a published idea resolves, and chooses what the idea is made of."""

from pathlib import Path

import pytest

from alignkit import plugins, recipe

IDEAS = Path(__file__).resolve().parents[2] / "recipes" / "ideas"
CHOICES = {  # advantage, loss, normalizer
    "cispo": ("group_std", "cispo_clip", "token_mean"),
    "dapo": ("group_std", "dapo_clip", "token_mean"),
    "dr_grpo": ("group_mean", "reinforce", "masked_normalize"),
    "dual_clip": ("group_std", "dual_clip", "masked_mean"),
    "dynamic_sampling": ("group_std", "reinforce", "masked_mean"),
    "gspo": ("group_std", "gspo", "masked_mean"),
    "kl_k1": ("group_std", "reinforce", "masked_mean"),
    "kl_k2": ("group_std", "reinforce", "masked_mean"),
    "kl_k3": ("group_std", "reinforce", "masked_mean"),
    "maxrl": ("maxrl", "reinforce", "masked_mean"),
    "overlong": ("group_std", "reinforce", "masked_mean"),
    "pass_at_k": ("pass_at_k", "reinforce", "masked_mean"),
    "reinforce_pp": ("batch_std", "grpo_clip", "token_mean"),
    "rloo": ("rloo", "reinforce", "masked_normalize"),
    "tis": ("group_std", "grpo_clip", "masked_mean"),
}


def test_every_idea_is_listed_here():
    assert sorted(CHOICES) == sorted(path.stem for path in IDEAS.glob("*.toml"))


@pytest.mark.parametrize("name", CHOICES)
def test_an_idea_resolves_on_the_embedded_default(name):
    node = recipe.load(IDEAS / f"{name}.toml", plugins.load())
    assert list(recipe.missing(node)) == []
    table = node.dump()
    chosen = tuple(table[part]["use"] for part in ("advantage", "loss", "normalizer"))
    assert chosen == CHOICES[name]


@pytest.mark.parametrize("name", ["dr_grpo", "rloo"])
def test_the_constant_is_the_longest_response(name):
    table = recipe.load(IDEAS / f"{name}.toml", plugins.load()).dump()
    assert table["normalizer"]["constant"] == table["rollout"]["max_tokens"]


def test_pass_at_k_draws_fewer_than_the_group_has():
    table = recipe.load(IDEAS / "pass_at_k.toml", plugins.load()).dump()
    assert table["advantage"]["k"] < table["group_size"]


def test_dapo_samples_dynamically():
    table = recipe.load(IDEAS / "dapo.toml", plugins.load()).dump()
    assert table["drop_groups_without_signal"]
    assert table["max_refills"] > 0
    assert table["loss"]["eps_high"] > table["loss"]["eps_low"]
