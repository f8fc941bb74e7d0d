"""Every recipe resolves, and says what follows from its numbers."""

from pathlib import Path

import pytest

from alignkit import plugins, recipe

ROOT = Path(__file__).resolve().parents[2]
RECIPES = sorted((ROOT / "recipes").glob("*.toml"))
SCALES = sorted((ROOT / "recipes" / "scale").glob("*.toml"))


@pytest.mark.parametrize("path", RECIPES, ids=lambda p: p.stem)
def test_a_recipe_resolves_on_the_embedded_default(path):
    node = recipe.load(path, plugins.load())
    assert list(recipe.missing(node)) == []


@pytest.mark.parametrize("scale", SCALES, ids=lambda p: p.stem)
@pytest.mark.parametrize("name", ["grpo", "grpo_offpolicy"])
def test_a_scale_overlay_fits_the_grpo_recipes(alignkit, scale, name):
    done = alignkit("run", f"recipes/{name}.toml", "--with", scale, "--dry-run")
    assert done.exit_code == 0, done.output


def test_the_plan_counts_in_prompts_and_responses(alignkit):
    overrides = ["rollout_batch_size=256", "group_size=8", "train_batch_size=128"]
    sets = [part for item in [*overrides, "epochs_per_rollout_batch=2"] for part in ("-s", item)]
    said = alignkit("run", "recipes/grpo_offpolicy.toml", "--dry-run", *sets).output
    assert "rollout batch: 32 prompts × 8 responses = 256 responses" in said
    assert "optimizer steps per rollout batch: 4 of 128 responses" in said
    assert "the last update of a rollout batch is 3 updates behind" in said
