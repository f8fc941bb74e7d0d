"""Seeds that torch does not take are refused where they stand, by every algorithm."""

from pathlib import Path

import pytest

from alignkit import plugins, recipe
from alignkit.errors import RecipeError

RECIPES = Path(__file__).resolve().parents[2] / "recipes"


@pytest.mark.parametrize("name", ["sft", "grpo", "dpo", "expert_iteration", "evaluate"])
@pytest.mark.parametrize("seed", [-1, 2**64, 2**70, -(2**63)])
def test_a_seed_of_more_than_64_bits_or_below_zero_is_refused(name, seed):
    with pytest.raises(RecipeError, match=rf"seed: Input should be .*got {seed}"):
        recipe.load(RECIPES / f"{name}.toml", plugins.load(), (), [f"seed={seed}"])


@pytest.mark.parametrize("name", ["sft", "grpo", "dpo", "expert_iteration", "evaluate"])
def test_the_largest_seed_is_one_that_torch_takes(name):
    from alignkit.engine.seeds import generators, seed_everything, set_generators

    before = generators()
    node = recipe.load(RECIPES / f"{name}.toml", plugins.load(), (), [f"seed={2**64 - 1}"])
    seed_everything(node.params.seed)
    set_generators(before)


def test_the_seeds_of_a_sweep_and_of_an_evaluation_are_refused_too(tmp_path):
    from alignkit_sweep.variants import Sweep

    (tmp_path / "s.toml").write_text(f'recipe = "{RECIPES}/sft.toml"\nseeds = [1, {2**64}]\n')
    with pytest.raises(RecipeError, match=r"seeds\.1: Input should be"):
        Sweep(tmp_path / "s.toml", plugins.load())
    with pytest.raises(RecipeError, match=r"eval\.seed: Input should be"):
        recipe.load(RECIPES / "grpo.toml", plugins.load(), (), [f"eval.seed={2**64}"])
