"""Models that are refused: in one line, before anything is loaded."""

import json
import shutil

import pytest
from transformers import AutoConfig

from alignkit import AlignkitError
from alignkit_hf import HfPolicy
from alignkit_hf.fast.understood import unknown_fields


@pytest.fixture
def folder(tiny_folder, tmp_path):
    """``folder(**settings)``: the tiny model's, with settings of its config.json changed."""

    def make(**settings):
        made = shutil.copytree(tiny_folder, tmp_path / "model")
        config = json.loads((made / "config.json").read_text())
        (made / "config.json").write_text(json.dumps(config | settings))
        return made

    return make


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"model_type": "bert"}, "bert models see the tokens that follow unless is_decoder = true"),
        ({"model_type": "cpmant"}, "cpmant models are not supported: as transformers computes"),
    ],
)
def test_a_recipe_that_names_such_a_model_is_wrong(folder, settings, said):
    params = HfPolicy(path=str(folder(**settings)))
    ((key, message),) = params.check({})
    assert key == "path"
    assert said in message
    with pytest.raises(AlignkitError, match=said):
        params.build()


def test_a_decoder_of_an_encoder_family_is_not_refused(folder):
    params = HfPolicy(path=str(folder(model_type="bert", is_decoder=True)))
    assert list(params.check({})) == []


@pytest.mark.parametrize("text", ["[1]", "{"])
def test_a_configuration_that_is_none_is_named(folder, text):
    made = folder()
    (made / "config.json").write_text(text)
    ((key, message),) = HfPolicy(path=str(made)).check({})
    assert key == "path"
    assert "config.json" in message


def test_checkpointing_that_a_class_does_not_know_is_refused_at_once(folder):
    made = folder(model_type="ctrl")
    HfPolicy(path=str(made)).build()
    with pytest.raises(AlignkitError, match="gradient_checkpointing = true is not known to CTRL"):
        HfPolicy(path=str(made), gradient_checkpointing=True).build()


@pytest.mark.parametrize("kind", ["longrope", "dynamic"])
def test_such_positions_end_at_their_original_length(folder, kind):
    rope = {"rope_type": kind, "rope_theta": 1e4, "factor": 4.0} | {
        "short_factor": [1.0] * 4,
        "long_factor": [2.0] * 4,
        "original_max_position_embeddings": 20,
    }
    policy = HfPolicy(path=str(folder(rope_parameters=rope))).build()
    assert policy.max_length == 20


@pytest.mark.parametrize(
    ("kind", "settings", "unknown"),
    [
        ("qwen2", {}, []),
        ("qwen3", {}, []),
        ("llama", {"attention_bias": True}, []),
        ("granite", {}, []),
        ("granite", {"residual_multiplier": 0.99}, ["residual_multiplier"]),
        ("llama", {"a_field_of_tomorrow": 1}, ["a_field_of_tomorrow"]),
        (
            "llama",
            {"rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "beta": 0.1}},
            ["rope_parameters"],
        ),
        ("gemma2", {}, ["attn_logit_softcapping"]),
    ],
)
def test_fields_that_are_not_understood_are_found(kind, settings, unknown):
    found = unknown_fields(AutoConfig.for_model(kind, **settings))
    assert set(unknown) <= set(found)
    assert bool(found) == bool(unknown)
