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
    "leaderboard",
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
