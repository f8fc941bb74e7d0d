"""A float64 policy small enough to compare with computations done the long way."""

import contextlib
from dataclasses import dataclass, field
from functools import partial

import pytest
import torch

from alignkit.engine.evaluation.eval_table import (
    EvalPlan,
)
from alignkit.engine.evaluation.evaluator import Evaluator
from alignkit.execution import Run
from evaluation_fakes import Backend, Template, Tokenizer, judge


@dataclass
class TinyPolicy:
    """A policy without a folder: a two-layer Qwen2, hidden 16, vocabulary 29, float64."""

    model: object
    version: int = 0
    pad_id: int = 0
    eos_ids: frozenset = frozenset({1})
    max_length: int = 64
    name: str = "tiny"
    tokenizer: object = field(default=None)

    def autocast(self):
        return contextlib.nullcontext()


def _model(**changes):
    from transformers import Qwen2Config, Qwen2ForCausalLM

    settings = {
        "vocab_size": 29,
        "hidden_size": 16,
        "intermediate_size": 24,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "max_position_embeddings": 64,
        "initializer_range": 0.4,  # far from uniform, or wrong indices would hardly show
        "bos_token_id": None,
        "eos_token_id": 1,
        "pad_token_id": 0,
    }
    torch.manual_seed(0)
    model = Qwen2ForCausalLM(Qwen2Config(**(settings | changes))).double()
    for module in model.modules():
        if type(module).__name__ == "Qwen2RMSNorm":
            module.forward = partial(_norm, module)
    return model


def _norm(module, hidden):
    """RMSNorm in the dtype it is given; transformers' own rounds everything to float32."""
    scale = hidden.square().mean(-1, keepdim=True) + module.variance_epsilon
    return module.weight * hidden * scale.rsqrt()


@pytest.fixture
def tiny_policy():
    """Make a policy; keyword arguments change the model's configuration."""
    return lambda **changes: TinyPolicy(_model(**changes))


@pytest.fixture
def run(tmp_path):
    """A run whose printed lines are kept in ``run.lines``."""
    run = Run(tmp_path, {})
    run.lines = []
    run.printer = run.lines.append
    yield run
    run.close("failed")


@pytest.fixture
def evaluator(tiny_policy):
    def make(*, prompt=None, reward=judge, every=1, **sets):
        policy = tiny_policy()
        policy.tokenizer = Tokenizer()
        plan = EvalPlan({k.removeprefix("main"): v for k, v in sets.items()}, every)
        return Evaluator(
            plan,
            policy=policy,
            backend=Backend(policy),
            prompt=prompt or Template(),
            reward=reward,
            token_budget=64,
        )

    return make
