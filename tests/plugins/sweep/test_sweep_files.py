"""Every sweep in recipes/, and the one in their guide, comes to runs that resolve."""

import re
from pathlib import Path

import pytest

from alignkit import plugins
from alignkit_sweep.variants import Sweep

FOLDER = Path(__file__).resolve().parents[3] / "recipes" / "sweeps"
EXPERIMENTS = {
    "math_baseline", "sft_sizes", "sft_filtered", "expert_iteration", "lr", "baselines",
    "length_norm", "std_norm", "off_policy", "clip_ablation", "prompt_ablation", "from_sft",
    "leaderboard", "variants", "off_policy_32", "prompt_ablation_2026", "lr_2026", "try_your_own",
}  # fmt: skip


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.toml")), ids=lambda p: p.stem)
def test_a_sweep_resolves_on_the_embedded_default(path):
    swept = Sweep(path, plugins.load())
    assert len(swept.variants) > 1
    assert swept.lacking == []


def test_every_experiment_has_its_sweep_and_every_sweep_its_line_in_the_guide():
    found = {path.stem for path in FOLDER.glob("*.toml")}
    assert found >= EXPERIMENTS
    listed = re.findall(r"^\| (`.*?) \|", (FOLDER / "README.md").read_text(), re.M)
    assert {name for line in listed for name in re.findall(r"`(\w+)`", line)} == found


SEEDED = ("variants", "off_policy_32", "prompt_ablation_2026", "lr_2026", "try_your_own")


@pytest.mark.parametrize("name", SEEDED)
def test_a_sweep_of_2026_has_four_seeds_that_all_variants_share(name):
    swept = Sweep(FOLDER / f"{name}.toml", plugins.load())
    assert {variant.seeds for variant in swept.variants} == {(0, 1, 2, 3)}


def test_your_own_stands_beside_all_baselines_on_equal_terms():
    """Its plan differs from each baseline's in advantage, loss and normalizer alone."""
    baselines, both = (
        Sweep(FOLDER / f"{name}.toml", plugins.load()) for name in ("variants", "try_your_own")
    )
    names = [v.name for v in baselines.variants]
    assert names == ["standard", "GRPO_constant", "Dr_GRPO", "RFT", "MaxRL"]
    assert [v.name for v in both.variants] == [*names, "yours"]
    own = {"advantage", "loss", "normalizer"}
    plans = [{k: x for k, x in both.plan(v).items() if k not in own} for v in both.variants]
    assert all(plan == plans[0] for plan in plans)


def test_32_updates_a_batch_are_32_at_every_scale():
    scale = FOLDER.parent / "scale" / "olmo-2-1b-gsm8k.toml"
    for overlays in ([], [scale]):
        swept = Sweep(FOLDER / "off_policy_32.toml", plugins.load(), overlays)
        for plan in map(swept.plan, swept.variants):
            assert plan["rollout_batch_size"] == 32 * plan["train_batch_size"]


def test_the_guide_s_sweep_is_one(tmp_path):
    (text,) = re.findall(r"```toml\n(.*?)```", (FOLDER / "README.md").read_text(), re.S)
    path = tmp_path / "s.toml"
    path.write_text(text.replace("../", f"{FOLDER.parent}/"))
    swept = Sweep(path, plugins.load())
    assert [v.name for v in swept.variants] == [
        "clip/lr_x0.3", "clip/lr_x1", "clip/lr_x3", "free/lr_x0.3", "free/lr_x1", "free/lr_x3",
        "longer", "constant/normalizer=masked_mean", "constant/normalizer=token_mean",
    ]  # fmt: skip


@pytest.mark.parametrize("name", ["lr", "length_norm", "off_policy"])
def test_a_sweep_keeps_its_meaning_at_another_scale(tmp_path, name):
    """What a sweep varies, it varies around the overlay's values, which the rest leaves alone."""
    overlay = tmp_path / "big.toml"
    overlay.write_text(
        "n_steps = 200\nrollout_batch_size = 512\ntrain_batch_size = 512\n"
        "[optimizer]\nlr = 1e-5\n[rollout]\nmax_tokens = 1024\n"
    )
    swept = Sweep(FOLDER / f"{name}.toml", plugins.load(), [overlay])
    plans = {v.name: swept.plan(v) for v in swept.variants}
    rates = {p["optimizer"]["lr"] for p in plans.values()}
    if name == "lr":
        assert rates == {1e-6, 3e-6, 1e-5, 3e-5, 1e-4}
    if name == "length_norm":
        assert plans["masked_normalize"]["normalizer"]["constant"] == 1024
    if name == "off_policy":
        assert {p["train_batch_size"] for p in plans.values()} == {512, 256, 128}
        assert {p["n_steps"] for p in plans.values()} == {100, 200}
        assert rates == {1e-5, 5e-6}
