"""Models that once came out wrong, each for a kind of fault: all of it is right now, or refused."""

from __future__ import annotations

import sys
import warnings
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))
from check import (
    Verdict,
    check_decoding,
    check_learner,
    difference,
    plain,
    policy_of,
    rows_for,
    write,
)
from sizes import tiny
from variants import ROPES

from alignkit import AlignkitError
from alignkit.engine.forward.logprobs import response_logprobs


@pytest.fixture(autouse=True)
def _quiet():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@pytest.fixture
def make(tmp_path):
    """``make(kind, settings, **keys of the policy)``: the policy, and the model called plainly."""
    from transformers import AutoModelForCausalLM

    def make(kind, settings, **keys):
        folder = write(tmp_path / "model", tiny(kind, **settings))
        policy = policy_of(folder, **keys)
        kernel = policy.model.config._attn_implementation
        dtype = next(policy.model.parameters()).dtype
        reference = AutoModelForCausalLM.from_pretrained(
            folder, attn_implementation=kernel, dtype=dtype
        )
        return policy, reference.eval()

    return make


def learns_right(policy, reference):
    verdict = Verdict()
    check_learner(policy, verdict, reference)
    return verdict.wrong or True


def decodes_right(policy, reference):
    verdict = Verdict()
    check_decoding(policy, verdict, reference)
    return verdict.wrong or True


MULTIPLIED = {"residual_multiplier": 0.3, "logits_scaling": 0.5}
NO_PLAIN_HEAD = {
    "granite": MULTIPLIED,
    "granitemoe": MULTIPLIED,
    "granitemoeshared": MULTIPLIED,
    "hyperclovax": MULTIPLIED,
    "cohere": {"logit_scale": 0.3},
    "nanochat": {},
    "minicpm3": {},
}


@pytest.mark.parametrize("kind", NO_PLAIN_HEAD)
def test_packed_rows_keep_their_positions_whatever_the_head(kind, make):
    """Positions of packed rows were dropped where logits are not a linear map."""
    assert learns_right(*make(kind, NO_PLAIN_HEAD[kind])) is True


DROPPING = {
    "opt": {"dropout": 0.3},
    "xglm": {"dropout": 0.3},
    "biogpt": {"hidden_dropout_prob": 0.3},
    "bart": {"dropout": 0.3},
    "starcoder2": {"residual_dropout": 0.3, "embedding_dropout": 0.3},
    "bloom": {"hidden_dropout": 0.3, "attention_dropout": 0.3},
    "mixtral": {"router_jitter_noise": 0.3},
    "phimoe": {"router_jitter_noise": 0.3, "input_jitter_noise": 0.3},
}


@pytest.mark.parametrize("kind", DROPPING)
def test_nothing_is_random_where_layers_are_recomputed(kind, make):
    """Recomputing needs training mode, which turned dropout and router noise on."""
    policy, reference = make(kind, DROPPING[kind], gradient_checkpointing=True)
    assert learns_right(policy, reference) is True


LONG_ROPE = {"sliding_window": None, "original_max_position_embeddings": 16}


@pytest.mark.parametrize(
    ("kind", "rope"),
    [("llama", "rope longrope"), ("llama", "rope dynamic"), ("phi3", "rope longrope")],
)
def test_rows_past_the_original_length_are_refused_where_all_angles_change(kind, rope, make):
    settings = {"rope_parameters": ROPES[rope], **(LONG_ROPE if kind == "phi3" else {})}
    policy, reference = make(kind, settings)
    assert decodes_right(policy, reference) is True
    assert learns_right(policy, reference) is True
    assert policy.max_length == 16
    with pytest.raises(AlignkitError, match="a row of 40 tokens is longer than the 16 that "):
        response_logprobs(policy, rows_for(40))


PAST = {
    "local attention": ("gpt_neo", {}),
    "a window that the attention is not told of": ("phimoe", {}),
    "attention scaled by the position": (
        "ministral3",
        {
            "sliding_window": None,
            "rope_parameters": {
                **ROPES["rope yarn"],
                "beta_fast": 32.0,
                "beta_slow": 1.0,
                "llama_4_scaling_beta": 0.5,
            },
        },
    ),
}


@pytest.mark.parametrize("name", PAST)
def test_what_changes_past_a_length_is_right_there(name, make):
    policy, reference = make(*PAST[name])
    assert learns_right(policy, reference) is True
    assert decodes_right(policy, reference) is True


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        ("granite", {"residual_multiplier": 0.9}),
        ("granite", {"embedding_multiplier": 1.1}),
        ("granite", {"logits_scaling": 0.9}),
        ("ministral3", PAST["attention scaled by the position"][1]),
    ],
)
def test_written_out_steps_are_for_known_settings_only(kind, settings, dtype, make):
    policy, reference = make(kind, settings, dtype=dtype)
    assert decoded_apart(policy, reference) < (5e-5 if dtype == "float32" else 0.35)
    from alignkit_hf.fast.forward import Forward

    assert not Forward(policy).fuses


@torch.no_grad()
def decoded_apart(policy, reference):
    from dataclasses import replace

    from alignkit.engine.tokens import TrainRow
    from alignkit_hf import HfRollout

    backend = HfRollout().build()
    backend.start(policy)
    prompt = rows_for(40)[0].prompt_ids
    (group,) = backend.generate([prompt], replace(backend.sampling, n=6, max_tokens=20))
    return max(
        difference(torch.tensor(c.logprobs), plain(reference, TrainRow(prompt, c.token_ids)))
        for c in group
    )


CRASHED = {
    "falcon": {"alibi": True},
    "mpt": {},
    "llama4_text": {},
    "bloom": {},
    "deepseek_v2": {},
    "deepseek_v3": {},
    "minicpm3": {},
    "youtu": {},
    "jetmoe": {},
    "rwkv": {},
    "recurrent_gemma": {},
}


@pytest.mark.parametrize("kind", CRASHED)
def test_no_architecture_crashes(kind, make):
    policy, reference = make(kind, CRASHED[kind])
    assert learns_right(policy, reference) is True
    assert decodes_right(policy, reference) is True
