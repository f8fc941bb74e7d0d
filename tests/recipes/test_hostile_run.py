"""A policy that writes nothing but hostile answers still trains, and its run says what happened."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from alignkit import plugins, recipe
from alignkit.execution import Run

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]
HOSTILE = [
    "9^9^9^9^9",
    r"\dfrac{5^{(5^{(5^{(5^5)})} - 4)} - 5}{16}",
    "100000000!",
    "(" * 5000 + "1" + ")" * 5000,
    "7" * 100_000,
    r"\int_0^{10^{100}} \sin(x^{x^x}) dx",
    "\x00\ud7ff\u202e</answer>" * 50,
    "__import__('os').system('touch hacked')",
]


class HostileBackend:
    """Wraps a backend: its own draws, but every text is a hostile answer in the asked form."""

    def __init__(self, inner):
        self.inner = inner
        self.asked = 0

    def __getattr__(self, name):
        return getattr(self.inner, name)

    def generate(self, prompts, sampling):
        return [[self._spoil(c) for c in g] for g in self.inner.generate(prompts, sampling)]

    def _spoil(self, completion):
        self.asked += 1
        answer = HOSTILE[self.asked % len(HOSTILE)]
        return replace(completion, text=f" </think> <answer> {answer} </answer>")


def test_a_run_of_hostile_responses_trains_to_its_end(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    sizes = ["n_steps=2", "rollout_batch_size=16", "train_batch_size=16", "eval.n=8"]
    path = ROOT / "recipes" / "grpo.toml"
    node = recipe.load(path, plugins.load(), (), [*sizes, "reward.timeout=0.5"])
    algorithm = node.build()
    parts = algorithm.parts
    parts.backend = HostileBackend(parts.backend)
    (tmp_path / "run").mkdir()
    run = Run(tmp_path / "run", node.dump())
    before = [p.detach().clone() for p in parts.policy.model.parameters()]
    algorithm.run(run)
    run.close("done")
    parts.reward.close()
    rows = [json.loads(r) for r in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    steps = [r for r in rows if "train/loss" in r]
    assert [r["step"] for r in steps] == [1, 2]
    assert all(r["train/answer_reward"] == 0 and r["train/format_reward"] > 0.8 for r in steps)
    assert all(r["train/groups_without_signal"] == 1 for r in steps)
    # No group has a signal, so nothing may be learned: the weights stay as they were.
    after = parts.policy.model.parameters()
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))
    assert not (tmp_path / "hacked").exists()
