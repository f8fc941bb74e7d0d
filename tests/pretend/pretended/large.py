"""A learner of a 1.5B model on the device, in shape mode: no number of it has a value."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from random import Random
from types import SimpleNamespace
from typing import Any

import torch
from torch import nn
from transformers import Qwen2Config, Qwen2ForCausalLM

from alignkit.component import make
from alignkit.engine.forward import compiled_head, compiling, packable, passes, varlen
from alignkit.engine.forward.recomputing import checkpoint_layers
from alignkit.engine.learning.learner import Learner
from alignkit.engine.learning.masters import keep_masters
from alignkit.engine.learning.objective import Objective, Surrogate
from alignkit.engine.tokens import TrainRow
from alignkit_losses import Reinforce
from alignkit_normalizers import MaskedMean
from alignkit_optimizers import AdamW
from pretended.cut import cut
from pretended.memory import HELD
from pretended.shapes import hollow
from pretended.tensor import DeviceTensor

VOCABULARY = 151_936
SHAPE = {
    "vocab_size": VOCABULARY,
    "hidden_size": 1536,
    "intermediate_size": 8960,
    "num_attention_heads": 12,
    "num_key_value_heads": 2,
    "tie_word_embeddings": True,
    "max_position_embeddings": 4096,
}
"""Qwen2.5-Math-1.5B."""


def policy(layers: int = 28, *, recomputed: bool = False, masters: bool = False) -> Any:
    """Return a policy of that shape on the device, in float32 with autocast or with masters."""
    with torch.device("meta"):
        model: Any = Qwen2ForCausalLM(Qwen2Config(num_hidden_layers=layers, **SHAPE))
    _move(model)
    if masters:
        keep_masters(model)
        for weight in model.parameters():
            # Of a tensor like these ``data`` leaves ``held`` as it was.
            weight.held = weight.held.to(torch.bfloat16)
            HELD.add(weight.held)
    if recomputed:
        model.train()
        checkpoint_layers(model)
    else:
        model.eval()

    def cast() -> AbstractContextManager[Any]:
        return torch.autocast("cuda", torch.bfloat16) if not masters else nullcontext()

    return SimpleNamespace(
        name="large", model=model, eos_ids=frozenset(), pad_id=0, max_length=4096, version=0,
        tokenizer=None, autocast=cast,
    )  # fmt: skip


def _move(model: nn.Module) -> None:
    moved: dict[int, nn.Parameter] = {}
    for module in model.modules():
        for name, parameter in module._parameters.items():
            if parameter is not None:
                if id(parameter) not in moved:
                    moved[id(parameter)] = nn.Parameter(DeviceTensor(hollow(parameter.data)))
                module._parameters[name] = moved[id(parameter)]
        for name, buffer in module._buffers.items():
            if buffer is not None:
                module._buffers[name] = DeviceTensor(hollow(buffer))


def rows(groups: int, *, prompt: int = 200, response: int = 600) -> list[TrainRow]:
    """Return ``groups`` of 8 responses, a third to five thirds of ``response`` tokens long."""
    draw, found = Random(0), []
    for _ in range(groups):
        ids = _ids(draw, prompt)
        for i in range(8):
            length = draw.randint(response // 3, response * 5 // 3)
            logprobs = torch.zeros(length)
            found.append(
                TrainRow(ids, _ids(draw, length), 1.0 - 2 * (i % 2), rollout_logprobs=logprobs)
            )
    return found


def filling(budget: int) -> list[TrainRow]:
    """Return responses of 200 to 1,000 tokens to one prompt that fill a micro-batch."""
    draw, found = Random(0), []
    prompt = _ids(draw, 200)
    left = budget - len(prompt)
    while left > 1:
        length = min(draw.randint(200, 1000), left)
        left -= length
        found.append(
            TrainRow(prompt, _ids(draw, length), 1.0, rollout_logprobs=torch.zeros(length))
        )
    return found


def _ids(draw: Random, count: int) -> tuple[int, ...]:
    return tuple(draw.randrange(VOCABULARY) for _ in range(count))


def learner(subject: Any, budget: int, **optimizer: Any) -> tuple[Any, Objective]:
    """Return a learner and the on-policy objective of GRPO."""
    made = AdamW(**optimizer).build()
    loss = Surrogate.of(make(Reinforce())).monitored()
    objective = Objective(loss, MaskedMean().build())
    return Learner(subject, made, token_budget=budget, total_steps=9), objective


def trust(monkeypatch: Any) -> None:
    """Let trials of models and kernels pass: nothing has a value that could be compared.

    Compiled layers run by the graphs that torch makes of them, an operation at a time.
    """
    plain = compiled_head.Kernels(compiled_head.sums, compiled_head.delta)
    monkeypatch.setattr(compiling, "_compiled", cut)
    monkeypatch.setattr(compiled_head, "compiled", lambda: plain)
    for module, name in (
        (packable, "_packs"), (passes, "has_linear_head"), (compiling, "compiles"),
    ):  # fmt: skip
        monkeypatch.setattr(module, name, lambda model: True)
    monkeypatch.setattr(varlen, "unusable", lambda query, key: "")
