"""Every recipe resolves, alone and at full size, and says what follows from its numbers."""

import shlex
from pathlib import Path

import pytest
import tomli

from alignkit import plugins, recipe
from alignkit_explain.ranks import OnRanks, held

ROOT = Path(__file__).resolve().parents[2]
RECIPES = sorted((ROOT / "recipes").glob("*.toml"))
SCALE = ROOT / "recipes" / "scale"
MODELS = {
    "qwen2.5-math-1.5b": ["grpo", "grpo_offpolicy"],
    "qwen2.5-math-1.5b-gsm8k": ["grpo", "grpo_offpolicy"],
    "olmo-2-1b-gsm8k": ["grpo", "grpo_offpolicy"],
    "qwen2.5-math-1.5b-expert_iteration": ["expert_iteration"],
    "qwen2.5-math-1.5b-sft": ["sft", "sft_filtered"],
    "qwen2.5-math-1.5b-evaluate": ["evaluate"],
    "llama-3.1-8b": ["instruction_sft"],
}
"""Which recipes each model overlay is for."""
HARDWARE = sorted(p.stem for p in SCALE.glob("hardware-*.toml"))
PAIRS = [(name, model) for model, names in MODELS.items() for name in names]
FITTING = [(n, m, h) for n, m in PAIRS for h in HARDWARE if (n, h) != ("evaluate", "hardware-24gb")]
"""Recipe, model, hardware; what sets an optimizer is not for evaluation."""
RANKS = {
    "ranks-4x40gb": (OnRanks(4), 42.3e9, "replicate"),
    "ranks-vllm-4x40gb": (OnRanks(4), 42.3e9, "shard"),
    "ranks-2-and-2-4x40gb": (OnRanks(2), 42.3e9, "replicate"),
    "ranks-7b-4x40gb": (OnRanks(4), 42.3e9, "replicate"),
    "ranks-8x80gb": (OnRanks(8), 84.9e9, "replicate"),
    "ranks-2x8x80gb": (OnRanks(16, 2), 84.9e9, "shard"),
}
"""Overlays for several processes: on what, the bytes of a card, and how the policy is held."""
NO_VLLM = "rollout: vLLM is not installed: pip install 'alignkit[vllm]'"


def scaled(name, *overlays):
    """Return the arguments that lay files of recipes/scale over a recipe."""
    laid = [part for o in overlays for part in ("--with", f"recipes/scale/{o}.toml")]
    return ["run", f"recipes/{name}.toml", *laid]


def leaves(table):
    """Count the values of a table, those of its tables included."""
    return sum(leaves(v) if isinstance(v, dict) else 1 for v in table.values())


def given(overlay):
    """Count the values a file of recipes/scale gives itself."""
    table = tomli.loads((SCALE / f"{overlay}.toml").read_text())
    table.pop("extends", None)
    return leaves(table)


@pytest.fixture
def without_vllm(monkeypatch):
    """A machine with neither vLLM nor a GPU, whatever this one has, but with bitsandbytes."""
    from alignkit_vllm import machine

    monkeypatch.setattr(machine, "installed", lambda: None)
    monkeypatch.setattr(machine, "visible_here", lambda: [])
    monkeypatch.setattr("alignkit_optimizers.find_spec", lambda name: name)


@pytest.mark.parametrize("path", RECIPES, ids=lambda p: p.stem)
def test_a_recipe_resolves_on_the_embedded_default(path):
    node = recipe.load(path, plugins.load())
    assert list(recipe.missing(node)) == []


def test_every_overlay_is_known_here():
    found = sorted(p.stem for p in SCALE.glob("*.toml"))
    assert found == sorted([*MODELS, *HARDWARE, *RANKS])


@pytest.mark.parametrize("overlay", RANKS)
def test_an_overlay_for_ranks_samples_in_the_processes_that_learn_or_by_engines_for_ranks(
    alignkit, without_vllm, overlay
):
    overlays = ["qwen2.5-math-1.5b", overlay]
    done = alignkit(*scaled("grpo", *overlays), "--dry-run")
    assert f'parallel = "{RANKS[overlay][2]}"' in done.output
    plan = " ".join(done.output.split())
    laid = [SCALE / f"{name}.toml" for name in overlays]
    rollout = recipe.load(ROOT / "recipes" / "grpo.toml", plugins.load(), laid).children["rollout"]
    assert rollout.params.on_ranks
    if rollout.use == "hf":
        assert done.exit_code == 0, done.output
        assert f"max_tokens = 1024 # recipes/scale/{overlay}.toml" in plan
    else:
        assert NO_VLLM in plan
        assert f'mode = "{rollout.params.mode}" # recipes/scale/{overlay}.toml' in plan


@pytest.mark.parametrize("overlay", RANKS)
def test_an_overlay_for_ranks_fits_the_cards_it_is_named_for(overlay):
    on, card, parallel = RANKS[overlay]
    laid = [SCALE / f"{name}.toml" for name in ("qwen2.5-math-1.5b", overlay)]
    node = recipe.load(ROOT / "recipes" / "grpo.toml", plugins.load(), laid)
    (way,) = [way for way in held(node, on, card) if way.parallel == parallel]
    assert way.total <= 0.9 * card
    told = (SCALE / "README.md").read_text()
    cards = f"{on.nodes} x {on.parts}" if on.nodes > 1 else f"{on.ranks}"
    needs = f"{way.total / 1e9:.1f}, {way.total / card:.0%}"
    assert f"| `{overlay}.toml` | {cards} | {parallel} | {needs} |" in told


@pytest.mark.parametrize("path", sorted(SCALE.glob("*.toml")), ids=lambda p: p.stem)
def test_the_first_line_of_an_overlay_is_the_command_for_it(alignkit, path):
    command = shlex.split(path.read_text().splitlines()[0].removeprefix("# "))
    assert command[0] == "alignkit"
    assert command[-1] == f"recipes/scale/{path.name}"
    done = alignkit(*command[1:], "--dry-run")
    assert done.exit_code == 0, done.output


@pytest.mark.parametrize(("name", "model"), PAIRS)
def test_all_values_of_a_model_overlay_reach_the_plan(alignkit, without_vllm, name, model):
    done = alignkit(*scaled(name, model), "--dry-run")
    assert done.exit_code == 0, done.output
    plan, lacking = done.output.split("# missing on this machine")
    assert plan.count(f"# recipes/scale/{model}.toml:") == given(model)
    assert lacking.count("\n#   ") == 1
    assert NO_VLLM in lacking


@pytest.mark.parametrize(("name", "model", "hardware"), FITTING)
def test_a_hardware_overlay_composes(alignkit, without_vllm, name, model, hardware):
    done = alignkit(*scaled(name, model, hardware), "--dry-run")
    assert done.exit_code == 0, done.output
    plan, lacking = done.output.split("# missing on this machine")
    assert plan.count(f"# recipes/scale/{hardware}.toml:") == given(hardware)
    assert lacking.count("\n#   ") == 1
    assert NO_VLLM in lacking


def test_two_small_cards_are_one_small_card_and_two_cards(alignkit):
    overlays = ["qwen2.5-math-1.5b", "hardware-24gb", "hardware-2gpu"]
    plan = alignkit(*scaled("grpo", *overlays), "--dry-run").output
    assert "vLLM engine: in its own process, on the last GPUs" in plan
    assert 'implementation = "offload"' in plan
    assert "gpu_memory_utilization = 0.85" in plan  # not the 0.35 of a shared card


@pytest.mark.parametrize(("name", "model"), PAIRS)
def test_without_vllm_nothing_starts(alignkit, without_vllm, tmp_path, name, model):
    done = alignkit(*scaled(name, model, "hardware-80gb"), "--out", tmp_path / "run")
    assert done.exit_code == 2, done.output
    said, *excerpt = done.output.splitlines()
    assert NO_VLLM in said
    assert [line.split("|")[1].split("#")[0].strip() for line in excerpt] == ['use = "vllm"']
    assert not (tmp_path / "run").exists()


def test_one_small_card_holds_the_means_in_8_bits_and_says_what_that_needs(
    alignkit, without_vllm, monkeypatch
):
    monkeypatch.setattr("alignkit_optimizers.find_spec", lambda name: None)
    words = scaled("grpo", "qwen2.5-math-1.5b", "hardware-24gb")
    words = [*words, "-s", "optimizer.implementation=8bit"]
    done = alignkit(*words, "--dry-run")
    assert "pip install 'alignkit[8bit]'" in done.output.split("# missing on this machine")[1]
    said = alignkit("explain", *words[1:]).output
    assert "3.0 GB optimizer state" in said or "3.1 GB optimizer state" in said  # not 12


@pytest.mark.parametrize(
    ("name", "overlay", "problem"),
    [
        ("sft", "qwen2.5-math-1.5b", "'sft' takes no 'rollout_batch_size'"),
        ("evaluate", "qwen2.5-math-1.5b-sft", "'evaluate' takes no 'optimizer'"),
        ("grpo", "hardware-24gb", "'hf' takes no 'gpu_memory_utilization'"),
        ("evaluate", "hardware-24gb", "'evaluate' takes no 'optimizer'"),
    ],
)
def test_an_overlay_for_something_else_is_refused(alignkit, name, overlay, problem):
    done = alignkit(*scaled(name, overlay), "--dry-run")
    assert done.exit_code == 2
    assert problem in done.output
    assert f"recipes/scale/{overlay}.toml:" in done.output


@pytest.mark.parametrize(
    ("name", "model", "fact"),
    [  # 256 / 8 questions; one optimizer step in each of 200; 512 questions x 4
        ("grpo", "qwen2.5-math-1.5b", "rollout batch: 32 prompts × 8 responses = 256 responses"),
        ("grpo", "qwen2.5-math-1.5b-gsm8k", "optimizer steps in all: 200"),
        (
            "expert_iteration",
            "qwen2.5-math-1.5b-expert_iteration",
            "512 questions × 4 responses = 2048 responses",
        ),
    ],
)
def test_the_sizes_are_those_of_the_assignment(alignkit, name, model, fact):
    assert fact in alignkit(*scaled(name, model), "--dry-run").output


@pytest.mark.parametrize("model", [m for m in MODELS if not m.endswith("evaluate")])
def test_full_size_training_keeps_off_its_test_problems(model):
    node = recipe.load(
        ROOT / "recipes" / f"{MODELS[model][0]}.toml", plugins.load(), [SCALE / f"{model}.toml"]
    )
    trained, tested = node.children["data"].params, node.children["eval"].children["data"].params
    # Sets with all of MATH in one split hold the problems of MATH-500 as well.
    disjoint = {
        "rasbt/math_full_minus_math500": "HuggingFaceH4/MATH-500",
        "tatsu-lab/alpaca": "openai/gsm8k",  # instructions of all kinds, none of GSM8K
    }
    if trained.path in disjoint:
        assert tested.path == disjoint[trained.path]
    else:
        assert (trained.path, trained.split) == (tested.path, "train")
        assert tested.split == "test"


def test_the_plan_counts_in_prompts_and_responses(alignkit):
    overrides = ["rollout_batch_size=256", "group_size=8", "train_batch_size=128"]
    sets = [part for item in [*overrides, "epochs_per_rollout_batch=2"] for part in ("-s", item)]
    said = alignkit("run", "recipes/grpo_offpolicy.toml", "--dry-run", *sets).output
    assert "rollout batch: 32 prompts × 8 responses = 256 responses" in said
    assert "optimizer steps per rollout batch: 4 of 128 responses" in said
    assert "the last update of a rollout batch is 3 updates behind" in said
