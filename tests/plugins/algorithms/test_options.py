"""Adapters, 8-bit state, recomputed layers and the profiler in whole runs; stopped and resumed."""

import shutil
from pathlib import Path

import pytest
import torch

from alignkit.engine.learning.reference_table import Reference
from alignkit.execution import Run
from alignkit_hf import HfPolicy, Lora
from alignkit_optimizers import AdamW

RECIPE = Path(__file__).resolve().parents[3] / "recipes" / "grpo.toml"
KEYS = {"n_steps": 3, "rollout_batch_size": 8, "group_size": 4, "train_batch_size": 8}


@pytest.fixture
def grpo(toys, tiny_folder):
    def make(implementation="fused", **keys):
        params = HfPolicy(path=str(tiny_folder), device="cpu", gradient_checkpointing=True)
        return toys.grpo(
            {**KEYS, **keys},
            policy=params.build(lora=Lora(rank=16).build()),
            loss=toys.loss("reinforce"),
            optimizer=AdamW(lr=0.02, implementation=implementation).build(),
            reference=Reference(0.1, "k3", None),
        )

    return make


def trained(subject):
    return {n: p.detach() for n, p in subject.parts.policy.model.named_parameters()}


def test_what_an_adapter_begins_with_depends_on_the_seed_alone(grpo, toys, tmp_path):
    pytest.importorskip("peft", reason="the extra lora is not installed")

    def run(name, drawn_before, **keys):
        torch.manual_seed(drawn_before)
        subject = grpo(n_steps=1, **keys)
        return toys.timeless(toys.carry_out(subject, tmp_path / name)), trained(subject)

    rows, weights = run("one", 1)
    again, same = run("two", 2)
    assert again == rows
    assert all(torch.equal(same[name], weight) for name, weight in weights.items())
    _, others = run("three", 1, seed=1)
    assert any(not torch.equal(others[n], w) for n, w in weights.items() if "lora_A" in n)


@pytest.mark.parametrize("depth", [0, 1])
@pytest.mark.parametrize("implementation", ["fused", "8bit"])
def test_a_run_with_an_adapter_is_resumed_exactly(grpo, toys, tmp_path, implementation, depth):
    pytest.importorskip("peft", reason="the extra lora is not installed")
    if implementation == "8bit":
        pytest.importorskip("bitsandbytes", reason="the extra 8bit is not installed")
    whole = grpo(implementation, pipeline_depth=depth)
    want = toys.timeless(toys.carry_out(whole, tmp_path / "whole"))
    assert want[0]["train/kl"] == pytest.approx(0, abs=1e-6)  # B is zero
    assert want[-1]["train/kl"] > 1e-5
    assert (tmp_path / "whole" / "final" / "adapter" / "adapter_model.safetensors").is_file()

    folder = tmp_path / "cut"
    toys.end_after(2, grpo(implementation, pipeline_depth=depth), folder)
    subject = grpo(implementation, pipeline_depth=depth)
    _, _, rows = toys.go_on(subject, folder)
    assert toys.timeless(rows) == want
    for name, value in trained(whole).items():
        assert torch.equal(trained(subject)[name], value)
    sizes = [f.stat().st_size for f in (folder / "checkpoints").rglob("*.safetensors")]
    whole_model = sum(p.numel() * 4 for p in subject.parts.policy.base.parameters())
    adapter = sum(p.numel() * 4 for p in trained(subject).values()) - whole_model
    assert max(sizes) < 3.5 * adapter + 2**15  # the adapter and its two means, not the model


def test_profiled_runs_leave_a_trace(grpo, tmp_path, capsys):
    pytest.importorskip("peft", reason="the extra lora is not installed")
    run = Run(tmp_path, {})
    run.profiled = True
    grpo().run(run)
    run.close("done")
    said = capsys.readouterr().out
    assert "phase " in said
    assert "operator " in said
    assert [p.name for p in (tmp_path / "profile").iterdir()] == ["trace_step_000002.json.gz"]
    shutil.rmtree(tmp_path / "profile")


def test_the_command_asks_for_a_profile(monkeypatch):
    from click.testing import CliRunner

    from alignkit import cli

    asked = []

    def execute(*_, profiled=False, **__):
        asked.append(profiled)
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "execute", execute)
    for flags in ([], ["--profile"]):
        CliRunner().invoke(cli.main, ["run", str(RECIPE), *flags])
    assert asked == [False, True]
