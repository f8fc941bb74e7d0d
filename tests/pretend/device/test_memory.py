"""What a learner of a 1.5B model holds at its peak under each overlay fits the overlay's card."""

import gc
import tomllib
from pathlib import Path

import pytest
import torch
from pretended import large
from pretended.memory import HELD
from pretended.shapes import shapes_only

from alignkit.engine.forward import compiling
from alignkit.engine.forward.logprobs import response_logprobs
from alignkit.model_shape import ModelShape

pytestmark = pytest.mark.pretend

SCALE = Path(__file__).resolve().parents[3] / "recipes" / "scale"
BESIDE = 1.6e9
"""Bytes beside torch's tensors: CUDA's own and a sleeping engine's, as ``explain`` assumes."""
GIB = 2**30
CARDS = {
    "hardware-24gb": 22.0 * GIB,  # A10G and L4, the smallest of them
    "hardware-40gb": 39.4 * GIB,
    "hardware-4x40gb": 39.4 * GIB,
    "hardware-80gb": 79.1 * GIB,
}


@pytest.mark.filterwarnings("ignore:.*lr_scheduler")
@pytest.mark.filterwarnings("ignore:Seems like")
@pytest.mark.parametrize("overlay", CARDS)
def test_a_step_fits_the_card(monkeypatch, overlay):
    keys = tomllib.loads((SCALE / f"{overlay}.toml").read_text())
    table = keys["policy"]
    large.trust(monkeypatch)
    gc.collect()
    others = HELD.now
    with shapes_only():
        masters = table.get("masters", False)
        policy = large.policy(recomputed=table["gradient_checkpointing"], masters=masters)
        if masters:
            compiling.compile_layers(policy.model)
        learner, objective = large.learner(policy, keys["token_budget"])
        if keys.get("optimizer", {}).get("implementation") != "offload":
            for parameter in learner.parameters:
                parameter.grad = torch.zeros_like(parameter)
            learner.optimizer.step()  # which makes its state
            learner.optimizer.zero_grad()
        else:
            monkeypatch.setattr(learner.optimizer, "step", lambda: None)  # none on the card
        HELD.reset_peak()
        learner.step(large.filling(keys["token_budget"]), objective)
    held = HELD.peak - others
    share = (held + BESIDE) / CARDS[overlay]
    assert share < 0.95, f"{held / 1e9:.1f} GB"
    assert share > 0.4  # the step was counted


def test_steps_with_recomputed_layers_hold_nothing_when_they_are_over(monkeypatch):
    large.trust(monkeypatch)
    held = []
    with shapes_only():
        learner, objective = large.learner(large.policy(1, recomputed=True), 8192)
        for _ in range(3):
            learner.step(large.rows(1, prompt=9, response=9), objective)
            held.append(HELD.now)
    assert held[0] == held[1] == held[2]


@pytest.mark.parametrize("compiled", [False, True])
def test_layers_in_16_bits_keep_what_is_estimated(monkeypatch, compiled):
    """From the forward to the backward pass, per token."""
    large.trust(monkeypatch)
    tokens, held = 4096, []
    for layers in (2, 3):
        with shapes_only():
            policy = large.policy(layers, masters=True)
            if compiled:
                compiling.compile_layers(policy.model)
            gc.collect()
            before = HELD.now
            found = response_logprobs(policy, large.filling(tokens))
            held.append(HELD.now - before)
            del found
    shape = ModelShape.read(policy.model.config)
    estimated = shape.activations(2, checkpointing=False, compiled=compiled) / shape.layers
    counted = (held[1] - held[0]) / tokens
    assert 0.99 * counted <= estimated <= 1.1 * counted
