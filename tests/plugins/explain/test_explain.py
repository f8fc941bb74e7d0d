"""``alignkit explain`` tells what a recipe does, in the words of its components."""

from itertools import pairwise
from pathlib import Path

import pytest

RECIPES = sorted((Path(__file__).resolve().parents[3] / "recipes").glob("*.toml"))


def sections(text):
    """Split what was said into the parts about one table each, by their first words."""
    parts = text.split("\n\n")
    heads = [i for i, part in enumerate(parts) if not part.startswith(" ")]
    bounds = [*heads, len(parts)]
    joined = ["\n\n".join(parts[a:b]) for a, b in pairwise(bounds)]
    return {part.split("  ")[0].strip(): part for part in joined}


@pytest.mark.parametrize("path", RECIPES, ids=lambda p: p.stem)
def test_every_recipe_is_explained(alignkit, path):
    done = alignkit("explain", path)
    assert done.exit_code == 0, done.output
    assert "Missing on this machine" not in done.output


def test_values_come_with_place_and_meaning(alignkit):
    said = sections(alignkit("explain", "recipes/grpo_offpolicy.toml", "-s", "seed=3").output)
    assert (
        "cliprange = 0.2  (recipes/grpo_offpolicy.toml:10)\n        The ratio"
        in said["[loss] grpo_clip"]
    )
    assert "seed = 3  (-s seed=3)" in said["grpo"]
    assert "the last update of a rollout batch is 3 updates behind" in said["grpo"]
    assert 'Defaults: eps = 1e-06, baseline = "mean"' in said["[advantage] group_std"]
    assert "revision unset" in said["[policy] hf"]


@pytest.mark.parametrize(
    ("override", "section", "equation"),
    [
        ("loss.use=grpo_clip", "[loss] grpo_clip", "-min(r A, clip(r, 1 - ε, 1 + ε) A)"),
        ("loss.use=no_clip", "[loss] no_clip", "Return -r A with"),
        ("advantage.use=group_std", "[advantage] group_std", "(r - mean) / (std + eps)"),
        ("normalizer.use=masked_normalize", "[normalizer] masked_normalize", "/ constant) /"),
    ],
)
def test_the_formulas_of_the_chosen_components_are_shown(alignkit, override, section, equation):
    extra = ["-s", "normalizer.constant=1024"] if "masked_normalize" in override else []
    done = alignkit("explain", "recipes/grpo_offpolicy.toml", "-s", override, *extra)
    said = sections(done.output)[section]
    assert equation in said.split("    Formula\n")[1]


def test_what_the_machine_lacks_is_said_last(alignkit, monkeypatch):
    from alignkit_vllm import machine

    monkeypatch.setattr(machine, "installed", lambda: None)
    overlay = "recipes/scale/qwen2.5-math-1.5b.toml"
    said = alignkit("explain", "recipes/grpo.toml", "--with", overlay).output
    assert "vLLM is not installed" in said.split("\nMissing on this machine\n")[1]


def test_a_broken_recipe_is_not_explained(alignkit):
    done = alignkit("explain", "recipes/grpo.toml", "-s", "loss.use=grpo_clop")
    assert done.exit_code == 2
    assert "grpo_clop" in done.output
