"""What shows without weights is refused by --dry-run and run alike, and leaves no folder."""

import json
import shutil
from pathlib import Path

import pytest

from alignkit.testing import run_cli

ROOT = Path(__file__).resolve().parents[2]
SMALL = ("-s", "eval.n=4", "-s", "rollout_batch_size=16", "-s", "train_batch_size=16")
BROKEN = {
    "one response a group": ("grpo", ["group_size=1"], "group_size of at least 2"),
    "rloo": ("grpo", ["group_size=1", "advantage.use=rloo"], "group_size of at least 2"),
    "batch_std": ("grpo", ["group_size=1", "advantage.use=batch_std"], 'set baseline = "none"'),
    "pass_at_k": ("grpo", ["group_size=4", "advantage.use=pass_at_k", "advantage.k=4"], "k = 4"),
    "warm-up grpo": ("grpo", ["n_steps=3", "optimizer.warmup_steps=4"], "only 3 optimizer steps"),
    "warm-up sft": ("sft", ["n_steps=3", "optimizer.warmup_steps=4"], "only 3 optimizer steps"),
    "warm-up dpo": ("dpo", ["n_steps=3", "optimizer.warmup_steps=4"], "only 3 optimizer steps"),
    "warm-up ei": ("expert_iteration", ["n_steps=1", "optimizer.warmup_steps=9999"], "steps"),
    **{
        f"no chat template {recipe}": (recipe, ["prompt.use=chat"], "has no chat template")
        for recipe in ("grpo", "evaluate", "sft", "dpo", "expert_iteration", "distill")
    },
    "no switch": ("chat/grpo", ["prompt.thinking=true"], "no switch for it"),
    "no argument": ("chat/sft", ["prompt.template_kwargs.day=1"], "reads no argument 'day'"),
    "folder": ("grpo", ["policy.path=./models/mine"], "no such file or folder"),
}


def tried(tmp_path, recipe, overrides, *more):
    path = ROOT / "recipes" / f"{recipe}.toml"
    given = [word for override in overrides for word in ("-s", override)]
    small = SMALL if recipe == "grpo" else ()
    out = tmp_path / "out"
    result = run_cli("run", str(path), *small, *given, "--out", str(out), *more)
    assert not out.exists()
    return result


@pytest.mark.parametrize("more", [(), ("--dry-run",)], ids=["run", "dry-run"])
@pytest.mark.parametrize("case", BROKEN)
def test_it_is_refused_and_leaves_no_folder(tmp_path, case, more):
    recipe, overrides, words = BROKEN[case]
    result = tried(tmp_path, recipe, overrides, *more)
    assert result.status in (1, 2)
    assert words in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize("recipe", ["grpo", "evaluate", "sft"])
@pytest.mark.parametrize("name", ["models/qwen-typo", "no/such", "typo"])
def test_a_name_that_is_nowhere_is_refused_offline_at_once(tmp_path, monkeypatch, recipe, name):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    result = tried(tmp_path, recipe, [f"policy.path={name}"])
    assert result.status in (1, 2)
    assert f"there is no folder {name}" in result.stderr
    assert "HF_HUB_OFFLINE" in result.stderr
    assert (
        f"there is no folder {name}"
        in tried(tmp_path, recipe, [f"policy.path={name}"], "--dry-run").stdout
    )


def test_a_hub_that_does_not_answer_is_asked_once(tmp_path, monkeypatch):
    import huggingface_hub
    from huggingface_hub import constants

    asked = []

    def refuse(url, **_):
        asked.append(url)
        raise OSError("nobody there")

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(huggingface_hub, "get_hf_file_metadata", refuse)
    result = tried(tmp_path, "evaluate", ["policy.path=no/such"])
    assert result.status in (1, 2)
    assert len(asked) == 1
    assert "the Hub does not give it: nobody there" in result.stderr


@pytest.mark.parametrize(
    ("file", "text"), [("config.json", "{"), ("tokenizer.json", "{"), ("config.json", "{}")]
)
def test_a_folder_whose_files_cannot_be_read_leaves_no_folder(tmp_path, file, text):
    folder = tmp_path / "model"
    shutil.copytree(ROOT / "data" / "tiny_policy", folder)
    (folder / file).write_text(text)
    result = tried(tmp_path, "evaluate", [f"policy.path={json.dumps(str(folder))}"])
    assert result.status in (1, 2)
    assert "Traceback" not in result.stderr
