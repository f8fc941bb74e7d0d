"""``alignkit explain`` on memory and time, held against what torch keeps and a real run takes."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import tomli_w

from alignkit import plugins, recipe
from alignkit.document import Document
from alignkit.engine.forward.checkpointing import checkpoint
from alignkit.engine.sampling.rollout_table import SamplingParams
from alignkit.estimate import estimate
from alignkit.model_shape import ModelShape, shape_at
from alignkit.run_data.runs import read
from alignkit_explain.estimate import work

ROOT = Path(__file__).resolve().parents[3]
TINY = str(ROOT / "data" / "tiny_policy")
RECIPE = ROOT / "recipes" / "grpo.toml"
KEYS = {
    "token_budget": 1000,
    "rollout_batch_size": 8,
    "train_batch_size": 8,
    "n_steps": 5,
    "epochs_per_rollout_batch": 2,
    "rollout.max_tokens": 10,
    "rollout.kv_cache_tokens": 10_000,
    "eval.n": 8,
}


def node_of(*more, **changes):
    """Return the recipe of grpo with the keys above, ``more`` overrides, and other keys' values."""
    keys = [f"{key}={value}" for key, value in {**KEYS, **changes}.items()]
    return recipe.load(RECIPE, plugins.load(), (), [*keys, *more])


def test_parameters_are_counted_as_they_are():
    assert shape_at(TINY).parameters == 451_840  # data/README.md
    qwen = ModelShape(
        hidden=1536, inner=8960, layers=28, heads=12, kv_heads=2, head_size=128,
        vocabulary=151_936, tied=True,
    )  # fmt: skip
    assert qwen.parameters == 1_543_714_304  # Qwen2.5-Math-1.5B's model card: 1.54 B


def test_memory_by_hand():
    found = estimate(node_of()).memory
    # h = 96, 4 layers, k = 32, m = 256: 8 * 96 + 3 * 32 + 4 * 256 = 1,888 numbers a layer.
    assert found["weights"] == 451_840 * 4
    assert found["gradients"] == 451_840 * 4
    assert found["optimizer state"] == 451_840 * 8
    assert found["activations"] == 1000 * 4 * 1888 * 4
    # 80 response tokens, not the 10,000 there is room for: keys and values, 4 layers, 32 numbers.
    assert found["key-value cache"] == 80 * 2 * 4 * 32 * 4
    assert "reference policy" not in found


def test_what_saves_memory_lowers_the_estimate():
    state = {
        kind: estimate(node_of(f"optimizer.implementation={kind}")).memory["optimizer state"]
        for kind in ("fused", "8bit", "offload")
    }
    assert state == {"fused": 451_840 * 8, "8bit": 451_840 * 2, "offload": 0}
    again = node_of("policy.gradient_checkpointing=true")
    # The hidden state of each layer, and everything of one.
    assert estimate(again).memory["activations"] == 1000 * (4 * 96 + 1888) * 4
    held = estimate(node_of("reference.beta=0.1"))
    assert held.memory["reference policy"] == 451_840 * 4


def test_adapters_alone_have_gradients_and_state():
    policy = ["policy.lora.rank=2", "policy.dtype=bfloat16"]
    found = estimate(node_of(*policy, "reference.beta=0.1")).memory
    # A layer: q and o 96 + 96 each, k and v 96 + 32, three of the MLP 96 + 256; two numbers each.
    trained = 4 * 2 * (2 * 192 + 2 * 128 + 3 * 352)
    assert found["weights"] == 451_840 * 2
    assert (found["gradients"], found["optimizer state"]) == (trained * 4, trained * 8)
    assert "reference policy" not in found  # the weights below the adapter
    own = [f"reference.policy.path={TINY}", "reference.policy.use=hf"]
    found = estimate(node_of(*policy, "reference.beta=0.1", *own)).memory
    assert found["reference policy"] == 451_840 * 2  # a model beside it


QWEN = "Qwen/Qwen2.5-Math-1.5B"
PEAKS = [  # tokens, layers computed again, optimizer, GB at the peak of a second step
    (2048, True, "fused", 30.61),
    (8192, True, "fused", 31.82),
    (16384, True, "fused", 33.44),
    (4096, False, "fused", 44.05),
    (8192, False, "fused", 57.77),
    (4096, True, "offload", 18.66),
]
"""From a model of that shape without numbers, whose tensors were counted as they came and went."""


def on_card(*sets, card=80e9, overlays=()):
    """Return the estimate of grpo with the 1.5B model's overlay on a card."""
    scale = ROOT / "recipes" / "scale"
    laid = [scale / f"{name}.toml" for name in ("qwen2.5-math-1.5b", *overlays)]
    return estimate(recipe.load(RECIPE, plugins.load(), laid, sets), card)


@pytest.mark.parametrize(("tokens", "again", "implementation", "peak"), PEAKS)
def test_the_peak_of_learning_is_that_of_counted_tensors(tokens, again, implementation, peak):
    sets = [f"token_budget={tokens}", f"policy.gradient_checkpointing={str(again).lower()}"]
    sets.append(f"optimizer.implementation={implementation}")
    found = on_card(*sets).memory
    beside = {"Python and libraries", "rollout engine", "rollout engine while it samples"}
    total = sum(size for name, size in found.items() if name not in beside)
    assert peak * 0.99 < total / 1e9 < peak * 1.05


def test_what_16_bit_products_of_float32_weights_take_by_hand():
    found = on_card("token_budget=4096").memory
    head = 151_936 * 1536
    assert found["16-bit copies of the weights"] == 2 * (1_543_714_304 - head)
    # The head's weight in 16 bits, and tiles of 512 MiB: 2.9 GB with two and a half and two more.
    assert found["output head"] == 2 * head + 4.5 * 2**29
    plain = on_card("token_budget=4096", "policy.autocast=none").memory
    assert "16-bit copies of the weights" not in plain
    again = on_card("token_budget=64").memory  # a small micro-batch has one small tile
    assert again["output head"] < found["output head"]


def test_engine_and_learner_take_turns_on_one_card():
    found = on_card(overlays=["hardware-80gb"])
    engine = found.memory["rollout engine while it samples"] + found.memory["rollout engine"]
    assert engine == pytest.approx(0.45 * 80e9)
    assert found.total == max(found.learning, found.sampling)
    assert found.learning < sum(found.memory.values()) > found.sampling
    assert "gradients" in found.memory
    awake = on_card("rollout.sleep=false", overlays=["hardware-80gb"])
    assert awake.learning - found.learning == pytest.approx(0.45 * 80e9 - 1e9)
    apart = on_card(overlays=["hardware-2gpu"])
    assert not any("engine" in name for name in apart.memory)


def test_an_engine_whose_share_is_too_small_counts_with_what_it_needs():
    small = on_card("rollout.gpu_memory_utilization=0.01", card=24e9)
    engine = small.memory["rollout engine while it samples"] + small.memory["rollout engine"]
    assert engine > 2 * 1_543_714_304 + 2 * 2**30


def test_a_component_of_a_third_party_tells_what_it_takes_and_needs_not():
    from alignkit.testing import registry_of

    class Scratch(SamplingParams):
        """Samples somewhere, with some memory."""

        def memory(self, tables, sizes, workload):
            return {"scratch": 5.0 * workload.at_once, "caches": None}

    class Silent(SamplingParams):
        """Samples somewhere."""

    registry = registry_of(rollout_backend={"scratch": Scratch, "silent": Silent})

    def told(use):
        table = node_of().dump() | {"rollout": {"use": use, "max_tokens": 10}}
        return estimate(recipe.resolve(Document(table), registry))

    assert told("scratch").memory["scratch"] == 5.0 * 8
    assert "caches" not in told("scratch").memory
    assert (told("scratch").elsewhere, told("silent").elsewhere) == (False, True)


@pytest.mark.parametrize("checkpointing", [False, True])
def test_activations_are_what_autograd_keeps(checkpointing):
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(TINY).train()
    if checkpointing:
        checkpoint(model)
    weights = {p.untyped_storage().data_ptr() for p in model.parameters()}
    kept = {}

    def keep(tensor):
        place = tensor.untyped_storage().data_ptr()
        if place not in weights:
            kept[place] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        out = model.model(input_ids=torch.arange(512).view(4, 128), use_cache=False)
    assert out.last_hidden_state.requires_grad
    shape = shape_at(TINY)
    expected = shape.activations(4, checkpointing=checkpointing)
    if checkpointing:  # what the last norm keeps, but no layer that is being computed again
        expected += (2 * 96 - 1888) * 4
    assert sum(kept.values()) / 512 == pytest.approx(expected, rel=0.1)


def test_work_by_hand():
    # 8 responses of 10 tokens, 5 times: 400 tokens, each sampled (2 N), scored (2 N) and learnt
    # from twice (2 * 6 N).
    assert work(estimate(node_of()), 10) == 400 * 16 * 451_840
    # with checkpointing each pass computes the layers once more: 2 N for each of the two
    again = estimate(node_of("policy.gradient_checkpointing=true"))
    assert work(again, 10) == 400 * 20 * 451_840
    evaluated = recipe.load(ROOT / "recipes" / "evaluate.toml", plugins.load())
    assert work(estimate(evaluated), 10) is None


def run_of(folder, **plan):
    """Return a run directory with two steps of 4 tokens a response and 3 seconds of phases."""
    row = {"train/response_length": 4.0, "time/rollout": 1.0, "time/update": 2.0, "time/eval": 9.0}
    rows = [json.dumps({"step": i, "time": 3.0 * i} | row) for i in (1, 2)]
    (folder / "metrics.jsonl").write_text("\n".join(rows))
    (folder / "recipe.toml").write_text(tomli_w.dumps(node_of(n_steps=4).dump() | plan))
    return folder


def said(result):
    assert result.exit_code == 0, result.output
    return result.output.split("\nEstimate\n")[1]


def test_time_is_taken_from_a_run(alignkit, tmp_path):
    half = run_of(tmp_path)  # 2 of its 4 steps: 3 s a step for 8 responses; eval is left out
    sets = ["rollout_batch_size=16", "train_batch_size=16", "n_steps=10"]
    given = [part for item in sets for part in ("-s", item)]
    text = said(alignkit("explain", "recipes/grpo.toml", *given, "--like", half))
    # Twice the responses, 10 steps, one epoch instead of two: 10 / 16 of the work for each.
    assert "time: 38 s at the speed and response length of" in text  # 3 * 2 * 10 * 10 / 16 = 37.5


def test_a_run_that_does_not_tell_is_refused(alignkit, tmp_path):
    (tmp_path / "metrics.jsonl").write_text('{"step": 1, "train/loss": 1.0}\n')
    done = alignkit("explain", "recipes/grpo.toml", "--like", tmp_path)
    assert done.exit_code == 2
    assert "it logged no response lengths or times" in done.output


def test_a_model_that_is_not_there_is_known_by_its_name(alignkit, monkeypatch, tmp_path):
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    overlays = ["--with", "recipes/scale/qwen2.5-math-1.5b.toml"]
    unknown = [*overlays, "-s", "policy.path=Some/Model-1.5B"]
    text = said(alignkit("explain", "recipes/grpo.toml", *unknown))
    assert "parameters: 1,500,000,000" in text
    assert "12.0 GB optimizer state" in text  # float32
    assert "activations" not in text
    assert "and what the rollout engine takes" in text
    assert "give a run on this GPU with --like" in text
    text = said(alignkit("explain", "recipes/grpo.toml", *overlays))  # a model that is known
    assert "parameters: 1,543,714,304" in text
    assert "activations" in text
    folder = tmp_path / "models--Qwen--Qwen2.5-Math-1.5B" / "snapshots" / "1"
    folder.mkdir(parents=True)
    shutil.copy(Path(TINY, "config.json"), folder)  # whatever was downloaded counts
    text = said(alignkit("explain", "recipes/grpo.toml", *overlays))
    assert "parameters: 451,840" in text
    assert "activations" in text


def test_nothing_is_made_up_of_a_model_without_sizes(alignkit, tmp_path):
    model = shutil.copytree(TINY, tmp_path / "model")
    config = json.loads((model / "config.json").read_text())
    del config["intermediate_size"]  # such as of a GPT-2
    (model / "config.json").write_text(json.dumps(config))
    text = said(alignkit("explain", "recipes/grpo.toml", "-s", f"policy.path={model}"))
    assert text.strip().startswith("not known")


@pytest.mark.slow
def test_a_run_takes_as_much_memory_and_time_as_estimated(tmp_path):
    command = [sys.executable, "-m", "alignkit", "run", "recipes/grpo.toml", "-s", "n_steps=6"]
    subprocess.run([*command, "-s", "eval.n=64", "--out", tmp_path / "run"], cwd=ROOT, check=True)
    run = read(tmp_path / "run")
    expected = estimate(recipe.load(tmp_path / "run" / "recipe.toml", plugins.load()))
    peak = max(row.get("memory/peak_mib", 0) for row in run.rows) * 2**20  # of that process alone
    assert peak / 1.5 < expected.total < peak * 2
