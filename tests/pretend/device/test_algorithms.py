"""Each algorithm's first steps on the device, from nothing: no evaluation has tried models out."""

import json
from types import SimpleNamespace

import pytest

from alignkit.component import make
from alignkit.engine.training.loop import Frame
from alignkit.execution import Run
from alignkit.protocols import Example, Reward
from alignkit_advantages import GroupMean
from alignkit_algorithms.dpo import Dpo
from alignkit_algorithms.expert_iteration import ExpertIteration
from alignkit_algorithms.grpo import Grpo
from alignkit_algorithms.sft import Sft
from alignkit_hf import HfRollout
from alignkit_losses import GrpoClip
from alignkit_normalizers import MaskedMean, TokenMean
from alignkit_optimizers import AdamW

pytestmark = pytest.mark.pretend

DATA = [Example(f"id{i}", f"q{i}", "abc"[i % 3] * (1 + i), {"rejected": "xy"}) for i in range(4)]
PROMPT = SimpleNamespace(stop=("#",), render=lambda question: f"{question}:")


def every_second(responses, examples):
    return [Reward(float(i % 2)) for i, _ in enumerate(responses)]


def sampled():
    return {"reward": every_second, "rollout": HfRollout(max_tokens=5).build()}


ALGORITHMS = {
    "sft": lambda: (Sft(train_batch_size=2), {"normalizer": TokenMean().build()}),
    "dpo": lambda: (Dpo(train_batch_size=2), {}),
    "grpo": lambda: (
        Grpo(n_steps=2, rollout_batch_size=4, group_size=2, train_batch_size=2),
        {
            **sampled(),
            "advantage": GroupMean().build(),
            "loss": make(GrpoClip()),
            "normalizer": MaskedMean().build(),
        },
    ),
    "expert_iteration": lambda: (
        ExpertIteration(n_steps=2, rollout_batch_size=4, group_size=2, train_batch_size=2),
        {**sampled(), "normalizer": TokenMean().build()},
    ),
}


@pytest.mark.parametrize("name", ALGORITHMS)
@pytest.mark.parametrize("recomputed", [False, True], ids=["kept", "recomputed"])
@pytest.mark.parametrize("autocast", ["none", "bfloat16"])
def test_steps_move_the_weights(policy, tmp_path, monkeypatch, autocast, recomputed, name):
    monkeypatch.setattr(Frame, "finish", lambda frame: frame.metrics)  # files are not the point
    keys, parts = ALGORITHMS[name]()
    subject = policy(autocast=autocast, gradient_checkpointing=recomputed)
    optimizer = AdamW(lr=1e-3, implementation="foreach").build()
    algorithm = keys.build(policy=subject, data=DATA, prompt=PROMPT, optimizer=optimizer, **parts)
    before = {k: v.detach().clone() for k, v in subject.model.named_parameters()}
    run = Run(tmp_path, {})
    try:
        algorithm.run(run)
    finally:
        run.close("done")
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    losses = [row["train/loss"] for row in rows if "train/loss" in row]
    assert len(losses) == 2
    assert None not in losses
    assert not any(bool((v == before[k]).all()) for k, v in subject.model.named_parameters()
                   if "norm" not in k and "bias" not in k)  # fmt: skip
    kernel = "torch's variable-length kernel"
    by = kernel if autocast == "bfloat16" else (
        f"torch's usual kernels, not {kernel}: it needs 16 bits, not float32"
    )  # fmt: skip
    assert run.computed == {"rows": f"packed, shared prompts once; attention by {by}"}
