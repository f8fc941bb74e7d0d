"""A model's sizes from its configuration alone, held against the models that transformers makes."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import transformers

from alignkit.model_shape import ModelShape, shape_at

TINY = Path(__file__).resolve().parents[2] / "data" / "tiny_policy"
SIZES = {
    "vocab_size": 1000, "hidden_size": 256, "intermediate_size": 600, "num_hidden_layers": 3,
    "num_attention_heads": 8, "num_key_value_heads": 2, "head_dim": 48,
}  # fmt: skip
EXPERTS = {
    "Mixtral": {"num_local_experts": 6, "num_experts_per_tok": 2},
    "Qwen3Moe": {"num_experts": 6, "num_experts_per_tok": 3, "moe_intermediate_size": 96},
}


def configured(kind, **changes):
    config = getattr(transformers, f"{kind}Config")
    return config(**(SIZES | EXPERTS.get(kind, {}) | changes))


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("kind", ["Llama", "Qwen2", "Qwen3", "Mistral", *EXPERTS])
def test_parameters_are_those_of_the_model(kind, tied):
    config = configured(kind, tie_word_embeddings=tied)
    if kind == "Qwen2":
        del config.head_dim  # not a size of its configuration
    with torch.device("meta"):
        model = transformers.AutoModelForCausalLM.from_config(config)
    shape = ModelShape.read(config)
    # Biases of q, k and v (384 + 2 * 96 numbers a layer) count, though all but Qwen2 lack them;
    # Qwen3's norms of the queries' and the keys' heads (2 * 48) do not.
    biases = 0 if kind == "Qwen2" else 3 * (shape.query + 2 * shape.kv)
    norms = 3 * 2 * 48 if kind.startswith("Qwen3") else 0
    assert shape.parameters == model.num_parameters() + biases - norms
    assert shape == ModelShape.read(json.loads(json.dumps(config.to_dict())))


def test_sizes_by_hand():
    shape = ModelShape.read(configured("Qwen3Moe"))
    assert (shape.query, shape.kv, shape.inner) == (8 * 48, 2 * 48, 96)
    assert (shape.experts, shape.experts_per_token) == (6, 3)
    assert shape.cache(2) == 2 * 3 * 96 * 2  # keys and values, 3 layers, 96 numbers of 2 bytes
    # Only the attention is adapted: q and o 256 + 384 each, k and v 256 + 96, in 3 layers.
    assert shape.adapter(4) == 3 * 4 * (2 * 640 + 2 * 352)
    # 8 * 256 + 3 * 96 + 4 * 96 of each of 3 experts, 3 layers, 4 bytes.
    assert shape.activations(4, checkpointing=False) == 3 * (2048 + 288 + 4 * 288) * 4


def test_defaults_are_those_of_transformers():
    plain = {"num_hidden_layers": 2, "num_attention_heads": 4, "hidden_size": 64}
    shape = ModelShape.read(plain)
    assert (shape.head_size, shape.kv_heads, shape.experts) == (16, 4, 0)
    assert shape.parameters is None  # what the MLP and the vocabulary are is not said
    for lacking in plain:
        assert ModelShape.read({k: v for k, v in plain.items() if k != lacking}) is None


def test_other_names_for_the_same_sizes_are_read_from_the_object():
    shape = ModelShape.read(transformers.GPT2Config(n_layer=3, n_head=4, n_embd=64))
    assert (shape.layers, shape.heads, shape.head_size) == (3, 4, 16)
    assert shape.parameters is None  # its MLP has no gate


def test_the_text_model_of_several_is_read():
    text = configured("Llama")

    class Several:
        num_hidden_layers = 77

        def get_text_config(self):
            return text

    assert ModelShape.read(Several()) == ModelShape.read(text)


def test_a_folder_is_read_without_torch(tmp_path):
    assert shape_at(str(TINY)).parameters == 451_840  # data/README.md
    (tmp_path / "config.json").write_text('{"num_hidden_layers": 2}')
    assert shape_at(str(tmp_path)) is None
    code = "import sys, alignkit.model_shape; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
