"""A run on two ranks gives the numbers and the responses of one process."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from .conftest import KINDS, SHARD, assert_same, metrics, responses

ROOT = Path(__file__).resolve().parents[2]

QUICK = ("off_policy",)
LEARNING = [kind for kind in KINDS if kind != "brittle"]


@pytest.mark.parametrize(
    "kind", [k if k in QUICK else pytest.param(k, marks=pytest.mark.slow) for k in LEARNING]
)
def test_two_ranks_give_what_one_process_does(ranks, kind):
    one, two = ranks.whole(kind, 1), ranks.whole(kind, 2)
    assert_same(one, two)
    assert json.loads((two / "manifest.json").read_text())["hardware"]["ranks"] == 2
    assert len(metrics(two)) == 4
    assert (two / "final" / "model.safetensors").exists()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["tool_use", "chat/grpo"])
def test_episodes_and_dialogues_are_those_of_one_process(ranks, name):
    found = []
    for size in (1, 2):
        found.append(ranks.place / f"{Path(name).name}-{size}")
        keys = ["n_steps=2", "rollout_batch_size=24", "train_batch_size=24", "eval.n=6"]
        keys += ["save_rollouts_every=1"]
        more = [word for key in keys for word in ("-s", key)]
        recipe = ROOT / "recipes" / f"{name}.toml"
        words = ["-m", "alignkit", "run", recipe, "--out", found[-1], *more]
        codes, said = ranks.go(words, size)
        assert codes == [0] * size, said
    assert_same(*found)
    assert len(responses(found[0])) == 4  # of two steps and two evaluations


@pytest.mark.slow
@pytest.mark.parametrize("kind", LEARNING)
def test_a_policy_cut_over_ranks_learns_the_same(ranks, kind):
    one, two = ranks.whole(kind, 1), ranks.whole(kind, 2, *SHARD)
    assert_same(one, two)
    a, b = (load_file(folder / "final" / "model.safetensors") for folder in (one, two))
    assert a.keys() == b.keys()
    for name, value in a.items():
        # AdamW's step has the size of lr also where a gradient is little but rounding.
        torch.testing.assert_close(b[name], value, atol=5e-5, rtol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("more", [(), SHARD], ids=["replicated", "cut"])
def test_four_ranks_on_two_machines_give_what_one_process_does(ranks, monkeypatch, more):
    """Of a policy that is cut each machine holds the whole; its checkpoint is for any number."""
    one = ranks.whole("off_policy", 1)
    monkeypatch.setattr(ranks, "per_machine", 2)
    four = ranks.whole("off_policy", 4, *more)
    assert_same(one, four)
    again = ranks.place / f"on-{len(more)}"
    shutil.copytree(four, again)
    for path in [*again.glob("checkpoints/step_000003"), again / "final"]:
        shutil.rmtree(path)
    told = json.loads((again / "manifest.json").read_text())
    (again / "manifest.json").write_text(json.dumps(told | {"status": "interrupted"}))
    codes, said = ranks.go(["-m", "alignkit", "resume", again, "-p", "vowel_plugin.py"], 1)
    assert codes == [0], said
    assert (again / "final" / "model.safetensors").exists()
    assert_same(one, again)
